"""Recurrent cells: one step, and whole sequences for K labels times B rows with a gradient written by hand.

A sequence's gates come in two parts that are never added up for all of `(K, B, T)`: `row_gates`, what the symbols of a
row contribute at each step, the same for every label, and `constant`, what label and z contribute, the same at every
step. States are folded to `(K*B, H)`, so that a step is one matrix product, and the gradient of the recurrent weights
is one product over all steps instead of one per step.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

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
) -> Float[Tensor, "*#N H"]:
    """One step of a gated recurrent unit (Cho et al. 2014), with the reset gate inside the candidate's product.

    `r = sigmoid(a_r + W_r h)`, `u = sigmoid(a_u + W_u h)`, `n = tanh(a_n + r * (W_n h + bias_n))`,
    `h' = n + u * (h - n)`, where `a` are the gates given.
    """
    reset_in, update_in, candidate_in = gates.chunk(3, -1)
    reset_h, update_h, candidate_h = functional.linear(hidden, weight_hh).chunk(3, -1)
    reset = torch.sigmoid(reset_in + reset_h)
    update = torch.sigmoid(update_in + update_h)
    candidate = torch.tanh(candidate_in + reset * (candidate_h + bias_n))
    return candidate + update * (hidden - candidate)


def lstm_step(
    gates: Float[Tensor, "*#N G"],
    hidden: Float[Tensor, "*#N H"],
    cell: Float[Tensor, "*#N H"],
    weight_hh: Float[Tensor, "G H"],
) -> tuple[Float[Tensor, "*#N H"], Float[Tensor, "*#N H"]]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    `i, f, g, o = a + W h`, `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)`, `h' = sigmoid(o) * tanh(c')`.
    """
    enter, forget, value, leave = (gates + functional.linear(hidden, weight_hh)).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(value)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _fill_gates(activations: Tensor, row_gates: Tensor, constant: Tensor | None, labels: int) -> None:
    """Write the inputs of all gates, `(T, B, G)` of the rows plus `(K, B, G)`, where they will be used."""
    _, rows, size = row_gates.shape
    by_label = activations[:, :, :size].unflatten(1, (labels, rows))
    if constant is None:
        by_label.copy_(row_gates[:, None].expand_as(by_label))
    else:
        torch.add(row_gates[:, None], constant, out=by_label)


def _grad_inputs(grad_gates: Tensor, labels: int, has_constant: bool) -> tuple[Tensor, Tensor | None]:
    """Gradients of row gates and constant from those of the gates of all labels."""
    by_label = grad_gates.unflatten(1, (labels, -1))
    return by_label.sum(1), by_label.sum(0) if has_constant else None


class _GRU(torch.autograd.Function):
    """`gru_step` over a sequence.

    Gates are `(T, B, 3H)` and `(K, B, 3H)`, states `(K*B, H)`, outputs `(T, K*B, H)`. Kept for the gradient: r, u, n
    and `W_n h + bias_n` of every step.
    """

    @staticmethod
    def forward(
        context: Any,
        row_gates: Tensor,
        constant: Tensor | None,
        labels: int,
        hidden: Tensor,
        weight_hh: Tensor,
        bias_n: Tensor,
    ) -> Tensor:
        size, transposed = hidden.shape[1], weight_hh.t()
        outputs = hidden.new_empty(len(row_gates) + 1, *hidden.shape)
        activations = hidden.new_empty(len(row_gates), len(hidden), 4 * size)
        recurrent = hidden.new_empty(len(hidden), 3 * size)
        _fill_gates(activations, row_gates, constant, labels)
        outputs[0] = hidden
        for step in range(len(row_gates)):
            kept = activations[step]
            torch.mm(outputs[step], transposed, out=recurrent)
            open_gates = kept[:, : 2 * size].add_(recurrent[:, : 2 * size]).sigmoid_()
            inner = torch.add(recurrent[:, 2 * size :], bias_n, out=kept[:, 3 * size :])
            candidate = kept[:, 2 * size : 3 * size].addcmul_(open_gates[:, :size], inner).tanh_()
            torch.lerp(candidate, outputs[step], open_gates[:, size:], out=outputs[step + 1])
        context.save_for_backward(outputs, activations, weight_hh)
        context.labels, context.has_constant = labels, constant is not None
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, activations, weight_hh = context.saved_tensors
        steps, rows, size = grad_outputs[0].shape
        reset, update, candidate, inner = activations.chunk(4, -1)
        by_update = (outputs[:-1] - candidate) * update * (1 - update)
        by_candidate = (1 - update) * (1 - candidate * candidate)
        by_reset = inner * reset * (1 - reset)
        grad_gates = activations.new_empty(steps, rows, 3 * size)
        grad_recurrent = torch.empty_like(grad_gates)
        grad_hidden = torch.zeros_like(outputs[0])
        for step in reversed(range(steps)):
            grad_hidden = grad_hidden + grad_outputs[0][step]
            gates = grad_gates[step]
            grad_candidate = torch.mul(grad_hidden, by_candidate[step], out=gates[:, 2 * size :])
            torch.mul(grad_hidden, by_update[step], out=gates[:, size : 2 * size])
            torch.mul(grad_candidate, by_reset[step], out=gates[:, :size])
            grad_recurrent[step, :, : 2 * size] = gates[:, : 2 * size]
            torch.mul(grad_candidate, reset[step], out=grad_recurrent[step, :, 2 * size :])
            grad_hidden = torch.addmm(grad_hidden.mul_(update[step]), grad_recurrent[step], weight_hh)
        grad_weight = grad_recurrent.flatten(0, 1).t() @ outputs[:-1].flatten(0, 1)
        grad_bias_n = grad_recurrent[:, :, 2 * size :].sum((0, 1))
        grad_rows, grad_constant = _grad_inputs(grad_gates, context.labels, context.has_constant)
        return grad_rows, grad_constant, None, grad_hidden, grad_weight, grad_bias_n


