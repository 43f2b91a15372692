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

from seqssvae_torch import fused
from seqssvae_torch.products import Multiplies, Rounding, add_products, linear, rounded, swift, write_products

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


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        result = tanh_of_double(2 * values)
        context.save_for_backward(result)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> Tensor:
        return torch.ops.aten.tanh_backward(grad_outputs[0], *context.saved_tensors)


def tanh(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """PyTorch's, or on a CPU `tanh_of_double`."""
    return _Tanh.apply(values) if values.device.type == "cpu" else torch.tanh(values)


def _by_label(gates: Float[Tensor, "... N"], rows: int) -> Float[Tensor, "... K B"]:
    return gates.unflatten(-1, (-1, rows))


class _Inputs:
    """What gates are given at each step: of the rows, the same for each label, and what is constant.

    Args:
        row_gates: Of the rows.
        constant: Of label and row; None for nothing.
    """

    def __init__(self, row_gates: Float[Tensor, "D G T B"], constant: Float[Tensor, "D G N"] | None) -> None:
        self.row_count = row_gates.shape[3]
        self.rows = row_gates[:, :, :, None].unbind(2)
        self.constant = constant if constant is None else _by_label(constant, self.row_count)

    def add(self, step: int, gates: Float[Tensor, "D G N"]) -> None:
        """Add them to what is there."""
        by_label = _by_label(gates, self.row_count)
        if self.constant is not None:
            by_label.add_(self.constant)
        by_label.add_(self.rows[step])

    def write(self, step: int, gates: Float[Tensor, "D G N"]) -> None:
        """Write them where they will be used."""
        by_label = _by_label(gates, self.row_count)
        if self.constant is None:
            by_label.copy_(self.rows[step].expand_as(by_label))
        else:
            torch.add(self.rows[step], self.constant, out=by_label)


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
        self.by_step = like.new_empty(steps, layers, size, rows)
        self.shared = None if rows == columns else like.new_empty(layers, size, columns)
        self.constant = like.new_zeros(layers, size - inner, columns) if has_constant else None

    def columns(self, step: int) -> Float[Tensor, "D S N"]:
        """Where the gradient of this step is to be written: with one label it stays there."""
        return self.by_step[step] if self.shared is None else self.shared

    def add(self, step: int) -> None:
        """Take what was written to `columns` as the gradient of this step."""
        if self.shared is not None:
            torch.sum(_by_label(self.shared, self.by_step.shape[3]), 2, out=self.by_step[step])
        if self.constant is not None:
            self.constant.add_(self.columns(step)[:, self.inner :])

    def of_rows(self) -> Float[Tensor, "D S T B"]:
        """Of all steps."""
        return self.by_step.permute(1, 2, 0, 3)


class _WeightGradient:
    """The gradient of the state's weights, added up step by step.

    Args:
        weight: Weights of D layers.
        dtype: Of the gradient.
        rounding: Type to which operands are rounded.
    """

    def __init__(self, weight: Float[Tensor, "D G H"], dtype: torch.dtype, rounding: Rounding) -> None:
        self.sum = torch.empty_like(weight, dtype=dtype)
        self.rounding, self.has_steps = rounding, False

    def add(self, gates: Float[Tensor, "D G N"], states: Float[Tensor, "D N H"]) -> None:
        """Add the share of a step, from the gates' gradient and the states that it started from."""
        if self.has_steps:
            add_products(self.sum, gates, states, self.rounding)
        else:
            write_products(gates, states, self.rounding, self.sum)
        self.has_steps = True

    def total(self) -> Float[Tensor, "D G H"]:
        """Of all steps."""
        return self.sum if self.has_steps else self.sum.zero_()


def _state_shape(row_gates: Tensor, weight_hh: Float[Tensor, "D G H"], hidden: Tensor | None) -> tuple[int, int, int]:
    """D, H and N: without a first state there is one label."""
    return (len(weight_hh), weight_hh.shape[2], row_gates.shape[3]) if hidden is None else (*hidden.shape,)


class _GRU(torch.autograd.Function):
    """`gru_step` over a sequence, of D layers that know nothing of each other.

    Gates are `(D, 3H, T, B)` and `(D, 3H, K*B)`, states `(D, H, K*B)`, outputs `(T, D, H, K*B)`. Kept for the gradient
    (where `keep` says that there will be one): `W_n h + bias_n`, r, u and n of every step, in this order: so the first
    three, which depend on the state, and the last three, the gates, lie side by side.
    """

    @staticmethod
    @swift
    def forward(
        context: Any,
        row_gates: Tensor,
        constant: Tensor | None,
        hidden: Tensor | None,
        weight_hh: Tensor,
        bias_n: Tensor,
        rounding: Rounding,
        keep: bool,
    ) -> Tensor:
        steps, (layers, size, columns) = row_gates.shape[2], _state_shape(row_gates, weight_hh, hidden)
        outputs = row_gates.new_empty(steps + 1, layers, size, columns)
        kept_steps = steps if keep else 1
        activations = row_gates.new_empty(kept_steps, layers, 4 * size, columns)
        weight, bias = rounded(weight_hh.roll(size, 1), rounding), bias_n[:, :, None]
        of_open, of_candidate = (None, None) if constant is None else constant.split((2 * size, size), 1)
        open_inputs = _Inputs(row_gates[:, : 2 * size], of_open)
        doubled_inputs = _Inputs(2 * row_gates[:, 2 * size :], None if of_candidate is None else 2 * of_candidate)
        states, of_state = outputs.unbind(), activations[:, :, : 3 * size].unbind()
        inner, reset, update, candidate = (part.unbind() for part in activations.chunk(4, 2))
        open_gates = activations[:, :, size : 3 * size].unbind()
        outputs[0] = 0.0 if hidden is None else hidden
        for step in range(steps):
            place = step % kept_steps
            if step == 0 and hidden is None:
                of_state[place].zero_()
            else:
                write_products(weight, states[step], rounding, of_state[place])
            inner[place].add_(bias)
            open_inputs.add(step, open_gates[place])
            open_gates[place].sigmoid_()
            doubled_inputs.write(step, candidate[place])
            tanh_of_double(candidate[place].addcmul_(reset[place], inner[place], value=2))
            torch.lerp(candidate[place], states[step], update[place], out=states[step + 1])
        context.save_for_backward(outputs, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[3], constant is not None, rounding
        context.from_zero = hidden is None
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    @swift
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, activations, weight = context.saved_tensors
        rounding, (steps, _, size, _) = context.rounding, grad_outputs[0].shape
        states, transposed_states, of_outputs = outputs.unbind(), outputs.mT.unbind(), grad_outputs[0].unbind()
        inner, reset, update, candidate = (part.unbind() for part in activations.chunk(4, 2))
        transposed, grad_weight = weight.mT, _WeightGradient(weight, outputs.dtype, rounding)
        gradients = _Gradients(outputs[0], steps, 4 * size, size, context.rows, context.has_constant)
        grad_hidden = torch.zeros_like(outputs[0])
        through, past = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        for step in reversed(range(steps)):
            columns = gradients.columns(step)
            grad_inner, grad_reset, grad_update, grad_candidate = columns.chunk(4, 1)
            grad_hidden.add_(of_outputs[step])
            torch.mul(grad_hidden, update[step], out=past)  # h' = n + u (h - n)
            torch.sub(grad_hidden, past, out=through)
            torch.ops.aten.tanh_backward.grad_input(through, candidate[step], grad_input=grad_candidate)
            torch.sub(states[step + 1], candidate[step], out=grad_update).mul_(through)  # u (h - n) dh (1 - u)
            torch.mul(grad_candidate, reset[step], out=grad_inner)
            torch.mul(grad_candidate, inner[step], out=through)
            torch.ops.aten.sigmoid_backward.grad_input(through, reset[step], grad_input=grad_reset)
            gradients.add(step)
            if step == 0 and context.from_zero:  # a state of zeros has no share in the weight's gradient, and no own
                break
            taken = rounded(columns[:, : 3 * size], rounding)
            grad_weight.add(taken, transposed_states[step])
            add_products(past, transposed, taken, rounding)
            grad_hidden, past = past, grad_hidden
        of_rows = gradients.of_rows()
        grad_bias_n = of_rows[:, :size].sum((2, 3))
        grad_state = None if context.from_zero else grad_hidden
        grad_weight_hh = grad_weight.total().roll(-size, 1)
        return of_rows[:, size:], gradients.constant, grad_state, grad_weight_hh, grad_bias_n, None, None


class _LSTM(torch.autograd.Function):
    """`lstm_step` over a sequence, of D layers that know nothing of each other.

    Gates are `(D, 4H, T, B)` and `(D, 4H, K*B)`, states `(D, H, K*B)`, outputs `(T, D, H, K*B)`. Kept for the gradient
    (where `keep` says that there will be one): the open gates i, f, g, o and the cell of every step.
    """

    @staticmethod
    @swift
    def forward(
        context: Any,
        row_gates: Tensor,
        constant: Tensor | None,
        hidden: Tensor | None,
        cell: Tensor | None,
        weight_hh: Tensor,
        rounding: Rounding,
        keep: bool,
    ) -> Tensor:
        steps, (layers, size, columns) = row_gates.shape[2], _state_shape(row_gates, weight_hh, hidden)
        outputs = row_gates.new_empty(steps + 1, layers, size, columns)
        kept_steps = steps if keep else 1
        cells = row_gates.new_empty(steps + 1 if keep else 1, layers, size, columns)
        activations = row_gates.new_empty(kept_steps, layers, 4 * size, columns)
        weight, shown = rounded(weight_hh, rounding), torch.empty_like(outputs[0])
        inputs = _Inputs(row_gates, constant)
        states, gates, open_gates = outputs.unbind(), activations.unbind(), activations[:, :, : 2 * size].unbind()
        enter, forget, value, leave = (part.unbind() for part in activations.chunk(4, 2))
        outputs[0], cells[0] = 0.0 if hidden is None else hidden, 0.0 if cell is None else cell
        for step in range(steps):
            place = step % kept_steps
            before, after = cells[step % len(cells)], cells[(step + 1) % len(cells)]
            if step == 0 and hidden is None:
                inputs.write(step, gates[place])
            else:
                write_products(weight, states[step], rounding, gates[place])
                inputs.add(step, gates[place])
            open_gates[place].sigmoid_()
            tanh_of_double(value[place].mul_(2))
            leave[place].sigmoid_()
            torch.mul(forget[place], before, out=after).addcmul_(enter[place], value[place])
            torch.mul(leave[place], tanh_of_double(torch.mul(after, 2, out=shown)), out=states[step + 1])
        context.save_for_backward(outputs, cells, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[3], constant is not None, rounding
        context.from_zero = hidden is None
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    @swift
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, cells, activations, weight = context.saved_tensors
        rounding, steps = context.rounding, len(grad_outputs[0])
        size, transposed_states, of_outputs = outputs.shape[2], outputs.mT.unbind(), grad_outputs[0].unbind()
        enter, forget, value, leave = (part.unbind() for part in activations.chunk(4, 2))
        transposed, grad_weight = weight.mT, _WeightGradient(weight, outputs.dtype, rounding)
        gradients = _Gradients(outputs[0], steps, 4 * size, 0, context.rows, context.has_constant)
        grad_hidden, grad_cell = torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0])
        shown, through = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
        tanh_backward = torch.ops.aten.tanh_backward.grad_input
        for step in reversed(range(steps)):
            columns = gradients.columns(step)
            grad_enter, grad_forget, grad_value, grad_leave = columns.chunk(4, 1)
            tanh_of_double(torch.mul(cells[step + 1], 2, out=shown))
            grad_hidden.add_(of_outputs[step])
            sigmoid_backward(torch.mul(grad_hidden, shown, out=through), leave[step], grad_input=grad_leave)
            tanh_backward(grad_hidden.mul_(leave[step]), shown, grad_input=through)
            grad_cell.add_(through)
            sigmoid_backward(torch.mul(grad_cell, value[step], out=through), enter[step], grad_input=grad_enter)
            tanh_backward(torch.mul(grad_cell, enter[step], out=through), value[step], grad_input=grad_value)
            sigmoid_backward(torch.mul(grad_cell, cells[step], out=through), forget[step], grad_input=grad_forget)
            gradients.add(step)
            if step == 0 and context.from_zero:
                break
            grad_cell.mul_(forget[step])
            taken = rounded(columns, rounding)
            grad_weight.add(taken, transposed_states[step])
            write_products(transposed, taken, rounding, grad_hidden)
        states = (None, None) if context.from_zero else (grad_hidden, grad_cell)
        return gradients.of_rows(), gradients.constant, *states, grad_weight.total(), None, None


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
    state: State | None,
) -> Float[Tensor, "D N T H"]:
    """Read whole sequences with layers that know nothing of each other, as the directions of an encoder, step by step.

    Where rows are few, a step's products are so small that calls count: together, there are half as many. (The JAX
    twin's loops are compiled and have no calls to save: there each layer keeps its products, and all share one loop.)

    Args:
        layers: D layers of the same cell and sizes.
        row_gates: As of `RecurrentLayer.forward`, of each layer.
        constant: Likewise, folded.
        state: First states, each of shape `(D, N, H)`; None for zeros, with which the first step has no product.

    Returns:
        Outputs, which lie in memory as `(T, D, H, N)`.
    """
    gru = layers[0].cell == "gru"
    function, names, states = (_GRU, ("weight_hh", "bias_n"), 1) if gru else (_LSTM, ("weight_hh",), 2)
    columns = [None if part is None else part.mT.contiguous() for part in (constant, *(state or (None,) * states))]
    weights = [_together([getattr(layer, name) for layer in layers]) for name in names]
    gates, rounding = row_gates.permute(0, 3, 2, 1).contiguous(), layers[0].rounding
    if fused.serves(gates, layers[0].hidden_size, rounding):
        outputs = fused.read(gates, columns[0], tuple(columns[1:]), weights[0], weights[1] if gru else None)
    else:
        outputs = function.apply(gates, *columns, *weights, rounding, torch.is_grad_enabled())
    return outputs.permute(1, 3, 0, 2)
