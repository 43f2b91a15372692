"""Recurrent cells: one step, and whole sequences for K labels times B rows with a gradient written by hand.

A sequence's gates come in two parts that are never added up for all of `(K, B, T)`: `row_gates`, what the symbols of a
row contribute at each step, the same for every label, and `constant`, what label and z contribute, the same at every
step. Inside, features come first, `(T, H, K, B)`, so that a step is one matrix product for all gates, with K*B columns.
Labels and rows stay two dimensions: what is the same for every label would otherwise be looked up column by column,
and XLA's loops over columns would not be vector instructions (measured on a CPU: four times as long). A step of the
way back adds its share to the gradient of the weights, so that the gradients of the gates are held for one step at a
time.

Labels are explicit here, and not left to `vmap`: the gradient of a weight under `vmap` is one array per label, summed
up afterwards.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

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
        has_constant: Whether there is a constant.
        rounding: Type to which operands of products are rounded.
    """

    has_constant: bool
    rounding: Rounding


def _gates(row_gates: Float[Array, "G B"], constant: Float[Array, "G K B"] | None) -> Float[Array, "G #K B"]:
    """Inputs of all gates at one step: those of the rows, for each label, and what is constant."""
    return row_gates[:, None] if constant is None else row_gates[:, None] + constant


def _before(
    first: Float[Array, "H K B"], outputs: Float[Array, "T H K B"], step: Int[Array, ""]
) -> Float[Array, "H K B"]:
    """The state that a step started from."""
    last = jax.lax.dynamic_index_in_dim(outputs, jnp.maximum(step - 1, 0), keepdims=False)
    return jnp.where(step == 0, first, last)


class _Totals(NamedTuple):
    """Gradients that are added up over steps.

    Args:
        weight: Of `W`.
        constants: Of what is constant, gate by gate, each `(H, K, B)`; None for nothing.
    """

    weight: Float[Array, "G H"]
    constants: tuple[Array, ...] | None

    @classmethod
    def zero(cls, weight_hh: Float[Array, "G H"], hidden: Float[Array, "H K B"], has_constant: bool) -> "_Totals":
        """Nothing yet."""
        gates = len(weight_hh) // len(hidden)
        return cls(jnp.zeros_like(weight_hh), (jnp.zeros_like(hidden),) * gates if has_constant else None)

    def add(
        self,
        recurrent: Float[Array, "G N"],
        gates: tuple[Array, ...],
        hidden: Float[Array, "H K B"],
        rounding: Rounding,
    ) -> "_Totals":
        """With the share of a step that started from `hidden`: of `W h`, and of the gates."""
        weight = self.weight + product(recurrent, hidden.reshape(len(hidden), -1), (1, 1), rounding)
        if self.constants is None:
            return _Totals(weight, None)
        return _Totals(weight, tuple(total + gate for total, gate in zip(self.constants, gates, strict=True)))

    def together(self) -> tuple[Float[Array, "G H"], Float[Array, "G K B"] | None]:
        """Of all gates, one behind the other."""
        return self.weight, None if self.constants is None else jnp.concatenate(self.constants)


def _columns(parts: tuple[Float[Array, "H K B"], ...]) -> Float[Array, "G N"]:
    """Gradients of all gates, one behind the other, for one product: three smaller ones are slower."""
    return jnp.concatenate(parts).reshape(-1, parts[0].shape[1] * parts[0].shape[2])


def _of_rows(gates: tuple[Float[Array, "T H B"], ...]) -> Float[Array, "T G B"]:
    return jnp.concatenate(gates, 1)


def _gru_forward(
    row_gates: Array, constant: Array | None, hidden: Array, weight_hh: Array, bias_n: Array, setting: _Setting
) -> tuple[Array, ...]:
    """Outputs, and r, u, n and `W_n h + bias_n`, of every step."""

    def read(hidden: Array, row_gates: Array) -> tuple[Array, tuple[Array, ...]]:
        reset_in, update_in, candidate_in = jnp.split(_gates(row_gates, constant), 3)
        reset_h, update_h, candidate_h = jnp.split(product(weight_hh, hidden, rounding=setting.rounding), 3)
        reset = jax.nn.sigmoid(reset_in + reset_h)
        update = jax.nn.sigmoid(update_in + update_h)
        inner = candidate_h + bias_n[:, None, None]
        candidate = jnp.tanh(candidate_in + reset * inner)
        hidden = candidate + update * (hidden - candidate)
        return hidden, (hidden, reset, update, candidate, inner)

    return jax.lax.scan(read, hidden, row_gates)[1]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _gru(
    row_gates: Float[Array, "T G B"],
    constant: Float[Array, "G K B"] | None,
    hidden: Float[Array, "H K B"],
    weight_hh: Float[Array, "G H"],
    bias_n: Float[Array, "H"],
    setting: _Setting,
) -> Float[Array, "T H K B"]:
    """`gru_step` over a sequence."""
    return _gru_forward(row_gates, constant, hidden, weight_hh, bias_n, setting)[0]


def _gru_kept(
    row_gates: Array, constant: Array | None, hidden: Array, weight_hh: Array, bias_n: Array, setting: _Setting
) -> tuple[Array, tuple]:
    kept = _gru_forward(row_gates, constant, hidden, weight_hh, bias_n, setting)
    return kept[0], (kept, hidden, weight_hh)


