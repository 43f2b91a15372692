"""The JAX twin behind the `Backend` protocol: a run's model and its optimiser."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from seqssvae.backend import Dimensions, ELBOTerms, StepTotals, TrainingStep, Weights, rebuild
from seqssvae.config import Config
from seqssvae.data.vocabulary import PAD
from seqssvae.parameters import check_weights
from seqssvae_jax import baselines, processes
from seqssvae_jax.core import JaxModel, TrainState
from seqssvae_jax.dispatch import entry, of_one_shape, stack
from seqssvae_jax.modules import symbols_of
from seqssvae_jax.optimizers import Optimizer
from seqssvae_jax.precision import in_precision
from seqssvae_jax.rows import Arrays, Rows, arrays_of


class _StepInputs(NamedTuple):
    """What a training step takes beside the state."""

    labelled: Arrays | None
    unlabelled: Arrays | None
    beta: Any
    learning_rate: Any
    temperature: Any
    consistency: Any
    stream: Any


class JaxBackend(JaxModel):
    """One model and its optimiser in JAX and NumPyro; arguments as of `JaxModel`."""

    name = "jax"
    processes = processes

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None, devices: int = 1) -> None:
        super().__init__(config, dimensions, device, devices)
        self._built_with = config, dimensions, device
        self.optimizer = Optimizer(config.optimizer)
        with self.x64_mode(), jax.default_device(self.device):
            optimizer = self.sharing.everywhere(self.optimizer.initial_state(self.state.weights))
            self.state = self.state._replace(optimizer=optimizer)
        whole = self.sharing.options
        compiled: dict[str, Any] = {"donate_argnums": 0, "compiler_options": self.options, **whole}
        self._train = jax.jit(self._drawn_step, static_argnames="k", **compiled)
        self._train_several = jax.jit(self._drawn_steps, **compiled)
        self._train_on = jax.jit(self.step, static_argnames="k", **compiled)
        self._drawn_rest_masses = jax.jit(self._drawn_rest, compiler_options=self.options, **whole)

    def load(self, step: TrainingStep) -> TrainingStep:
        """Return the step as it is: JAX copies to the device while earlier steps are taken."""
        return step

    @in_precision
    def train(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        """Take these steps in order. What is returned still lies on the device."""
        totals: list[StepTotals] = []
        most = 1 if self.chooses_k else self.config.training.steps_per_dispatch  # k depends on the step before
        for group in of_one_shape(steps, most):
            inputs = [self._inputs(step) for step in group]
            self.announce("a training step", group[0].labelled, group[0].unlabelled)
            if most == 1:
                self.state, total = self._train(self.state, *inputs[0], k=self._drawn_k(inputs[0]))
                totals.append(total)
            else:
                stacked = stack(inputs, most)
                self.state, total = self._train_several(self.state, stacked, len(inputs))
                totals.extend(entry(total, place) for place in range(len(inputs)))
        return totals

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (type(self), *self._built_with, self.get_weights(), self.get_optimizer_state())

    def announce_to(self, listener: Callable[[str], None]) -> None:
        """Have a listener told, in a few words, what is about to be compiled."""
        self.announce.listener = listener

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
        numbers = beta, learning_rate, temperature, self.consistency_weight(consistency)
        self.state, total = self._train_on(self.state, labelled, unlabelled, *numbers, k=self.k_of(unlabelled))
        return total

    def step(
        self,
        state: TrainState,
        labelled: Rows | None,
        unlabelled: Rows | None,
        beta: Float[Array, ""],
        learning_rate: Float[Array, ""],
        temperature: Float[Array, ""] | float = 1.0,
        consistency: Float[Array, ""] | float | None = None,
        k: int | None = None,
    ) -> tuple[TrainState, StepTotals]:
        """One training step as a pure function."""
        differentiate, baseline = self.sharing.value_and_grad(self.loss), state.baseline
        (loss, terms), gradients = differentiate(
            state.weights, labelled, unlabelled, beta, temperature, consistency, baseline, k=k
        )
        assert state.optimizer is not None
        weights, optimizer, norm = self.optimizer.step(gradients, state.optimizer, state.weights, learning_rate)
        if unlabelled is not None and baseline:
            signal, decay = terms[-1].reconstruction - beta * terms[-1].kl_z, self.config.objective.baseline_decay
            baseline = baselines.updated(baseline, symbols_of(unlabelled.x), signal, unlabelled.row_mask, decay)
        moved = TrainState(weights, optimizer, baseline)
        if self.config.training.on_nonfinite == "skip":
            finite = jnp.isfinite(loss + norm)
            moved = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
        return moved, step_totals(loss, norm, labelled, unlabelled, terms)

    @in_precision
    def get_optimizer_state(self) -> Weights:
        """Copies of the optimiser's state."""
        assert self.state.optimizer is not None
        baseline = {name: np.array(value) for name, value in self.state.baseline.items()}
        return {**self.optimizer.get_state(self.state.optimizer), **baseline}

    @in_precision
    def set_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the optimiser's state. Raises ValueError on a wrong name or shape."""
        own = self.optimizer.shapes(self.state.weights)
        check_weights(state, {**own, **{name: value.shape for name, value in self.state.baseline.items()}})
        optimizer = self.optimizer.set_state({name: state[name] for name in own}, self.state.weights)
        baseline = {name: jnp.array(state[name], value.dtype) for name, value in self.state.baseline.items()}
        parts = {"optimizer": optimizer, "baseline": baseline}
        self.state = self.state._replace(**self.sharing.everywhere(parts))

    def _inputs(self, step: TrainingStep) -> _StepInputs:
        labelled = arrays_of(step.labelled) if step.labelled else None
        unlabelled = arrays_of(step.unlabelled) if step.unlabelled else None
        given = step.beta, step.learning_rate, step.temperature, self.consistency_weight(step.consistency)
        beta, learning_rate, temperature, consistency = np.array(given, self._model.precision)
        stream = self.stream(step.step)
        return _StepInputs(labelled, unlabelled, beta, learning_rate, temperature, consistency, stream)

    def _drawn_k(self, inputs: _StepInputs) -> int:
        if inputs.unlabelled is None or not self.chooses_k:
            return self.config.objective.k
        return self.least_k(self._drawn_rest_masses(self.state.weights, inputs.unlabelled, inputs.stream))

    def _drawn_rest(self, weights: dict[str, Array], unlabelled: Arrays, stream: Int[Array, "2"]) -> Float[Array, " C"]:
        rows = self.drawn(None, unlabelled, stream)[1]
        assert rows is not None
        return self._rest(weights, rows)

    def _drawn_steps(
        self, state: TrainState, stacked: _StepInputs, count: Int[Array, ""]
    ) -> tuple[TrainState, StepTotals]:
        """The first `count` of the steps that are stacked, and their totals, stacked as well."""

        def one(state: TrainState, place: Int[Array, ""] | int) -> tuple[TrainState, StepTotals]:
            return self._drawn_step(state, *jax.tree.map(lambda part: part[place], stacked))

        def add(place: Int[Array, ""], carried: tuple[TrainState, StepTotals]) -> tuple[TrainState, StepTotals]:
            state, totals = carried
            state, total = one(state, place)
            return state, jax.tree.map(lambda whole, part: whole.at[place].set(part), totals, total)

        shapes = jax.eval_shape(one, state, 0)[1]
        totals = jax.tree.map(lambda part: jnp.zeros((len(stacked.stream), *part.shape), part.dtype), shapes)
        return jax.lax.fori_loop(0, count, add, (state, totals))

    def _drawn_step(
        self,
        state: TrainState,
        labelled: Arrays | None,
        unlabelled: Arrays | None,
        beta: Float[Array, ""],
        learning_rate: Float[Array, ""],
        temperature: Float[Array, ""],
        consistency: Float[Array, ""],
        stream: Int[Array, "2"],
        k: int | None = None,
    ) -> tuple[TrainState, StepTotals]:
        rows = self.drawn(labelled, unlabelled, stream)
        return self.step(state, *rows, beta, learning_rate, temperature, consistency, k)


def step_totals(
    loss: Array, norm: Array, labelled: Rows | None, unlabelled: Rows | None, terms: tuple[ELBOTerms, ...]
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
        finite=tuple(jnp.isfinite(sum(parts)) for parts in terms),
    )
