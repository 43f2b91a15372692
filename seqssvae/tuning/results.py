"""What a sweep leaves: the trials, the best of them, a table, and a configuration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from seqssvae.config import Config, StoppingMetric
from seqssvae.config.settings import to_yaml
from seqssvae.runs.writing import explained, write_atomically
from seqssvae.tuning.spaces import Spaces
from seqssvae.tuning.study import ERROR, GREATEST
from seqssvae.tuning.trials import CLASSIFICATION, STANDARD_ERROR, STEP

TABLE, PLOT, BEST, RUNS = "trials.tsv", "trials.svg", "best.yaml", "runs"
"""Names in the output directory."""
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


class Trial(NamedTuple):
    """A trial of a sweep.

    Args:
        number: Its number, from 0.
        state: `complete`; `pruned`, ended early; `failed`; `interrupted`, of which there is another trial; `running`.
        value: The metric on the validation rows, of the weights that were kept; of the last evaluation if it was
            pruned; None if there is none.
        standard_error: The standard error of a complete trial's value.
        classification: The mean of -log q(y|x) there, by which equal accuracies are told apart.
        step: The training step that the value is of.
        evaluations: The number of evaluations.
        seconds: How long it took.
        values: What the fields that are searched were, by their full names.
        error: Why it failed.
    """

    number: int
    state: str
    value: float | None
    standard_error: float | None
    classification: float | None
    step: int | None
    evaluations: int
    seconds: float | None
    values: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class Tuned:
    """What a sweep has found.

    Args:
        config: The configuration of the best trial.
        recipe: Name of the recipe that was tuned.
        metric: What trials are compared by, on the validation rows.
        best: The best trial.
        trials: All trials.
        path: The output directory.
        run: The run directory of the best trial, if runs were kept and it was trained here.
        study: Optuna's study.
    """

    config: Config
    recipe: str
    metric: StoppingMetric
    best: Trial
    trials: list[Trial]
    path: Path
    run: Path | None
    study: Any


def read_trials(study: Any, spaces: Spaces) -> list[Trial]:
    """The trials of a study."""
    return [_read(trial, spaces) for trial in study.get_trials(deepcopy=False)]


def best_trial(trials: Sequence[Trial], metric: StoppingMetric) -> Trial | None:
    """The complete trial with the best value; None if there is none.

    Of equal accuracies, as few validation rows have them, the one with the lower classification loss is better, as it
    is in training; of what is equal in all, the first.
    """

    def rank(trial: Trial) -> tuple[float, float, int]:
        value = float(trial.value or 0.0)
        tie = trial.classification if metric == "accuracy" else None
        return -value if metric in GREATEST else value, tie or 0.0, trial.number

    return min((trial for trial in trials if trial.state == "complete"), key=rank, default=None)


def describe(trial: Trial, best: Trial | None, metric: StoppingMetric) -> str:
    """What became of a trial, in words.

    Args:
        trial: The trial.
        best: The best so far.
        metric: What trials are compared by.
    """
    value = "" if trial.value is None else f", {metric} {trial.value:.4f}"
    seconds = "" if trial.seconds is None else f", {trial.seconds:.1f} s"
    standing = "" if best is None else f"; best is {best.value:.4f}, trial {best.number}"
    reason = "" if trial.error is None else f" ({trial.error.removesuffix('.')})"
    return f"trial {trial.number} {trial.state}{reason}{value}{seconds}{standing}"


def write_trials(folder: Path, trials: Sequence[Trial], spaces: Spaces) -> None:
    """Write the table of trials, a line each.

    Raises:
        RunError: If that is not possible.
    """
    header = [
        "trial",
        "state",
        "value",
        "standard_error",
        "classification",
        "step",
        "evaluations",
        "seconds",
        *spaces,
        "error",
    ]
    lines = [header, *(_columns(trial, spaces) for trial in trials)]
    text = "".join("\t".join(" ".join(column.split()) for column in line) + "\n" for line in lines)
    with explained(folder / TABLE):
        write_atomically(folder / TABLE, [text.encode(errors="backslashreplace")])


def write_best(folder: Path, config: Config) -> None:
    """Write the best configuration.

    Raises:
        RunError: If that is not possible.
    """
    with explained(folder / BEST):
        write_atomically(folder / BEST, [to_yaml(config).encode()])


def _columns(trial: Trial, spaces: Spaces) -> list[str]:
    numbers = trial.value, trial.standard_error, trial.classification, trial.step, trial.evaluations, trial.seconds
    shown = ["" if number is None else f"{number:.6g}" for number in numbers]
    values = [str(trial.values[path]) if path in trial.values else "" for path in spaces]
    return [str(trial.number), trial.state, *shown, *values, trial.error or ""]


def _read(trial: Any, spaces: Spaces) -> Trial:
    noted, reported = trial.user_attrs, trial.intermediate_values
    state, error = STATES[trial.state.name], noted.get(ERROR)
    if state == "failed" and error is None:
        state = "interrupted"
    value = trial.value if state == "complete" else reported[max(reported)] if state == "pruned" else None
    seconds = None if trial.duration is None else trial.duration.total_seconds()
    return Trial(
        number=trial.number,
        state=state,
        value=None if value is None or math.isnan(value) else value,
        standard_error=noted.get(STANDARD_ERROR),
        classification=noted.get(CLASSIFICATION),
        step=noted.get(STEP),
        evaluations=len(reported),
        seconds=seconds,
        values={path: trial.params[path] for path in spaces if path in trial.params},
        error=error,
    )
