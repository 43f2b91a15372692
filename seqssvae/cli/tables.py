"""What people read: tables, a progress bar, and one line for each warning."""

import sys
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from seqssvae.checks.gradient_estimators import Figures, Quality
from seqssvae.checks.verify import TWINS, Certificate, Comparison
from seqssvae.data.corpus import Corpus
from seqssvae.demo.experiment import Side
from seqssvae.inference.evaluate import CorpusEvaluation
from seqssvae.inference.metrics import Metrics
from seqssvae.training.fit import FitResult, Observer, Record, TrainingState

PIPE_WIDTH = 110
"""Columns of a table that is not printed on a terminal."""

EXACT = 1e-4
"""A gradient that differs by less, relative to its norm, differs by rounding."""

_UNITS = {
    "elbo": "nats a row",
    "elbo_per_symbol": "nats a symbol",
    "bits_per_symbol": "bits a symbol",
    "reconstruction": "nats a row",
    "kl_z": "nats a row",
    "kl_y": "nats a row",
    "classification": "nats a labelled row",
    "accuracy": "of labelled rows",
}


def console(stderr: bool = False) -> Console:
    """A console that keeps tables whole where the output is no terminal."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"seqssvae: warning: {' '.join(message.split())}", file=sys.stderr)


def describe_counts(corpus: Corpus, max_length: int) -> list[str]:
    """What happened to a corpus's rows as they were read, a sentence each."""
    counts, sentences = corpus.counts, []
    if counts.skipped:
        sentences.append(f"{counts.skipped} of {counts.rows} rows left out: longer than {max_length} symbols.")
    if counts.truncated:
        sentences.append(f"{counts.truncated} of {counts.rows} sequences cut to {max_length} symbols.")
    if counts.unknown_symbols:
        sentences.append(f"{counts.unknown_symbols} symbols are not in the vocabulary and were read as UNK.")
    return [f"{corpus.origin}: {sentence}" for sentence in sentences]


def warn_of_counts(corpus: Corpus, max_length: int) -> None:
    """Print what `describe_counts` says, a line each on stderr."""
    for sentence in describe_counts(corpus, max_length):
        warn(sentence)


class ProgressBar(Observer):
    """A progress bar on stderr, on a terminal only, with the validation metrics of the last evaluation."""

    def __init__(self, title: str = "training") -> None:
        stderr = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns,
            TextColumn("{task.fields[metrics]}"),
            console=stderr,
            disable=not stderr.is_terminal,
            transient=True,
        )
        self._title = title
        self._task = TaskID(0)

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Show the bar."""
        self._progress.start()
        self._task = self._progress.add_task(self._title, total=total_steps, completed=state.step, metrics="")

    def waiting(self, text: str) -> None:
        """Say what is waited for."""
        self._progress.update(self._task, description=text)

    def advanced(self, step: int) -> None:
        """Move it."""
        self._progress.update(self._task, description=self._title, completed=step)

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Show the metrics."""
        found = record.validation or record.training
        shown = {"accuracy": found.accuracy, "ELBO a symbol": found.elbo_per_symbol}
        text = ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
        self._progress.update(self._task, metrics=text)

    def finished(self, state: TrainingState) -> None:
        """Take it away."""
        self._progress.stop()


def fit_table(result: FitResult) -> Table:
    """Training and validation metrics of the best evaluation (of the last, where the best is from before resuming)."""
    record = result.best or result.records[-1]
    table = Table(title=f"step {record.step}, epoch {record.epoch}, {result.state.seconds:.1f} s in all")
    for name in ("", "training", "validation", "unit"):
        table.add_column(name, justify="right" if name.endswith("ing") or name == "validation" else "left")
    for name, unit in {"loss": "", **_UNITS}.items():
        values = [_number(getattr(metrics, name, None)) for metrics in (record.training, record.validation)]
        table.add_row(name, *values, unit)
    return table


def metrics_table(metrics: Metrics) -> Table:
    """Metrics of a corpus, a line each."""
    title = f"{metrics.rows} rows, {metrics.labelled_rows} of them labelled, {metrics.symbols} symbols with END"
    table = Table("", title=title, min_width=len(title) + 2)
    table.add_column("", justify="right")
    table.add_column("unit")
    for name, unit in _UNITS.items():
        table.add_row(name, _number(getattr(metrics, name)), unit)
    if metrics.importance_bound is not None:
        table.add_row("importance_bound", _number(metrics.importance_bound), "nats a row")
    return table