def _gru_backward(setting: _Setting, residuals: tuple, grad_outputs: Array) -> tuple[Array | None, ...]:
    (outputs, *activations), first, weight_hh = residuals
    transposed = weight_hh.T

    def unread(carried: tuple[Array, _Totals], step: tuple[Array, ...]) -> tuple[tuple[Array, _Totals], tuple]:
        grad_hidden, totals = carried
        place, grad_output, reset, update, candidate, inner = step
        hidden = _before(first, outputs, place)
        grad_hidden = grad_hidden + grad_output
        grad_candidate = grad_hidden * (1 - update) * (1 - candidate * candidate)
        grad_update = grad_hidden * (hidden - candidate) * update * (1 - update)
        grad_inner = grad_candidate * reset
        grad_reset = grad_candidate * inner * reset * (1 - reset)
        recurrent, gates = _columns((grad_reset, grad_update, grad_inner)), (grad_reset, grad_update, grad_candidate)
        through = product(transposed, recurrent, rounding=setting.rounding)
        grad_hidden = grad_hidden * update + through.reshape(hidden.shape)
        totals = totals.add(recurrent, gates, hidden, setting.rounding)
        return (grad_hidden, totals), (tuple(gate.sum(1) for gate in gates), grad_inner.sum((1, 2)))

    start = jnp.zeros_like(first), _Totals.zero(weight_hh, first, setting.has_constant)
    steps = jnp.arange(len(outputs)), grad_outputs, *activations
    (grad_hidden, totals), (grad_rows, grad_bias) = jax.lax.scan(unread, start, steps, reverse=True)
    grad_weight, grad_constant = totals.together()
    return _of_rows(grad_rows), grad_constant, grad_hidden, grad_weight, grad_bias.sum(0)


_gru.defvjp(_gru_kept, _gru_backward)


def _lstm_forward(
    row_gates: Array, constant: Array | None, hidden: Array, cell: Array, weight_hh: Array, setting: _Setting
) -> tuple[Array, ...]:
    """Outputs, cells, and the open gates i, f, g, o, of every step."""

    def read(state: tuple[Array, Array], row_gates: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        hidden, cell = state
        gates = _gates(row_gates, constant) + product(weight_hh, hidden, rounding=setting.rounding)
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
    constant: Float[Array, "G K B"] | None,
    hidden: Float[Array, "H K B"],
    cell: Float[Array, "H K B"],
    weight_hh: Float[Array, "G H"],
    setting: _Setting,
) -> Float[Array, "T H K B"]:
    """`lstm_step` over a sequence."""
    return _lstm_forward(row_gates, constant, hidden, cell, weight_hh, setting)[0]


def _lstm_kept(
    row_gates: Array, constant: Array | None, hidden: Array, cell: Array, weight_hh: Array, setting: _Setting
) -> tuple[Array, tuple]:
    kept = _lstm_forward(row_gates, constant, hidden, cell, weight_hh, setting)
    return kept[0], (kept, hidden, cell, weight_hh)


def _lstm_backward(setting: _Setting, residuals: tuple, grad_outputs: Array) -> tuple[Array | None, ...]:
    (outputs, cells, *activations), first, first_cell, weight_hh = residuals
    transposed = weight_hh.T

    def unread(carried: tuple[Array, Array, _Totals], step: tuple[Array, ...]) -> tuple[tuple, tuple[Array, ...]]:
        grad_hidden, grad_cell, totals = carried
        place, grad_output, after, enter, forget, value, leave = step
        before, shown = _before(first_cell, cells, place), jnp.tanh(after)
        grad_hidden = grad_hidden + grad_output
        grad_cell = grad_cell + grad_hidden * leave * (1 - shown * shown)
        gates = (
            grad_cell * value * enter * (1 - enter),
            grad_cell * before * forget * (1 - forget),
            grad_cell * enter * (1 - value * value),
            grad_hidden * shown * leave * (1 - leave),
        )
        recurrent = _columns(gates)
        grad_hidden = product(transposed, recurrent, rounding=setting.rounding).reshape(after.shape)
        totals = totals.add(recurrent, gates, _before(first, outputs, place), setting.rounding)
        return (grad_hidden, grad_cell * forget, totals), tuple(gate.sum(1) for gate in gates)

    zero_totals = _Totals.zero(weight_hh, first, setting.has_constant)
    start = jnp.zeros_like(first), jnp.zeros_like(first_cell), zero_totals
    steps = jnp.arange(len(outputs)), grad_outputs, cells, *activations
    (grad_hidden, grad_cell, totals), grad_rows = jax.lax.scan(unread, start, steps, reverse=True)
    grad_weight, grad_constant = totals.together()
    return _of_rows(grad_rows), grad_constant, grad_hidden, grad_cell, grad_weight


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
        gates = row_gates.transpose(1, 2, 0)
        constant, *states = (None if part is None else part.transpose(2, 0, 1) for part in (constant, *state))
        setting = _Setting(constant is not None, self.rounding)
        if self.cell == "gru":
            outputs = _gru(gates, constant, *states, self.weight_hh[...], self.bias_n[...], setting)
        else:
            outputs = _lstm(gates, constant, *states, self.weight_hh[...], setting)
        return outputs.transpose(2, 3, 0, 1)
