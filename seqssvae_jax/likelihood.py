"""log p(x_t | x_<t) of the symbols of K labels times B rows over V, without the logits of all of them at once.

Logits are made for a block of positions at a time, which is one step of all labels or of some. What is left of a block
are the log-probabilities of its symbols and its share of the gradient, written by hand:
`softmax(logits) - one_hot(symbol)`, times the weight that an objective gives to the log-probability. Where that weight
is not known before the way back, the logits are made again there, by one more product of the output layer.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_jax.output_layer import Operands, chosen_of, logits_of, output_layer, sum_rows
from seqssvae_jax.products import Rounding


def block_size(vocabulary_size: int) -> int:
    """Most logits of a block, which is one step at most: so many that products are fast, at most 32 MiB of float32."""
    return max(2**18, min(1024 * vocabulary_size, 2**23))


def labels_per_block(labels: int, rows: int, vocabulary_size: int, most: int) -> int:
    """How many labels of one step a block has: blocks of about the same size, of at most `most` logits if they can."""
    fitting = max(1, min(labels, most // (rows * vocabulary_size)))
    return -(-labels // -(-labels // fitting))


def _read(operands: Operands, targets: Int[Array, "T N"], rounding: Rounding) -> Float[Array, "T C N"]:
    """Log-probabilities of the symbols."""
    layer = output_layer(operands, rounding)

    def of_block(_: None, block: tuple[Any, Array, Array | None]) -> tuple[None, Array]:
        hidden, symbols, label_bias = block
        return None, chosen_of(*logits_of(layer, hidden, label_bias), symbols, layer.axis)[0]

    def of_step(_: None, step: tuple[Any, Array]) -> tuple[None, Array]:
        hidden, symbols = step
        blocks = _blocks(hidden, operands), _repeated(symbols, operands), layer.label_bias
        return jax.lax.scan(of_block, None, blocks)

    return jax.lax.scan(of_step, None, (_joined(layer.hidden), targets))[1]


def _differentiate(
    operands: Operands, targets: Int[Array, "T N"], weights: Float[Array, "T C N"], rounding: Rounding
) -> tuple[Float[Array, "T C N"], Operands]:
    """Log-probabilities of the symbols, and the gradients of their weighted sum, from logits made once."""
    layer = output_layer(operands, rounding)
    symbols_of_v = jnp.expand_dims(jnp.arange(len(operands.weight)), 1 - layer.axis)

    def of_block(totals: Any, block: tuple) -> tuple[Any, tuple]:
        hidden, symbols, label_bias, weights = block
        chosen, shares, sums = chosen_of(*logits_of(layer, hidden, label_bias), symbols, layer.axis)
        scaled, symbols, weights = (jnp.expand_dims(part, layer.axis) for part in (weights / sums, symbols, weights))
        errors = jnp.where(symbols_of_v == symbols, weights, 0.0) - shares * scaled
        of_labels = None if label_bias is None else sum_rows(errors, label_bias, layer)
        return layer.add(totals, hidden, errors), (chosen, layer.of_hidden(errors), of_labels)

    def of_step(carried: tuple[Any, Array | None], step: tuple) -> tuple[tuple, tuple[Array, Array]]:
        totals, grad_label_bias = carried
        hidden, symbols, weights = step
        blocks = _blocks(hidden, operands), _repeated(symbols, operands), layer.label_bias, weights
        totals, (chosen, grad_hidden, of_labels) = jax.lax.scan(of_block, totals, blocks)
        grad_label_bias = None if grad_label_bias is None else grad_label_bias + of_labels
        return (totals, grad_label_bias), (chosen, grad_hidden.reshape(-1, grad_hidden.shape[-1]))

    first = layer.zeros(), jax.tree.map(jnp.zeros_like, layer.label_bias)
    (totals, of_labels), (chosen, grad_hidden) = jax.lax.scan(of_step, first, (_joined(layer.hidden), targets, weights))
    grad_hidden = grad_hidden.reshape(*operands.hidden.shape[:2], -1, grad_hidden.shape[-1])
    return chosen, layer.gradients(grad_hidden, totals, of_labels)


def _joined(hidden: Any) -> Any:
    """All blocks of a step in one dimension: XLA makes a needless copy of an array whose second dimension is 1."""
    return jax.tree.map(lambda part: part.reshape(len(part), -1, part.shape[3]), hidden)


def _blocks(hidden: Any, operands: Operands) -> Any:
    """The blocks of a step that `_joined` joined."""
    return jax.tree.map(lambda part: part.reshape(operands.hidden.shape[1], -1, part.shape[1]), hidden)


def _repeated(symbols: Int[Array, "N"], operands: Operands) -> Int[Array, "C N"]:
    return jnp.broadcast_to(symbols, (operands.hidden.shape[1], len(symbols)))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _symbols(
    operands: Operands, targets: Int[Array, "T N"], weights: Float[Array, "T C N"] | None, rounding: Rounding
) -> Float[Array, "T C N"]:
    """Log-probabilities of symbols.

    Where the weights that the gradient will have are known but for one factor, it is made on the way forward, from the
    logits that are there anyway, and only multiplied on the way back. Otherwise the logits are made again.
    """
    return _read(operands, targets, rounding)


def _symbols_kept(
    operands: Operands, targets: Array, weights: Array | None, rounding: Rounding
) -> tuple[Array, tuple[Operands, Array, Array | None, Operands | None]]:
    if weights is None:
        return _read(operands, targets, rounding), (operands, targets, None, None)
    log_probs, gradients = _differentiate(operands, targets, weights, rounding)
    return log_probs, (operands, targets, weights, gradients)


def _symbols_backward(rounding: Rounding, residuals: tuple, gradient: Array) -> tuple[Operands, None, Array | None]:
    operands, targets, weights, gradients = residuals

    if weights is None:
        return _differentiate(operands, targets, gradient, rounding)[1], None, None
    factor, expected = _common_factor(gradient, weights)

    def again(_: tuple[Operands, Array]) -> tuple[Operands, Array]:
        return _differentiate(operands, targets, gradient, rounding)[1], jnp.array(True)

    # a loop of no or one turn: a branch would copy all gradients in and out
    scaled = jax.tree.map(lambda part: part * factor, gradients)
    found, _ = jax.lax.while_loop(lambda state: ~state[1], again, (scaled, expected))
    return found, None, jnp.zeros_like(weights)


def _common_factor(gradient: Array, weights: Array) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The number by which all weights are to be multiplied to give the gradient, and whether there is one."""
    smallest = jnp.finfo(weights.dtype).tiny
    factor = (gradient * weights).sum() / jnp.maximum((weights * weights).sum(), smallest)
    tolerance = 64 * jnp.finfo(gradient.dtype).eps * jnp.abs(gradient).max()
    return factor, (jnp.abs(gradient - factor * weights) <= tolerance).all()


_symbols.defvjp(_symbols_kept, _symbols_backward)


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
    if blocks > 1:
        by_step = jnp.moveaxis(cut(by_step, 2), 2, 1)
    columns = by_step.reshape(steps, blocks, size, taken * rows)
    label_bias = None if label_bias is None else cut(label_bias).transpose(0, 3, 1, 2)
    if weights is not None:
        of_steps = jnp.where(padding.T[:, None, None], 0.0, cut(jax.lax.stop_gradient(weights)))
        weights = of_steps.reshape(steps, blocks, taken * rows)
    targets = jnp.tile(jnp.where(padding, END, x).T, (1, taken))  # at padding any symbol that can be generated will do
    found = _symbols(Operands(columns, weight, bias, label_bias), targets, weights, rounding)
    by_label = found.reshape(steps, blocks * taken, rows)[:, :labels].transpose(1, 2, 0)
    return jnp.where(padding, 0.0, by_label)
