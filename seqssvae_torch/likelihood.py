"""log p(x_t | x_<t) of the symbols of K labels times B rows over V, without the logits of all of them at once.

Logits are made for a block of positions at a time, which is some steps of all labels, or some labels of one step. What
is left of a block are the log-probabilities of its symbols and its share of the gradient, written by hand:
`softmax(logits) - one_hot(symbol)`, times the weight that an objective gives to the log-probability. Where that weight
is not known before the way back, the logits are made again there, by one more product of the output layer.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.vocabulary import NEVER_GENERATED
from seqssvae_torch.output_layer import SMALL, output_layer
from seqssvae_torch.products import Rounding, swift_products
from seqssvae_torch.recurrence import tanh_of_double


def block_size(vocabulary_size: int) -> int:
    """Most logits of a block of one step: so many that products are fast, at most 32 MiB of float32."""
    return max(SMALL, min(1024 * vocabulary_size, 2**23))


class _Symbols(torch.autograd.Function):
    """Arguments as of `symbol_log_probs`; `bias` is -inf for symbols that are never generated.

    Where the weights that the gradient will have are known but for one factor, it is made on the way forward, from the
    logits that are there anyway, and only multiplied on the way back. Otherwise the logits are made again.
    """

    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        label_bias: Tensor | None,
        x: Tensor,
        weights: Tensor | None,
        rounding: Rounding,
        most: int,
    ) -> Tensor:
        steps, _, labels, rows = hidden.shape
        layer = output_layer(hidden, weight, bias, label_bias, x, rounding, most)
        result = hidden.new_empty(steps, labels, rows)
        gradients = None if weights is None else layer.zero_gradients()
        with swift_products(hidden.device):
            for block in layer.blocks():
                of_block = None if weights is None else weights[None, block.labels]
                result[block.steps, block.labels] = layer.read(block, of_block, gradients)
        context.save_for_backward(hidden, weight, bias, label_bias, x, weights, *(gradients or ()))
        context.rounding, context.most = rounding, most
        return result.masked_fill_(layer.padding, 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, label_bias, x, weights, *gradients = context.saved_tensors
        layer = output_layer(hidden, weight, bias, label_bias, x, context.rounding, context.most)
        gradient = grad_outputs[0].masked_fill(layer.padding, 0.0)
        factor = None if weights is None else _common_factor(gradient, weights.masked_fill(layer.padding, 0.0))
        if factor is not None:
            if abs(float(factor) - 1) > 64 * torch.finfo(gradient.dtype).eps:
                gradients = [None if part is None else part * factor for part in gradients]
            return *gradients, None, None, None, None
        found = layer.zero_gradients()
        with swift_products(hidden.device):
            for block in layer.blocks():
                layer.read(block, gradient[block.steps, block.labels], found)
        return *found, None, None, None, None


def _common_factor(gradient: Tensor, weights: Tensor) -> Tensor | None:
    """The number by which all weights are to be multiplied to give the gradient, if there is one."""
    factor = (gradient * weights).sum() / (weights * weights).sum().clamp(min=torch.finfo(weights.dtype).tiny)
    tolerance = 64 * torch.finfo(gradient.dtype).eps * gradient.abs().amax()
    return factor if bool(((gradient - factor * weights).abs() <= tolerance).all()) else None


def symbol_log_probs(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"],
    label_bias: Float[Tensor, "K #B V"] | None,
    x: Int[Tensor, "B T"],
    weights: Float[Tensor, "K B"] | None = None,
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
        weights: By what an objective will multiply the sum over each sequence, but for one factor: where that comes
            true, the gradient costs no second product for the logits (and no pass over it either, if that factor is 1);
            where not, it is right all the same. Not made use of away from the CPU, which would have to wait for the
            comparison.
        rounding: Type to which operands of products are rounded.
        most: Most logits held at once, if more than those of one label's rows at one step; None: `block_size(V)`.
    """
    symbols = torch.arange(len(bias), device=x.device)
    for symbol in NEVER_GENERATED:
        bias = bias.masked_fill(symbols == symbol, -torch.inf)
    if weights is not None and (not torch.is_grad_enabled() or x.device.type != "cpu"):
        weights = None
    most = most or block_size(len(bias))
    found = _Symbols.apply(hidden.permute(2, 3, 0, 1), weight, bias, label_bias, x, weights, rounding, most)
    return found.permute(1, 2, 0)


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
