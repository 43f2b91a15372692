"""The tables of a diagnosis, and of how well each label is predicted."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from seqssvae.diagnosis.diagnose import Diagnosis
from seqssvae.diagnosis.findings import LEAST_ROWS
from seqssvae.errors import printable
from seqssvae.inference.label_report import LabelReport

MOST_LABELS = 50
"""Most labels that are shown."""


def label_use_table(diagnosis: Diagnosis) -> Table:
    """Return what the model makes of each label: shares of rows, and how far its generator tells the label apart."""
    use, separation = diagnosis.labels, diagnosis.separation
    table = Table(title=f"labels of {use.rows} rows, {use.labelled_rows} of them labelled")
    for name in ("label", "predicted", "mean p(y|x)", "p(y)", "labelled rows", "right", "nats apart"):
        table.add_column(name, justify="left" if name == "label" else "right")
    order = np.argsort(-(use.predicted + use.observed), kind="stable")
    for k in order[:MOST_LABELS].tolist():
        right = f"{use.hits[k] / use.observed[k]:.1%}" if use.observed[k] else "-"
        apart = "-" if separation is None or not separation.rows[k] else f"{separation.by_label[k]:.2f}"
        shares = f"{use.predicted[k] / use.rows:.1%}", f"{use.probability[k]:.1%}", f"{use.prior[k]:.1%}"
        table.add_row(Text(printable(diagnosis.names[k])), *shares, str(use.observed[k]), right, apart)
    if len(order) > MOST_LABELS:
        table.caption = f"and {len(order) - MOST_LABELS} labels more, of fewer rows (--json has all)"
    return table


def latent_table(diagnosis: Diagnosis) -> Table:
    """Return the figures of z, of the probabilities and of the generator."""
    table = Table("", title="what it uses, and how honest it is")
    table.add_column("", justify="right")
    table.add_column("unit")
    latent, calibration = diagnosis.latent, diagnosis.calibration
    if latent is not None:
        enough = latent.rows >= LEAST_ROWS
        active = f"{int(latent.active.sum())} of {len(latent.active)}" if enough else "-"
        table.add_row("active units of z", active, f"by {latent.rows} rows")
        greatest = ", ".join(f"{value:.2f}" for value in np.sort(latent.unit_kl)[::-1][:5])
        table.add_row("KL of z", f"{latent.kl:.3f}", f"nats a row; its greatest units {greatest}")
        information = "-" if latent.mutual_information is None or not enough else f"{latent.mutual_information:.3f}"
        table.add_row("mutual information of x and z", information, f"nats, of at most {np.log(latent.rows):.2f}")
    if diagnosis.separation is not None:
        table.add_row("log p(x|y,z) between labels", f"{diagnosis.separation.spread:.3f}", "nats a row")
    if diagnosis.label_entropy is not None:
        first, last = diagnosis.label_entropy
        table.add_row("entropy of q(y|x)", f"{last:.3f}", f"nats a validation row; {first:.3f} at the first evaluation")
    for name, use in (("not learned from", diagnosis.held_out), ("learned from", diagnosis.trained)):
        if use.accuracy is not None:
            table.add_row(f"accuracy, rows {name}", f"{use.accuracy:.3f}", f"of {use.labelled_rows} labelled rows")
    if calibration is not None:
        interval = f"{calibration.error:.3f} ({calibration.low:.3f} to {calibration.high:.3f})"
        table.add_row("expected calibration error", interval, "of the former")
    if diagnosis.terms is not None:
        table.add_row("generator's bound", f"{diagnosis.terms.bound_per_symbol:.3f}", "nats a symbol")
        for name, value in diagnosis.terms.baselines.items():
            table.add_row(f"for comparison, {name}s", f"{value.nats_per_symbol:.3f}", "nats a symbol")
    if diagnosis.unlabelled_gain is not None:
        difference, error = diagnosis.unlabelled_gain
        compared = "all candidates to the one of labels alone, cross-validated"
        table.add_row("accuracy that unlabelled rows add", f"{difference:+.3f} ± {error:.3f}", compared)
    return table


def label_report_table(report: LabelReport, names: Sequence[str], method: str) -> Table:
    """Return how well each label is predicted; of many labels, those of the most rows.

    Args:
        report: The figures.
        names: Names of the labels.
        method: The way to predict that they are of.
    """
    table = Table(title=f"labels, predicted by {method}")
    for name in ("label", "precision", "recall", "F1", "rows", "predicted"):
        table.add_column(name, justify="left" if name == "label" else "right")
    order = np.argsort(-report.support, kind="stable")
    for k in order[:MOST_LABELS].tolist():
        counts = str(report.support[k]), str(report.predicted[k])
        table.add_row(Text(printable(names[k])), *report.figures(k), *counts)
    if len(order) > MOST_LABELS:
        table.caption = f"and {len(order) - MOST_LABELS} labels of fewer rows (--json has all)"
    table.add_section()
    total = str(int(report.support.sum()))
    known = report.support + report.predicted > 0
    macro = (f"{np.mean(part[known]):.3f}" for part in (report.precision, report.recall, report.f1))
    table.add_row("macro", *macro, total, total)
    return table
