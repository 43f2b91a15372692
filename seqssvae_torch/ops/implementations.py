"""Which implementation of an operation is used: the one place where that is decided."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

Implementation = Literal["reference", "custom_vjp", "fused"]

_forced: ContextVar[Implementation | None] = ContextVar("implementation", default=None)


def implementation(device: torch.device, dtype: torch.dtype) -> Implementation:
    """The implementation for operands on this device and of this type.

    `custom_vjp` has its gradient written by hand, for less memory and fewer passes over it: for CPUs. `fused` takes few
    calls, each with much to do, and never waits for the device: for GPUs. `reference` reads like the equations.
    """
    forced = _forced.get()
    if forced is not None:
        return forced
    own: dict[str, Implementation] = {"cpu": "custom_vjp", "cuda": "fused"}
    return own.get(device.type, "reference") if dtype in (torch.float32, torch.float64) else "reference"


def takes_few_calls(like: Tensor) -> bool:
    """Whether all that is computed of tensors like this one takes few calls, and never waits for the device."""
    return implementation(like.device, like.dtype) == "fused"


@contextmanager
def use_implementation(name: Implementation) -> Iterator[None]:
    """A context in which this implementation is used, whatever the device and type: for tests."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)
