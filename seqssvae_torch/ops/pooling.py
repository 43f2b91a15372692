"""How states over time become features of a row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.config import Pooling
from seqssvae_torch.ops.implementations import takes_few_calls


def pool(states: Float[Tensor, "B T H"], lengths: Int[Tensor, " B"], pooling: Pooling) -> Float[Tensor, "B H"]:
    """The state at the last symbol, or the mean or maximum over symbols; zeros for rows without symbols.

    Args:
        states: Of every step.
        lengths: Number of symbols of each row; what is behind them is padding.
        pooling: Which of the three.
    """
    by_step = states.permute(1, 2, 0)  # as a recurrence leaves it in memory, and wants its gradient
    steps, few_calls = torch.arange(len(by_step), device=lengths.device)[:, None], takes_few_calls(states)
    if pooling == "last" and few_calls:  # whose gradient is a sum in any order
        pooled = by_step.masked_fill((steps != lengths - 1)[:, None], 0.0).sum(0)
    elif pooling == "last":
        last = (lengths - 1).clamp(min=0).expand(by_step.shape[1:])
        pooled = by_step.gather(0, last[None]).squeeze(0)
    else:
        padding = (steps >= lengths)[:, None]
        if pooling == "mean":
            pooled = by_step.masked_fill(padding, 0.0).sum(0) / lengths.clamp(min=1)
        else:
            real = by_step.masked_fill(padding, torch.finfo(by_step.dtype).min)
            pooled = real.amax(0) if few_calls else real.max(0).values  # the faster one on a CPU
    return pooled.masked_fill(lengths == 0, 0.0).t()
