"""Training steps on tensors that stay where they are, so that a GPU can be handed a whole step at once.

A CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) is all operations of a step, recorded
once for each shape of its batches and handed to the device as one. What it reads is copied to where it read before.
Elsewhere the same steps are taken operation by operation.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree as pytree

from seqssvae.backend import ELBOTerms, StepTotals, TrainingStep
from seqssvae_torch.rows import Rows, rows_of, to_device

WARM_UP = 3
"""Steps of a shape that are taken operation by operation before one is recorded, as PyTorch asks for."""

_NUMBERS, _TERMS = 2, len(ELBOTerms._fields)
"""Entries of a step's totals: loss and norm of the gradient; then a sum for each term."""


@dataclass(frozen=True)
class LoadedStep(TrainingStep):
    """A training step that is on the device.

    Args:
        rows: Its labelled and its unlabelled rows, without noise.
        numbers: beta, step size, temperature and weight of the consistency term.
    """

    rows: tuple[Rows | None, Rows | None] = (None, None)
    numbers: Float[Tensor, "4"] | None = None


def load(step: TrainingStep, consistency: float, like: Tensor) -> LoadedStep:
    """Begin to copy a step to the device of a tensor, which is not waited for.

    Args:
        step: The step.
        consistency: The weight of the consistency term.
        like: A tensor on the device, in the precision of the run.
    """
    labelled = None if step.labelled is None else rows_of(step.labelled, True, {}, like.device)
    unlabelled = None if step.unlabelled is None else rows_of(step.unlabelled, False, {}, like.device)
    numbers = torch.tensor([step.beta, step.learning_rate, step.temperature, consistency], dtype=like.dtype)
    return LoadedStep(**vars(step), rows=(labelled, unlabelled), numbers=to_device(numbers, like.device))


Take = Callable[..., Float[Tensor, " S"]]
"""Takes a training step of rows with noise, and numbers, and returns its totals."""


class Recorder:
    """The stream and the memory that all graphs of a model share."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        self.pool: Any = None

    def beside(self, take: Callable[[], Tensor]) -> Tensor:
        """Compute operation by operation in the stream in which steps are recorded."""
        if self.stream is None:
            self.stream, self.pool = torch.cuda.Stream(self.device), torch.cuda.graph_pool_handle()
        here = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            value = take()
        here.wait_stream(self.stream)
        return value

    def record(self, take: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor] | None:
        """Record a step and where its totals will be, None where that is not possible; nothing is computed.

        Another thread may copy rows to the device meanwhile.
        """
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        settings: dict[str, Any] = {"capture_error_mode": "thread_local", "pool": self.pool, "stream": self.stream}
        try:
            with torch.cuda.graph(graph, **settings):
                return graph, take()
        except RuntimeError as error:
            torch.cuda.set_stream(here)  # where recording failed, the frameworks' context does not
            reason = str(error).splitlines()[0]
            text = f"A training step cannot be recorded as a CUDA graph ({reason}), and takes longer than it might."
            warnings.warn(text, stacklevel=2)
            return None


class StaticStep:
    """A training step of one shape.

    Args:
        take: Takes the step.
        recorder: Records it on a GPU.
        example: What it is given first.
    """

    def __init__(self, take: Take, recorder: Recorder, *example: Any) -> None:
        self.take, self.recorder = take, recorder
        leaves, self.tree = pytree.tree_flatten(example)
        self.places = [leaf is not None for leaf in leaves]
        self.inputs = [torch.empty_like(leaf) for leaf in leaves if leaf is not None]
        self.taken = 0
        self.recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def __call__(self, *given: Any) -> Float[Tensor, " S"]:
        """Take the step, and return its totals, which are the caller's own."""
        torch._foreach_copy_(self.inputs, [leaf for leaf in pytree.tree_leaves(given) if leaf is not None])
        self.taken += 1
        if self.recorder.device.type != "cuda":
            return self._operations()
        with torch.cuda.device(self.recorder.device):
            if self.taken <= WARM_UP:
                return self.recorder.beside(self._operations)
            if self.taken == WARM_UP + 1:
                self.recorded = self.recorder.record(self._operations)
            if self.recorded is None:
                return self._operations()
            graph, totals = self.recorded
            graph.replay()
            return totals.clone()

    def _operations(self) -> Float[Tensor, " S"]:
        inputs = iter(self.inputs)
        return self.take(*pytree.tree_unflatten([next(inputs) if place else None for place in self.places], self.tree))


