"""The page of a report: one HTML file that needs no other, for one run or several side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqssvae.checks.certificate import Certificate
from seqssvae.diagnosis.latents import LatentUse
from seqssvae.errors import MissingPackageError
from seqssvae.report import plots
from seqssvae.report.collect import Findings, RowsSeen, RunFacts
from seqssvae.report.svg import RECIPE, to_svg

NONE = "-"
"""Where there is no figure."""
MOST_CONFUSED = 12
"""Most pairs of labels that are listed."""
MOST_LABELS = 60
"""Most labels in the table of labels."""


class Figure(NamedTuple):
    """A picture of the page.

    Args:
        svg: The picture.
        caption: What is to be read from it.
    """

    svg: str
    caption: str


class RunSection(NamedTuple):
    """What the page shows of a run.

    Args:
        facts: The figures.
        certificate: How far the twins agree; None where that was not computed.
        curves: Every term over training.
        pictures: Confusion, calibration and embedding, as far as there are rows for them, by name.
        labels: The rows of the table of labels.
        confused: Pairs of a label and another that is predicted for its rows, and how many these are, the most first.
    """

    facts: RunFacts
    certificate: Certificate | None
    curves: list[Figure]
    pictures: dict[str, Figure]
    labels: list[dict[str, Any]]
    confused: list[tuple[str, str, int]]


def render(runs: Sequence[tuple[RunFacts, Certificate | None]]) -> str:
    """The page of these runs, as HTML.

    Args:
        runs: The figures of each, and its certificate.

    Raises:
        MissingPackageError: If jinja2 or matplotlib is not installed.
    """
    try:
        import matplotlib
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"The report needs {error.name}, which is not installed: pip install 'seqssvae[report]'."
        ) from error
    matplotlib.use("Agg")
    environment = Environment(
        loader=PackageLoader("seqssvae.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    with matplotlib.rc_context(RECIPE):
        sections = [_section(f"run{place}", facts, certificate) for place, (facts, certificate) in enumerate(runs)]
    return environment.get_template("report.html.jinja").render(
        sections=sections, settings=_settings([facts for facts, _ in runs]), summary=_summary(sections)
    )


def _section(name: str, facts: RunFacts, certificate: Certificate | None) -> RunSection:
    curves = []
    for place, term in enumerate(plots.terms_of(facts.history)):
        axes = plots.plot_term(facts.history, term, plots.new_axes(width=3.6, height=2.5), facts.step)
        last = _last(facts.history, term.name)
        description = f"{term.title} in {term.unit} over {len(facts.history)} evaluations; at the last {last}."
        curves.append(Figure(to_svg(axes.figure, f"{name}-curve{place}", term.title, description), description))
    pictures = {} if facts.findings is None else _pictures(name, facts, facts.findings)
    return RunSection(facts, certificate, curves, pictures, _labels(facts), _confused(facts))


def _pictures(name: str, facts: RunFacts, findings: Findings) -> dict[str, Figure]:
    pictures = {}
    if findings.held_out is not None:
        seen = findings.held_out
        axes = plots.plot_confusion(seen.confusion, facts.names)
        caption = f"{int(np.trace(seen.confusion))} of {seen.rows} rows are on the diagonal: their label is predicted."
        pictures["confusion"] = Figure(to_svg(axes.figure, f"{name}-confusion", "Confusion matrix", caption), caption)
        pictures["calibration"] = _calibration(name, findings, seen)
    if findings.diagnosis.latent is not None:
        pictures["units"] = _units(name, findings.diagnosis.latent)
    if findings.embedding.shape[1] and len(findings.embedding) > 1:
        axes = plots.plot_embedding(findings.embedding, findings.y, facts.names)
        caption = f"{len(findings.embedding)} rows by the {findings.embedded}, coloured by label."
        if findings.diagnosis.latent is not None and findings.embedded != "mean of z":
            caption += " No unit of z is active."
        pictures["embedding"] = Figure(
            to_svg(axes.figure, f"{name}-embedding", "Map of the embedding", caption), caption
        )
    return pictures


def _units(name: str, latent: LatentUse) -> Figure:
    axes = plots.plot_units(latent, plots.new_axes(width=4.2, height=3.0))
    caption = (
        f"{int(latent.active.sum())} of {len(latent.active)} units are active, which means that the mean of q(z|x) "
        f"varies over rows. Together all units hold {latent.kl:.2f} nats of a row."
    )
    return Figure(to_svg(axes.figure, f"{name}-units", "KL of each unit of z", caption), caption)


def _calibration(name: str, findings: Findings, seen: RowsSeen) -> Figure:
    calibration = findings.diagnosis.calibration
    assert calibration is not None
    axes = plots.plot_calibration(seen.reliability, calibration.error, plots.new_axes(width=4.2, height=3.6))
    caption = (
        f"Expected calibration error {calibration.error:.3f} (.95 interval {calibration.low:.3f} to "
        f"{calibration.high:.3f}): bars below the dotted line are probabilities that are too high."
    )
    return Figure(to_svg(axes.figure, f"{name}-calibration", "Reliability diagram", caption), caption)


def _labels(facts: RunFacts) -> list[dict[str, Any]]:
    """The table of labels, those predicted most first."""
    if facts.findings is None:
        return []
    diagnosis, seen = facts.findings.diagnosis, facts.findings.held_out
    use, separation = diagnosis.labels, diagnosis.separation
    rows = []
    for label in np.argsort(-(use.predicted + use.observed), kind="stable")[:MOST_LABELS].tolist():
        row = {
            "name": facts.names[label],
            "predicted": f"{use.predicted[label] / use.rows:.1%}",
            "probability": f"{use.probability[label]:.1%}",
            "prior": f"{use.prior[label]:.1%}",
            "apart": NONE,
        }
        if separation is not None and separation.rows[label]:
            row["apart"] = f"{separation.by_label[label]:.2f}"
        parts = ("precision", "recall", "f1", "support")
        report = None if seen is None else seen.labels
        values = [NONE] * 4
        if report is not None:
            values = [*report.figures(label), str(report.support[label])]
        rows.append(row | dict(zip(parts, values, strict=True)))
    return rows


def _confused(facts: RunFacts) -> list[tuple[str, str, int]]:
    if facts.findings is None or facts.findings.held_out is None:
        return []
    confusion = facts.findings.held_out.confusion
    wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = list(zip(*np.unravel_index(order, wrong.shape), strict=True))
    names = facts.names
    return [(names[row], names[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


def _summary(sections: Sequence[RunSection]) -> list[tuple[str, list[str]]]:
    """A line for each figure, with the value of each run."""
    lines = [("trained by", [section.facts.trained_by for section in sections])]
    lines.append(("step that was kept", [str(section.facts.step) for section in sections]))
    columns = [_figures(section.facts) for section in sections]
    for name in dict.fromkeys(name for column in columns for name in column):
        lines.append((name, [column.get(name, NONE) for column in columns]))
    return lines


def _figures(facts: RunFacts) -> dict[str, str]:
    if facts.findings is None:
        return {}
    diagnosis, seen = facts.findings.diagnosis, facts.findings.held_out
    figures = {"rows looked at": str(diagnosis.labels.rows), "labels predicted by": facts.predicted_by}
    if seen is not None and diagnosis.held_out.accuracy is not None:
        figures["labelled rows that were not learned from"] = str(seen.rows)
        figures["accuracy"] = f"{diagnosis.held_out.accuracy:.3f}"
        figures["balanced accuracy"] = f"{seen.labels.balanced_accuracy:.3f}"
        figures["macro F1"] = f"{seen.labels.macro_f1:.3f}"
    if diagnosis.calibration is not None:
        figures["expected calibration error"] = f"{diagnosis.calibration.error:.3f}"
    if diagnosis.terms is not None:
        terms = diagnosis.terms
        figures["ELBO, nats a row"] = f"{terms.elbo:.2f}"
        figures["ELBO, nats a symbol"] = f"{terms.nats_per_symbol:.3f}"
        figures["perplexity"] = f"{np.exp(-terms.nats_per_symbol):.2f}"
        figures["ELBO, bits a symbol"] = f"{-terms.nats_per_symbol / np.log(2):.3f}"
        figures["at the best q(y|x), nats a symbol"] = f"{terms.bound_per_symbol:.3f}"
        for name, value in terms.baselines.items():
            figures[f"{name}s, nats a symbol"] = f"{value.nats_per_symbol:.3f}"
    if diagnosis.latent is not None:
        latent = diagnosis.latent
        figures["KL of z, nats a row"] = f"{latent.kl:.2f}"
        figures["rows whose z was looked at"] = str(latent.rows)
        figures["active units of z"] = f"{int(latent.active.sum())} of {len(latent.active)}"
        if latent.mutual_information is not None:
            figures["mutual information of x and z, nats"] = f"{latent.mutual_information:.2f}"
    if diagnosis.unlabelled_gain is not None:
        difference, error = diagnosis.unlabelled_gain
        figures["accuracy that unlabelled rows add"] = f"{difference:+.3f} ± {error:.3f}"
    return figures


def _settings(runs: Sequence[RunFacts]) -> list[tuple[str, list[str], bool]]:
    """Every field of the configuration with its value in each run, and whether these differ."""
    columns = [_flat(facts.settings) for facts in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    lines = [(name, [column.get(name, NONE) for column in columns]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in lines]


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = NONE if value is None else str(value)
    return flat


def _last(history: Sequence[Mapping[str, Any]], name: str) -> str:
    for record in reversed(history):
        for value in (record.get(name), (record.get("validation") or {}).get(name), record["training"].get(name)):
            if value is not None:
                return f"{value:.4g}"
    return "not known"
