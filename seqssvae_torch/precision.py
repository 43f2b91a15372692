"""The precision in which a method computes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from pyro import validation_enabled

from seqssvae_torch.ops import rounded_products

Method = TypeVar("Method", bound=Callable[..., Any])


def in_precision(method: Method) -> Method:
    """Run a method with products rounded as the run's precision says; values are checked by those who read them."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        rounding = rounded_products(torch.bfloat16 if self.config.training.precision == "bf16" else None)
        with rounding, validation_enabled(False):
            return method(self, *args, **kwargs)

    return cast(Method, wrapped)
