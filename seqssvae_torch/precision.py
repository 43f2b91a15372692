"""The precision in which a method computes."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from pyro import validation_enabled

from seqssvae_torch.ops import rounded_products
from seqssvae_torch.ops.products import deterministic, float32_products

Method = TypeVar("Method", bound=Callable[..., Any])


def in_precision(method: Method) -> Method:
    """Run a method with products as exact, and sums in the order, that the run asks for.

    Values are checked by those who read them: every check would wait for the device.
    """

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        rounding = rounded_products(torch.bfloat16 if self.config.training.precision == "bf16" else None)
        products = float32_products(self.device, self.config.training.matmul_precision)
        order = deterministic(self.device) if self.config.training.deterministic else nullcontext()
        with rounding, products, order, validation_enabled(False):
            return method(self, *args, **kwargs)

    return cast(Method, wrapped)