def confusion_table(evaluation: CorpusEvaluation, names: Sequence[str]) -> Table:
    """Number of rows by label and predicted label."""
    title = "rows by label (down) and predicted label (across)"
    table = Table("", title=title, min_width=len(title) + 2)
    for name in names:
        table.add_column(Text(name), justify="right")
    for name, counts in zip(names, evaluation.confusion.tolist(), strict=True):
        table.add_row(Text(name), *map(str, counts))
    return table


def comparison_table(sides: Sequence[tuple[str, str, Side]], title: str) -> Table:
    """Both sides of the comparison for each twin: names of twin and side, and what was found."""
    table = Table(title=title)
    for name in ("twin", "trained on", "accuracy", "ELBO/symbol", "reconstruction", "KL of z", "seconds"):
        table.add_column(name, justify="left" if name in ("twin", "trained on") else "right")
    for twin, name, side in sides:
        metrics = side.test.metrics
        numbers = (metrics.accuracy, metrics.elbo_per_symbol, metrics.reconstruction, metrics.kl_z)
        table.add_row(twin, name, *map(_number, numbers), f"{side.result.state.seconds:.1f}")
    return table


def certificate_tables(certificate: Certificate) -> list[Table]:
    """One table for each precision: every term, and the gradient that differs most."""
    counts = f"{certificate.rows} rows without label, {certificate.labelled_rows} with"
    tables = []
    for precision in dict.fromkeys(one.precision for one in certificate.terms):
        table = Table(title=f"{precision}: {counts}")
        for name in ("term (mean over rows)", *TWINS, "absolute", "relative", "bound", ""):
            justify: Literal["left", "right"] = "left" if name in ("term (mean over rows)", "") else "right"
            table.add_column(name, justify=justify, overflow="fold")
        for one in certificate.terms:
            if one.precision == precision:
                _add_comparison(table, one.term, one)
        worst = certificate.worst_gradient(precision)
        table.add_section()
        _add_comparison(table, f"worst gradient (norm):\n{worst.term}", worst)
        tables.append(table)
    return tables


def _add_comparison(table: Table, term: str, one: Comparison) -> None:
    numbers = *(f"{value:.6g}" for value in one.values), f"{one.absolute:.1e}", f"{one.relative:.1e}"
    table.add_row(Text(term), *numbers, f"{one.bound:.0e}", "ok" if one.holds else "DIFFERS")


def estimators_table(found: Sequence[Figures], title: str, draws: int) -> Table:
    """What each estimator of a missing label costs, and how good its gradient is."""
    caption = f"bias and deviation of the gradient relative to its norm, from {draws} draws of the labels"
    table = Table(title=title, caption=caption)
    for name in ("estimator", "decoder passes", "bias", "deviation", "bias, q(y|x)", "deviation, q(y|x)", "ms", "MB"):
        table.add_column(name, justify="left" if name == "estimator" else "right")
    for one in found:
        qualities = [text for quality in (one.every_weight, one.classifier) for text in _quality(quality)]
        memory = "-" if one.megabytes is None else f"{one.megabytes:.0f}"
        table.add_row(str(one.choice), str(one.passes), *qualities, f"{one.milliseconds[0]:.0f}", memory)
    return table


def _quality(quality: Quality) -> tuple[str, str]:
    if quality.deviation < EXACT:
        return ("0" if quality.bias < EXACT else f"{quality.bias:.2g}"), "0"
    bias = f"{quality.bias:.2g}" if quality.bias > 2 * quality.chance else f"below {_rounded(2 * quality.chance)}"
    return bias, f"{quality.deviation:.2g}"


def _rounded(value: float) -> str:
    return f"{float(f'{value:.1g}'):g}"


def estimators_json(found: Sequence[Figures]) -> list[dict[str, object]]:
    """The same as an entry for each estimator."""
    return [
        {
            "estimator": str(one.choice),
            "decoder_passes": one.passes,
            "every_weight": one.every_weight._asdict(),
            "classifier": one.classifier._asdict(),
            "milliseconds": one.milliseconds[0],
            "quartiles": list(one.milliseconds[1:]),
            "megabytes": one.megabytes,
        }
        for one in found
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
