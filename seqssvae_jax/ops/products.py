"""Matrix products, in the precision of their operands or with operands rounded to a shorter type.

A rounded product takes both operands in the shorter type and gives its result in their own: weights, sums and all that
is not a product stay in float32 ("mixed precision", Micikevicius et al. 2018).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from seqssvae.config.training import MatmulPrecision

Rounding = DTypeLike | None
"""The type to which operands are rounded; None: they are taken as they are."""

_rounding: ContextVar[Rounding] = ContextVar("rounding", default=None)


@contextmanager
def rounded_products(rounding: Rounding) -> Iterator[None]:
    """A context in which operands of the networks' products are rounded to this type. It counts where JAX traces."""
    token = _rounding.set(rounding)
    try:
        yield
    finally:
        _rounding.reset(token)


def rounding_now() -> Rounding:
    """The type to which operands are rounded now."""
    return _rounding.get()


@contextmanager
def float32_products(platform: str, precision: MatmulPrecision) -> Iterator[None]:
    """A context in which products of float32 are what a run asks for, unless JAX has been told otherwise.

    With `highest` they are just that; by itself JAX rounds their operands on a GPU (to TF32) and on a TPU (to
    bfloat16). With `high` they may be rounded to TF32, or on a TPU to three numbers of bfloat16.
    """
    config: Any = jax.config
    if platform == "cpu" or config.jax_default_matmul_precision is not None:
        yield
        return
    with jax.default_matmul_precision(precision):
        yield


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
    inputs: Float[Array, "*N I"], weight: Float[Array, "O I"], bias: Float[Array, " O"] | None = None
) -> Float[Array, "*N O"]:
    """`W a + b`, with the weight laid out as PyTorch does."""
    result = product(inputs, weight, (inputs.ndim - 1, 1), rounding_now())
    return result if bias is None else result + bias


def linear_of_labels(y: Float[Array, "*N L"], weight: Float[Array, "O L"]) -> Float[Array, "*N O"]:
    """`U y`, the column of U that a one-hot vector chooses, whose operands are never rounded."""
    return product(y, weight, (y.ndim - 1, 1))
