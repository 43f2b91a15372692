"""Recurrent cells: one step, and whole sequences for K labels times B rows with a gradient written by hand.

A sequence's gates come in two parts that are never added up for all of `(K, B, T)`: `row_gates`, what the symbols of a
row contribute at each step, the same for every label, and `constant`, what label and z contribute, the same at every
step. Inside, labels and rows are folded to N = K*B columns and features come first, `(T, D, H, N)` for D layers that
are read together, so that a step is one matrix product for all gates and what it leaves for each gate lies in one
piece. All that is kept for the gradient is the states and the activations; the way back holds the gradients of one
step at a time and adds them up as it goes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqssvae_torch.products import Multiplies, Rounding, add_products, linear, rounded, write_products

State = tuple[Tensor, ...]


def fold(folded: Float[Tensor, "K B *F"]) -> Float[Tensor, "N *F"]:
    """Fold the enumeration dimension into the batch: row `k * B + b` is label k's copy of row b.

    It is the order of `rows.repeat(K, 1)` and of `rows.expand(K, B, F).reshape(K * B, F)`, and not that of
    `rows.repeat_interleave(K, 0)`, which would give row b the results of other rows and labels.
    """
    return folded.reshape(folded.shape[0] * folded.shape[1], *folded.shape[2:])


def unfold(folded: Float[Tensor, "N *F"], labels: int) -> Float[Tensor, "K B *F"]:
    """Inverse of `fold`."""
    return folded.reshape(labels, folded.shape[0] // labels, *folded.shape[1:])


def gru_step(
    gates: Float[Tensor, "*#N G"],
    hidden: Float[Tensor, "*#N H"],
    weight_hh: Float[Tensor, "G H"],
    bias_n: Float[Tensor, "H"],
    rounding: Rounding = None,
) -> Float[Tensor, "*#N H"]:
    """One step of a gated recurrent unit (Cho et al. 2014), with the reset gate inside the candidate's product.

    `r = sigmoid(a_r + W_r h)`, `u = sigmoid(a_u + W_u h)`, `n = tanh(a_n + r * (W_n h + bias_n))`,
    `h' = n + u * (h - n)`, where `a` are the gates given.
    """
    reset_in, update_in, candidate_in = gates.chunk(3, -1)
    reset_h, update_h, candidate_h = linear(hidden, weight_hh, rounding=rounding).chunk(3, -1)
    reset = torch.sigmoid(reset_in + reset_h)
    update = torch.sigmoid(update_in + update_h)
    candidate = torch.tanh(candidate_in + reset * (candidate_h + bias_n))
    return candidate + update * (hidden - candidate)


def lstm_step(
    gates: Float[Tensor, "*#N G"],
    hidden: Float[Tensor, "*#N H"],
    cell: Float[Tensor, "*#N H"],
    weight_hh: Float[Tensor, "G H"],
    rounding: Rounding = None,
) -> tuple[Float[Tensor, "*#N H"], Float[Tensor, "*#N H"]]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    `i, f, g, o = a + W h`, `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)`, `h' = sigmoid(o) * tanh(c')`.
    """
    enter, forget, value, leave = (gates + linear(hidden, weight_hh, rounding=rounding)).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(value)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def tanh_of_double(doubled: Tensor) -> Tensor:
    """`tanh(a)` of `2 a`, in place: `2 sigmoid(2 a) - 1`, whose absolute error is of the order of the last place of 1.

    PyTorch's tanh takes three times as long on a CPU, and six times where its operand is not in one piece.
    """
    open_share = doubled.sigmoid_()
    return torch.add(open_share.new_tensor(-1.0), open_share, alpha=2, out=open_share)


def _by_label(gates: Float[Tensor, "D G N"], rows: int) -> Float[Tensor, "D G K B"]:
    return gates.unflatten(2, (-1, rows))


def _add_gates(
    gates: Float[Tensor, "D G N"], row_gates: Float[Tensor, "D G B"], constant: Float[Tensor, "D G N"] | None
) -> None:
    """Add the inputs of gates at one step: what the rows contribute, for each label, and what is constant."""
    if constant is not None:
        gates.add_(constant)
    _by_label(gates, row_gates.shape[2]).add_(row_gates[:, :, None])


def _fill_gates(
    gates: Float[Tensor, "D G N"], row_gates: Float[Tensor, "D G B"], constant: Float[Tensor, "D G N"] | None
) -> None:
    """Write the inputs of gates at one step where they will be used."""
    rows = row_gates.shape[2]
    if constant is None:
        _by_label(gates, rows).copy_(row_gates[:, :, None].expand_as(_by_label(gates, rows)))
    else:
        torch.add(row_gates[:, :, None], _by_label(constant, rows), out=_by_label(gates, rows))


