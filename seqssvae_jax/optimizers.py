"""Optimisers with one definition of clipping, step size and decay for both twins, and a state both can read."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from seqssvae.config import OptimizerConfig
from seqssvae.parameters import check_weights, optimizer_shapes

Weights = dict[str, Array]


def clip_gradients(gradients: Weights, clip_norm: float) -> tuple[Weights, Float[Array, ""]]:
    """Gradients scaled by `clip / max(norm, clip)`, and their norm before; 0 as clip leaves them."""
    norm = optax.tree.norm(gradients)
    if clip_norm > 0:
        factor = clip_norm / jnp.maximum(norm, clip_norm)
        gradients = jax.tree.map(lambda gradient: gradient * factor, gradients)
    return gradients, norm


class OptimizerState(NamedTuple):
    """What an optimiser remembers.

    Args:
        step: Number of steps taken.
        averages: Moving averages per weight, by their neutral names: `exp_avg` and `exp_avg_sq`, or `momentum`.
    """

    step: Int[Array, ""]
    averages: dict[str, Weights]


class Optimizer:
    """Moves weights.

    Args:
        config: Which optimiser, and its numbers. The step size comes with each step.
    """

    def __init__(self, config: OptimizerConfig) -> None:
        self.config = config
        if config.name == "sgd":
            self.transformation = optax.trace(config.beta1)
        else:
            self.transformation = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)

    def shapes(self, weights: Weights) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of the state's neutral form."""
        return optimizer_shapes(self.config, {name: value.shape for name, value in weights.items()})

    def initial_state(self, weights: Weights) -> OptimizerState:
        """The state before the first step: all zeros."""
        names = ("momentum",) if self.config.name == "sgd" else ("exp_avg", "exp_avg_sq")
        averages = {average: jax.tree.map(jnp.zeros_like, weights) for average in names}
        return OptimizerState(jnp.zeros((), jnp.int32), averages)

    def step(
        self, gradients: Weights, state: OptimizerState, weights: Weights, learning_rate: Float[Array, ""]
    ) -> tuple[Weights, OptimizerState, Float[Array, ""]]:
        """Clip and move; returns weights, state, and the gradient's norm before clipping."""
        gradients, norm = clip_gradients(gradients, self.config.clip_norm)
        updates, averages = self._directions(gradients, state)
        decay = self.config.weight_decay
        weights = jax.tree.map(lambda w, u: w - learning_rate * (u + decay * w), weights, updates)
        return weights, OptimizerState(state.step + 1, averages), norm

    def _directions(self, gradients: Weights, state: OptimizerState) -> tuple[Weights, dict[str, Weights]]:
        if self.config.name == "sgd":
            updates, trace = self.transformation.update(gradients, optax.TraceState(state.averages["momentum"]))
            return updates, {"momentum": trace.trace}
        adam = optax.ScaleByAdamState(state.step, state.averages["exp_avg"], state.averages["exp_avg_sq"])
        updates, adam = self.transformation.update(gradients, adam)
        return updates, {"exp_avg": adam.mu, "exp_avg_sq": adam.nu}

    def get_state(self, state: OptimizerState) -> dict[str, np.ndarray]:
        """Copies of the state, named as in `seqssvae.parameters.optimizer_shapes`."""
        arrays = {"step": np.array(state.step, np.int32)}
        for name in next(iter(state.averages.values())):
            for average, values in state.averages.items():
                arrays[f"{name}.{average}"] = np.array(values[name])
        return arrays

    def set_state(self, state: Mapping[str, np.ndarray], weights: Weights) -> OptimizerState:
        """The state from its neutral form. Raises ValueError on a wrong name or shape."""
        check_weights(state, self.shapes(weights))
        averages = {
            average: {name: jnp.array(state[f"{name}.{average}"], value.dtype) for name, value in weights.items()}
            for average in self.initial_state(weights).averages
        }
        return OptimizerState(jnp.array(state["step"], jnp.int32), averages)
