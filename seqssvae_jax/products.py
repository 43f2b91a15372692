"""Matrix products, in the precision of their operands or with operands rounded to a shorter type.

A rounded product takes both operands in the shorter type and gives its result in theirs of before: weights, sums and
all that is not a product stay in float32 ("mixed precision", Micikevicius et al. 2018).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

Rounding = DTypeLike | None
"""The type to which operands are rounded; None: they are taken as they are."""


@contextmanager
def products(platform: str) -> Iterator[None]:
    """A context in which products of float32 are just that, unless JAX has been told otherwise.

    By itself JAX rounds their operands on a GPU (to TF32) and on a TPU (to bfloat16), as PyTorch does not.
    """
    config: Any = jax.config
    if platform == "cpu" or config.jax_default_matmul_precision is not None:
        yield
        return
    with jax.default_matmul_precision("highest"):
        yield


class Multiplies(nnx.Module):
    """A network with matrix products of its own, whose operands are rounded to `rounding`."""

    rounding: Rounding = None


def product(left: Array, right: Array, contracted: tuple[int, int] = (1, 0), rounding: Rounding = None) -> Array:
    """Sum over one dimension of each operand; the others follow in their order.

    Without `preferred_element_type` a CPU gains nothing from shorter operands, and sums would be rounded too.
    """
    dtype = left.dtype
    if rounding is not None:
        left, right = left.astype(rounding), right.astype(rounding)
    dimensions = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=dtype)


def linear(
    inputs: Float[Array, "*N I"],
    weight: Float[Array, "O I"],
    bias: Float[Array, "O"] | None = None,
    rounding: Rounding = None,
    features_first: bool = False,
) -> Float[Array, "*N O"]:
    """`W a + b`, with the weight laid out as PyTorch does.

    With `features_first` the product is made as `(O, *N)`, for a reader who wants it so: otherwise a CPU would turn it.
    """
    if features_first:
        result = jnp.moveaxis(product(weight, inputs, (1, inputs.ndim - 1), rounding), 0, -1)
    else:
        result = product(inputs, weight, (inputs.ndim - 1, 1), rounding)
    return result if bias is None else result + bias