class _LSTM(torch.autograd.Function):
    """`lstm_step` over a sequence.

    Gates are `(T, B, 4H)` and `(K, B, 4H)`, states `(K*B, H)`, outputs `(T, K*B, H)`. Kept for the gradient: the open
    gates i, f, g, o and the cell of every step.
    """

    @staticmethod
    def forward(
        context: Any,
        row_gates: Tensor,
        constant: Tensor | None,
        labels: int,
        hidden: Tensor,
        cell: Tensor,
        weight_hh: Tensor,
    ) -> Tensor:
        size, transposed = hidden.shape[1], weight_hh.t()
        outputs = hidden.new_empty(len(row_gates) + 1, *hidden.shape)
        cells = torch.empty_like(outputs)
        activations = hidden.new_empty(len(row_gates), len(hidden), 4 * size)
        _fill_gates(activations, row_gates, constant, labels)
        outputs[0], cells[0] = hidden, cell
        for step in range(len(row_gates)):
            gates = activations[step].addmm_(outputs[step], transposed)
            gates[:, : 2 * size].sigmoid_()
            gates[:, 2 * size : 3 * size].tanh_()
            gates[:, 3 * size :].sigmoid_()
            enter, forget, value, leave = gates.chunk(4, -1)
            torch.addcmul(forget * cells[step], enter, value, out=cells[step + 1])
            torch.mul(leave, cells[step + 1].tanh(), out=outputs[step + 1])
        context.save_for_backward(outputs, cells, activations, weight_hh)
        context.labels, context.has_constant = labels, constant is not None
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, cells, activations, weight_hh = context.saved_tensors
        steps, rows, size = grad_outputs[0].shape
        enter, forget, value, leave = activations.chunk(4, -1)
        shown = cells[1:].tanh()
        by_leave = shown * leave * (1 - leave)
        by_cell = leave * (1 - shown * shown)
        by_enter = value * enter * (1 - enter)
        by_forget = cells[:-1] * forget * (1 - forget)
        by_value = enter * (1 - value * value)
        grad_gates = activations.new_empty(steps, rows, 4 * size)
        grad_hidden = torch.zeros_like(outputs[0])
        grad_cell = torch.zeros_like(outputs[0])
        for step in reversed(range(steps)):
            grad_hidden = grad_hidden + grad_outputs[0][step]
            grad_cell = torch.addcmul(grad_cell, grad_hidden, by_cell[step])
            gates = grad_gates[step]
            torch.mul(grad_cell, by_enter[step], out=gates[:, :size])
            torch.mul(grad_cell, by_forget[step], out=gates[:, size : 2 * size])
            torch.mul(grad_cell, by_value[step], out=gates[:, 2 * size : 3 * size])
            torch.mul(grad_hidden, by_leave[step], out=gates[:, 3 * size :])
            grad_hidden = gates @ weight_hh
            grad_cell = grad_cell.mul_(forget[step])
        grad_weight = grad_gates.flatten(0, 1).t() @ outputs[:-1].flatten(0, 1)
        grad_rows, grad_constant = _grad_inputs(grad_gates, context.labels, context.has_constant)
        return grad_rows, grad_constant, None, grad_hidden, grad_cell, grad_weight


class RecurrentLayer(nn.Module):
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
        return functional.linear(inputs, self.weight_ih, self.bias)

    def zero_state(self, labels: int, rows: int) -> State:
        """States of zeros, each of shape `(K, B, H)`."""
        zeros = self.bias.new_zeros(labels, rows, self.hidden_size)
        return (zeros,) if self.cell == "gru" else (zeros, zeros)

    def step(self, gates: Float[Tensor, "*N G"], state: State) -> State:
        """One step; the first entry of the state is the output."""
        if self.cell == "gru":
            return (gru_step(gates, state[0], self.weight_hh, self.bias_n),)
        hidden, cell = state
        return lstm_step(gates, hidden, cell, self.weight_hh)

    def forward(
        self, row_gates: Float[Tensor, "B T G"], constant: Float[Tensor, "K B G"] | None, state: State
    ) -> Float[Tensor, "K B T H"]:
        """Read whole sequences, for each label.

        Args:
            row_gates: What each row's symbols contribute to the gates, the same for all labels.
            constant: What label and z contribute, the same at all steps; None for nothing.
            state: First states, each of shape `(K, B, H)`.
        """
        labels = len(state[0])
        function, rest = (_GRU, (self.bias_n,)) if self.cell == "gru" else (_LSTM, ())
        folded = [fold(part) for part in state]
        outputs = function.apply(row_gates.transpose(0, 1), constant, labels, *folded, self.weight_hh, *rest)
        return unfold(outputs.transpose(0, 1), labels)
