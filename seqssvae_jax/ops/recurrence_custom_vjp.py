"""Recurrent layers with a gradient written by hand.

The gates have two parts that are never added up for all of `(K, B, T)`: `row_gates`, which the symbols of a row
contribute at each step, the same for every label; and `constant`, which label and z contribute, the same at every step.
Features come first, `(T, H, K, B)`, so that a step is one matrix product for all gates, with K*B columns. Labels and
rows stay two dimensions: what is the same for every label would otherwise be looked up column by column, and XLA's
loops over columns would not be vector instructions (on a CPU they took four times as long). A step of the backward pass
adds its share to the gradient of the weights, so that the gradients of the gates are held for one step at a time.

Labels are explicit here, and not left to `vmap`: under `vmap` the gradient of a weight is one array per label.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from seqssvae_jax.ops.cells import CellWeights, State
from seqssvae_jax.ops.products import Rounding, product, rounding_now


def recurrence(
    cells: Sequence[CellWeights],
    inputs: Sequence[Float[Array, "#K B T I"]],
    constant: Float[Array, "K B G"] | None = None,
    state: State | None = None,
) -> tuple[Float[Array, "K B T H"], ...]:
    """As `seqssvae_jax.ops.recurrence`. All cells are read in one loop, where they keep all cores of a CPU busy."""
    labels, rows, steps, _ = inputs[0].shape
    if labels > 1:  # a higher layer reads what depends on the label: its rows are those of all labels
        inputs = [of_cell.reshape(1, labels * rows, steps, -1) for of_cell in inputs]
        constant = None if constant is None else constant.reshape(1, labels * rows, -1)
        state = None if state is None else tuple(part.reshape(1, labels * rows, -1) for part in state)
    layers = []
    for cell, of_cell in zip(cells, inputs, strict=True):
        first = cell.zero_state(1, of_cell.shape[1]) if state is None else state
        columns = None if constant is None else constant.transpose(2, 0, 1)
        states = tuple(part.transpose(2, 0, 1) for part in first)
        layers.append(Layer(_project(cell, of_cell[0]), columns, states, cell.weight_hh, cell.bias_n))
    outputs = [of_layer.transpose(2, 3, 0, 1) for of_layer in _read(tuple(layers), rounding_now())]
    if labels > 1:
        outputs = [of_layer.reshape(labels, rows, steps, -1) for of_layer in outputs]
    return tuple(outputs)


def _project(cell: CellWeights, inputs: Float[Array, "B T I"]) -> Float[Array, "G T B"]:
    """What the inputs contribute to the gates: one matrix product, with a column a symbol."""
    rows, steps, size = inputs.shape
    columns = inputs.transpose(2, 1, 0).reshape(size, -1)
    gates = product(cell.weight_ih, columns, rounding=rounding_now()) + cell.bias[:, None]
    return gates.reshape(-1, steps, rows)


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
    bias_n: Float[Array, " H"] | None

    def gates(self, step: Int[Array, ""]) -> Float[Array, " G #K B"]:
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
    """Gradients that are summed over steps, and those of the rows' gates, each step in its place.

    Args:
        weight: Of `W`.
        rows: Of what the rows contribute, gate by gate, each `(H, T, B)`.
        constants: Of what is constant, gate by gate, each `(H, K, B)`; None for nothing.
        bias: Of the bias of a gated recurrent unit.
    """

    weight: Float[Array, "G H"]
    rows: tuple[Array, ...]
    constants: tuple[Array, ...] | None
    bias: Float[Array, " H"] | None

    @classmethod
    def zero(cls, layer: Layer) -> "_Totals":
        """Totals to which no step has added yet."""
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
        """Add the share of a step that started from `hidden`: of `W h`, and of the gates."""
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
    """`gru_step` over a sequence. Kept of each step are h', and r, z, n and `W_n h + bias_n`."""

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

    def differentiate(
        self,
        gradients: tuple[tuple[Array, ...], _Totals],
        step: Int[Array, ""],
        grad_output: Float[Array, "H K B"],
        kept: tuple[Float[Array, "H K B"], ...],
        outputs: tuple[Float[Array, "T H K B"], ...],
    ) -> tuple[tuple[Array, ...], _Totals]:
        """Gradients of the state before, and the totals with this step's."""
        ((grad_hidden,), totals), (_, *activations) = gradients, kept
        hidden = _before(self.layer.state[0], outputs[0], step)
        grad_hidden = grad_hidden + grad_output
        grad_inner, *gates = gru_gate_gradients(grad_hidden, hidden, *activations)
        recurrent = _columns((*gates[:2], grad_inner))
        through = product(self.transposed, recurrent, rounding=self.rounding)
        totals = totals.add(step, recurrent, tuple(gates), hidden, self.rounding)
        assert totals.bias is not None
        totals = totals._replace(bias=totals.bias + grad_inner.sum((1, 2)))
        return (grad_hidden * activations[1] + through.reshape(hidden.shape),), totals


