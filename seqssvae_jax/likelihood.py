"""log p(x_t | x_<t) of the symbols of K labels times B rows over V, without the logits of all of them at once.

Logits are made for a block of positions at a time, which is one step of all labels or of some. On the way forward a
block leaves nothing but the log-probabilities of its symbols; on the way back its logits are made again, which costs
one more product of the output layer and spares `K*B*T*V` numbers. The gradient is written by hand:
`softmax(logits) - one_hot(symbol)`, times that of the result.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_jax.products import Rounding, product


def block_size(vocabulary_size: int) -> int:
    """Most logits of a block: 1 MiB of float32, more where V is so large that products would be slow, at most 32 MiB.

    It only ever decides how many labels of one step a block has, so that what is small enough is one step.
    """
    return max(2**21, min(512 * vocabulary_size, 2**23))


def labels_per_block(labels: int, rows: int, vocabulary_size: int, most: int) -> int:
    """How many labels of one step a block has: blocks of about the same size, of at most `most` logits if they can."""
    fitting = max(1, min(labels, most // (rows * vocabulary_size)))
    return -(-labels // -(-labels // fitting))


def _logits(
    columns: Float[Array, "H N"], weight: Array, bias: Array, label_bias: Array | None, rounding: Rounding
) -> Float[Array, "V N"]:
    logits = product(weight, columns, rounding=rounding) + bias[:, None]
    return logits if label_bias is None else logits + _over_rows(label_bias, columns.shape[1])


def _over_rows(label_bias: Float[Array, "V K #B"], columns: int) -> Float[Array, "V N"]:
    size, labels, _ = label_bias.shape
    return jnp.broadcast_to(label_bias, (size, labels, columns // labels)).reshape(size, columns)


def _log_probs(
    hidden: Array, weight: Array, bias: Array, label_bias: Array | None, targets: Array, rounding: Rounding
) -> tuple[Float[Array, "T C N"], Float[Array, "T C N"]]:
    """Log-probabilities of the symbols, and the logarithm of the sum that divides them."""

    def of_block(_: None, block: tuple[Array, Array, Array | None]) -> tuple[None, tuple[Array, Array]]:
        columns, symbols, label_bias = block
        logits = _logits(columns, weight, bias, label_bias, rounding)
        normalizer = jax.nn.logsumexp(logits, 0)
        return None, (jnp.take_along_axis(logits, symbols[None], 0)[0] - normalizer, normalizer)

    def of_step(_: None, step: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        columns, symbols = step
        blocks = columns, jnp.broadcast_to(symbols, (len(columns), len(symbols))), label_bias
        return jax.lax.scan(of_block, None, blocks)

    return jax.lax.scan(of_step, None, (hidden, targets))[1]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _symbols(
    hidden: Float[Array, "T C H N"],
    weight: Float[Array, "V H"],
    bias: Float[Array, "V"],
    label_bias: Float[Array, "C V L #B"] | None,
    targets: Int[Array, "T N"],
    rounding: Rounding,
) -> Float[Array, "T C N"]:
    """Log-probabilities of symbols in C blocks of N columns a step; `bias` is -inf for what is never generated."""
    return _log_probs(hidden, weight, bias, label_bias, targets, rounding)[0]


def _symbols_kept(
    hidden: Array, weight: Array, bias: Array, label_bias: Array | None, targets: Array, rounding: Rounding
) -> tuple[Array, tuple]:
    log_probs, normalizers = _log_probs(hidden, weight, bias, label_bias, targets, rounding)
    return log_probs, (hidden, weight, bias, label_bias, targets, normalizers)


def _symbols_backward(rounding: Rounding, residuals: tuple, gradient: Array) -> tuple[Array | None, ...]:
    hidden, weight, bias, label_bias, targets, normalizers = residuals
    symbols_of_v = jnp.arange(len(weight))[:, None]

    def of_block(carried: tuple[Array, Array], block: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array | None]]:
        grad_weight, grad_bias = carried
        columns, symbols, label_bias, normalizer, gradient = block
        probabilities = jnp.exp(_logits(columns, weight, bias, label_bias, rounding) - normalizer)
        errors = ((symbols_of_v == symbols) - probabilities) * gradient
        grad_label_bias = None if label_bias is None else _sum_rows(errors, label_bias)
        grad_weight = grad_weight + product(errors, columns, (1, 1), rounding)
        return (grad_weight, grad_bias + errors.sum(1)), (product(weight, errors, (0, 0), rounding), grad_label_bias)

    def of_step(carried: tuple[Array, Array, Array | None], step: tuple) -> tuple[tuple, Array]:
        *totals, grad_label_bias = carried
        columns, symbols, normalizers, gradients = step
        repeated = jnp.broadcast_to(symbols, (len(columns), len(symbols)))
        blocks = columns, repeated, label_bias, normalizers, gradients
        totals, (grad_columns, of_labels) = jax.lax.scan(of_block, tuple(totals), blocks)
        if grad_label_bias is not None:
            grad_label_bias = grad_label_bias + of_labels
        return (*totals, grad_label_bias), grad_columns

    first = jnp.zeros_like(weight), jnp.zeros_like(bias), None if label_bias is None else jnp.zeros_like(label_bias)
    totals, grad_hidden = jax.lax.scan(of_step, first, (hidden, targets, normalizers, gradient))
    return (grad_hidden, *totals, None)


_symbols.defvjp(_symbols_kept, _symbols_backward)


def _sum_rows(errors: Float[Array, "V N"], label_bias: Float[Array, "V K #B"]) -> Float[Array, "V K #B"]:
    by_label = errors.reshape(*label_bias.shape[:2], -1)
    return by_label.sum(2, keepdims=True) if label_bias.shape[2] == 1 else by_label


def symbol_log_probs(
    hidden: Float[Array, "K B T H"],
    weight: Float[Array, "V H"],
    bias: Float[Array, "V"],
    label_bias: Float[Array, "K #B V"] | None,
    x: Int[Array, "B T"],
    rounding: Rounding = None,
    most: int | None = None,
) -> Float[Array, "K B T"]:
    """Log-probability of each symbol of x, 0 at padding: `log_softmax(W h + b + c)` at x.

    Args:
        hidden: What the output layer reads.
        weight: W.
        bias: b.
        label_bias: c, the same at all steps; None for nothing.
        x: Symbol ids.
        rounding: Type to which operands of products are rounded.
        most: Most logits held at once, if more than those of one label's rows at one step; None: `block_size(V)`.
    """
    labels, rows, steps, size = hidden.shape
    padding = x == PAD
    bias = bias.at[jnp.array(NEVER_GENERATED)].set(-jnp.inf)
    targets = jnp.where(padding, END, x).T  # any symbol that can be generated will do
    taken = labels_per_block(labels, rows, len(weight), most or block_size(len(weight)))
    blocks = -(-labels // taken)
    padded = jnp.pad(hidden, ((0, blocks * taken - labels), (0, 0), (0, 0), (0, 0)))
    columns = padded.transpose(2, 3, 0, 1).reshape(steps, size, blocks, taken * rows).transpose(0, 2, 1, 3)
    if label_bias is not None:
        label_bias = jnp.pad(label_bias, ((0, blocks * taken - labels), (0, 0), (0, 0))).transpose(2, 0, 1)
        label_bias = label_bias.reshape(len(weight), blocks, taken, -1).transpose(1, 0, 2, 3)
    found = _symbols(columns, weight, bias, label_bias, jnp.tile(targets, (1, taken)), rounding)
    by_label = found.reshape(steps, blocks * taken, rows)[:, :labels].transpose(1, 2, 0)
    return jnp.where(padding, 0.0, by_label)
