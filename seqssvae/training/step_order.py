"""The order of all training steps of a run, divided into segments that end with an evaluation."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np

from seqssvae.backend import Batch, TrainingStep
from seqssvae.config import Config, ObjectiveConfig, uses_unlabelled
from seqssvae.data.batches import BatchStream
from seqssvae.data.buckets import choose_buckets
from seqssvae.data.corpus import Corpus
from seqssvae.data.padding import SYMBOLS_AT_ONCE
from seqssvae.data.ragged import where
from seqssvae.errors import ConfigurationError
from seqssvae.training.schedules import beta_at, consistency_at, learning_rate_at, temperature_at

ORDER_STREAM = 0xBA7C
"""The random stream of the seeds of labelled and unlabelled batches, apart from those of other choices."""


def training_steps(
    labelled: BatchStream | None, unlabelled: BatchStream | None, objective: ObjectiveConfig, epoch: int
) -> Iterator[tuple[Batch | None, Batch | None]]:
    """The labelled and the unlabelled batch of each training step of one epoch.

    An epoch is one pass over the unlabelled rows, with `labelled_ratio` labelled batches for each unlabelled one (a
    fraction carries over to the next epoch, and the labelled stream goes on where it was); it is one pass over the
    labelled rows if there are no unlabelled ones, or if the objective learns nothing from them.

    Args:
        labelled: Batches of rows whose label is observed, if there are any.
        unlabelled: Batches of rows whose label is summed out, if there are any.
        objective: Whether a step has one batch (`alternate`: labelled ones before the unlabelled one that they belong
            to) or both (`joint`: the labelled one where it is due).
        epoch: Number of the epoch, from 0.

    Raises:
        ConfigurationError: If there is nothing to learn from.
    """
    if unlabelled is None or not uses_unlabelled(objective):
        if labelled is None:
            raise ConfigurationError(f"objective.name: {objective.name} has no rows to learn from; label some rows.")
        return ((batch, None) for batch in labelled.epoch(epoch))
    if labelled is None:
        return ((None, batch) for batch in unlabelled.epoch(epoch))
    return _paired_steps(labelled, unlabelled, objective, epoch)


def _paired_steps(
    labelled: BatchStream, unlabelled: BatchStream, objective: ObjectiveConfig, epoch: int
) -> Iterator[tuple[Batch | None, Batch | None]]:
    first = epoch * len(unlabelled)
    due_batches = labelled.starting_at(_labelled_before(first, objective))
    for number, unlabelled_batch in enumerate(unlabelled.epoch(epoch), start=first):
        count = _labelled_before(number + 1, objective) - _labelled_before(number, objective)
        due = itertools.islice(due_batches, count)
        if objective.batching == "joint":
            yield next(due, None), unlabelled_batch
        else:
            yield from ((batch, None) for batch in due)
            yield None, unlabelled_batch


def _labelled_before(unlabelled_batches: int, objective: ObjectiveConfig) -> int:
    """Labelled batches that are due by the time so many unlabelled ones are done: the ratio's multiple, rounded up."""
    ratio = Fraction(str(objective.labelled_ratio))  # exactly the decimal fraction that was asked for
    return ceil(unlabelled_batches * ratio)


def count_steps(
    labelled: BatchStream | None, unlabelled: BatchStream | None, objective: ObjectiveConfig, epochs: int
) -> int:
    """Count the steps that `training_steps` yields in so many epochs; arguments are as there."""
    if unlabelled is None or not uses_unlabelled(objective):
        return 0 if labelled is None else epochs * len(labelled)
    steps = epochs * len(unlabelled)
    if labelled is None or objective.batching == "joint":
        return steps
    return steps + _labelled_before(steps, objective)


def total_steps(config: Config, training: Corpus) -> int:
    """Count the training steps that `fit` takes at most with these rows."""
    return StepOrder(config, training).total_steps


class ScheduledStep(NamedTuple):
    """A training step and its place in the epoch.

    Args:
        step: The step.
        epoch: The number of its epoch, from 0.
        epoch_step: The number of steps taken of this epoch, with this one.
        ends_epoch: Whether it is the last one of its epoch.
    """

    step: TrainingStep
    epoch: int
    epoch_step: int
    ends_epoch: bool


class Chunk(NamedTuple):
    """Training steps that are handed to the backend at once.

    Args:
        steps: The steps, in order.
        ends_segment: Whether an evaluation is due after the last of them.
    """

    steps: list[ScheduledStep]
    ends_segment: bool


