"""How states over time become features of a row."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from seqssvae.config import Pooling


def pool(states: Float[Array, "B T H"], lengths: Int[Array, " B"], pooling: Pooling) -> Float[Array, "B H"]:
    """The state at the last symbol, or the mean or maximum over symbols; zeros for rows without symbols.

    Args:
        states: Of every step.
        lengths: Number of symbols of each row; what is behind them is padding.
        pooling: Which of the three.
    """
    mask = (jnp.arange(states.shape[1]) < lengths[:, None])[:, :, None]
    if pooling == "mean":
        pooled = (states * mask).sum(1) / jnp.maximum(lengths, 1)[:, None]
    elif pooling == "max":
        pooled = jnp.where(mask, states, jnp.finfo(states.dtype).min).max(1)
    else:
        last = jnp.maximum(lengths - 1, 0)[:, None, None]
        pooled = jnp.take_along_axis(states, last, 1)[:, 0]
    return jnp.where((lengths > 0)[:, None], pooled, 0.0)
