"""The precision in which a method computes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from seqssvae_jax.ops import rounded_products
from seqssvae_jax.ops.products import float32_products

Method = TypeVar("Method", bound=Callable[..., Any])


def in_precision(method: Method) -> Method:
    """Run a method on the run's device with its products, and in JAX's x64 mode if, and only if, it is in float64."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        rounding = rounded_products(jnp.bfloat16 if self.config.training.precision == "bf16" else None)
        products = float32_products(self.platform, self.config.training.matmul_precision)
        with self.x64_mode(), jax.default_device(self.device), products, rounding:
            return method(self, *args, **kwargs)

    return cast(Method, wrapped)
