"""The tables of what a recipe tried, and of what was compared."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from seqssvae.recipes.calibration import MethodMetrics
from seqssvae.recipes.compare import MethodAccuracy
from seqssvae.recipes.ensemble import Trial
from seqssvae.recipes.names import PredictionMethod


def trials_table(trials: Sequence[Trial]) -> Table:
    """Return how the candidates of a recipe did in cross-validation."""
    table = Table(title="cross-validation over the labelled rows")
    for name in ("candidate", "learns from", "accuracy", "", "nats a row", "weight", "seconds"):
        table.add_column(name, justify="left" if name in ("candidate", "learns from") else "right")
    for trial in trials:
        share = "-" if trial.weight is None else f"{trial.weight:.2f}"
        numbers = f"{trial.accuracy:.3f}", f"± {trial.standard_error:.3f}", f"{trial.loss:.3f}", share
        table.add_row(trial.name, trial.learns_from, *numbers, f"{trial.seconds:.0f}")
    return table


def compare_table(comparisons: Sequence[MethodAccuracy], rows: int) -> Table:
    """Return how those compared did in cross-validation.

    Args:
        comparisons: What was found.
        rows: The number of labelled rows.
    """
    table = Table(title=f"cross-validation over {rows} labelled rows, with intervals of .95")
    for name in ("", "learns from", "accuracy", "from", "to", "seconds"):
        table.add_column(name, justify="left" if name in ("", "learns from") else "right")
    for one in comparisons:
        numbers = (f"{value:.3f}" for value in (one.accuracy, one.low, one.high))
        table.add_row(one.name, one.learns_from, *numbers, f"{one.seconds:.0f}")
    return table


def methods_table(methods: Mapping[PredictionMethod, MethodMetrics]) -> Table:
    """Return how each way to predict a label does."""
    table = Table(title="labels by --method")
    for name in ("", "accuracy", "balanced", "nats a row", "calibration error"):
        table.add_column(name, justify="right" if name else "left")
    for name, one in methods.items():
        table.add_row(name, *(f"{value:.3f}" for value in one))
    return table
