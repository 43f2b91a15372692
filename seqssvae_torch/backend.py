"""The PyTorch twin behind the `Backend` protocol: a run's model and its optimiser."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from pyro import validation_enabled
from torch import Tensor

from seqssvae.backend import Dimensions, ELBOTerms, StepTotals, TrainingStep, Weights, rebuild
from seqssvae.config import Config
from seqssvae.data.vocabulary import PAD
from seqssvae.parameters import check_weights
from seqssvae_torch import processes
from seqssvae_torch.core import TorchModel, to_numpy
from seqssvae_torch.modules import symbols_of
from seqssvae_torch.ops.products import deterministic
from seqssvae_torch.optimizers import Optimizer
from seqssvae_torch.rows import Rows


class TorchBackend(TorchModel):
    """One model and its optimiser in PyTorch and Pyro; further arguments as of `TorchModel`.

    Args:
        devices: How many processes share each batch: 1, or all of those that have joined (`processes.join`). Then
            `train`, `differentiate` and `evaluate` are to be called by all of them.
    """

    name = "torch"
    processes = processes

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None, devices: int = 1) -> None:
        super().__init__(config, dimensions, device)
        self._built_with = config, dimensions, device
        self.sharing = processes.sharing_of(devices)
        self.optimizer = Optimizer(config.optimizer, self.ssvae, self.sharing)

    def train(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        """Take these steps in order. What is returned still lies on the device."""
        totals = []
        # every check of values would wait for the device
        with validation_enabled(False), self._in_one_order():
            for step in steps:
                rows = self.drawn(step.labelled, step.unlabelled, step.step)
                totals.append(self.train_on(*rows, step.beta, step.learning_rate, step.temperature, step.consistency))
        return totals

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self), *self._built_with, self.get_weights(), self.get_optimizer_state())

    def _in_one_order(self) -> AbstractContextManager[None]:
        return deterministic(self.device) if self.config.training.deterministic else nullcontext()

    def announce_to(self, listener: Callable[[str], None]) -> None:
        """Have a listener told what is about to be compiled: here, nothing."""

    def train_on(
        self,
        labelled: Rows | None,
        unlabelled: Rows | None,
        beta: float,
        learning_rate: float,
        temperature: float = 1.0,
        consistency: float | None = None,
    ) -> StepTotals:
        """One step of the optimiser on rows whose noise is given."""
        loss, terms = self.loss(labelled, unlabelled, beta, temperature, consistency)
        norm, moved = self.optimizer.step(loss, learning_rate, self.config.training.on_nonfinite == "skip")
        if moved:
            self.learn_baseline(unlabelled, terms, beta)
        return step_totals(loss.detach(), norm, labelled, unlabelled, terms)

    def get_optimizer_state(self) -> Weights:
        """Copies of the optimiser's state."""
        baseline = {name: to_numpy(value).copy() for name, value in self.baseline.items()}
        return {**self.optimizer.get_state(), **baseline}

    def set_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the optimiser's state. Raises ValueError on a wrong name or shape."""
        shapes = {name: tuple(value.shape) for name, value in self.baseline.items()}
        check_weights(state, {**self.optimizer.shapes, **shapes})
        self.optimizer.set_state({name: state[name] for name in self.optimizer.shapes})
        dtype = self.ssvae.log_prior.dtype
        self.baseline = {name: torch.tensor(state[name], dtype=dtype, device=self.device) for name in shapes}


def step_totals(
    loss: Tensor, norm: Tensor, labelled: Rows | None, unlabelled: Rows | None, terms: tuple[ELBOTerms, ...]
) -> StepTotals:
    """Sums over a step's real rows."""
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    return StepTotals(
        loss=loss,
        gradient_norm=norm,
        terms=ELBOTerms(*(sum(part.sum() for part in parts) for parts in zip(*terms, strict=True))),
        rows=sum(rows.row_mask.sum() for rows in batches),
        labelled_rows=0 if labelled is None else labelled.row_mask.sum(),
        symbols=sum((symbols_of(rows.x) != PAD).sum() for rows in batches),
        finite=tuple(torch.isfinite(sum(parts)) for parts in terms),
    )
