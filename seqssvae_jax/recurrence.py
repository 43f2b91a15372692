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

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from seqssvae_jax import fused
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
        cell: `gru` or `lstm`.
        rounding: Type to which operands of products are rounded.
        fused: Whether a CPU reads the layers with `fused`.
    """

    cell: str
    rounding: Rounding
    fused: bool = False


class Layer(NamedTuple):
    """What a layer that is read has; its gradients have the same form.

    Args:
        row_gates: What each row's symbols contribute to the gates.
        constant: What label and z contribute to them at every step; None for nothing.
        state: First states.
        weight_hh: W.
        bias_n: Of a gated recurrent unit.
    """

    row_gates: Float[Array, "G T B"]
    constant: Float[Array, "G K B"] | None
    state: tuple[Float[Array, "H K B"], ...]
    weight_hh: Float[Array, "G H"]
    bias_n: Float[Array, "H"] | None

    def gates(self, step: Int[Array, ""]) -> Float[Array, "G #K B"]:
        """Inputs of all gates at one step, for each label."""
        of_rows = jax.lax.dynamic_index_in_dim(self.row_gates, step, 1)
        return of_rows if self.constant is None else of_rows + self.constant


def _before(
    first: Float[Array, "H K B"], outputs: Float[Array, "T H K B"], step: Int[Array, ""]
) -> Float[Array, "H K B"]:
    """The state that a step started from."""
    last = jax.lax.dynamic_index_in_dim(outputs, jnp.maximum(step - 1, 0), keepdims=False)
    return jnp.where(step == 0, first, last)


class _Totals(NamedTuple):
    """Gradients that are added up over steps, and those of the rows' gates, each step in its place.

    Args:
        weight: Of `W`.
        rows: Of what the rows contribute, gate by gate, each `(H, T, B)`.
        constants: Of what is constant, gate by gate, each `(H, K, B)`; None for nothing.
        bias: Of the bias of a gated recurrent unit.
    """

    weight: Float[Array, "G H"]
    rows: tuple[Array, ...]
    constants: tuple[Array, ...] | None
    bias: Float[Array, "H"] | None

    @classmethod
    def zero(cls, layer: Layer) -> "_Totals":
        """Nothing yet."""
        weight, hidden = layer.weight_hh, layer.state[0]
        gates = len(weight) // len(hidden)
        constants = None if layer.constant is None else (jnp.zeros_like(hidden),) * gates
        bias = None if layer.bias_n is None else jnp.zeros_like(layer.bias_n)
        rows = jnp.split(jnp.zeros_like(layer.row_gates), gates)
        return cls(jnp.zeros_like(weight), tuple(rows), constants, bias)

    def add(
        self,
        step: Int[Array, ""],
        recurrent: Float[Array, "G N"],
        gates: tuple[Float[Array, "H K B"], ...],
        hidden: Float[Array, "H K B"],
        rounding: Rounding,
    ) -> "_Totals":
        """With the share of a step that started from `hidden`: of `W h`, and of the gates."""
        weight = self.weight + product(recurrent, hidden.reshape(len(hidden), -1), (1, 1), rounding)
        rows, constants = self.rows, self.constants
        rows = tuple(
            jax.lax.dynamic_update_index_in_dim(of_gate, gate.sum(1), step, 1)
            for of_gate, gate in zip(rows, gates, strict=True)
        )
        if constants is not None:
            constants = tuple(total + gate for total, gate in zip(constants, gates, strict=True))
        return self._replace(weight=weight, rows=rows, constants=constants)

    def gradients(self, state: tuple[Float[Array, "H K B"], ...]) -> Layer:
        """All of a layer's, with those of its first states."""
        constant = None if self.constants is None else jnp.concatenate(self.constants)
        return Layer(jnp.concatenate(self.rows), constant, state, self.weight, self.bias)


def _columns(parts: tuple[Float[Array, "H K B"], ...]) -> Float[Array, "G N"]:
    """Gradients of all gates, one behind the other, for one product: three smaller ones are slower."""
    return jnp.concatenate(parts).reshape(-1, parts[0].shape[1] * parts[0].shape[2])


