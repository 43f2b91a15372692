"""Log-probabilities of symbols with a gradient written by hand, without the logits of all positions at once.

Logits are computed for a block of positions at a time: one step of all labels, or of some. What is left of a block are
the log-probabilities of its symbols and its share of the gradient, `one_hot(symbol) - softmax(logits)` times the weight
that an objective gives to the log-probability. Where that weight is not known in the forward pass, the backward pass
computes the logits again, by one more product of the output layer.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from seqssvae.data.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_jax.ops.output_layer import Operands, chosen_of, logits_of, output_layer, sum_rows
from seqssvae_jax.ops.products import Rounding, rounding_now


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


def _repeated(symbols: Int[Array, " N"], operands: Operands) -> Int[Array, "C N"]:
    return jnp.broadcast_to(symbols, (operands.hidden.shape[1], len(symbols)))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _symbol_log_probs(
    operands: Operands, targets: Int[Array, "T N"], weights: Float[Array, "T C N"] | None, rounding: Rounding
) -> Float[Array, "T C N"]:
    """Log-probabilities of symbols.

    Where the weights that the gradient will have are known but for one factor, the forward pass computes it from the
    logits that are there anyway, and the backward pass only multiplies. Otherwise the logits are computed again.
    """
    return _read(operands, targets, rounding)


def _forward(
    operands: Operands, targets: Array, weights: Array | None, rounding: Rounding
) -> tuple[Array, tuple[Operands, Array, Array | None, Operands | None]]:
    if weights is None:
        return _read(operands, targets, rounding), (operands, targets, None, None)
    log_probs, gradients = _differentiate(operands, targets, weights, rounding)
    return log_probs, (operands, targets, weights, gradients)


def _backward(rounding: Rounding, residuals: tuple, gradient: Array) -> tuple[Operands, None, Array | None]:
    operands, targets, weights, gradients = residuals

    if weights is None:
        return _differentiate(operands, targets, gradient, rounding)[1], None, None
    factor, expected = _common_factor(gradient, weights)

    def again(_: tuple[Operands, Array]) -> tuple[Operands, Array]:
        return _differentiate(operands, targets, gradient, rounding)[1], jnp.array(True)

    # a loop of no or one turn: a branch would copy all gradients in and out
    scaled = jax.tree.map(lambda part: part * factor, gradients)
    operand_gradients, _ = jax.lax.while_loop(lambda state: ~state[1], again, (scaled, expected))
    return operand_gradients, None, jnp.zeros_like(weights)


def _common_factor(gradient: Array, weights: Array) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The number by which all weights are to be multiplied to give the gradient, and whether there is one."""
    smallest = jnp.finfo(weights.dtype).tiny
    factor = (gradient * weights).sum() / jnp.maximum((weights * weights).sum(), smallest)
    tolerance = 64 * jnp.finfo(gradient.dtype).eps * jnp.abs(gradient).max()
    return factor, (jnp.abs(gradient - factor * weights) <= tolerance).all()


_symbol_log_probs.defvjp(_forward, _backward)


def symbol_log_probs(
    hidden: Float[Array, "K B T H"],
    weight: Float[Array, "V H"],
    bias: Float[Array, " V"],
    label_bias: Float[Array, " K #B V"] | None,
    x: Int[Array, "B T"],
    gradient_weights: Float[Array, "K B"] | None = None,
    most: int | None = None,
) -> Float[Array, "K B T"]:
    """As `seqssvae_jax.ops.symbol_log_probs`.

    `most` is the greatest number of logits held at once, unless one label's rows have more at one step; None:
    `block_size(V)`.
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
    weights = None
    if gradient_weights is not None:
        of_steps = jnp.where(padding.T[:, None, None], 0.0, cut(jax.lax.stop_gradient(gradient_weights)))
        weights = of_steps.reshape(steps, blocks, taken * rows)
    targets = jnp.tile(jnp.where(padding, END, x).T, (1, taken))  # at padding any symbol that can be generated will do
    log_probs = _symbol_log_probs(Operands(columns, weight, bias, label_bias), targets, weights, rounding_now())
    by_label = log_probs.reshape(steps, blocks * taken, rows)[:, :labels].transpose(1, 2, 0)
    return jnp.where(padding, 0.0, by_label)
