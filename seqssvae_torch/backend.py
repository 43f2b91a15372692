"""The PyTorch twin behind the `Backend` protocol: a run's model and its optimiser."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqssvae.backend import Dimensions, ELBOTerms, StepTotals, TrainingStep, Weights, rebuild
from seqssvae.config import Config
from seqssvae.data.vocabulary import PAD
from seqssvae.parameters import check_weights
from seqssvae_torch import processes
from seqssvae_torch.core import TorchModel, to_numpy
from seqssvae_torch.modules import symbols_of
from seqssvae_torch.ops import takes_few_calls
from seqssvae_torch.optimizers import Optimizer
from seqssvae_torch.precision import in_precision
from seqssvae_torch.rows import Rows
from seqssvae_torch.static_steps import Fetched, LoadedStep, StaticSteps, load, stacked_totals


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
        self.static_steps = StaticSteps(self._take, self.device)

    @cached_property
    def optimizer(self) -> Optimizer:
        """The optimiser, made where something is trained: PyTorch loads its compiler for it, a second and 75 MB."""
        return Optimizer(self.config.optimizer, self.ssvae, self.sharing)

    def load(self, step: TrainingStep) -> TrainingStep:
        """Begin to copy a step to the device, where that has a memory of its own."""
        if not self._takes_static_steps():
            return step
        return load(step, self._consistency_weight(step), self.ssvae.log_prior)

    @in_precision
    def train(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        """Take these steps in order. What is returned still lies on the device."""
        if self._takes_static_steps():
            return self._train_static(steps)
        totals = []
        for step in steps:
            rows = self.drawn(step.labelled, step.unlabelled, step.step)
            totals.append(self.train_on(*rows, step.beta, step.learning_rate, step.temperature, step.consistency))
        return totals

    def _takes_static_steps(self) -> bool:
        """Whether a step is the same operations whatever its numbers are, and these take few calls.

        On a GPU the optimisers take a step size that lies there in float32 alone.
        """
        objective, dtype = self.config.objective, self.ssvae.log_prior.dtype
        same = objective.name == "classifier" or objective.gradient_estimator == "enumerate"
        same = same and (self.device.type != "cuda" or dtype == torch.float32)
        return same and self.sharing.count == 1 and takes_few_calls(self.ssvae.log_prior)

    def _train_static(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        """Take these steps; totals are fetched when one is asked for."""
        totals = []
        for step in steps:
            loaded = (
                step
                if isinstance(step, LoadedStep)
                else load(step, self._consistency_weight(step), self.ssvae.log_prior)
            )
            noise = self.drawn_noise(step.labelled, step.unlabelled, step.step)
            rows = (of and of._replace(noise=drawn) for of, drawn in zip(loaded.rows, noise, strict=True))
            totals.append(self.static_steps(*rows, loaded.numbers))
        fetched = Fetched(totals)
        return [fetched.of(place, step) for place, step in enumerate(steps)]

    def _take(self, labelled: Rows | None, unlabelled: Rows | None, numbers: Float[Tensor, "4"]) -> Float[Tensor, " S"]:
        """Take a step, and return its totals as one tensor."""
        beta, learning_rate, temperature, consistency = numbers.unbind()
        loss, terms = self.loss(labelled, unlabelled, beta, temperature, consistency)
        norm, _ = self.optimizer.step(loss, learning_rate, self.config.training.on_nonfinite == "skip")
        return stacked_totals(loss.detach(), norm, terms)

    def _consistency_weight(self, step: TrainingStep) -> float:
        """The weight of the consistency term in a step."""
        return self.config.objective.consistency.weight if step.consistency is None else step.consistency

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self), *self._built_with, self.get_weights(), self.get_optimizer_state())

    def announce_to(self, listener: Callable[[str], None]) -> None:
        """Have a listener told what is about to be compiled: here, nothing."""

    @in_precision
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
        self.learn_baseline(unlabelled, terms, beta, moved)
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
        self.static_steps.forget()
        dtype = self.ssvae.log_prior.dtype
        self.baseline = {name: torch.tensor(state[name], dtype=dtype, device=self.device) for name in shapes}


def step_totals(
    loss: Tensor, norm: Tensor, labelled: Rows | None, unlabelled: Rows | None, terms: tuple[ELBOTerms, ...]
) -> StepTotals:
    """Sums over a step's real rows."""
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    by_kind = [torch.stack(tuple(parts)) for parts in terms]
    return StepTotals(
        loss=loss,
        gradient_norm=norm,
        terms=ELBOTerms(*torch.cat(by_kind, 1).sum(1).unbind()),
        rows=sum(rows.row_mask.sum() for rows in batches),
        labelled_rows=0 if labelled is None else labelled.row_mask.sum(),
        symbols=sum((symbols_of(rows.x) != PAD).sum() for rows in batches),
        finite=tuple(torch.isfinite(of_kind.sum(0)) for of_kind in by_kind),
    )