class _Gradients:
    """Gradients of gates, added up step by step over labels (for the rows) and over steps (for what is constant).

    Args:
        like: States, `(D, H, K*B)`.
        steps: T.
        size: Number of gradients of a column.
        inner: How many of them, the first, are not of gates.
        rows: B.
        has_constant: Whether there is a constant.
    """

    def __init__(self, like: Tensor, steps: int, size: int, inner: int, rows: int, has_constant: bool) -> None:
        layers, _, columns = like.shape
        self.inner = inner
        self.rows = like.new_empty(layers, size, steps, rows)
        self.columns = like.new_empty(layers, size, columns)
        self.constant = like.new_zeros(layers, size - inner, columns) if has_constant else None

    def add(self, step: int) -> None:
        """Take what was written to `columns` as the gradient of this step."""
        of_rows, columns = self.rows[:, :, step], self.columns
        if of_rows.shape == columns.shape:
            of_rows.copy_(columns)
        else:
            torch.sum(_by_label(columns, of_rows.shape[2]), 2, out=of_rows)
        if self.constant is not None:
            self.constant.add_(columns[:, self.inner :])


class _GRU(torch.autograd.Function):
    """`gru_step` over a sequence, of D layers that know nothing of each other.

    Gates are `(D, 3H, T, B)` and `(D, 3H, K*B)`, states `(D, H, K*B)`, outputs `(T, D, H, K*B)`. Kept for the gradient
    (where `keep` says that there will be one): `W_n h + bias_n`, r, u and n of every step, in this order: so the first
    three, which depend on the state, and the last three, the gates, lie side by side.
    """

    @staticmethod
    def forward(
        context: Any,
        row_gates: Tensor,
        constant: Tensor | None,
        hidden: Tensor,
        weight_hh: Tensor,
        bias_n: Tensor,
        rounding: Rounding,
        keep: bool,
    ) -> Tensor:
        steps, (layers, size, columns) = row_gates.shape[2], hidden.shape
        outputs = hidden.new_empty(steps + 1, layers, size, columns)
        kept_steps = steps if keep else 1
        activations = hidden.new_empty(kept_steps, layers, 4 * size, columns)
        weight, bias = rounded(weight_hh.roll(size, 1), rounding), bias_n[:, :, None]
        of_open, of_candidate = (None, None) if constant is None else constant.split((2 * size, size), 1)
        outputs[0] = hidden
        for step in range(steps):
            kept = activations[step % kept_steps]
            open_rows, candidate_rows = row_gates[:, :, step].split((2 * size, size), 1)
            write_products(weight, outputs[step], rounding, kept[:, : 3 * size])
            inner, open_gates, candidate = kept.split((size, 2 * size, size), 1)
            inner.add_(bias)
            _add_gates(open_gates, open_rows, of_open)
            _fill_gates(candidate, candidate_rows, of_candidate)
            reset, update = open_gates.sigmoid_().chunk(2, 1)
            tanh_of_double(candidate.addcmul_(reset, inner).mul_(2))
            torch.lerp(candidate, outputs[step], update, out=outputs[step + 1])
        context.save_for_backward(outputs, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[3], constant is not None, rounding
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, activations, weight = context.saved_tensors
        rounding, (steps, _, size, _) = context.rounding, grad_outputs[0].shape
        transposed, grad_weight = weight.mT, torch.zeros_like(weight, dtype=outputs.dtype)
        gradients = _Gradients(outputs[0], steps, 4 * size, size, context.rows, context.has_constant)
        grad_inner, grad_reset, grad_update, grad_candidate = gradients.columns.chunk(4, 1)
        grad_hidden = torch.zeros_like(outputs[0])
        through, past = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        for step in reversed(range(steps)):
            inner, reset, update, candidate = activations[step].chunk(4, 1)
            grad_hidden.add_(grad_outputs[0][step])
            torch.mul(grad_hidden, update, out=past)  # h' = n + u (h - n)
            torch.sub(grad_hidden, past, out=through)
            torch.ops.aten.tanh_backward.grad_input(through, candidate, grad_input=grad_candidate)
            torch.sub(outputs[step + 1], candidate, out=grad_update).mul_(through)  # u (h - n) dh (1 - u)
            torch.mul(grad_candidate, reset, out=grad_inner)
            torch.mul(grad_candidate, inner, out=through)
            torch.ops.aten.sigmoid_backward.grad_input(through, reset, grad_input=grad_reset)
            taken = rounded(gradients.columns[:, : 3 * size], rounding)
            add_products(grad_weight, taken, outputs[step].mT, rounding)
            add_products(past, transposed, taken, rounding)
            grad_hidden, past = past, grad_hidden
            gradients.add(step)
        grad_bias_n = gradients.rows[:, :size].sum((2, 3))
        grad_weight_hh = grad_weight.roll(-size, 1)
        return gradients.rows[:, size:], gradients.constant, grad_hidden, grad_weight_hh, grad_bias_n, None, None


class _LSTM(torch.autograd.Function):
    """`lstm_step` over a sequence, of D layers that know nothing of each other.

    Gates are `(D, 4H, T, B)` and `(D, 4H, K*B)`, states `(D, H, K*B)`, outputs `(T, D, H, K*B)`. Kept for the gradient
    (where `keep` says that there will be one): the open gates i, f, g, o and the cell of every step.
    """

    @staticmethod
    def forward(
        context: Any,
        row_gates: Tensor,
        constant: Tensor | None,
        hidden: Tensor,
        cell: Tensor,
        weight_hh: Tensor,
        rounding: Rounding,
        keep: bool,
    ) -> Tensor:
        steps, (layers, size, columns) = row_gates.shape[2], hidden.shape
        outputs = hidden.new_empty(steps + 1, layers, size, columns)
        kept_steps = steps if keep else 1
        cells = hidden.new_empty(steps + 1 if keep else 1, layers, size, columns)
        activations = hidden.new_empty(kept_steps, layers, 4 * size, columns)
        weight, shown = rounded(weight_hh, rounding), torch.empty_like(hidden)
        outputs[0], cells[0] = hidden, cell
        for step in range(steps):
            gates = activations[step % kept_steps]
            before, after = cells[step % len(cells)], cells[(step + 1) % len(cells)]
            write_products(weight, outputs[step], rounding, gates)
            _add_gates(gates, row_gates[:, :, step], constant)
            enter, forget, value, leave = gates.chunk(4, 1)
            gates[:, : 2 * size].sigmoid_()
            tanh_of_double(value.mul_(2))
            leave.sigmoid_()
            torch.mul(forget, before, out=after).addcmul_(enter, value)
            torch.mul(leave, tanh_of_double(torch.mul(after, 2, out=shown)), out=outputs[step + 1])
        context.save_for_backward(outputs, cells, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[3], constant is not None, rounding
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, cells, activations, weight = context.saved_tensors
        rounding, (steps, _, size, _) = context.rounding, grad_outputs[0].shape
        transposed, grad_weight = weight.mT, torch.zeros_like(weight, dtype=outputs.dtype)
        gradients = _Gradients(outputs[0], steps, 4 * size, 0, context.rows, context.has_constant)
        grad_enter, grad_forget, grad_value, grad_leave = gradients.columns.chunk(4, 1)
        grad_hidden, grad_cell = torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0])
        shown, through = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
        tanh_backward = torch.ops.aten.tanh_backward.grad_input
        for step in reversed(range(steps)):
            enter, forget, value, leave = activations[step].chunk(4, 1)
            tanh_of_double(torch.mul(cells[step + 1], 2, out=shown))
            grad_hidden.add_(grad_outputs[0][step])
            sigmoid_backward(torch.mul(grad_hidden, shown, out=through), leave, grad_input=grad_leave)
            tanh_backward(grad_hidden.mul_(leave), shown, grad_input=through)
            grad_cell.add_(through)
            sigmoid_backward(torch.mul(grad_cell, value, out=through), enter, grad_input=grad_enter)
            tanh_backward(torch.mul(grad_cell, enter, out=through), value, grad_input=grad_value)
            sigmoid_backward(torch.mul(grad_cell, cells[step], out=through), forget, grad_input=grad_forget)
            grad_cell.mul_(forget)
            taken = rounded(gradients.columns, rounding)
            add_products(grad_weight, taken, outputs[step].mT, rounding)
            write_products(transposed, taken, rounding, grad_hidden)
            gradients.add(step)
        return gradients.rows, gradients.constant, grad_hidden, grad_cell, grad_weight, None, None


