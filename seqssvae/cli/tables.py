"""The tables that commands print, and what stands in them as JSON."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqssvae.checks.certificate import TWINS, Certificate, Comparison
from seqssvae.checks.gradient_estimators import GradientQuality, Measurement
from seqssvae.demo.experiment import TrainedModel
from seqssvae.errors import printable
from seqssvae.inference.metrics import Metrics
from seqssvae.training.state import FitResult

PIPE_WIDTH = 110
"""Columns of a table that is not printed on a terminal."""

PAIRS = 20
"""Most pairs of labels that are shown."""

EXACT = 1e-4
"""A gradient that differs by less, relative to its norm, differs by rounding."""

_UNITS = {
    "elbo": "nats a row",
    "elbo_per_symbol": "nats a symbol",
    "bits_per_symbol": "bits a symbol",
    "perplexity": "symbols",
    "reconstruction": "nats a row",
    "kl_z": "nats a row",
    "kl_y": "nats a row",
    "classification": "nats a labelled row",
    "accuracy": "of labelled rows",
    "label_entropy": "nats a row",
}


class _Console(Console):
    """A console that leaves it to the command what to do where the reader of the output has left."""

    def on_broken_pipe(self) -> None:
        """Go on with the error."""
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """Return a console that keeps tables whole where the output is no terminal.

    Args:
        stderr: Whether it prints on stderr instead of stdout.
    """
    terminal = _Console(stderr=stderr, highlight=False)
    return terminal if terminal.is_terminal else _Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def fit_table(result: FitResult) -> Table:
    """Return training and validation metrics of the best evaluation, or of the last one if the best is from before.

    Args:
        result: What training returned; the best evaluation may be from before the run was resumed.
    """
    record = result.best or result.records[-1]
    table = Table(title=f"step {record.step}, epoch {record.epoch}, {result.state.seconds:.1f} s in all")
    for name in ("", "training", "validation", "unit"):
        table.add_column(name, justify="right" if name.endswith("ing") or name == "validation" else "left")
    for name, unit in {"loss": "", **_UNITS}.items():
        values = [_number(getattr(metrics, name, None)) for metrics in (record.training, record.validation)]
        table.add_row(name, *values, unit)
    return table


def metrics_table(metrics: Metrics, baselines: Mapping[str, float] | None = None) -> Table:
    """Return the metrics of a corpus, one a line.

    Args:
        metrics: The metrics.
        baselines: Nats a symbol of simpler models, by name.
    """
    title = f"{metrics.rows} rows, {metrics.labelled_rows} of them labelled, {metrics.symbols} symbols with END"
    table = Table("", title=title, min_width=len(title) + 2)
    table.add_column("", justify="right")
    table.add_column("unit")
    for name, unit in _UNITS.items():
        table.add_row(name, _number(getattr(metrics, name)), unit)
    for name, value in (baselines or {}).items() if metrics.elbo is not None else ():
        table.add_row(f"for comparison, {name}s", _number(value), "nats a symbol")
    if metrics.importance_bound is not None:
        known = "" if metrics.importance_error is None else f", ± {metrics.importance_error:.3f} by the draws of z"
        table.add_row("importance_bound", _number(metrics.importance_bound), f"nats a row{known}")
        table.add_row("effective_samples", _number(metrics.effective_samples), "draws of z a row")
    return table


def confusion_table(confusion: Int[np.ndarray, "K K"], names: Sequence[str], width: int) -> Table:
    """Return the number of rows by label and predicted label or, where that is too wide, the most confused pairs.

    Args:
        confusion: The number of rows by label (first index) and predicted label (second).
        names: Names of the labels.
        width: Most columns of the table.
    """
    title, shown = "rows by label (down) and predicted label (across)", [printable(name) for name in names]
    table = Table("", title=title, min_width=len(title) + 2)
    for name in shown:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for name, counts in zip(shown, confusion.tolist(), strict=True):
        table.add_row(Text(name, no_wrap=True), *map(str, counts))
    most = [
        max(map(cell_len, shown)),
        *(max(cell_len(name), len(str(column.max()))) for name, column in zip(shown, confusion.T, strict=True)),
    ]
    fits = sum(most) + 3 * len(most) + 1 <= width
    return table if fits else _confused_pairs(confusion, shown)


def _confused_pairs(confusion: np.ndarray, names: Sequence[str]) -> Table:
    """Return a table of the pairs of a label and another one that was predicted, those of the most rows first."""
    wrong = confusion * (1 - np.eye(len(names), dtype=confusion.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    table = Table(title=f"most confused of {len(names)} labels (--confusion FILE has all)")
    for name in ("label", "predicted as", "rows", "of the label's rows"):
        table.add_column(name, justify="left" if name in ("label", "predicted as") else "right")
    for label, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if rows := int(wrong[label, predicted]):
            share = f"{rows / int(confusion[label].sum()):.1%}"
            table.add_row(Text(names[label]), Text(names[predicted]), str(rows), share)
    return table


def comparison_table(models: Sequence[tuple[str, str, TrainedModel]], title: str) -> Table:
    """Return the test metrics of the models of the demonstration.

    Args:
        models: Name of the twin, what the model was trained on, and the model.
        title: Title of the table.
    """
    table = Table(title=title)
    for name in ("twin", "trained on", "accuracy", "ELBO/symbol", "reconstruction", "KL of z", "seconds"):
        table.add_column(name, justify="left" if name in ("twin", "trained on") else "right")
    for twin, name, model in models:
        metrics = model.test.metrics
        numbers = (metrics.accuracy, metrics.elbo_per_symbol, metrics.reconstruction, metrics.kl_z)
        table.add_row(twin, name, *map(_number, numbers), f"{model.result.state.seconds:.1f}")
    return table


def certificate_tables(certificate: Certificate) -> list[Table]:
    """Return a table for each precision: every term, and the gradient that differs most."""
    counts = f"{certificate.rows} rows without label, {certificate.labelled_rows} with"
    tables = []
    for precision in dict.fromkeys(comparison.precision for comparison in certificate.terms):
        table = Table(title=f"{precision}: {counts}")
        for name in ("term (mean over rows)", *TWINS, "absolute", "relative", "bound", ""):
            justify: Literal["left", "right"] = "left" if name in ("term (mean over rows)", "") else "right"
            table.add_column(name, justify=justify, overflow="fold")
        for comparison in certificate.terms:
            if comparison.precision == precision:
                _add_comparison(table, comparison.term, comparison)
        worst = certificate.worst_gradient(precision)
        table.add_section()
        _add_comparison(table, f"worst gradient (norm):\n{worst.term}", worst)
        tables.append(table)
    return tables


def gradient_estimators_table(measurements: Sequence[Measurement], title: str, draws: int) -> Table:
    """Return what each gradient estimator of a missing label costs, and how good its gradient is.

    Args:
        measurements: One for each gradient estimator.
        title: Title of the table.
        draws: How often labels were drawn.
    """
    caption = f"bias and deviation of the gradient relative to its norm, from {draws} draws of the labels"
    table = Table(title=title, caption=caption)
    first = "gradient estimator"
    for name in (first, "decoder passes", "bias", "deviation", "bias, q(y|x)", "deviation, q(y|x)", "ms", "MB"):
        table.add_column(name, justify="left" if name == first else "right")
    for measurement in measurements:
        qualities = [
            text
            for quality in (measurement.every_weight, measurement.classifier)
            for text in _bias_and_deviation(quality)
        ]
        memory = "-" if measurement.megabytes is None else f"{measurement.megabytes:.0f}"
        numbers = str(measurement.passes), *qualities, f"{measurement.milliseconds[0]:.0f}", memory
        table.add_row(str(measurement.estimator), *numbers)
    return table


def gradient_estimators_json(measurements: Sequence[Measurement]) -> list[dict[str, object]]:
    """Return what stands in `gradient_estimators_table` as an entry for each gradient estimator."""
    return [
        {
            "estimator": str(measurement.estimator),
            "decoder_passes": measurement.passes,
            "every_weight": measurement.every_weight._asdict(),
            "classifier": measurement.classifier._asdict(),
            "milliseconds": measurement.milliseconds[0],
            "quartiles": list(measurement.milliseconds[1:]),
            "megabytes": measurement.megabytes,
        }
        for measurement in measurements
    ]


def _add_comparison(table: Table, term: str, comparison: Comparison) -> None:
    numbers = (
        *(f"{value:.6g}" for value in comparison.values),
        f"{comparison.absolute:.1e}",
        f"{comparison.relative:.1e}",
        f"{comparison.bound:.0e}",
    )
    table.add_row(Text(term), *numbers, "ok" if comparison.holds else "DIFFERS")


def _bias_and_deviation(quality: GradientQuality) -> tuple[str, str]:
    if quality.deviation < EXACT:
        return ("0" if quality.bias < EXACT else f"{quality.bias:.2g}"), "0"
    bias = f"{quality.bias:.2g}" if quality.bias > 2 * quality.chance else f"below {_rounded(2 * quality.chance)}"
    return bias, f"{quality.deviation:.2g}"


def _rounded(value: float) -> str:
    return f"{float(f'{value:.1g}'):g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
