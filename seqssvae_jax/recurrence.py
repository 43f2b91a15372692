"""Recurrent cells: one step, and whole sequences for K labels times B rows with a gradient written by hand.

A sequence's gates come in two parts that are never added up for all of `(K, B, T)`: `row_gates`, what the symbols of a
row contribute at each step, the same for every label, and `constant`, what label and z contribute, the same at every
step. Inside, labels and rows are N = K*B columns and features come first, `(T, H, N)`, so that a step is one matrix
product for all gates. A step of the way back adds its share to the gradient of the weights, so that the gradients of
the gates are held for one step at a time.

Labels are explicit here, and not left to `vmap`: the gradient of a weight under `vmap` is one array per label, summed
up afterwards.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from seqssvae_jax.products import Multiplies, Rounding, linear, product

State = tuple[Array, ...]


def gru_step(
    gates: Float[Array, "*#N G"],
    hidden: Float[Array, "*#N H"],
    weight_hh: Float[Array, "G H"],
    bias_n: Float[Array, "H"],
    rounding: Rounding = None,
) -> Float[Array, "*#N H"]:
    """One step of a gated recurrent unit (Cho et al. 2014), with the reset gate inside the candidate's product.

    `r = sigmoid(a_r + W_r h)`, `u = sigmoid(a_u + W_u h)`, `n = tanh(a_n + r * (W_n h + bias_n))`,
    `h' = n + u * (h - n)`, where `a` are the gates given.
    """
    reset_in, update_in, candidate_in = jnp.split(gates, 3, -1)
    reset_h, update_h, candidate_h = jnp.split(linear(hidden, weight_hh, rounding=rounding), 3, -1)
    reset = jax.nn.sigmoid(reset_in + reset_h)
    update = jax.nn.sigmoid(update_in + update_h)
    candidate = jnp.tanh(candidate_in + reset * (candidate_h + bias_n))
    return candidate + update * (hidden - candidate)


def lstm_step(
    gates: Float[Array, "*#N G"],
    hidden: Float[Array, "*#N H"],
    cell: Float[Array, "*#N H"],
    weight_hh: Float[Array, "G H"],
    rounding: Rounding = None,
) -> tuple[Float[Array, "*#N H"], Float[Array, "*#N H"]]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    `i, f, g, o = a + W h`, `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)`, `h' = sigmoid(o) * tanh(c')`.
    """
    enter, forget, value, leave = jnp.split(gates + linear(hidden, weight_hh, rounding=rounding), 4, -1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(value)
    return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell


class _Setting(NamedTuple):
    """What is known when a program is compiled.

    Args:
        rows: B.
        has_constant: Whether there is a constant.
        rounding: Type to which operands of products are rounded.
    """

    rows: int
    has_constant: bool
    rounding: Rounding


def _gates(row_gates: Float[Array, "G B"], constant: Float[Array, "G N"] | None, columns: int) -> Float[Array, "G N"]:
    """Inputs of all gates at one step: those of the rows, for each label, and what is constant."""
    by_label = row_gates[:, None]
    shape = len(row_gates), columns // row_gates.shape[1], row_gates.shape[1]
    if constant is not None:
        by_label = by_label + constant.reshape(shape)
    return jnp.broadcast_to(by_label, shape).reshape(len(row_gates), columns)


def _sum_labels(gates: Float[Array, "G N"], rows: int) -> Float[Array, "G B"]:
    return gates.reshape(len(gates), -1, rows).sum(1)


def _before(first: Float[Array, "H N"], outputs: Float[Array, "T H N"]) -> Float[Array, "T H N"]:
    """The state that each step started from."""
    return jnp.concatenate([first[None], outputs[:-1]])


def _gru_forward(
    row_gates: Array, constant: Array | None, hidden: Array, weight_hh: Array, bias_n: Array, setting: _Setting
) -> tuple[Array, ...]:
    """Outputs, and r, u, n and `W_n h + bias_n`, of every step."""

    def read(hidden: Array, row_gates: Array) -> tuple[Array, tuple[Array, ...]]:
        reset_in, update_in, candidate_in = jnp.split(_gates(row_gates, constant, hidden.shape[1]), 3)
        reset_h, update_h, candidate_h = jnp.split(product(weight_hh, hidden, rounding=setting.rounding), 3)
        reset = jax.nn.sigmoid(reset_in + reset_h)
        update = jax.nn.sigmoid(update_in + update_h)
        inner = candidate_h + bias_n[:, None]
        candidate = jnp.tanh(candidate_in + reset * inner)
        hidden = candidate + update * (hidden - candidate)
        return hidden, (hidden, reset, update, candidate, inner)

    return jax.lax.scan(read, hidden, row_gates)[1]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _gru(
    row_gates: Float[Array, "T G B"],
    constant: Float[Array, "G N"] | None,
    hidden: Float[Array, "H N"],
    weight_hh: Float[Array, "G H"],
    bias_n: Float[Array, "H"],
    setting: _Setting,
) -> Float[Array, "T H N"]:
    """`gru_step` over a sequence."""
    return _gru_forward(row_gates, constant, hidden, weight_hh, bias_n, setting)[0]


def _gru_kept(
    row_gates: Array, constant: Array | None, hidden: Array, weight_hh: Array, bias_n: Array, setting: _Setting
) -> tuple[Array, tuple]:
    kept = _gru_forward(row_gates, constant, hidden, weight_hh, bias_n, setting)
    return kept[0], (kept, hidden, weight_hh)


def _gru_backward(setting: _Setting, residuals: tuple, grad_outputs: Array) -> tuple[Array | None, ...]:
    (outputs, reset, update, candidate, inner), hidden, weight_hh = residuals

    def unread(carried: tuple, step: tuple[Array, ...]) -> tuple[tuple, tuple[Array, Array]]:
        grad_hidden, grad_weight, grad_constant = carried
        grad_output, hidden, reset, update, candidate, inner = step
        grad_hidden = grad_hidden + grad_output
        grad_candidate = grad_hidden * (1 - update) * (1 - candidate * candidate)
        grad_update = grad_hidden * (hidden - candidate) * update * (1 - update)
        grad_inner = grad_candidate * reset
        grad_reset = grad_candidate * inner * reset * (1 - reset)
        recurrent = jnp.concatenate([grad_reset, grad_update, grad_inner])
        gates = jnp.concatenate([grad_reset, grad_update, grad_candidate])
        grad_hidden = grad_hidden * update + product(weight_hh, recurrent, (0, 0), setting.rounding)
        grad_weight = grad_weight + product(recurrent, hidden, (1, 1), setting.rounding)
        grad_constant = None if grad_constant is None else grad_constant + gates
        return (grad_hidden, grad_weight, grad_constant), (_sum_labels(gates, setting.rows), grad_inner.sum(1))

    zero_gates = jnp.zeros((len(weight_hh), hidden.shape[1]), hidden.dtype) if setting.has_constant else None
    steps = grad_outputs, _before(hidden, outputs), reset, update, candidate, inner
    first = jnp.zeros_like(hidden), jnp.zeros_like(weight_hh), zero_gates
    (grad_hidden, grad_weight, grad_constant), (grad_rows, grad_bias) = jax.lax.scan(unread, first, steps, reverse=True)
    return grad_rows, grad_constant, grad_hidden, grad_weight, grad_bias.sum(0)


_gru.defvjp(_gru_kept, _gru_backward)


def _lstm_forward(
    row_gates: Array, constant: Array | None, hidden: Array, cell: Array, weight_hh: Array, setting: _Setting
) -> tuple[Array, ...]:
    """Outputs, cells, and the open gates i, f, g, o, of every step."""

    def read(state: tuple[Array, Array], row_gates: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        hidden, cell = state
        gates = _gates(row_gates, constant, hidden.shape[1]) + product(weight_hh, hidden, rounding=setting.rounding)
        enter, forget, value, leave = jnp.split(gates, 4)
        enter, forget, leave = jax.nn.sigmoid(enter), jax.nn.sigmoid(forget), jax.nn.sigmoid(leave)
        value = jnp.tanh(value)
        cell = forget * cell + enter * value
        hidden = leave * jnp.tanh(cell)
        return (hidden, cell), (hidden, cell, enter, forget, value, leave)

    return jax.lax.scan(read, (hidden, cell), row_gates)[1]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _lstm(
    row_gates: Float[Array, "T G B"],
    constant: Float[Array, "G N"] | None,
    hidden: Float[Array, "H N"],
    cell: Float[Array, "H N"],
    weight_hh: Float[Array, "G H"],
    setting: _Setting,
) -> Float[Array, "T H N"]:
    """`lstm_step` over a sequence."""
    return _lstm_forward(row_gates, constant, hidden, cell, weight_hh, setting)[0]


def _lstm_kept(
    row_gates: Array, constant: Array | None, hidden: Array, cell: Array, weight_hh: Array, setting: _Setting
) -> tuple[Array, tuple]:
    kept = _lstm_forward(row_gates, constant, hidden, cell, weight_hh, setting)
    return kept[0], (kept, hidden, cell, weight_hh)


def _lstm_backward(setting: _Setting, residuals: tuple, grad_outputs: Array) -> tuple[Array | None, ...]:
    (outputs, cells, enter, forget, value, leave), hidden, cell, weight_hh = residuals

    def unread(carried: tuple, step: tuple[Array, ...]) -> tuple[tuple, Array]:
        grad_hidden, grad_cell, grad_weight, grad_constant = carried
        grad_output, hidden, before, after, enter, forget, value, leave = step
        shown = jnp.tanh(after)
        grad_hidden = grad_hidden + grad_output
        grad_cell = grad_cell + grad_hidden * leave * (1 - shown * shown)
        gates = jnp.concatenate(
            [
                grad_cell * value * enter * (1 - enter),
                grad_cell * before * forget * (1 - forget),
                grad_cell * enter * (1 - value * value),
                grad_hidden * shown * leave * (1 - leave),
            ]
        )
        grad_hidden = product(weight_hh, gates, (0, 0), setting.rounding)
        grad_weight = grad_weight + product(gates, hidden, (1, 1), setting.rounding)
        grad_constant = None if grad_constant is None else grad_constant + gates
        return (grad_hidden, grad_cell * forget, grad_weight, grad_constant), _sum_labels(gates, setting.rows)

    zero_gates = jnp.zeros((len(weight_hh), hidden.shape[1]), hidden.dtype) if setting.has_constant else None
    steps = grad_outputs, _before(hidden, outputs), _before(cell, cells), cells, enter, forget, value, leave
    first = jnp.zeros_like(hidden), jnp.zeros_like(cell), jnp.zeros_like(weight_hh), zero_gates
    (grad_hidden, grad_cell, grad_weight, grad_constant), grad_rows = jax.lax.scan(unread, first, steps, reverse=True)
    return grad_rows, grad_constant, grad_hidden, grad_cell, grad_weight


_lstm.defvjp(_lstm_kept, _lstm_backward)


class RecurrentLayer(Multiplies):
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
        return linear(inputs, self.weight_ih[...], self.bias[...], self.rounding)

    def zero_state(self, labels: int, rows: int) -> State:
        """States of zeros, each of shape `(K, B, H)`."""
        zeros = jnp.zeros((labels, rows, self.hidden_size), self.bias[...].dtype)
        return (zeros,) if self.cell == "gru" else (zeros, zeros)

    def step(self, gates: Float[Array, "*N G"], state: State) -> State:
        """One step; the first entry of the state is the output."""
        if self.cell == "gru":
            return (gru_step(gates, state[0], self.weight_hh[...], self.bias_n[...], self.rounding),)
        hidden, cell = state
        return lstm_step(gates, hidden, cell, self.weight_hh[...], self.rounding)

    def __call__(
        self, row_gates: Float[Array, "B T G"], constant: Float[Array, "K B G"] | None, state: State
    ) -> Float[Array, "K B T H"]:
        """Read whole sequences, for each label.

        Args:
            row_gates: What each row's symbols contribute to the gates, the same for all labels.
            constant: What label and z contribute, the same at all steps; None for nothing.
            state: First states, each of shape `(K, B, H)`.
        """
        labels, rows, _ = state[0].shape
        gates = row_gates.transpose(1, 2, 0)
        constant, *states = (None if part is None else _columns(part) for part in (constant, *state))
        setting = _Setting(rows, constant is not None, self.rounding)
        if self.cell == "gru":
            outputs = _gru(gates, constant, *states, self.weight_hh[...], self.bias_n[...], setting)
        else:
            outputs = _lstm(gates, constant, *states, self.weight_hh[...], setting)
        return outputs.reshape(*outputs.shape[:2], labels, rows).transpose(2, 3, 0, 1)


def _columns(values: Float[Array, "K B F"]) -> Float[Array, "F N"]:
    return values.reshape(-1, values.shape[-1]).T
