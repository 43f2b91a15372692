"""Lines that tell how training goes, for logs."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from seqssvae.training.state import Observer, Record, TrainingState

SECONDS = 5.0
"""Least time between two lines."""
SILENT_SECONDS = 60.0
"""The time after which there is a line although nothing was evaluated."""
METRICS = {
    "accuracy": "accuracy",
    "elbo_per_symbol": "ELBO/symbol",
    "reconstruction": "reconstruction",
    "kl_z": "KL of z",
    "kl_y": "KL of y",
}
"""The metrics that are shown, and how they are called."""


class Progress(Observer):
    """What a user sees of one training, or of all candidates of a recipe; by itself it shows nothing.

    It is a context manager, for what trains nothing may be reported too: at the end nothing is left on the terminal.

    Args:
        title: What is trained.
    """

    def __init__(self, title: str) -> None:
        self._title, self._trainings = title, 0
        self._is_candidate = False
        self._notes: set[str] = set()

    @property
    def title(self) -> str:
        """What is trained now: of a candidate, of which fold."""
        return f"{self._title}, fold {self._trainings}" if self._is_candidate and self._trainings else self._title

    def candidate(self, name: str) -> None:
        """Called before a candidate learns, which may train a network for each fold."""
        self._title, self._trainings, self._is_candidate = f"candidate {name}", 0, True

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Count the trainings."""
        self._trainings += 1

    def noted(self, text: str) -> None:
        """Show a note, once for all trainings."""
        if text not in self._notes:
            self._notes.add(text)
            self.note(f"{self.title}: {text}")

    def note(self, line: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Show nothing more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ProgressLines(Progress):
    """Lines on stderr: at an evaluation, but not one soon after the other; and one where there is none for long.

    Args:
        title: What is trained.
        summary: Whether the last evaluation is shown in any case.
        clock: Returns the time in seconds.
    """

    def __init__(self, title: str, summary: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(title)
        self._summary, self._clock = summary, clock
        self._printed = clock()
        self._compiled = False
        self._total = self._rows = 0
        self._since = (clock(), 0)
        """When, and at which step, the rows began to be counted: at the last line."""
        self._last: Record | None = None

    def candidate(self, name: str) -> None:
        """Print which candidate learns."""
        super().candidate(name)
        self._print(self.title)

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Begin to count steps."""
        super().started(total_steps, state)
        self._total, self._last = total_steps, None
        self._count_from(state.step)

    def note(self, line: str) -> None:
        """Print a line."""
        self._print(line)

    def waiting(self, text: str) -> None:
        """Print what the backend is doing before it goes on: at first, and whenever there was no line for a while."""
        if not self._compiled or self._is_due(SECONDS):
            self._compiled = True
            self._print(f"{self.title}: {text}")

    def advanced(self, step: int, epoch: int, rows: int) -> None:
        """Print where training stands if there was no line for long."""
        self._rows += rows
        if self._is_due(SILENT_SECONDS):
            self._print(self._line(step, epoch))
            self._count_from(step)

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Print the metrics if there was no line for a while."""
        self._last = record
        if self._is_due(SECONDS):
            self._print_last(record)

    def finished(self, state: TrainingState) -> None:
        """Print the last metrics if they are to be shown in any case."""
        if self._summary and self._last is not None:
            self._print_last(self._last)

    def _print_last(self, record: Record) -> None:
        self._print(self._line(record.step, record.epoch, record))
        self._count_from(record.step)
        self._last = None

    def _line(self, step: int, epoch: int, record: Record | None = None) -> str:
        seconds, steps = self._clock() - self._since[0], step - self._since[1]
        left = (self._total - step) * seconds / steps if steps > 0 else 0.0
        rate = self._rows / seconds if seconds > 0 else None
        return describe(self.title, (step, self._total, epoch), rate, record, left)

    def _count_from(self, step: int) -> None:
        self._rows, self._since = 0, (self._clock(), step)

    def _is_due(self, seconds: float) -> bool:
        return self._clock() - self._printed >= seconds

    def _print(self, text: str) -> None:
        self._printed = self._clock()
        print_line(text)


def describe(
    title: str, place: tuple[int, int, int], rate: float | None, record: Record | None, seconds_left: float = 0.0
) -> str:
    """Return in words where training stands.

    Args:
        title: What is trained.
        place: The number of steps taken, that of all steps, and the epoch, counted from 1.
        rate: Rows a second; None if it is not known.
        record: The evaluation at this step; None where there is none.
        seconds_left: The time that training takes at most from here on; 0 to leave it out.
    """
    step, total, epoch = place
    speed = "" if rate is None else f", {rate:.0f} rows/s"
    shown = "" if record is None else f"; {describe_metrics(record)}"
    left = "" if round(seconds_left) <= 0 else f"; at most {timedelta(seconds=round(seconds_left))} left"
    return f"{title}: step {step} of {total}, epoch {epoch}{speed}{shown}{left}"


def describe_metrics(record: Record) -> str:
    """Return accuracy and terms of the ELBO, of the validation rows or, where there are none, of the training rows."""
    metrics, name = record.validation, "validation"
    if metrics is None:
        metrics, name = record.training, "training"
    names = METRICS if metrics.elbo is not None else {"accuracy": "accuracy", "classification": "classification"}
    values = {shown: getattr(metrics, field) for field, shown in names.items()}
    return f"{name}: " + ", ".join(f"{shown} {value:.3f}" for shown, value in values.items() if value is not None)


def print_line(text: str) -> None:
    """Print a line on stderr that names the program."""
    print(f"seqssvae: {text}", file=sys.stderr, flush=True)
