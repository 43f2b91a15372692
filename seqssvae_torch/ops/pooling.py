"""How states over time become features of a row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.config import Pooling


def pool(states: Float[Tensor, "B T H"], lengths: Int[Tensor, " B"], pooling: Pooling) -> Float[Tensor, "B H"]:
    """The state at the last symbol, or the mean or maximum over symbols; zeros for rows without symbols.

    Args:
        states: Of every step.
        lengths: Number of symbols of each row; what is behind them is padding.
        pooling: Which of the three.
    """
    by_step = states.permute(1, 2, 0)  # as a recurrence leaves it in memory, and wants its gradient
    if pooling == "last":
        last = (lengths - 1).clamp(min=0).expand(by_step.shape[1:])
        pooled = by_step.gather(0, last[None])[0]
    else:
        padding = (torch.arange(len(by_step), device=lengths.device)[:, None] >= lengths)[:, None]
        if pooling == "mean":
            pooled = by_step.masked_fill(padding, 0.0).sum(0) / lengths.clamp(min=1)
        else:
            pooled = by_step.masked_fill(padding, torch.finfo(by_step.dtype).min).max(0).values  # faster than amax
    return pooled.masked_fill(lengths == 0, 0.0).t()
