"""Which implementation of an operation is used: the one place where that is decided."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import jax.numpy as jnp
from jax.typing import DTypeLike

Implementation = Literal["reference", "custom_vjp"]

_forced: ContextVar[Implementation | None] = ContextVar("implementation", default=None)


def implementation(dtype: DTypeLike) -> Implementation:
    """The implementation for operands of this type, on any device.

    `custom_vjp` has its gradient written by hand, for less memory and fewer passes over it. `reference` is
    differentiated by JAX.
    """
    forced = _forced.get()
    if forced is not None:
        return forced
    return "custom_vjp" if jnp.dtype(dtype) in (jnp.float32, jnp.float64) else "reference"


@contextmanager
def use_implementation(name: Implementation) -> Iterator[None]:
    """A context in which this implementation is used, whatever the type: for tests. It counts where JAX traces."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)