class RecurrentLayer(Multiplies):
    """One layer of one direction.

    Args:
        cell: `gru` or `lstm`.
        input_size: Size of what it reads.
        hidden_size: H.
    """

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        gates = (3 if cell == "gru" else 4) * hidden_size
        self.cell = cell
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.zeros(gates, input_size))
        self.weight_hh = nn.Parameter(torch.zeros(gates, hidden_size))
        self.bias = nn.Parameter(torch.zeros(gates))
        if cell == "gru":
            self.bias_n = nn.Parameter(torch.zeros(hidden_size))

    def project(self, inputs: Float[Tensor, "*N I"]) -> Float[Tensor, "*N G"]:
        """What the inputs contribute to the gates."""
        return linear(inputs, self.weight_ih, self.bias, self.rounding)

    def zero_state(self, labels: int, rows: int) -> State:
        """States of zeros, each of shape `(K, B, H)`."""
        zeros = self.bias.new_zeros(labels, rows, self.hidden_size)
        return (zeros,) if self.cell == "gru" else (zeros, zeros)

    def step(self, gates: Float[Tensor, "*N G"], state: State) -> State:
        """One step; the first entry of the state is the output."""
        if self.cell == "gru":
            return (gru_step(gates, state[0], self.weight_hh, self.bias_n, self.rounding),)
        hidden, cell = state
        return lstm_step(gates, hidden, cell, self.weight_hh, self.rounding)

    def forward(
        self, row_gates: Float[Tensor, "B T G"], constant: Float[Tensor, "K B G"] | None, state: State
    ) -> Float[Tensor, "K B T H"]:
        """Read whole sequences, for each label.

        Args:
            row_gates: What each row's symbols contribute to the gates, the same for all labels.
            constant: What label and z contribute, the same at all steps; None for nothing.
            state: First states, each of shape `(K, B, H)`.

        Returns:
            Outputs, which lie in memory as `(T, H, K, B)`.
        """
        columns = None if constant is None else fold(constant)[None]
        outputs = read_together((self,), row_gates[None], columns, tuple(fold(part)[None] for part in state))
        return unfold(outputs.squeeze(0), len(state[0]))


