"""Which implementation of an operation is used: the one place where that is decided."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch

Implementation = Literal["reference", "custom_vjp"]

_forced: ContextVar[Implementation | None] = ContextVar("implementation", default=None)


def implementation(device: torch.device, dtype: torch.dtype) -> Implementation:
    """The implementation for operands on this device and of this type.

    `custom_vjp` has its gradient written by hand, for less memory and fewer passes over it. `reference` is
    differentiated by PyTorch.
    """
    forced = _forced.get()
    if forced is not None:
        return forced
    known = device.type in ("cpu", "cuda") and dtype in (torch.float32, torch.float64)
    return "custom_vjp" if known else "reference"


@contextmanager
def use_implementation(name: Implementation) -> Iterator[None]:
    """A context in which this implementation is used, whatever the device and type: for tests."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)
