"""What `score_function` expects of a row: learned from the steps before, so that it does not depend on the label drawn.

A baseline is a dictionary of arrays, by the names of `seqssvae.parameters.baseline_shapes`.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from seqssvae.data.vocabulary import PAD

State = dict[str, Array]

RATE = 0.5
"""Share of a row's error that the symbols' part makes good; below 2 it converges (Widrow & Hoff's rule, normalised)."""


def expected(state: State, x: Int[Array, "B T"]) -> Float[Array, " B"]:
    """The mean of the signals seen, with decaying weights, plus what each symbol adds; 0 before anything was seen."""
    smallest = jnp.finfo(state["baseline.mass"].dtype).tiny
    return state["baseline.average"] / jnp.maximum(state["baseline.mass"], smallest) + _of_symbols(state, x)


def updated(
    state: State, x: Int[Array, "B T"], signal: Float[Array, " B"], row_mask: Bool[Array, " B"], decay: float
) -> State:
    """The baseline after having seen what came of these rows.

    Args:
        state: Before.
        x: Symbol ids.
        signal: log p(x|y,z) minus the KL of z, weighted, of each row.
        row_mask: True for real rows.
        decay: Weight of what was known before.
    """
    rows = jnp.maximum(row_mask.sum(), 1)
    residual = jnp.where(row_mask, signal - _of_symbols(state, x), 0.0).sum() / rows
    after = {
        "baseline.average": decay * state["baseline.average"] + (1 - decay) * residual,
        "baseline.mass": decay * state["baseline.mass"] + (1 - decay),
    }
    if "baseline.symbols" in state:
        error = jnp.where(row_mask, signal - expected({**state, **after}, x), 0.0)
        real = (x != PAD).astype(signal.dtype)
        same = (x[:, :, None] == x[:, None, :]) * real[:, :, None] * real[:, None, :]
        steps = RATE * error / (1 + same.sum((1, 2))) / rows  # the denominator: the squared norm of the counts
        after["baseline.symbols"] = state["baseline.symbols"].at[x].add(steps[:, None] * real)
    return after


def _of_symbols(state: State, x: Int[Array, "B T"]) -> Float[Array, " B"]:
    if "baseline.symbols" not in state:
        return jnp.zeros(len(x), state["baseline.average"].dtype)
    return jnp.where(x == PAD, 0.0, state["baseline.symbols"][x]).sum(1)
