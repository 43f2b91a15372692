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
    gates: Float[Tensor, "*N 3*H"],
    hidden: Float[Tensor, "*N H"],
    weight_hh: Float[Tensor, "3*H H"],
    bias_n: Float[Tensor, "H"],
) -> Float[Tensor, "*N H"]:
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
    gates: Float[Tensor, "*N 4*H"],
    hidden: Float[Tensor, "*N H"],
    cell: Float[Tensor, "*N H"],
    weight_hh: Float[Tensor, "4*H H"],
) -> tuple[Float[Tensor, "*N H"], Float[Tensor, "*N H"]]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    `i, f, g, o = a + W h`, `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)`, `h' = sigmoid(o) * tanh(c')`.
    """
    enter, forget, value, leave = (gates + functional.linear(hidden, weight_hh)).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(value)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _label_gates(row_gates: Tensor, constant: Tensor, step: int) -> Tensor:
    """Gates of one step for all labels: `(B, G)` of the rows plus `(K, B, G)`, folded."""
    return fold(row_gates[step] + constant)


class _GRU(torch.autograd.Function):
    """`gru_step` over a sequence. Gates are `(T, B, 3H)` and `(K, B, 3H)`, states `(K*B, H)`, outputs `(T, K*B, H)`."""

    @staticmethod
    def forward(
        context: Any, row_gates: Tensor, constant: Tensor, hidden: Tensor, weight_hh: Tensor, bias_n: Tensor
    ) -> Tensor:
        size, transposed = hidden.shape[1], weight_hh.t()
        outputs = hidden.new_empty(len(row_gates) + 1, *hidden.shape)
        activations = hidden.new_empty(len(row_gates), len(hidden), 4 * size)
        outputs[0] = hidden
        for step in range(len(row_gates)):
            gates, previous = _label_gates(row_gates, constant, step), outputs[step]
            recurrent = previous @ transposed
            open_gates = gates[:, : 2 * size].add_(recurrent[:, : 2 * size]).sigmoid_()
            reset, update = open_gates[:, :size], open_gates[:, size:]
            inner = recurrent[:, 2 * size :].add_(bias_n)
            candidate = gates[:, 2 * size :].addcmul_(reset, inner).tanh_()
            torch.lerp(candidate, previous, update, out=outputs[step + 1])
            activations[step, :, : 3 * size] = gates
            activations[step, :, 3 * size :] = inner
        context.save_for_backward(outputs, activations, weight_hh)
        context.labels = len(constant)
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        outputs, activations, weight_hh = context.saved_tensors
        (grad_outputs_all,) = grad_outputs
        steps, rows, size = grad_outputs_all.shape
        grad_gates = activations.new_empty(steps, rows, 3 * size)
        grad_recurrent = activations.new_empty(steps, rows, 3 * size)
        grad_hidden = torch.zeros_like(outputs[0])
        for step in reversed(range(steps)):
            grad_hidden = grad_hidden + grad_outputs_all[step]
            reset, update, candidate, inner = activations[step].chunk(4, -1)
            grad_update = grad_hidden * (outputs[step] - candidate) * (update * (1 - update))
            grad_candidate = grad_hidden * (1 - update) * (1 - candidate * candidate)
            grad_reset = grad_candidate * inner * (reset * (1 - reset))
            torch.cat((grad_reset, grad_update, grad_candidate), -1, out=grad_gates[step])
            torch.cat((grad_reset, grad_update, grad_candidate * reset), -1, out=grad_recurrent[step])
            grad_hidden = torch.addmm(grad_hidden * update, grad_recurrent[step], weight_hh)
        grad_weight = grad_recurrent.flatten(0, 1).t() @ outputs[:-1].flatten(0, 1)
        grad_bias_n = grad_recurrent[:, :, 2 * size :].sum((0, 1))
        by_label = grad_gates.reshape(steps, context.labels, -1, 3 * size)
        return by_label.sum(1), by_label.sum(0), grad_hidden, grad_weight, grad_bias_n


class _LSTM(torch.autograd.Function):
    """`lstm_step` over a sequence. Gates are `(T, B, 4H)` and `(K, B, 4H)`, states `(K*B, H)`, outputs `(T, K*B, H)`."""

    @staticmethod
    def forward(
        context: Any, row_gates: Tensor, constant: Tensor, hidden: Tensor, cell: Tensor, weight_hh: Tensor
    ) -> Tensor:
        size, transposed = hidden.shape[1], weight_hh.t()
        outputs = hidden.new_empty(len(row_gates) + 1, *hidden.shape)
        cells = hidden.new_empty(len(row_gates) + 1, *hidden.shape)
        activations = hidden.new_empty(len(row_gates), len(hidden), 4 * size)
        outputs[0], cells[0] = hidden, cell
        for step in range(len(row_gates)):
            gates = torch.addmm(
                _label_gates(row_gates, constant, step), outputs[step], transposed, out=activations[step]
            )
            gates[:, : 2 * size].sigmoid_()
            gates[:, 2 * size : 3 * size].tanh_()
            gates[:, 3 * size :].sigmoid_()
            enter, forget, value, leave = gates.chunk(4, -1)
            torch.addcmul(forget * cells[step], enter, value, out=cells[step + 1])
            torch.mul(leave, cells[step + 1].tanh(), out=outputs[step + 1])
        context.save_for_backward(outputs, cells, activations, weight_hh)
        context.labels = len(constant)
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        outputs, cells, activations, weight_hh = context.saved_tensors
        (grad_outputs_all,) = grad_outputs
        steps, rows, size = grad_outputs_all.shape
        grad_gates = activations.new_empty(steps, rows, 4 * size)
        grad_hidden = torch.zeros_like(outputs[0])
        grad_cell = torch.zeros_like(outputs[0])
        for step in reversed(range(steps)):
            grad_hidden = grad_hidden + grad_outputs_all[step]
            enter, forget, value, leave = activations[step].chunk(4, -1)
            shown = cells[step + 1].tanh()
            grad_leave = grad_hidden * shown * (leave * (1 - leave))
            grad_cell = grad_cell + grad_hidden * leave * (1 - shown * shown)
            grad_enter = grad_cell * value * (enter * (1 - enter))
            grad_forget = grad_cell * cells[step] * (forget * (1 - forget))
            grad_value = grad_cell * enter * (1 - value * value)
            torch.cat((grad_enter, grad_forget, grad_value, grad_leave), -1, out=grad_gates[step])
            grad_hidden = grad_gates[step] @ weight_hh
            grad_cell = grad_cell * forget
        grad_weight = grad_gates.flatten(0, 1).t() @ outputs[:-1].flatten(0, 1)
        by_label = grad_gates.reshape(steps, context.labels, -1, 4 * size)
        return by_label.sum(1), by_label.sum(0), grad_hidden, grad_cell, grad_weight


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
        return lstm_step(gates, *state, self.weight_hh)

    def forward(
        self, row_gates: Float[Tensor, "B T G"], constant: Float[Tensor, "K B G"] | None, state: State
    ) -> Float[Tensor, "K B T H"]:
        """Read whole sequences, for each label.

        Args:
            row_gates: What each row's symbols contribute to the gates, the same for all labels.
            constant: What label and z contribute, the same at all steps; None for nothing.
            state: First states, each of shape `(K, B, H)`.
        """
        labels, rows = state[0].shape[:2]
        if constant is None:
            constant = row_gates.new_zeros(1, 1, 1).expand(labels, rows, row_gates.shape[-1])
        function, rest = (_GRU, (self.bias_n,)) if self.cell == "gru" else (_LSTM, ())
        folded = [fold(part) for part in state]
        outputs = function.apply(row_gates.transpose(0, 1), constant, *folded, self.weight_hh, *rest)
        return unfold(outputs.transpose(0, 1), labels)
