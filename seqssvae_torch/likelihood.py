"""log p(x_t | x_<t) of the symbols of K labels times B rows over V, without the logits of all of them at once.

Logits are made for a block of positions at a time. On the way forward a block leaves nothing but the log-probabilities
of its symbols; on the way back its logits are made again, which costs one more product of the output layer and spares
`K*B*T*V` numbers. The gradient is written by hand: `softmax(logits) - one_hot(symbol)`, times that of the result.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_torch.products import Rounding, add_product, rounded
from seqssvae_torch.recurrence import tanh_of_double

def block_size(vocabulary_size: int) -> int:
    """Most logits of a block: 1 MiB of float32, more where V is so large that products would be slow, at most 32 MiB."""
    return max(2**18, min(512 * vocabulary_size, 2**23))


class _Block(NamedTuple):
    """Positions whose logits are made together: some steps of all labels, or some labels of one step."""

    steps: slice
    labels: slice


def blocks(steps: int, labels: int, rows: int, vocabulary_size: int, most: int) -> Iterator[_Block]:
    """All positions, cut into blocks of at most `most` logits (or the rows of one label at one step)."""
    lines = max(1, most // (rows * vocabulary_size))
    if lines < labels:
        for step in range(steps):
            for first in range(0, labels, lines):
                yield _Block(slice(step, step + 1), slice(first, min(first + lines, labels)))
    else:
        for first in range(0, steps, lines // labels):
            yield _Block(slice(first, min(first + lines // labels, steps)), slice(0, labels))


class _Symbols(torch.autograd.Function):
    """Arguments as of `symbol_log_probs`; `bias` is -inf for symbols that are never generated."""

    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        label_bias: Tensor | None,
        targets: Tensor,
        rounding: Rounding,
        most: int,
    ) -> Tensor:
        steps, _, labels, rows = hidden.shape
        taken = rounded(weight, rounding)
        result = hidden.new_empty(steps, labels, rows)
        for block in blocks(steps, labels, rows, len(weight), most):
            log_probs = _logits(_columns(hidden, block, rounding), taken, bias, label_bias, block)
            torch._log_softmax(log_probs, -1, False, out=log_probs)
            chosen = log_probs.gather(1, _targets(targets, block))
            result[block.steps, block.labels] = chosen.view(-1, block.labels.stop - block.labels.start, rows)
        context.save_for_backward(hidden, weight, bias, label_bias, targets)
        context.rounding, context.most = rounding, most
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, label_bias, targets = context.saved_tensors
        rounding = context.rounding
        steps, _, labels, rows = hidden.shape
        taken = rounded(weight, rounding)
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        grad_bias = torch.zeros_like(bias)
        grad_label_bias = None if label_bias is None else torch.zeros_like(label_bias)
        for block in blocks(steps, labels, rows, len(weight), context.most):
            columns = _columns(hidden, block, rounding)
            errors = _logits(columns, taken, bias, label_bias, block)
            torch._softmax(errors, -1, False, out=errors)
            errors.scatter_add_(1, _targets(targets, block), errors.new_full((1, 1), -1.0).expand(len(errors), 1))
            errors.mul_(grad_outputs[0][block.steps, block.labels].reshape(-1, 1).neg())
            grad_bias.add_(errors.sum(0))
            if grad_label_bias is not None:
                by_label = errors.view(-1, block.labels.stop - block.labels.start, rows, len(weight))
                grad_label_bias[block.labels] += by_label.sum_to_size(1, *grad_label_bias[block.labels].shape)[0]
            errors = rounded(errors, rounding)
            add_product(grad_weight, errors.t(), columns.t(), rounding)
            _put(grad_hidden, block, taken.t() @ errors.t())
        return grad_hidden, grad_weight, grad_bias, grad_label_bias, None, None, None


def _columns(hidden: Tensor, block: _Block, rounding: Rounding) -> Float[Tensor, "H N"]:
    """The outputs of a block, a column a position; a view where the block is one step."""
    found = hidden[block.steps, :, block.labels]
    return rounded(found.transpose(0, 1).flatten(1), rounding)


def _put(hidden: Tensor, block: _Block, columns: Float[Tensor, "H N"]) -> None:
    """Inverse of `_columns`."""
    place = hidden[block.steps, :, block.labels].transpose(0, 1)
    place.copy_(columns.view(place.shape))


def _targets(targets: Tensor, block: _Block) -> Int[Tensor, "N 1"]:
    found = targets[block.steps, None].expand(-1, block.labels.stop - block.labels.start, -1)
    return found.reshape(-1, 1)


def _logits(
    columns: Tensor, weight: Tensor, bias: Tensor, label_bias: Tensor | None, block: _Block
) -> Float[Tensor, "N V"]:
    """Logits of a block, a row a position."""
    if columns.dtype == bias.dtype:
        logits = torch.addmm(bias, columns.t(), weight.t())
    else:
        logits = torch.mm(columns.t(), weight.t()) + bias
    if label_bias is not None:
        of_block = label_bias[block.labels]
        logits.view(-1, len(of_block), columns.shape[1] // (len(of_block) * _steps(block)), len(weight)).add_(of_block)
    return logits


def _steps(block: _Block) -> int:
    return block.steps.stop - block.steps.start


def symbol_log_probs(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"],
    label_bias: Float[Tensor, "K #B V"] | None,
    x: Int[Tensor, "B T"],
    rounding: Rounding = None,
    most: int | None = None,
) -> Float[Tensor, "K B T"]:
    """Log-probability of each symbol of x, 0 at padding: `log_softmax(W h + b + c)` at x.

    Args:
        hidden: What the output layer reads.
        weight: W.
        bias: b.
        label_bias: c, the same at all steps; None for nothing.
        x: Symbol ids.
        rounding: Type to which operands of products are rounded.
        most: Most logits held at once, if more than those of one label's rows at one step; None: `block_size(V)`.
    """
    padding, symbols = x == PAD, torch.arange(len(bias), device=x.device)
    for symbol in NEVER_GENERATED:
        bias = bias.masked_fill(symbols == symbol, -torch.inf)
    targets = x.masked_fill(padding, END).t()  # any symbol that can be generated will do
    most = most or block_size(len(bias))
    found = _Symbols.apply(hidden.permute(2, 3, 0, 1), weight, bias, label_bias, targets, rounding, most)
    return found.permute(1, 2, 0).masked_fill(padding, 0.0)


class _TanhOfSum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, constant: Tensor) -> Tensor:
        result = tanh_of_double(torch.add(2 * rows[:, :, None], 2 * constant))
        context.save_for_backward(result)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (result,) = context.saved_tensors
        gradient = torch.ops.aten.tanh_backward(grad_outputs[0], result)
        return gradient.sum(2), gradient.sum(0)


def tanh_of_sum(rows: Float[Tensor, "B T H"], constant: Float[Tensor, "K B H"]) -> Float[Tensor, "K B T H"]:
    """`tanh(a + c)` of what depends on row and step and what depends on label and row, which lies as `(T, H, K, B)`."""
    by_step = _TanhOfSum.apply(rows.permute(1, 2, 0).contiguous(), constant.permute(2, 0, 1).contiguous())
    return by_step.permute(2, 3, 0, 1)
