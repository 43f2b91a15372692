"""Recurrent cells: one step, and whole sequences for K labels times B rows with a gradient written by hand.

A sequence's gates come in two parts that are never added up for all of `(K, B, T)`: `row_gates`, what the symbols of a
row contribute at each step, the same for every label, and `constant`, what label and z contribute, the same at every
step. Inside, labels and rows are folded to N = K*B columns and features come first, `(T, H, N)`, so that a step is one
matrix product for all gates and what it leaves for each gate lies in one piece. All that is kept for the gradient is
the states and the activations; the way back holds the gradients of one step at a time and adds them up as it goes.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqssvae_torch.products import Multiplies, Rounding, add_product, linear, rounded

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


def _fill_gates(
    gates: Float[Tensor, "G N"], row_gates: Float[Tensor, "G B"], constant: Float[Tensor, "G N"] | None
) -> None:
    """Write the inputs of all gates at one step, `(G, B)` of the rows plus `(G, K*B)`, where they will be used."""
    by_label = gates.unflatten(1, (-1, row_gates.shape[1]))
    if constant is None:
        by_label.copy_(row_gates[:, None].expand_as(by_label))
    else:
        torch.add(row_gates[:, None], constant.unflatten(1, by_label.shape[1:]), out=by_label)


class _Gradients:
    """Gradients of gates, added up step by step over labels (for the rows) and over steps (for what is constant).

    Args:
        like: States, `(H, K*B)`.
        steps: T.
        size: Number of gradients of a column.
        inner: How many of them, the first, are not of gates.
        rows: B.
        has_constant: Whether there is a constant.
    """

    def __init__(self, like: Tensor, steps: int, size: int, inner: int, rows: int, has_constant: bool) -> None:
        self.inner = inner
        self.rows = like.new_empty(steps, size, rows)
        self.one_label = like.shape[1] == rows
        self.columns = like.new_empty(0 if self.one_label else size, like.shape[1])
        self.constant = like.new_zeros(size - inner, like.shape[1]) if has_constant else None

    def of(self, step: int) -> Tensor:
        """Where the gradient of a step is to be written: that of the rows itself, if there is one label."""
        return self.rows[step] if self.one_label else self.columns

    def add(self, step: int) -> None:
        """Take what was written as the gradient of this step."""
        if not self.one_label:
            torch.sum(self.columns.unflatten(1, (-1, self.rows.shape[2])), 1, out=self.rows[step])
        if self.constant is not None:
            self.constant.add_(self.of(step)[self.inner :])


class _GRU(torch.autograd.Function):
    """`gru_step` over a sequence.

    Gates are `(T, 3H, B)` and `(3H, K*B)`, states `(H, K*B)`, outputs `(T, H, K*B)`. Kept for the gradient (where
    `keep` says that there will be one): `W_n h + bias_n`, r, u and n of every step, in this order: so the first three,
    which depend on the state, and the last three, the gates, lie side by side.
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
        steps, (size, columns) = len(row_gates), hidden.shape
        outputs = hidden.new_empty(steps + 1, size, columns)
        kept_steps = steps if keep else 1
        activations = hidden.new_empty(kept_steps, 4 * size, columns)
        weight, bias = rounded(weight_hh.roll(size, 0), rounding), bias_n[:, None]
        recurrent = weight.new_empty(3 * size, columns)
        outputs[0] = hidden
        for step in range(steps):
            kept = activations[step % kept_steps]
            _fill_gates(kept[size:], row_gates[step], constant)
            torch.mm(weight, rounded(outputs[step], rounding), out=recurrent)
            inner = torch.add(recurrent[:size], bias, out=kept[:size])
            open_gates = kept[size : 3 * size].add_(recurrent[size:]).sigmoid_()
            candidate = tanh_of_double(kept[3 * size :].addcmul_(open_gates[:size], inner).mul_(2))
            torch.lerp(candidate, outputs[step], open_gates[size:], out=outputs[step + 1])
        context.save_for_backward(outputs, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[2], constant is not None, rounding
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, activations, weight = context.saved_tensors
        rounding, (steps, size, _) = context.rounding, grad_outputs[0].shape
        transposed, grad_weight = weight.t(), torch.zeros_like(weight, dtype=outputs.dtype)
        gradients = _Gradients(outputs[0], steps, 4 * size, size, context.rows, context.has_constant)
        grad_hidden = torch.zeros_like(outputs[0])
        through, past = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        for step in reversed(range(steps)):
            inner, reset, update, candidate = activations[step].chunk(4)
            written = gradients.of(step)
            grad_inner, grad_reset, grad_update, grad_candidate = written.chunk(4)
            grad_hidden.add_(grad_outputs[0][step])
            torch.mul(grad_hidden, update, out=past)  # h' = n + u (h - n)
            torch.sub(grad_hidden, past, out=through)
            torch.ops.aten.tanh_backward.grad_input(through, candidate, grad_input=grad_candidate)
            torch.sub(outputs[step + 1], candidate, out=grad_update).mul_(through)  # u (h - n) dh (1 - u)
            torch.mul(grad_candidate, reset, out=grad_inner)
            torch.mul(grad_candidate, inner, out=through)
            torch.ops.aten.sigmoid_backward.grad_input(through, reset, grad_input=grad_reset)
            taken = rounded(written[: 3 * size], rounding)
            add_product(grad_weight, taken, outputs[step].t(), rounding)
            grad_hidden, past = add_product(past, transposed, taken, rounding), grad_hidden
            gradients.add(step)
        grad_bias_n = gradients.rows[:, :size].sum((0, 2))
        grad_weight_hh = grad_weight.roll(-size, 0)
        return gradients.rows[:, size:], gradients.constant, grad_hidden, grad_weight_hh, grad_bias_n, None, None


class _LSTM(torch.autograd.Function):
    """`lstm_step` over a sequence.

    Gates are `(T, 4H, B)` and `(4H, K*B)`, states `(H, K*B)`, outputs `(T, H, K*B)`. Kept for the gradient (where
    `keep` says that there will be one): the open gates i, f, g, o and the cell of every step.
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
        steps, (size, columns) = len(row_gates), hidden.shape
        outputs = hidden.new_empty(steps + 1, size, columns)
        kept_steps = steps if keep else 1
        cells = hidden.new_empty(steps + 1 if keep else 1, size, columns)
        activations = hidden.new_empty(kept_steps, 4 * size, columns)
        weight, shown = rounded(weight_hh, rounding), torch.empty_like(hidden)
        outputs[0], cells[0] = hidden, cell
        for step in range(steps):
            gates = activations[step % kept_steps]
            before, after = cells[step % len(cells)], cells[(step + 1) % len(cells)]
            _fill_gates(gates, row_gates[step], constant)
            add_product(gates, weight, outputs[step], rounding)
            enter, forget, value, leave = gates.chunk(4)
            gates[: 2 * size].sigmoid_()
            tanh_of_double(value.mul_(2))
            leave.sigmoid_()
            torch.mul(forget, before, out=after).addcmul_(enter, value)
            torch.mul(leave, tanh_of_double(torch.mul(after, 2, out=shown)), out=outputs[step + 1])
        context.save_for_backward(outputs, cells, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[2], constant is not None, rounding
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, cells, activations, weight = context.saved_tensors
        rounding, (steps, size, _) = context.rounding, grad_outputs[0].shape
        transposed, grad_weight = weight.t(), torch.zeros_like(weight, dtype=outputs.dtype)
        gradients = _Gradients(outputs[0], steps, 4 * size, 0, context.rows, context.has_constant)
        grad_hidden, grad_cell = torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0])
        shown, through = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
        tanh_backward = torch.ops.aten.tanh_backward.grad_input
        for step in reversed(range(steps)):
            enter, forget, value, leave = activations[step].chunk(4)
            written = gradients.of(step)
            grad_enter, grad_forget, grad_value, grad_leave = written.chunk(4)
            tanh_of_double(torch.mul(cells[step + 1], 2, out=shown))
            grad_hidden.add_(grad_outputs[0][step])
            sigmoid_backward(torch.mul(grad_hidden, shown, out=through), leave, grad_input=grad_leave)
            tanh_backward(grad_hidden.mul_(leave), shown, grad_input=through)
            grad_cell.add_(through)
            sigmoid_backward(torch.mul(grad_cell, value, out=through), enter, grad_input=grad_enter)
            tanh_backward(torch.mul(grad_cell, enter, out=through), value, grad_input=grad_value)
            sigmoid_backward(torch.mul(grad_cell, cells[step], out=through), forget, grad_input=grad_forget)
            grad_cell.mul_(forget)
            taken = rounded(written, rounding)
            add_product(grad_weight, taken, outputs[step].t(), rounding)
            add_product(grad_hidden.zero_(), transposed, taken, rounding)
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
        """What the inputs contribute to the gates: one matrix product for all steps."""
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
        labels = len(state[0])
        function, rest = (_GRU, (self.bias_n,)) if self.cell == "gru" else (_LSTM, ())
        columns = [None if part is None else fold(part).t().contiguous() for part in (constant, *state)]
        gates = row_gates.permute(1, 2, 0).contiguous()
        keep = torch.is_grad_enabled()
        outputs = function.apply(gates, *columns, self.weight_hh, *rest, self.rounding, keep)
        return outputs.unflatten(2, (labels, -1)).permute(2, 3, 0, 1)
