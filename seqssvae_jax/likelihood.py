"""log p(x_t | x_<t) of the symbols of K labels times B rows over V, without the logits of all of them at once.

Logits are made for a block of positions at a time, which is one step of all labels or of some. What
is left of a block are the log-probabilities of its symbols and its share of the gradient, written by hand:
`softmax(logits) - one_hot(symbol)`, times the weight that an objective gives to the log-probability. Where that weight
is not known before the way back, the logits are made again there, by one more product of the output layer.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_jax.products import Rounding, product


def block_size(vocabulary_size: int) -> int:
    """Most logits of a block, which is one step at most: so many that products are fast, at most 32 MiB of float32."""
    return max(2**18, min(1024 * vocabulary_size, 2**23))


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


class _Operands(NamedTuple):
    """Of the output layer, in C blocks of N columns a step; `bias` is -inf for what is never generated."""

    hidden: Float[Array, "T C H N"]
    weight: Float[Array, "V H"]
    bias: Float[Array, "V"]
    label_bias: Float[Array, "C V L #B"] | None


def _read(operands: _Operands, targets: Int[Array, "T N"], rounding: Rounding) -> Float[Array, "T C N"]:
    """Log-probabilities of the symbols."""

    def of_block(_: None, block: tuple[Array, Array, Array | None]) -> tuple[None, Array]:
        columns, symbols, label_bias = block
        return None, _chosen(_logits(columns, operands.weight, operands.bias, label_bias, rounding), symbols)[0]

    def of_step(_: None, step: tuple[Array, Array]) -> tuple[None, Array]:
        columns, symbols = step
        return jax.lax.scan(of_block, None, (columns, _repeated(symbols, columns), operands.label_bias))

    return jax.lax.scan(of_step, None, (operands.hidden, targets))[1]


def _differentiate(
    operands: _Operands, targets: Int[Array, "T N"], weights: Float[Array, "T C N"], rounding: Rounding
) -> tuple[Float[Array, "T C N"], _Operands]:
    """Log-probabilities of the symbols, and the gradients of their weighted sum, from logits made once."""
    symbols_of_v = jnp.arange(len(operands.weight))[:, None]
    transposed = operands.weight.T  # once, not for each block: a product wants its first operand in rows

    def of_block(carried: tuple[Array, Array], block: tuple) -> tuple[tuple[Array, Array], tuple]:
        grad_weight, grad_bias = carried
        columns, symbols, label_bias, weights = block
        logits = _logits(columns, operands.weight, operands.bias, label_bias, rounding)
        chosen, normalizer = _chosen(logits, symbols)
        errors = ((symbols_of_v == symbols) - jnp.exp(logits - normalizer)) * weights
        grad_label_bias = None if label_bias is None else _sum_rows(errors, label_bias)
        grad_weight = grad_weight + product(errors, columns, (1, 1), rounding)
        grad_columns = product(transposed, errors, rounding=rounding)
        return (grad_weight, grad_bias + errors.sum(1)), (chosen, grad_columns, grad_label_bias)

    def of_step(carried: tuple[Array, Array, Array | None], step: tuple) -> tuple[tuple, tuple[Array, Array]]:
        grad_weight, grad_bias, grad_label_bias = carried
        columns, symbols, weights = step
        blocks = columns, _repeated(symbols, columns), operands.label_bias, weights
        totals, (chosen, grad_columns, of_labels) = jax.lax.scan(of_block, (grad_weight, grad_bias), blocks)
        grad_label_bias = None if grad_label_bias is None else grad_label_bias + of_labels
        return (*totals, grad_label_bias), (chosen, grad_columns)

    first = jax.tree.map(jnp.zeros_like, operands[1:])
    totals, (chosen, grad_hidden) = jax.lax.scan(of_step, first, (operands.hidden, targets, weights))
    return chosen, _Operands(grad_hidden, *totals)


def _chosen(logits: Float[Array, "V N"], symbols: Int[Array, "N"]) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """Log-probabilities of the symbols, and the logarithms of the sums that divide them."""
    normalizer = jax.nn.logsumexp(logits, 0)
    return jnp.take_along_axis(logits, symbols[None], 0)[0] - normalizer, normalizer


def _repeated(symbols: Int[Array, "N"], columns: Float[Array, "C H N"]) -> Int[Array, "C N"]:
    return jnp.broadcast_to(symbols, (len(columns), len(symbols)))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _symbols(
    operands: _Operands, targets: Int[Array, "T N"], weights: Float[Array, "T C N"] | None, rounding: Rounding
) -> Float[Array, "T C N"]:
    """Log-probabilities of symbols.

    Where the weights that the gradient will have are known but for one factor, it is made on the way forward, from the
    logits that are there anyway, and only multiplied on the way back. Otherwise the logits are made again.
    """
    return _read(operands, targets, rounding)


def _symbols_kept(
    operands: _Operands, targets: Array, weights: Array | None, rounding: Rounding
) -> tuple[Array, tuple[_Operands, Array, Array | None, _Operands | None]]:
    if weights is None:
        return _read(operands, targets, rounding), (operands, targets, None, None)
    log_probs, gradients = _differentiate(operands, targets, weights, rounding)
    return log_probs, (operands, targets, weights, gradients)


def _symbols_backward(rounding: Rounding, residuals: tuple, gradient: Array) -> tuple[_Operands, None, Array | None]:
    operands, targets, weights, gradients = residuals

    def again() -> _Operands:
        return _differentiate(operands, targets, gradient, rounding)[1]

    if weights is None:
        return again(), None, None
    factor, expected = _common_factor(gradient, weights)
    found = jax.lax.cond(expected, lambda: jax.tree.map(lambda part: part * factor, gradients), again)
    return found, None, jnp.zeros_like(weights)


def _common_factor(gradient: Array, weights: Array) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The number by which all weights are to be multiplied to give the gradient, and whether there is one."""
    smallest = jnp.finfo(weights.dtype).tiny
    factor = (gradient * weights).sum() / jnp.maximum((weights * weights).sum(), smallest)
    tolerance = 64 * jnp.finfo(gradient.dtype).eps * jnp.abs(gradient).max()
    return factor, (jnp.abs(gradient - factor * weights) <= tolerance).all()


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
    weights: Float[Array, "K B"] | None = None,
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
        weights: By what an objective will multiply the sum over each sequence, but for one factor: where that comes
            true, the gradient costs no second product for the logits; where not, it is right all the same.
        rounding: Type to which operands of products are rounded.
        most: Most logits held at once, if more than those of one label's rows at one step; None: `block_size(V)`.
    """
    labels, rows, steps, size = hidden.shape
    padding = x == PAD
    bias = bias.at[jnp.array(NEVER_GENERATED)].set(-jnp.inf)
    taken = labels_per_block(labels, rows, len(weight), most or block_size(len(weight)))
    blocks = -(-labels // taken)

    def cut(values: Array, axis: int = 0) -> Array:
        """Labels in blocks, those that are missing to make the last one full being 0."""
        missing = blocks * taken - labels
        padded = jnp.pad(values, [(0, missing if place == axis else 0) for place in range(values.ndim)])
        return padded.reshape(*values.shape[:axis], blocks, taken, *values.shape[axis + 1 :])

    by_step = hidden.transpose(2, 3, 0, 1)  # as recurrent layers lay it out: first of all, or it would be copied twice
    columns = jnp.moveaxis(cut(by_step, 2), 2, 1).reshape(steps, blocks, size, taken * rows)
    label_bias = None if label_bias is None else cut(label_bias).transpose(0, 3, 1, 2)
    if weights is not None:
        of_steps = jnp.where(padding.T[:, None, None], 0.0, cut(jax.lax.stop_gradient(weights)))
        weights = of_steps.reshape(steps, blocks, taken * rows)
    targets = jnp.tile(jnp.where(padding, END, x).T, (1, taken))  # at padding any symbol that can be generated will do
    found = _symbols(_Operands(columns, weight, bias, label_bias), targets, weights, rounding)
    by_label = found.reshape(steps, blocks * taken, rows)[:, :labels].transpose(1, 2, 0)
    return jnp.where(padding, 0.0, by_label)
