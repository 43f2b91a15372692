"""log p(x_t | x_<t) of given symbols, from the hidden states that the output layer reads."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from seqssvae.data.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_jax.ops import symbol_log_probs_custom_vjp
from seqssvae_jax.ops.implementations import implementation
from seqssvae_jax.ops.products import linear


def symbol_log_probs(
    hidden: Float[Array, "K B T H"],
    weight: Float[Array, "V H"],
    bias: Float[Array, " V"],
    label_bias: Float[Array, " K #B V"] | None,
    x: Int[Array, "B T"],
    gradient_weights: Float[Array, "K B"] | None = None,
) -> Float[Array, "K B T"]:
    """Log-probability of each symbol of x, 0 at padding: `log_softmax(W h + b + c)` at x.

    Args:
        hidden: What the output layer reads.
        weight: W.
        bias: b.
        label_bias: c, the same at all steps; None for nothing.
        x: Symbol ids.
        gradient_weights: By what an objective will multiply the sum over each sequence, but for one factor, where it is
            known before. Where that comes true, the gradient costs one product less; where not, it is right all the
            same.
    """
    if implementation(hidden.dtype) == "custom_vjp":
        operands = hidden, weight, bias, label_bias, x, gradient_weights
        return symbol_log_probs_custom_vjp.symbol_log_probs(*operands)
    return reference(hidden, weight, bias, label_bias, x)


def reference(
    hidden: Float[Array, "K B T H"],
    weight: Float[Array, "V H"],
    bias: Float[Array, " V"],
    label_bias: Float[Array, " K #B V"] | None,
    x: Int[Array, "B T"],
) -> Float[Array, "K B T"]:
    """What `symbol_log_probs` computes, with the logits of all positions at once."""
    logits = linear(hidden, weight, bias)
    if label_bias is not None:
        logits = logits + label_bias[:, :, None]
    log_probs = jax.nn.log_softmax(logits.at[..., jnp.array(NEVER_GENERATED)].set(-jnp.inf))
    symbols = jnp.broadcast_to(jnp.where(x == PAD, END, x), (len(hidden), *x.shape))
    chosen = jnp.take_along_axis(log_probs, symbols[..., None], -1)[..., 0]
    return jnp.where(x == PAD, 0.0, chosen)
