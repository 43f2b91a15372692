"""Where training stands, what it reports, and the observers that follow it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from seqssvae.backend import Weights
from seqssvae.config import Config
from seqssvae.inference.metrics import Metrics

Score = tuple[float, float]
"""What decides between evaluations, the greater the better: the metric's value (signed), and a second one for ties."""


@dataclass(frozen=True)
class TrainingState:
    """Where training stands at an evaluation or, with `totals`, between two.

    Args:
        step: The number of training steps taken.
        epoch: The epoch of the last step, from 0.
        epoch_step: The number of steps taken of this epoch.
        evaluations: The number of evaluations made.
        best: The score of the best evaluation; None before the first that decides, or without validation rows.
        best_error: The standard error of its metric.
        best_step: The step of the evaluation whose weights are kept: the best, or another one that is hardly worse.
        kept: The metric's value (signed) of that evaluation, and what decides between it and others that are hardly
            worse than the best: the ELBO, or the step where there is none; None before the first evaluation, or without
            validation rows.
        waited: The number of evaluations since the metric last improved.
        seconds: The time spent training and evaluating.
        schedule_steps: The length of the learning rate's schedule.
        weights: The weights now.
        best_weights: The weights that are kept.
        optimizer: The state of the optimiser now.
        totals: The totals of the steps since the last evaluation (`seqssvae.training.totals`); none at an evaluation.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    evaluations: int = 0
    best: Score | None = None
    best_error: float = 0.0
    best_step: int = 0
    kept: Score | None = None
    waited: int = 0
    seconds: float = 0.0
    schedule_steps: int = 0
    weights: Weights = field(default_factory=dict, repr=False)
    best_weights: Weights = field(default_factory=dict, repr=False)
    optimizer: Weights = field(default_factory=dict, repr=False)
    totals: Weights = field(default_factory=dict, repr=False)


class Record(NamedTuple):
    """The results of one evaluation.

    Args:
        step: The number of training steps taken.
        epoch: The epoch of the last step, counted from 1.
        seconds: The time spent since the beginning.
        beta: The weight of the KL of z at the last step.
        learning_rate: The step size of the last step.
        gradient_norm: The mean norm of the gradient before clipping, over the steps since the last evaluation.
        training: Means over the training rows since the last evaluation.
        validation: Means over the validation rows; None where there are none.
        standard_error: The standard error of `training.metric` over the validation rows; None where there are none.
    """

    step: int
    epoch: int
    seconds: float
    beta: float
    learning_rate: float
    gradient_norm: float
    training: Metrics
    validation: Metrics | None
    standard_error: float | None = None

    def to_dict(self) -> dict[str, object]:
        """The plain values that `metrics.jsonl` holds."""
        validation = None if self.validation is None else self.validation._asdict()
        return {**self._asdict(), "training": self.training._asdict(), "validation": validation}


class FitResult(NamedTuple):
    """The results of training; the backend holds the weights that were kept.

    Args:
        state: The last state.
        records: The results of each evaluation of this call.
        best: The evaluation whose weights were kept; None if that was before this call resumed.
    """

    state: TrainingState
    records: list[Record]
    best: Record | None


class Observer:
    """Callbacks of the training loop; all methods do nothing unless overridden."""

    def configured(self, config: Config) -> None:
        """Called first, with the configuration of what is trained."""

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Called before training begins or goes on; it takes at most this many steps in all."""

    def noted(self, text: str) -> None:
        """Called before training with what its settings cost on the device that it runs on."""

    def waiting(self, text: str) -> None:
        """Called before the backend does something that takes a while, such as compiling."""

    def advanced(self, step: int, epoch: int, rows: int) -> None:
        """Called when this many steps have been handed to the backend (which may still be computing).

        Args:
            step: The number of steps.
            epoch: The epoch of the last one, counted from 1.
            rows: The number of rows of the steps since the call before.
        """

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Called after each evaluation."""

    def checkpointed(self, state: TrainingState) -> None:
        """Called with a state between two evaluations that is to be kept."""

    def failed(self, error: BaseException) -> None:
        """Called where an exception ends training, before `finished`."""

    def finished(self, state: TrainingState) -> None:
        """Called when training has ended, normally or by an exception."""