class StepOrder:
    """All training steps of a run, in order, as a function of the configuration (and its seed) and the rows.

    Args:
        config: The run's configuration.
        corpus: Rows to learn from.
        schedule_steps: The length of the schedule of a run that is resumed; 0 of a new run.

    Attributes:
        buckets: The lengths that batches are padded to.
        total_steps: The number of steps.
        schedule_steps: The number of steps over which the learning rate falls.

    Raises:
        ConfigurationError: If there are more steps than the learning rate's schedule is long.
    """

    def __init__(self, config: Config, corpus: Corpus, schedule_steps: int = 0) -> None:
        self.config = config
        self.buckets = choose_buckets(corpus.lengths, config.training.buckets)
        self.labelled, self.unlabelled = self._streams(corpus)
        steps = count_steps(self.labelled, self.unlabelled, config.objective, config.training.epochs)
        self.total_steps = min(steps, config.training.max_steps or steps)
        self.schedule_steps = config.optimizer.schedule_steps or schedule_steps or self.total_steps
        if config.optimizer.schedule != "constant" and self.total_steps > self.schedule_steps:
            raise ConfigurationError(
                f"The learning rate has fallen to 0 after {self.schedule_steps} steps, but training takes "
                f"{self.total_steps}: take fewer (training.max_steps), or stretch the schedule by "
                f"optimizer.schedule_steps: {self.total_steps}, which changes the learning rate from here on."
            )

    def _streams(self, corpus: Corpus) -> tuple[BatchStream | None, BatchStream | None]:
        training, objective = self.config.training, self.config.objective
        labelled, unlabelled = where(corpus.y >= 0), where(corpus.y < 0)
        joint = uses_unlabelled(objective) and objective.batching == "joint" and len(unlabelled) > 0
        seeds = [int(seed) for seed in np.random.SeedSequence([training.seed, ORDER_STREAM]).generate_state(2)]
        return (
            BatchStream(
                corpus,
                labelled,
                training.labelled_batch_size,
                self.buckets,
                seeds[0],
                # one length for the labelled rows, so that steps have as many shapes as there are buckets
                time_steps=self.buckets[-1] if joint else None,
                run_length=training.steps_per_dispatch,
            )
            if len(labelled)
            else None,
            BatchStream(
                corpus,
                unlabelled,
                training.batch_size,
                self.buckets,
                seeds[1],
                batch_symbols=training.batch_symbols,
                run_length=training.steps_per_dispatch,
            )
            if len(unlabelled)
            else None,
        )

    def _batches(self, epoch: int) -> Iterator[tuple[Batch | None, Batch | None]]:
        return training_steps(self.labelled, self.unlabelled, self.config.objective, epoch)

    def _steps(self, step: int, first_epoch: int, skip: int) -> Iterator[ScheduledStep]:
        for epoch in range(first_epoch, self.config.training.epochs):
            if step == self.total_steps:
                return
            batches = enumerate(self._batches(epoch), start=1)
            remaining = itertools.islice(batches, skip if epoch == first_epoch else 0, None)
            current = next(remaining, None)
            while current is not None and step < self.total_steps:
                epoch_step, pair = current
                current = next(remaining, None)
                yield ScheduledStep(self._training_step(pair, step), epoch, epoch_step, ends_epoch=current is None)
                step += 1

    def _training_step(self, batches: tuple[Batch | None, Batch | None], step: int) -> TrainingStep:
        objective = self.config.objective
        return TrainingStep(
            *batches,
            beta=beta_at(objective.beta, step),
            learning_rate=learning_rate_at(self.config.optimizer, step, self.schedule_steps),
            step=step,
            temperature=temperature_at(objective.temperature, step),
            consistency=consistency_at(objective.consistency, step),
        )

    def chunks(self, most: int, step: int = 0, epoch: int = 0, epoch_step: int = 0) -> Iterator[Chunk]:
        """Iterate over the steps in chunks, which are counted from each evaluation on.

        An evaluation is due after every `evaluation_interval` steps, or each epoch; and after the last step. Large
        batches make chunks of fewer steps, but not of fewer than are dispatched together.

        Args:
            most: Most steps of a chunk.
            step: The number of steps taken before.
            epoch: The number of the epoch of the last of them, from 0.
            epoch_step: How many of them were of this epoch.
        """
        interval = self.config.training.evaluation_interval
        least = min(most, self.config.training.steps_per_dispatch)
        chunk: list[ScheduledStep] = []
        symbols = 0
        for scheduled in self._steps(step, epoch, epoch_step):
            chunk.append(scheduled)
            taken = scheduled.step.step + 1
            due = taken == self.total_steps or (taken % interval == 0 if interval else scheduled.ends_epoch)
            symbols += _symbol_places(scheduled.step)
            if due or len(chunk) == most or (symbols >= SYMBOLS_AT_ONCE and len(chunk) >= least):
                yield Chunk(chunk, due)
                chunk, symbols = [], 0
        if chunk:
            yield Chunk(chunk, True)


def _symbol_places(step: TrainingStep) -> int:
    """The number of symbols of a step's batches and their sources, padding included."""
    arrays = [array for batch in (step.labelled, step.unlabelled) if batch for array in (batch.x, batch.source)]
    return sum(array.size for array in arrays if array is not None)
