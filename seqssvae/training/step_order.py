"""The order of all training steps of a run, cut where evaluations are due."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from seqssvae.backend import Batch, TrainingStep
from seqssvae.config import Config
from seqssvae.data.batches import BatchStream, buckets, count_steps, training_steps
from seqssvae.data.corpus import Corpus
from seqssvae.training.schedules import beta_at, consistency_at, learning_rate_at, temperature_at


def total_steps(config: Config, training: Corpus) -> int:
    """The most training steps that `fit` takes with these rows."""
    return Course(config, training).total_steps


class Placed(NamedTuple):
    """A training step, and the place where it stands.

    Args:
        step: The step.
        epoch: Its epoch, from 0.
        epoch_step: Steps taken of this epoch, with this one.
        ends_epoch: Whether it is the last of them.
    """

    step: TrainingStep
    epoch: int
    epoch_step: int
    ends_epoch: bool


class Chunk(NamedTuple):
    """Training steps handed to the backend at once.

    Args:
        steps: In order.
        ends_segment: Whether an evaluation is due after the last of them.
    """

    steps: list[Placed]
    ends_segment: bool


class Course:
    """All training steps of a run, in order, cut where evaluations are due.

    Args:
        config: The run's configuration; the order is a function of its seed.
        corpus: Rows to learn from.
    """

    def __init__(self, config: Config, corpus: Corpus) -> None:
        self.config = config
        self.buckets = buckets(corpus.lengths, config.training.buckets)
        self.labelled, self.unlabelled = self._streams(corpus)
        steps = count_steps(self.labelled, self.unlabelled, config.objective, config.training.epochs)
        self.total_steps = min(steps, config.training.max_steps or steps)

    def _streams(self, corpus: Corpus) -> tuple[BatchStream | None, BatchStream | None]:
        training, objective = self.config.training, self.config.objective
        labelled, unlabelled = np.flatnonzero(corpus.y >= 0), np.flatnonzero(corpus.y < 0)
        together = objective.name == "ssvae" and objective.batching == "joint" and len(unlabelled) > 0
        seeds = [int(seed) for seed in np.random.SeedSequence([training.seed, 0xBA7C]).generate_state(2)]
        # one length for the labelled rows, so that steps have as many shapes as there are buckets
        time_steps = self.buckets[-1] if together else None
        return (
            BatchStream(
                corpus,
                labelled,
                training.labelled_batch_size,
                self.buckets,
                seeds[0],
                time_steps,
                together=training.steps_per_dispatch,
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
                together=training.steps_per_dispatch,
            )
            if len(unlabelled)
            else None,
        )

    def _pairs(self, epoch: int) -> Iterator[tuple[Batch | None, Batch | None]]:
        return training_steps(self.labelled, self.unlabelled, self.config.objective, epoch)

    def _placed(self, step: int, first_epoch: int, skip: int) -> Iterator[Placed]:
        for epoch in range(first_epoch, self.config.training.epochs):
            if step == self.total_steps:
                return
            pairs = enumerate(self._pairs(epoch), start=1)
            remaining = islice(pairs, skip if epoch == first_epoch else 0, None)
            current = next(remaining, None)
            while current is not None and step < self.total_steps:
                epoch_step, pair = current
                current = next(remaining, None)
                yield Placed(self._step(pair, step), epoch, epoch_step, ends_epoch=current is None)
                step += 1

    def _step(self, pair: tuple[Batch | None, Batch | None], step: int) -> TrainingStep:
        objective = self.config.objective
        return TrainingStep(
            *pair,
            beta=beta_at(objective.beta, step),
            learning_rate=learning_rate_at(self.config.optimizer, step, self.total_steps),
            step=step,
            temperature=temperature_at(objective.temperature, step),
            consistency=consistency_at(objective.consistency, step),
        )

    def chunks(self, most: int, step: int = 0, epoch: int = 0, epoch_step: int = 0) -> Iterator[Chunk]:
        """The steps in chunks, counted from each evaluation on.

        An evaluation is due after every `evaluation_interval` steps, or each epoch; and after the last step.

        Args:
            most: Most steps of a chunk.
            step: Steps taken before.
            epoch: Epoch of the last of them, from 0.
            epoch_step: How many of them were of this epoch.
        """
        interval = self.config.training.evaluation_interval
        chunk: list[Placed] = []
        for placed in self._placed(step, epoch, epoch_step):
            chunk.append(placed)
            taken = placed.step.step + 1
            due = taken == self.total_steps or (taken % interval == 0 if interval else placed.ends_epoch)
            if due or len(chunk) == most:
                yield Chunk(chunk, due)
                chunk = []
        if chunk:
            yield Chunk(chunk, True)
