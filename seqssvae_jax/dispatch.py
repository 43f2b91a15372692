"""Training steps of one shape that are handed to the device together."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

import jax
import numpy as np

from seqssvae.backend import StepTotals, TrainingStep

Inputs = TypeVar("Inputs")


def of_one_shape(steps: Sequence[TrainingStep], most: int) -> Iterator[list[TrainingStep]]:
    """The steps in order, cut where the shape of their batches changes, and after every `most`."""
    for _, run in groupby(
        steps,
        key=lambda step: [batch and (batch.x.shape, batch.source_steps) for batch in (step.labelled, step.unlabelled)],
    ):
        of_run = list(run)
        yield from (of_run[start : start + most] for start in range(0, len(of_run), most))


def stack(inputs: Sequence[Inputs], size: int) -> Inputs:
    """Inputs of several steps with a dimension in front, of `size` entries: the last one is repeated."""
    filled = [*inputs, *[inputs[-1]] * (size - len(inputs))]
    return jax.tree.map(lambda *parts: np.stack(parts), *filled)


class Entry:
    """An entry of an array on the device, fetched (the array once, as a whole) when its value is asked for."""

    def __init__(self, values: Any, place: int) -> None:
        self.values, self.place = values, place

    def __float__(self) -> float:
        return float(np.asarray(self.values)[self.place])

    def __int__(self) -> int:
        return int(np.asarray(self.values)[self.place])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(np.asarray(self.values)[self.place], dtype)


def entry(stacked: StepTotals, place: int) -> StepTotals:
    """The totals of one of several steps."""
    return jax.tree.map(lambda values: Entry(values, place), stacked)