class _GRU(NamedTuple):
    """`gru_step` in steps, and back. Kept are the outputs, and r, u, n and `W_n h + bias_n`, of every step."""

    layer: Layer
    transposed: Float[Array, "H G"]
    rounding: Rounding

    def read(self, state: tuple[Array, ...], step: Int[Array, ""]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The next state, and what is kept."""
        (hidden,), bias_n = state, self.layer.bias_n
        assert bias_n is not None
        reset_in, update_in, candidate_in = jnp.split(self.layer.gates(step), 3)
        reset_h, update_h, candidate_h = jnp.split(product(self.layer.weight_hh, hidden, rounding=self.rounding), 3)
        reset = jax.nn.sigmoid(reset_in + reset_h)
        update = jax.nn.sigmoid(update_in + update_h)
        inner = candidate_h + bias_n[:, None, None]
        candidate = jnp.tanh(candidate_in + reset * inner)
        hidden = candidate + update * (hidden - candidate)
        return (hidden,), (hidden, reset, update, candidate, inner)

    def unread(
        self,
        gradients: tuple[tuple[Array, ...], _Totals],
        step: Int[Array, ""],
        grad_output: Float[Array, "H K B"],
        kept: tuple[Float[Array, "H K B"], ...],
        outputs: tuple[Float[Array, "T H K B"], ...],
    ) -> tuple[tuple[Array, ...], _Totals]:
        """Gradients of the state before, and the totals with this step's."""
        ((grad_hidden,), totals), (_, reset, update, candidate, inner) = gradients, kept
        hidden = _before(self.layer.state[0], outputs[0], step)
        grad_hidden = grad_hidden + grad_output
        grad_candidate = grad_hidden * (1 - update) * (1 - candidate * candidate)
        grad_update = grad_hidden * (hidden - candidate) * update * (1 - update)
        grad_inner = grad_candidate * reset
        grad_reset = grad_candidate * inner * reset * (1 - reset)
        recurrent, gates = _columns((grad_reset, grad_update, grad_inner)), (grad_reset, grad_update, grad_candidate)
        through = product(self.transposed, recurrent, rounding=self.rounding)
        totals = totals.add(step, recurrent, gates, hidden, self.rounding)
        assert totals.bias is not None
        totals = totals._replace(bias=totals.bias + grad_inner.sum((1, 2)))
        return (grad_hidden * update + through.reshape(hidden.shape),), totals


class _LSTM(NamedTuple):
    """`lstm_step` in steps, and back. Kept are outputs, cells, and the open gates i, f, g, o, of every step."""

    layer: Layer
    transposed: Float[Array, "H G"]
    rounding: Rounding

    def read(self, state: tuple[Array, ...], step: Int[Array, ""]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The next state, and what is kept."""
        hidden, cell = state
        gates = self.layer.gates(step) + product(self.layer.weight_hh, hidden, rounding=self.rounding)
        enter, forget, value, leave = jnp.split(gates, 4)
        enter, forget, leave = jax.nn.sigmoid(enter), jax.nn.sigmoid(forget), jax.nn.sigmoid(leave)
        value = jnp.tanh(value)
        cell = forget * cell + enter * value
        hidden = leave * jnp.tanh(cell)
        return (hidden, cell), (hidden, cell, enter, forget, value, leave)

    def unread(
        self,
        gradients: tuple[tuple[Array, ...], _Totals],
        step: Int[Array, ""],
        grad_output: Float[Array, "H K B"],
        kept: tuple[Float[Array, "H K B"], ...],
        outputs: tuple[Float[Array, "T H K B"], ...],
    ) -> tuple[tuple[Array, ...], _Totals]:
        """Gradients of the states before, and the totals with this step's."""
        ((grad_hidden, grad_cell), totals), (_, after, enter, forget, value, leave) = gradients, kept
        hidden, before = (_before(*parts, step) for parts in zip(self.layer.state, outputs, strict=True))
        shown = jnp.tanh(after)
        grad_hidden = grad_hidden + grad_output
        grad_cell = grad_cell + grad_hidden * leave * (1 - shown * shown)
        gates = (
            grad_cell * value * enter * (1 - enter),
            grad_cell * before * forget * (1 - forget),
            grad_cell * enter * (1 - value * value),
            grad_hidden * shown * leave * (1 - leave),
        )
        recurrent = _columns(gates)
        grad_hidden = product(self.transposed, recurrent, rounding=self.rounding).reshape(after.shape)
        totals = totals.add(step, recurrent, gates, hidden, self.rounding)
        return (grad_hidden, grad_cell * forget), totals


def _cells(layers: tuple[Layer, ...], setting: _Setting) -> tuple[_GRU | _LSTM, ...]:
    kind = _GRU if setting.cell == "gru" else _LSTM
    return tuple(kind(layer, layer.weight_hh.T, setting.rounding) for layer in layers)


def _steps(layers: tuple[Layer, ...]) -> Int[Array, "T"]:
    return jnp.arange(layers[0].row_gates.shape[1])


def _forward(
    layers: tuple[Layer, ...], setting: _Setting, keep: bool = True
) -> tuple[tuple[Float[Array, "T H K B"], ...], ...]:
    """Outputs of each layer, and what is kept of every step if anything is."""

    def scan(layers: tuple[Layer, ...]) -> tuple[tuple[Float[Array, "T H K B"], ...], ...]:
        found = _scan(layers, setting)
        return found if keep else tuple(of_layer[:1] for of_layer in found)

    if not setting.fused:
        return scan(layers)
    return jax.lax.platform_dependent(layers, cpu=partial(fused.forward, keep=keep), default=scan)


def _scan(layers: tuple[Layer, ...], setting: _Setting) -> tuple[tuple[Float[Array, "T H K B"], ...], ...]:
    cells = _cells(layers, setting)

    def read(states: tuple[tuple[Array, ...], ...], step: Int[Array, ""]) -> tuple[tuple, tuple]:
        found = [cell.read(state, step) for cell, state in zip(cells, states, strict=True)]
        return tuple(state for state, _ in found), tuple(kept for _, kept in found)

    return jax.lax.scan(read, tuple(layer.state for layer in layers), _steps(layers))[1]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _read(layers: tuple[Layer, ...], setting: _Setting) -> tuple[Float[Array, "T H K B"], ...]:
    """Outputs of each layer."""
    return tuple(kept[0] for kept in _forward(layers, setting, keep=False))


def _read_kept(layers: tuple[Layer, ...], setting: _Setting) -> tuple[tuple[Array, ...], tuple]:
    kept = _forward(layers, setting)
    return tuple(of[0] for of in kept), (layers, kept)


def _read_backward(setting: _Setting, residuals: tuple, grad_outputs: tuple[Array, ...]) -> tuple[tuple[Layer, ...]]:
    layers, kept = residuals
    if not setting.fused:
        return (_scan_back(layers, kept, grad_outputs, setting),)
    found = jax.lax.platform_dependent(
        layers,
        kept,
        grad_outputs,
        cpu=fused.backward,
        default=partial(_scan_back, setting=setting),
    )
    return (found,)


def _scan_back(
    layers: tuple[Layer, ...], kept: tuple, grad_outputs: tuple[Array, ...], setting: _Setting
) -> tuple[Layer, ...]:
    cells = _cells(layers, setting)

    def unread(carried: tuple, step: tuple) -> tuple[tuple, None]:
        place, of_outputs, of_kept = step
        parts = zip(cells, carried, of_outputs, of_kept, kept, layers, strict=True)
        return tuple(
            cell.unread(gradients, place, of_output, activations, whole[: len(layer.state)])
            for cell, gradients, of_output, activations, whole, layer in parts
        ), None

    start = tuple((jax.tree.map(jnp.zeros_like, layer.state), _Totals.zero(layer)) for layer in layers)
    found, _ = jax.lax.scan(unread, start, (_steps(layers), grad_outputs, kept), reverse=True)
    return tuple(totals.gradients(state) for state, totals in found)


_read.defvjp(_read_kept, _read_backward)


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
        """What the inputs contribute to the gates."""
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
        return read_together((self,), (row_gates,), (constant,), (state,))[0]


def project_together(
    layers: Sequence[RecurrentLayer], inputs: Sequence[Float[Array, "B T I"]]
) -> tuple[Float[Array, "B T G"], ...]:
    """What the inputs of each layer contribute to its gates: a column a symbol, as `read_together` reads them."""
    found = []
    for layer, of_layer in zip(layers, inputs, strict=True):
        rows, steps, size = of_layer.shape
        columns = of_layer.transpose(2, 1, 0).reshape(size, -1)
        gates = product(layer.weight_ih[...], columns, rounding=layer.rounding) + layer.bias[...][:, None]
        found.append(gates.reshape(-1, steps, rows).transpose(2, 1, 0))
    return tuple(found)


def read_together(
    layers: Sequence[RecurrentLayer],
    row_gates: Sequence[Float[Array, "B T G"]],
    constants: Sequence[Float[Array, "K B G"] | None],
    states: Sequence[State],
) -> tuple[Float[Array, "K B T H"], ...]:
    """Read whole sequences with layers that know nothing of each other, as the directions of an encoder, step by step.

    In one loop their small products keep all cores of a processor busy. (The PyTorch twin has one product for all.)

    Args:
        layers: Layers of the same cell, each to read as many steps.
        row_gates: As of `RecurrentLayer.__call__`, of each layer.
        constants: Likewise.
        states: Likewise.
    """
    parts = []
    for layer, gates, constant, state in zip(layers, row_gates, constants, states, strict=True):
        constant = None if constant is None else constant.transpose(2, 0, 1)
        state = tuple(part.transpose(2, 0, 1) for part in state)
        bias_n = layer.bias_n[...] if layer.cell == "gru" else None
        parts.append(Layer(gates.transpose(2, 1, 0), constant, state, layer.weight_hh[...], bias_n))
    rounding = layers[0].rounding
    outputs = _read(tuple(parts), _Setting(layers[0].cell, rounding, fused.serves(tuple(parts), rounding)))
    return tuple(of_layer.transpose(2, 3, 0, 1) for of_layer in outputs)
