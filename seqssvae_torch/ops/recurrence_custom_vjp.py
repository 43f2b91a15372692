"""Recurrent layers with a gradient written by hand.

The gates have two parts that are never added up for all of `(K, B, T)`: `row_gates`, which the symbols of a row
contribute at each step, the same for every label; and `constant`, which label and z contribute, the same at every step.
Labels and rows are folded to N = K*B columns, and features come first, `(T, D, H, N)` for D cells that are read
together. So a step is one matrix product for all gates, and the operands of each gate lie in one piece. Only states and
activations are kept for the gradient. The backward pass holds the gradients of one step at a time and sums as it goes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqssvae_torch.ops.cells import CellWeights, State, fold, unfold
from seqssvae_torch.ops.gate_buffers import GateGradients, GateInputs, WeightGradient
from seqssvae_torch.ops.products import (
    Rounding,
    add_products,
    rounded,
    rounding_now,
    with_fast_products,
    write_products,
)
from seqssvae_torch.ops.tanh import tanh_of_double

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def recurrence(
    cells: Sequence[CellWeights],
    inputs: Sequence[Float[Tensor, "#K B T I"]],
    constant: Float[Tensor, "K B G"] | None = None,
    state: State | None = None,
) -> tuple[Float[Tensor, "K B T H"], ...]:
    """As `seqssvae_torch.ops.recurrence`; the outputs lie in memory as `(T, D, H, K, B)`."""
    labels = len(inputs[0]) if state is None else len(state[0])
    if len(inputs[0]) > 1:  # a higher layer reads what depends on the label: its rows are those of all labels
        inputs = [fold(of_cell)[None] for of_cell in inputs]
        constant, state = (
            None if constant is None else fold(constant)[None],
            None if state is None else tuple(fold(part)[None] for part in state),
        )
    row_gates = _project(cells, _stack([of_cell.squeeze(0) for of_cell in inputs]))
    folded = [None if part is None else fold(part)[None].mT.contiguous() for part in (constant, *(state or ()))]
    weight_hh, rounding, keep = _stack([cell.weight_hh for cell in cells]), rounding_now(), torch.is_grad_enabled()
    if cells[0].bias_n is None:
        states = folded[1:] or (None, None)
        outputs = _LSTM.apply(row_gates, folded[0], *states, weight_hh, rounding, keep)
    else:
        bias_n = _stack([cell.bias_n for cell in cells if cell.bias_n is not None])
        outputs = _GRU.apply(row_gates, folded[0], *(folded[1:] or (None,)), weight_hh, bias_n, rounding, keep)
    # Each dimension is taken out by a view whose gradient lies as `outputs` do. That of a select, or of an unbind of
    # what was transposed first, would be copied.
    of_cells = (outputs.squeeze(1),) if len(cells) == 1 else outputs.unbind(1)  # (T, H, N)
    return tuple(unfold(of_cell.permute(2, 0, 1), labels) for of_cell in of_cells)


def _stack(parts: Sequence[Float[Tensor, "*F"]]) -> Float[Tensor, " D *F"]:
    return parts[0][None] if len(parts) == 1 else torch.stack(tuple(parts))


def _project(cells: Sequence[CellWeights], inputs: Float[Tensor, "D B T I"]) -> Float[Tensor, "D G T B"]:
    """What the inputs contribute to the gates: one matrix product, in one piece as it is read."""
    count, _, steps, size = inputs.shape
    columns = inputs.permute(0, 3, 2, 1).reshape(count, size, -1)
    weight, bias = _stack([cell.weight_ih for cell in cells]), _stack([cell.bias for cell in cells])
    rounding = rounding_now()
    if rounding is not None:
        gates = (rounded(weight, rounding) @ rounded(columns, rounding)).to(weight.dtype) + bias[:, :, None]
    elif count == 1:
        gates = torch.addmm(bias.squeeze(0)[:, None], weight.squeeze(0), columns.squeeze(0))[None]
    else:
        gates = torch.baddbmm(bias[:, :, None], weight, columns)
    return gates.unflatten(2, (steps, -1)).contiguous()


class _GRU(torch.autograd.Function):
    """`gru_step` over a sequence.

    Gates are `(D, 3H, T, B)` and `(D, 3H, N)`, states `(D, H, N)`, outputs `(T, D, H, N)`. Where there will be a
    gradient (`keep`), four activations of each step are kept, in this order: `W_n h + bias_n`, r, z and n. So the three
    that depend on the state lie side by side, and so do the three gates.
    """

    @staticmethod
    @with_fast_products
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
        of_gates, of_candidate = (None, None) if constant is None else constant.split((2 * size, size), 1)
        gate_inputs = GateInputs(row_gates[:, : 2 * size], of_gates)
        doubled_inputs = GateInputs(2 * row_gates[:, 2 * size :], None if of_candidate is None else 2 * of_candidate)
        states, of_state = outputs.unbind(), activations[:, :, : 3 * size].unbind()
        inner, reset, update, candidate = (part.unbind() for part in activations.chunk(4, 2))
        sigmoid_gates = activations[:, :, size : 3 * size].unbind()
        outputs[0] = 0.0 if hidden is None else hidden
        for step in range(steps):
            place = step % kept_steps
            if step == 0 and hidden is None:
                of_state[place].zero_()
            else:
                write_products(weight, states[step], rounding, of_state[place])
            inner[place].add_(bias)
            gate_inputs.add(step, sigmoid_gates[place])
            sigmoid_gates[place].sigmoid_()
            doubled_inputs.write(step, candidate[place])
            tanh_of_double(candidate[place].addcmul_(reset[place], inner[place], value=2))
            torch.lerp(candidate[place], states[step], update[place], out=states[step + 1])
        context.save_for_backward(outputs, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[3], constant is not None, rounding
        context.from_zero = hidden is None
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    @with_fast_products
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, activations, weight = context.saved_tensors
        rounding, (steps, _, size, _) = context.rounding, grad_outputs[0].shape
        states, transposed_states, of_outputs = (
            outputs.unbind(),
            outputs.mT.unbind(),
            grad_outputs[0].contiguous().unbind(),
        )
        of_steps = activations.unbind()
        transposed, grad_weight = weight.mT, WeightGradient(weight, outputs.dtype, rounding)
        gradients = GateGradients(outputs[0], steps, 4 * size, size, context.rows, context.has_constant)
        grad_hidden = torch.zeros_like(outputs[0])
        scratch, past = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        for step in reversed(range(steps)):
            columns = gradients.columns(step)
            grad_hidden.add_(of_outputs[step])
            gru_gate_gradients(grad_hidden, states[step + 1], of_steps[step], columns, past, scratch)
            gradients.add(step)
            if step == 0 and context.from_zero:  # a state of zeros adds nothing to the weight's gradient
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


def gru_gate_gradients(
    grad_hidden: Float[Tensor, "D H N"],
    hidden: Float[Tensor, "D H N"],
    activations: Float[Tensor, "D A N"],
    out: Float[Tensor, "D A N"],
    past: Float[Tensor, "D H N"],
    scratch: Float[Tensor, "D H N"],
) -> None:
    """The derivative of one step `h' = n + z * (h - n)` (A = 4H), written to `out` and `past`.

    Args:
        grad_hidden: Gradient of h'.
        hidden: h'.
        activations: `W_n h + bias_n`, r, z and n.
        out: Gradients of `W_n h + bias_n`, and of the arguments of r, z and n.
        past: Gradient of h through `z * h` alone.
        scratch: Overwritten.
    """
    (inner, reset, update, candidate), (grad_inner, grad_reset, grad_update, grad_candidate) = (
        part.chunk(4, 1) for part in (activations, out)
    )
    torch.mul(grad_hidden, update, out=past)
    torch.sub(grad_hidden, past, out=scratch)
    _tanh_backward(scratch, candidate, grad_input=grad_candidate)
    torch.sub(hidden, candidate, out=grad_update).mul_(scratch)  # z (h - n) (1 - z) dh'
    torch.mul(grad_candidate, reset, out=grad_inner)
    torch.mul(grad_candidate, inner, out=scratch)
    _sigmoid_backward(scratch, reset, grad_input=grad_reset)


class _LSTM(torch.autograd.Function):
    """`lstm_step` over a sequence.

    Gates are `(D, 4H, T, B)` and `(D, 4H, N)`, states `(D, H, N)`, outputs `(T, D, H, N)`. Where there will be a
    gradient (`keep`), the gates i, f, g, o after their non-linearity and the cell of each step are kept.
    """

    @staticmethod
    @with_fast_products
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
        weight, tanh_cell = rounded(weight_hh, rounding), torch.empty_like(outputs[0])
        inputs = GateInputs(row_gates, constant)
        states, gates = outputs.unbind(), activations.unbind()
        first_two_gates = activations[:, :, : 2 * size].unbind()
        input_gate, forget_gate, candidate, output_gate = (part.unbind() for part in activations.chunk(4, 2))
        outputs[0], cells[0] = 0.0 if hidden is None else hidden, 0.0 if cell is None else cell
        for step in range(steps):
            place = step % kept_steps
            before, after = cells[step % len(cells)], cells[(step + 1) % len(cells)]
            if step == 0 and hidden is None:
                inputs.write(step, gates[place])
            else:
                write_products(weight, states[step], rounding, gates[place])
                inputs.add(step, gates[place])
            first_two_gates[place].sigmoid_()
            tanh_of_double(candidate[place].mul_(2))
            output_gate[place].sigmoid_()
            torch.mul(forget_gate[place], before, out=after).addcmul_(input_gate[place], candidate[place])
            torch.mul(output_gate[place], tanh_of_double(torch.mul(after, 2, out=tanh_cell)), out=states[step + 1])
        context.save_for_backward(outputs, cells, activations, weight)
        context.rows, context.has_constant, context.rounding = row_gates.shape[3], constant is not None, rounding
        context.from_zero = hidden is None
        return outputs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    @with_fast_products
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, cells, activations, weight = context.saved_tensors
        rounding, steps = context.rounding, len(grad_outputs[0])
        size, transposed_states, of_outputs = (
            outputs.shape[2],
            outputs.mT.unbind(),
            grad_outputs[0].contiguous().unbind(),
        )
        of_steps = activations.unbind()
        transposed, grad_weight = weight.mT, WeightGradient(weight, outputs.dtype, rounding)
        gradients = GateGradients(outputs[0], steps, 4 * size, 0, context.rows, context.has_constant)
        grad_hidden, grad_cell = torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0])
        scratch = torch.empty_like(grad_hidden), torch.empty_like(grad_hidden)
        for step in reversed(range(steps)):
            columns = gradients.columns(step)
            grad_hidden.add_(of_outputs[step])
            lstm_gate_gradients(grad_hidden, grad_cell, cells[step], cells[step + 1], of_steps[step], columns, scratch)
            gradients.add(step)
            if step == 0 and context.from_zero:
                break
            taken = rounded(columns, rounding)
            grad_weight.add(taken, transposed_states[step])
            write_products(transposed, taken, rounding, grad_hidden)
        states = (None, None) if context.from_zero else (grad_hidden, grad_cell)
        return gradients.of_rows(), gradients.constant, *states, grad_weight.total(), None, None


def lstm_gate_gradients(
    grad_hidden: Float[Tensor, "D H N"],
    grad_cell: Float[Tensor, "D H N"],
    cell_before: Float[Tensor, "D H N"],
    cell_after: Float[Tensor, "D H N"],
    activations: Float[Tensor, "D A N"],
    out: Float[Tensor, "D A N"],
    scratch: tuple[Float[Tensor, "D H N"], Float[Tensor, "D H N"]],
) -> None:
    """The derivative of one step `c' = f * c + i * g`, `h' = o * tanh(c')` (A = 4H), written to `out` and `grad_cell`.

    Args:
        grad_hidden: Gradient of h'; overwritten.
        grad_cell: Gradient of c' from later steps; that of c afterwards.
        cell_before: c.
        cell_after: c'.
        activations: i, f, g and o.
        out: Gradients of their arguments.
        scratch: Overwritten.
    """
    tanh_cell, product = scratch
    (input_gate, forget_gate, candidate, output_gate), (grad_input, grad_forget, grad_candidate, grad_output) = (
        part.chunk(4, 1) for part in (activations, out)
    )
    tanh_of_double(torch.mul(cell_after, 2, out=tanh_cell))
    _sigmoid_backward(torch.mul(grad_hidden, tanh_cell, out=product), output_gate, grad_input=grad_output)
    _tanh_backward(grad_hidden.mul_(output_gate), tanh_cell, grad_input=product)
    grad_cell.add_(product)
    _sigmoid_backward(torch.mul(grad_cell, candidate, out=product), input_gate, grad_input=grad_input)
    _tanh_backward(torch.mul(grad_cell, input_gate, out=product), candidate, grad_input=grad_candidate)
    _sigmoid_backward(torch.mul(grad_cell, cell_before, out=product), forget_gate, grad_input=grad_forget)
    grad_cell.mul_(forget_gate)


def _state_shape(row_gates: Tensor, weight_hh: Float[Tensor, "D G H"], hidden: Tensor | None) -> tuple[int, int, int]:
    """D, H and N: without a first state there is one label."""
    return (len(weight_hh), weight_hh.shape[2], row_gates.shape[3]) if hidden is None else (*hidden.shape,)