def _together(parts: Sequence[Float[Tensor, "*F"]]) -> Float[Tensor, "D *F"]:
    return parts[0][None] if len(parts) == 1 else torch.stack(tuple(parts))


def project_together(layers: Sequence[RecurrentLayer], inputs: Float[Tensor, "D B T I"]) -> Float[Tensor, "D B T G"]:
    """What the inputs of each layer contribute to its gates: one matrix product, laid out as `read_together` reads it.

    Args:
        layers: D layers of the same cell and sizes.
        inputs: Of each layer, its own.

    Returns:
        Gates, which lie in memory as `(D, G, T, B)`.
    """
    count, _, steps, size = inputs.shape
    columns = inputs.permute(0, 3, 2, 1).reshape(count, size, -1)
    weight, bias = (_together([getattr(layer, name) for layer in layers]) for name in ("weight_ih", "bias"))
    rounding = layers[0].rounding
    if rounding is not None:
        gates = (rounded(weight, rounding) @ rounded(columns, rounding)).to(weight.dtype) + bias[:, :, None]
    elif count == 1:
        gates = torch.addmm(bias[0, :, None], weight[0], columns[0])[None]
    else:
        gates = torch.baddbmm(bias[:, :, None], weight, columns)
    return gates.unflatten(2, (steps, -1)).permute(0, 3, 2, 1)


def read_together(
    layers: Sequence[RecurrentLayer],
    row_gates: Float[Tensor, "D B T G"],
    constant: Float[Tensor, "D N G"] | None,
    state: State,
) -> Float[Tensor, "D N T H"]:
    """Read whole sequences with layers that know nothing of each other, as the directions of an encoder, step by step.

    Where rows are few, a step's products are so small that calls count: together, there are half as many. (The JAX
    twin's loops are compiled: it has no calls to save, and reads each layer alone.)

    Args:
        layers: D layers of the same cell and sizes.
        row_gates: As of `RecurrentLayer.forward`, of each layer.
        constant: Likewise, folded.
        state: First states, each of shape `(D, N, H)`.

    Returns:
        Outputs, which lie in memory as `(T, D, H, N)`.
    """
    function, names = (_GRU, ("weight_hh", "bias_n")) if layers[0].cell == "gru" else (_LSTM, ("weight_hh",))
    columns = [None if part is None else part.mT.contiguous() for part in (constant, *state)]
    weights = [_together([getattr(layer, name) for layer in layers]) for name in names]
    gates = row_gates.permute(0, 3, 2, 1).contiguous()
    outputs = function.apply(gates, *columns, *weights, layers[0].rounding, torch.is_grad_enabled())
    return outputs.permute(1, 3, 0, 2)
