"""A progress bar for training."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from seqssvae.training.state import Observer, Record, TrainingState


class ProgressBar(Observer):
    """A progress bar on stderr, on a terminal only, with the validation metrics of the last evaluation.

    Args:
        title: What stands in front of the bar.
    """

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
        for task in self._progress.task_ids:  # of a training before
            self._progress.remove_task(task)
        self._progress.start()
        self._task = self._progress.add_task(self._title, total=total_steps, completed=state.step, metrics="")

    def waiting(self, text: str) -> None:
        """Show in place of the title what the backend is doing before it goes on."""
        self._progress.update(self._task, description=text)

    def advanced(self, step: int) -> None:
        """Move the bar to a step."""
        self._progress.update(self._task, description=self._title, completed=step)

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Show the metrics of an evaluation."""
        metrics = record.validation or record.training
        values = {"accuracy": metrics.accuracy, "ELBO a symbol": metrics.elbo_per_symbol}
        text = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)
        self._progress.update(self._task, metrics=text)

    def finished(self, state: TrainingState) -> None:
        """Remove the bar."""
        self._progress.stop()
