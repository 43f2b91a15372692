"""Log-probabilities of symbols in few calls: one matrix product for all positions, or for as many as memory allows."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from seqssvae.data.vocabulary import NEVER_GENERATED, PAD
from seqssvae_torch.ops.products import Rounding, linear, rounded_products, rounding_now

MOST = 2**28
"""Most logits held at once: 1 GiB of float32."""


def symbol_log_probs(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"],
    label_bias: Float[Tensor, " K #B V"] | None,
    x: Int[Tensor, "B T"],
    most: int = MOST,
) -> Float[Tensor, "K B T"]:
    """As `seqssvae_torch.ops.symbol_log_probs`.

    Where there are more than `most` logits, some steps are taken at a time, and their logits are computed again for the
    gradient.
    """
    labels, rows, steps, _ = hidden.shape
    symbols = torch.arange(len(bias), device=bias.device)
    for symbol in NEVER_GENERATED:
        bias = bias.masked_fill(symbols == symbol, -torch.inf)
    steps_at_once, rounding = max(1, most // (labels * rows * len(bias))), rounding_now()
    if steps_at_once >= steps:
        return _log_probs(hidden, weight, bias, label_bias, x, rounding)
    of_steps = zip(hidden.split(steps_at_once, 2), x.split(steps_at_once, 1), strict=True)
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat(
        [checkpoint(_log_probs, some, weight, bias, label_bias, of, rounding, **settings) for some, of in of_steps], 2
    )


def _log_probs(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, " V"],
    label_bias: Float[Tensor, " K #B V"] | None,
    x: Int[Tensor, "B T"],
    rounding: Rounding,  # another thread, as of a gradient, has none
) -> Float[Tensor, "K B T"]:
    with rounded_products(rounding):
        logits = linear(hidden, weight, bias)
    if label_bias is not None:
        logits = logits + label_bias[:, :, None]
    positions = logits.shape[:-1]
    symbols = x.expand(positions).flatten()
    return -functional.cross_entropy(logits.flatten(0, 2), symbols, ignore_index=PAD, reduction="none").view(positions)
