"""Windows of a row, and a convolution with its maximum over time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from seqssvae_torch.ops.pooling import pool
from seqssvae_torch.ops.products import linear


def windows(inputs: Float[Tensor, "B T E"], width: int) -> Float[Tensor, "B T W"]:
    """At each step the last so many inputs, one behind the other; zeros stand before the row."""
    padded = functional.pad(inputs, (0, 0, width - 1, 0))
    return torch.cat([padded[:, before : before + inputs.shape[1]] for before in range(width)], -1)


def max_over_windows(
    inputs: Float[Tensor, "B T E"], lengths: Int[Tensor, " B"], weight: Float[Tensor, "C W"], bias: Float[Tensor, " C"]
) -> Float[Tensor, "B C"]:
    """max_t relu(W [x_(t-w+1), ..., x_t] + b) over the symbols of each row, 0 for rows without any.

    Each symbol has a window of w symbols that ends with it; zeros stand before the row.

    Args:
        inputs: Embeddings.
        lengths: Number of symbols of each row; what is behind them is padding.
        weight: Of all filters; W is w times E.
        bias: Of all filters.

    References:
        Kim 2014, Convolutional Neural Networks for Sentence Classification, equations 2 to 4,
        https://arxiv.org/abs/1408.5882.
    """
    seen = windows(inputs, weight.shape[1] // inputs.shape[2])
    return pool(linear(seen, weight, bias), lengths, "max").relu()  # relu and max commute
