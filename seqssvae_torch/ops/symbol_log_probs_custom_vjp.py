"""Log-probabilities of symbols with a gradient written by hand, without the logits of all positions at once.

Logits are computed for a block of positions at a time: some steps of all labels, or some labels of one step. What is
left of a block are the log-probabilities of its symbols and its share of the gradient, `one_hot(symbol) -
softmax(logits)` times the weight that an objective gives to the log-probability. Where that weight is not known in the
forward pass, the backward pass computes the logits again, by one more product of the output layer.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.data.vocabulary import NEVER_GENERATED
from seqssvae_torch.ops.output_layer import SMALL, OutputLayer
from seqssvae_torch.ops.products import Rounding, fast_products, rounding_now


def block_size(vocabulary_size: int) -> int:
    """Most logits of a block of one step: so many that products are fast, at most 32 MiB of float32."""
    return max(SMALL, min(1024 * vocabulary_size, 2**23))


class _SymbolLogProbs(torch.autograd.Function):
    """Arguments as of `symbol_log_probs`; `bias` is -inf for symbols that are never generated.

    Where the weights that the gradient will have are known but for one factor, the forward pass computes it from the
    logits that are there anyway, and the backward pass only multiplies. Otherwise the logits are computed again.
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
        layer = OutputLayer(hidden, weight, bias, label_bias, x, rounding, most)
        result = hidden.new_empty(steps, labels, rows)
        gradients = None if weights is None else layer.zero_gradients()
        with fast_products(hidden.device):
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
        layer = OutputLayer(hidden, weight, bias, label_bias, x, context.rounding, context.most)
        gradient = grad_outputs[0].masked_fill(layer.padding, 0.0)
        factor = None if weights is None else _common_factor(gradient, weights.masked_fill(layer.padding, 0.0))
        if factor is not None:
            if abs(float(factor) - 1) > 64 * torch.finfo(gradient.dtype).eps:
                gradients = [None if part is None else part * factor for part in gradients]
            return *gradients, None, None, None, None
        totals = layer.zero_gradients()
        with fast_products(hidden.device):
            for block in layer.blocks():
                layer.read(block, gradient[block.steps, block.labels], totals)
        return *totals, None, None, None, None


def _common_factor(gradient: Tensor, weights: Tensor) -> Tensor | None:
    """The number by which all weights are to be multiplied to give the gradient, if there is one."""
    factor = (gradient * weights).sum() / (weights * weights).sum().clamp(min=torch.finfo(weights.dtype).tiny)
    tolerance = 64 * torch.finfo(gradient.dtype).eps * gradient.abs().amax()
    return factor if bool(((gradient - factor * weights).abs() <= tolerance).all()) else None


def symbol_log_probs(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"],
    label_bias: Float[Tensor, " K #B V"] | None,
    x: Int[Tensor, "B T"],
    gradient_weights: Float[Tensor, "K B"] | None = None,
    most: int | None = None,
) -> Float[Tensor, "K B T"]:
    """As `seqssvae_torch.ops.symbol_log_probs`.

    `most` is the greatest number of logits held at once, unless one label's rows have more at one step; None:
    `block_size(V)`.
    """
    symbols = torch.arange(len(bias), device=x.device)
    for symbol in NEVER_GENERATED:
        bias = bias.masked_fill(symbols == symbol, -torch.inf)
    if not torch.is_grad_enabled():
        gradient_weights = None
    operands = hidden.permute(2, 3, 0, 1), weight, bias, label_bias, x, gradient_weights
    log_probs = _SymbolLogProbs.apply(*operands, rounding_now(), most or block_size(len(bias)))
    return log_probs.permute(1, 2, 0)
