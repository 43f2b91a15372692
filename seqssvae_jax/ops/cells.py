"""Recurrent cells: their weights, and the equations of one step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from seqssvae_jax.ops.products import linear

State = tuple[Array, ...]
"""The output h and, for a long short-term memory, the cell c."""


class CellWeights(NamedTuple):
    """Weights of a recurrent cell, laid out as in `seqssvae.parameters`.

    A gated recurrent unit has gates r, z, n (G = 3H) and a `bias_n`; a long short-term memory has i, f, g, o (G = 4H)
    and none.
    """

    weight_ih: Float[Array, "G I"]
    weight_hh: Float[Array, "G H"]
    bias: Float[Array, " G"]
    bias_n: Float[Array, " H"] | None = None

    def zero_state(self, labels: int, rows: int) -> State:
        """States of zeros, each of shape `(K, B, H)`."""
        zeros = jnp.zeros((labels, rows, self.weight_hh.shape[1]), self.bias.dtype)
        return (zeros,) if self.bias_n is not None else (zeros, zeros)


def cell_step(weights: CellWeights, gates: Float[Array, "*#N G"], state: State) -> State:
    """One step of a cell; the first entry of the state is the output.

    Args:
        weights: Of the cell.
        gates: What the inputs contribute to the gates: `W_i x + b`, and what is constant over time.
        state: The state before.
    """
    if weights.bias_n is not None:
        return (gru_step(gates, state[0], weights.weight_hh, weights.bias_n),)
    hidden, cell = state
    return lstm_step(gates, hidden, cell, weights.weight_hh)


def gru_step(
    gates: Float[Array, "*#N G"],
    hidden: Float[Array, "*#N H"],
    weight_hh: Float[Array, "G H"],
    bias_n: Float[Array, " H"],
) -> Float[Array, "*#N H"]:
    """One step of a gated recurrent unit (Cho et al. 2014), with the reset gate inside the candidate's product.

    `r = sigmoid(a_r + W_r h)`, `z = sigmoid(a_z + W_z h)`, `n = tanh(a_n + r * (W_n h + bias_n))`,
    `h' = n + z * (h - n)`, where `a` are the gates given.
    """
    reset_in, update_in, candidate_in = jnp.split(gates, 3, -1)
    reset_h, update_h, candidate_h = jnp.split(linear(hidden, weight_hh), 3, -1)
    reset = jax.nn.sigmoid(reset_in + reset_h)
    update = jax.nn.sigmoid(update_in + update_h)
    candidate = jnp.tanh(candidate_in + reset * (candidate_h + bias_n))
    return candidate + update * (hidden - candidate)


def lstm_step(
    gates: Float[Array, "*#N G"],
    hidden: Float[Array, "*#N H"],
    cell: Float[Array, "*#N H"],
    weight_hh: Float[Array, "G H"],
) -> tuple[Float[Array, "*#N H"], Float[Array, "*#N H"]]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    `i, f, g, o = a + W h`, `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)`, `h' = sigmoid(o) * tanh(c')`.
    """
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates + linear(hidden, weight_hh), 4, -1)
    cell = jax.nn.sigmoid(forget_gate) * cell + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    return jax.nn.sigmoid(output_gate) * jnp.tanh(cell), cell
