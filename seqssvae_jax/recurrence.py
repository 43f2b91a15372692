"""Recurrent cells: one step, and whole sequences for B rows of one label; `vmap` makes it K labels.

A sequence's gates come in two parts that are never added up for all of `(K, B, T)`: `row_gates`, what the symbols of a
row contribute at each step, the same for every label, and `constant`, what label and z contribute, the same at every
step. Under `vmap` over labels only the latter and the state have a label dimension.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

State = tuple[Array, ...]


def linear(inputs: Float[Array, "*N I"], weight: Float[Array, "O I"]) -> Float[Array, "*N O"]:
    """`W a`, with the weight laid out as PyTorch does."""
    return jnp.einsum("...i,oi->...o", inputs, weight)


def gru_step(
    gates: Float[Array, "*#N G"],
    hidden: Float[Array, "*#N H"],
    weight_hh: Float[Array, "G H"],
    bias_n: Float[Array, "H"],
) -> Float[Array, "*#N H"]:
    """One step of a gated recurrent unit (Cho et al. 2014), with the reset gate inside the candidate's product.

    `r = sigmoid(a_r + W_r h)`, `u = sigmoid(a_u + W_u h)`, `n = tanh(a_n + r * (W_n h + bias_n))`,
    `h' = n + u * (h - n)`, where `a` are the gates given.
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
    enter, forget, value, leave = jnp.split(gates + linear(hidden, weight_hh), 4, -1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(value)
    return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell


class RecurrentLayer(nnx.Module):
    """One layer of one direction.

    Args:
        cell: `gru` or `lstm`.
        input_size: Size of what it reads.
        hidden_size: H.
    """

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        gates = (3 if cell == "gru" else 4) * hidden_size
        self.cell = cell
        self.hidden_size = hidden_size
        self.weight_ih = nnx.Param(jnp.zeros((gates, input_size)))
        self.weight_hh = nnx.Param(jnp.zeros((gates, hidden_size)))
        self.bias = nnx.Param(jnp.zeros(gates))
        if cell == "gru":
            self.bias_n = nnx.Param(jnp.zeros(hidden_size))

    def project(self, inputs: Float[Array, "*N I"]) -> Float[Array, "*N G"]:
        """What the inputs contribute to the gates: one matrix product for all steps."""
        return linear(inputs, self.weight_ih[...]) + self.bias[...]

    def zero_state(self, rows: int) -> State:
        """States of zeros, each of shape `(B, H)`."""
        zeros = jnp.zeros((rows, self.hidden_size), self.bias[...].dtype)
        return (zeros,) if self.cell == "gru" else (zeros, zeros)

    def step(self, gates: Float[Array, "*N G"], state: State) -> State:
        """One step; the first entry of the state is the output."""
        if self.cell == "gru":
            return (gru_step(gates, state[0], self.weight_hh[...], self.bias_n[...]),)
        hidden, cell = state
        return lstm_step(gates, hidden, cell, self.weight_hh[...])

    def __call__(
        self, row_gates: Float[Array, "B T G"], constant: Float[Array, "B G"] | None, state: State
    ) -> Float[Array, "B T H"]:
        """Read whole sequences, for one label.

        Args:
            row_gates: What each row's symbols contribute to the gates.
            constant: What label and z contribute, the same at all steps; None for nothing.
            state: First states, each of shape `(B, H)`.
        """

        def read(state: State, gates: Float[Array, "B G"]) -> tuple[State, Float[Array, "B H"]]:
            state = self.step(gates if constant is None else gates + constant, state)
            return state, state[0]

        _, outputs = jax.lax.scan(read, state, row_gates.swapaxes(0, 1))
        return outputs.swapaxes(0, 1)
