"""The hyperbolic tangent, by the names of the PyTorch twin, which has a faster one."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def tanh(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The hyperbolic tangent."""
    return jnp.tanh(values)


def tanh_of_sum(by_step: Float[Array, "*#K B T H"], constant: Float[Array, "*K B H"]) -> Float[Array, "*K B T H"]:
    """`tanh(a + c)` of a, which depends on the step, and c, which does not."""
    return jnp.tanh(by_step + constant[..., None, :])