def gru_gate_gradients(
    grad_hidden: Float[Array, "H K B"],
    hidden: Float[Array, "H K B"],
    reset: Float[Array, "H K B"],
    update: Float[Array, "H K B"],
    candidate: Float[Array, "H K B"],
    inner: Float[Array, "H K B"],
) -> tuple[Float[Array, "H K B"], ...]:
    """The derivative of one step `h' = n + z * (h - n)`.

    Args:
        grad_hidden: Gradient of h'.
        hidden: h.
        reset: r.
        update: z.
        candidate: n.
        inner: `W_n h + bias_n`.

    Returns:
        Gradients of `inner`, and of the arguments of r, z and n.
    """
    grad_candidate = grad_hidden * (1 - update) * (1 - candidate * candidate)
    grad_update = grad_hidden * (hidden - candidate) * update * (1 - update)
    grad_reset = grad_candidate * inner * reset * (1 - reset)
    return grad_candidate * reset, grad_reset, grad_update, grad_candidate


class _LSTM(NamedTuple):
    """`lstm_step` over a sequence. Kept of each step are h', c', and i, f, g, o after their non-linearity."""

    layer: Layer
    transposed: Float[Array, "H G"]
    rounding: Rounding

    def read(self, state: tuple[Array, ...], step: Int[Array, ""]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The next state, and what is kept."""
        hidden, cell = state
        gates = self.layer.gates(step) + product(self.layer.weight_hh, hidden, rounding=self.rounding)
        input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4)
        input_gate, forget_gate, output_gate = map(jax.nn.sigmoid, (input_gate, forget_gate, output_gate))
        candidate = jnp.tanh(candidate)
        cell = forget_gate * cell + input_gate * candidate
        hidden = output_gate * jnp.tanh(cell)
        return (hidden, cell), (hidden, cell, input_gate, forget_gate, candidate, output_gate)

    def differentiate(
        self,
        gradients: tuple[tuple[Array, ...], _Totals],
        step: Int[Array, ""],
        grad_output: Float[Array, "H K B"],
        kept: tuple[Float[Array, "H K B"], ...],
        outputs: tuple[Float[Array, "T H K B"], ...],
    ) -> tuple[tuple[Array, ...], _Totals]:
        """Gradients of the states before, and the totals with this step's."""
        ((grad_hidden, grad_cell), totals), (_, after, *activations) = gradients, kept
        hidden, before = (_before(*parts, step) for parts in zip(self.layer.state, outputs, strict=True))
        grad_hidden = grad_hidden + grad_output
        grad_cell, *gates = lstm_gate_gradients(grad_hidden, grad_cell, before, after, *activations)
        recurrent = _columns(tuple(gates))
        grad_hidden = product(self.transposed, recurrent, rounding=self.rounding).reshape(after.shape)
        totals = totals.add(step, recurrent, tuple(gates), hidden, self.rounding)
        return (grad_hidden, grad_cell), totals


def lstm_gate_gradients(
    grad_hidden: Float[Array, "H K B"],
    grad_cell: Float[Array, "H K B"],
    cell_before: Float[Array, "H K B"],
    cell_after: Float[Array, "H K B"],
    input_gate: Float[Array, "H K B"],
    forget_gate: Float[Array, "H K B"],
    candidate: Float[Array, "H K B"],
    output_gate: Float[Array, "H K B"],
) -> tuple[Float[Array, "H K B"], ...]:
    """The derivative of one step `c' = f * c + i * g`, `h' = o * tanh(c')`.

    Args:
        grad_hidden: Gradient of h'.
        grad_cell: Gradient of c' from later steps.
        cell_before: c.
        cell_after: c'.
        input_gate: i.
        forget_gate: f.
        candidate: g.
        output_gate: o.

    Returns:
        Gradients of c, and of the arguments of i, f, g and o.
    """
    tanh_cell = jnp.tanh(cell_after)
    grad_cell = grad_cell + grad_hidden * output_gate * (1 - tanh_cell * tanh_cell)
    return (
        grad_cell * forget_gate,
        grad_cell * candidate * input_gate * (1 - input_gate),
        grad_cell * cell_before * forget_gate * (1 - forget_gate),
        grad_cell * input_gate * (1 - candidate * candidate),
        grad_hidden * tanh_cell * output_gate * (1 - output_gate),
    )


def _cells(layers: tuple[Layer, ...], rounding: Rounding) -> tuple[_GRU | _LSTM, ...]:
    kind = _LSTM if layers[0].bias_n is None else _GRU
    return tuple(kind(layer, layer.weight_hh.T, rounding) for layer in layers)


def _steps(layers: tuple[Layer, ...]) -> Int[Array, " T"]:
    return jnp.arange(layers[0].row_gates.shape[1])


def _scan(layers: tuple[Layer, ...], rounding: Rounding) -> tuple[tuple[Float[Array, "T H K B"], ...], ...]:
    cells = _cells(layers, rounding)

    def read(states: tuple[tuple[Array, ...], ...], step: Int[Array, ""]) -> tuple[tuple, tuple]:
        read_cells = [cell.read(state, step) for cell, state in zip(cells, states, strict=True)]
        return tuple(state for state, _ in read_cells), tuple(kept for _, kept in read_cells)

    return jax.lax.scan(read, tuple(layer.state for layer in layers), _steps(layers))[1]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _read(layers: tuple[Layer, ...], rounding: Rounding) -> tuple[Float[Array, "T H K B"], ...]:
    """Outputs of each layer."""
    return tuple(kept[0] for kept in _scan(layers, rounding))


def _forward(layers: tuple[Layer, ...], rounding: Rounding) -> tuple[tuple[Array, ...], tuple]:
    kept = _scan(layers, rounding)
    return tuple(of_layer[0] for of_layer in kept), (layers, kept)


def _backward(rounding: Rounding, residuals: tuple, grad_outputs: tuple[Array, ...]) -> tuple[tuple[Layer, ...]]:
    layers, kept = residuals
    return (_scan_back(layers, kept, grad_outputs, rounding),)


def _scan_back(
    layers: tuple[Layer, ...], kept: tuple, grad_outputs: tuple[Array, ...], rounding: Rounding
) -> tuple[Layer, ...]:
    cells = _cells(layers, rounding)

    def differentiate(carried: tuple, step: tuple) -> tuple[tuple, None]:
        place, of_outputs, of_kept = step
        parts = zip(cells, carried, of_outputs, of_kept, kept, layers, strict=True)
        return tuple(
            cell.differentiate(gradients, place, of_output, activations, whole[: len(layer.state)])
            for cell, gradients, of_output, activations, whole, layer in parts
        ), None

    start = tuple((jax.tree.map(jnp.zeros_like, layer.state), _Totals.zero(layer)) for layer in layers)
    of_layers, _ = jax.lax.scan(differentiate, start, (_steps(layers), grad_outputs, kept), reverse=True)
    return tuple(totals.gradients(state) for state, totals in of_layers)


_read.defvjp(_forward, _backward)
