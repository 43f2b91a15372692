"""A progress bar on a terminal."""

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from seqssvae.training.progress_lines import Progress, describe, describe_metrics, print_line
from seqssvae.training.state import Record, TrainingState

WIDTH = 20
"""Columns of the bar itself."""


class ProgressBar(Progress):
    """A bar with epoch, rows a second and the time left, and below it the metrics of the last evaluation.

    Args:
        title: What stands in front of the bar.
        console: The terminal.
        summary: Whether a line with the last evaluation stays when the bar is gone.
    """

    def __init__(self, title: str, console: Console, summary: bool = False) -> None:
        super().__init__(title)
        self._summary = summary
        self._bar = _Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(WIDTH),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = TaskID(0)
        self._rows = self._first = 0
        self._place = (0, 0, 0)
        self._last: Record | None = None

    def candidate(self, name: str) -> None:
        """Show which candidate learns."""
        super().candidate(name)
        self._show(total=None, completed=0)

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Show the bar."""
        super().started(total_steps, state)
        self._rows, self._first, self._last = 0, state.step, None
        self._place = (state.step, total_steps, state.epoch + 1)
        self._show(total=total_steps, completed=state.step)

    def note(self, line: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(line, markup=False)

    def waiting(self, text: str) -> None:
        """Show in place of the title what the backend is doing before it goes on."""
        self._bar.update(self._task, description=text)

    def advanced(self, step: int, epoch: int, rows: int) -> None:
        """Move the bar to a step."""
        self._rows += rows
        self._place = (step, self._place[1], epoch)
        self._bar.update(self._task, description=self.title, completed=step)
        rate = self._rate()
        speed = "" if rate is None else f", {rate:.0f} rows/s"
        self._bar.update(self._task, pace=f"epoch {epoch}{speed}")

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Show the metrics of an evaluation."""
        self._last = record
        self._bar.metrics = describe_metrics(record)

    def finished(self, state: TrainingState) -> None:
        """Remove the bar."""
        rate = self._rate()
        self.close()
        if self._summary and self._last is not None:
            print_line(describe(self.title, self._place, rate, self._last))

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def _show(self, total: int | None, completed: int) -> None:
        for task in self._bar.task_ids:  # of a training before
            self._bar.remove_task(task)
        self._bar.metrics = ""
        self._bar.start()
        self._task = self._bar.add_task(self.title, total=total, completed=completed, pace="")

    def _rate(self) -> float | None:
        """Rows a second of late: steps a second, and the rows that a step has."""
        speed = self._bar.tasks[0].speed if self._bar.tasks else None
        steps = self._place[0] - self._first
        return None if not speed or not steps else speed * self._rows / steps


def terminal() -> Console | None:
    """Return the terminal that stderr is; None if it is none, or cannot move its cursor."""
    console = Console(stderr=True)
    return console if console.is_terminal and not console.is_dumb_terminal else None


class _Bar(RichProgress):
    """A bar with a line below it."""

    metrics = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and the line if there is one."""
        yield self.make_tasks_table(self.tasks)
        if self.metrics:
            yield Text(self.metrics)
