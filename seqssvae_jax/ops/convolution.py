"""Windows of a row, and a convolution with its maximum over time."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from seqssvae_jax.ops.pooling import pool
from seqssvae_jax.ops.products import linear


def windows(inputs: Float[Array, "B T E"], width: int) -> Float[Array, "B T W"]:
    """At each step the last so many inputs, one behind the other; zeros stand before the row."""
    padded = jnp.pad(inputs, ((0, 0), (width - 1, 0), (0, 0)))
    return jnp.concatenate([padded[:, before : before + inputs.shape[1]] for before in range(width)], -1)


def max_over_windows(
    inputs: Float[Array, "B T E"], lengths: Int[Array, " B"], weight: Float[Array, "C W"], bias: Float[Array, " C"]
) -> Float[Array, "B C"]:
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
    return pool(jax.nn.relu(linear(seen, weight, bias)), lengths, "max")