class StaticSteps:
    """A `StaticStep` for each shape.

    Args:
        take: Takes a step.
        device: On which it is taken.
    """

    def __init__(self, take: Take, device: torch.device) -> None:
        self.take, self.recorder = take, Recorder(device)
        self.by_shape: dict[Any, StaticStep] = {}

    def __call__(self, *given: Any) -> Float[Tensor, " S"]:
        """Take a step, and return its totals."""
        leaves = pytree.tree_leaves(given)
        shape = tuple(None if leaf is None else leaf.shape for leaf in leaves)
        if shape not in self.by_shape:
            self.by_shape[shape] = StaticStep(self.take, self.recorder, *given)
        return self.by_shape[shape](*given)

    def forget(self) -> None:
        """Forget what was recorded: the optimiser's state is elsewhere now."""
        self.by_shape.clear()


def stacked_totals(loss: Tensor, norm: Tensor, terms: Sequence[ELBOTerms]) -> Float[Tensor, " S"]:
    """Loss, norm of the gradient, the sums of the terms, and whether those of each row are finite: as one tensor."""
    by_kind = [torch.stack(tuple(of_kind)) for of_kind in terms]
    sums = torch.cat(by_kind, 1).sum(1)
    finite = [torch.isfinite(of_kind.sum(0)).to(loss.dtype) for of_kind in by_kind]
    return torch.cat([torch.stack([loss, norm]), sums, *finite])


class Fetched:
    """Totals of several steps, whose copy to the processor begins at once and is waited for when one is asked for."""

    def __init__(self, totals: Sequence[Float[Tensor, " _"]]) -> None:
        self._ends = np.cumsum([len(of_step) for of_step in totals])
        self._whole, self._copied = torch.cat(tuple(totals)), None
        if self._whole.is_cuda:
            here = torch.empty(self._whole.shape, dtype=self._whole.dtype, pin_memory=True)
            self._whole, self._copied = here.copy_(self._whole, non_blocking=True), torch.cuda.Event()
            self._copied.record()

    @cached_property
    def values(self) -> list[np.ndarray]:
        """The totals of each step."""
        if self._copied is not None:
            self._copied.synchronize()
        return np.split(self._whole.cpu().numpy(), self._ends[:-1])

    def of(self, place: int, step: TrainingStep) -> StepTotals:
        """The totals of the step at this place."""
        batches = [batch for batch in (step.labelled, step.unlabelled) if batch is not None]
        ends = np.cumsum([_NUMBERS + _TERMS, *(len(batch.row_mask) for batch in batches)]).tolist()
        return StepTotals(
            loss=Entry(self, place, 0),
            gradient_norm=Entry(self, place, 1),
            terms=ELBOTerms(*(Entry(self, place, _NUMBERS + term) for term in range(_TERMS))),
            rows=sum(int(batch.row_mask.sum()) for batch in batches),
            labelled_rows=0 if step.labelled is None else int(step.labelled.row_mask.sum()),
            symbols=sum(int(np.count_nonzero(batch.x)) for batch in batches),
            finite=tuple(Entry(self, place, slice(*of_batch)) for of_batch in pairwise(ends)),
        )


class Entry:
    """A number of a step's totals, or a flag of each row, fetched when its value is asked for."""

    def __init__(self, fetched: Fetched, place: int, index: int | slice) -> None:
        self.fetched, self.place, self.index = fetched, place, index

    def __float__(self) -> float:
        return float(self.fetched.values[self.place][self.index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.asarray(self.fetched.values[self.place][self.index])
        return array.astype(bool if isinstance(self.index, slice) else dtype or array.dtype)
