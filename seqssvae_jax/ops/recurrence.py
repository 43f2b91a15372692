"""Recurrent layers over whole sequences, for K labels times B rows."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from seqssvae_jax.ops import recurrence_custom_vjp
from seqssvae_jax.ops.cells import CellWeights, State, cell_step
from seqssvae_jax.ops.implementations import implementation
from seqssvae_jax.ops.products import linear


def recurrence(
    cells: Sequence[CellWeights],
    inputs: Sequence[Float[Array, "#K B T I"]],
    constant: Float[Array, "K B G"] | None = None,
    state: State | None = None,
) -> tuple[Float[Array, "K B T H"], ...]:
    """Read sequences with cells that do not depend on each other, such as the directions of an encoder.

    Args:
        cells: One cell, or several of the same kind and sizes.
        inputs: What each cell reads: the same for all labels (K is 1 there), or of each label.
        constant: What label and z add to the gates of every step. It goes with a single cell, and so does `state`.
        state: First states, each of shape `(K, B, H)`; None for zeros.

    Returns:
        The outputs of each cell.
    """
    if implementation(inputs[0].dtype) == "custom_vjp":
        return recurrence_custom_vjp.recurrence(cells, inputs, constant, state)
    return tuple(reference(cell, of_cell, constant, state) for cell, of_cell in zip(cells, inputs, strict=True))


def reference(
    cell: CellWeights,
    inputs: Float[Array, "#K B T I"],
    constant: Float[Array, "K B G"] | None = None,
    state: State | None = None,
) -> Float[Array, "K B T H"]:
    """What `recurrence` computes, for one cell: `h_t = step(W_i x_t + b + constant, h_(t-1))`."""
    gates = linear(inputs, cell.weight_ih, cell.bias)
    if state is None:
        state = cell.zero_state(*inputs.shape[:2])

    def read(state: State, of_step: Float[Array, "#K B G"]) -> tuple[State, Float[Array, "K B H"]]:
        state = cell_step(cell, of_step if constant is None else of_step + constant, state)
        return state, state[0]

    return jnp.moveaxis(jax.lax.scan(read, state, jnp.moveaxis(gates, 2, 0))[1], 0, 2)
