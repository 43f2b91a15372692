"""log p(x_t | x_<t) of given symbols, from the hidden states that the output layer reads."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.data.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_torch.ops import symbol_log_probs_custom_vjp, symbol_log_probs_fused
from seqssvae_torch.ops.implementations import implementation
from seqssvae_torch.ops.products import linear


def symbol_log_probs(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"],
    label_bias: Float[Tensor, " K #B V"] | None,
    x: Int[Tensor, "B T"],
    gradient_weights: Float[Tensor, "K B"] | None = None,
) -> Float[Tensor, "K B T"]:
    """Log-probability of each symbol of x, 0 at padding: `log_softmax(W h + b + c)` at x.

    Args:
        hidden: What the output layer reads.
        weight: W.
        bias: b.
        label_bias: c, the same at all steps; None for nothing.
        x: Symbol ids.
        gradient_weights: By what an objective will multiply the sum over each sequence, but for one factor, where it is
            known before. Where that comes true, the gradient costs one product less; where not, it is right all the
            same.
    """
    chosen = implementation(hidden.device, hidden.dtype)
    if chosen == "custom_vjp":
        operands = hidden, weight, bias, label_bias, x, gradient_weights
        return symbol_log_probs_custom_vjp.symbol_log_probs(*operands)
    if chosen == "fused":
        return symbol_log_probs_fused.symbol_log_probs(hidden, weight, bias, label_bias, x)
    return reference(hidden, weight, bias, label_bias, x)


def reference(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"],
    label_bias: Float[Tensor, " K #B V"] | None,
    x: Int[Tensor, "B T"],
) -> Float[Tensor, "K B T"]:
    """What `symbol_log_probs` computes, with the logits of all positions at once."""
    logits = linear(hidden, weight, bias)
    if label_bias is not None:
        logits = logits + label_bias[:, :, None]
    log_probs = logits.index_fill(-1, torch.tensor(NEVER_GENERATED, device=x.device), -torch.inf).log_softmax(-1)
    padding = x == PAD
    symbols = x.masked_fill(padding, END).expand(len(hidden), *x.shape)
    return log_probs.gather(-1, symbols[..., None]).squeeze(-1).masked_fill(padding, 0.0)
