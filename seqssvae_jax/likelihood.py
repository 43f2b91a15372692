"""log p(x_t | x_<t) of the symbols of K labels times B rows over V, without the logits of all of them at once.

Logits are made for a block of positions at a time, which is one step of all labels or of some. What
is left of a block are the log-probabilities of its symbols and its share of the gradient, written by hand:
`softmax(logits) - one_hot(symbol)`, times the weight that an objective gives to the log-probability. Where that weight
is not known before the way back, the logits are made again there, by one more product of the output layer.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_jax.products import Rounding, product


def block_size(vocabulary_size: int) -> int:
    """Most logits of a block, which is one step at most: so many that products are fast, at most 32 MiB of float32."""
    return max(2**18, min(1024 * vocabulary_size, 2**23))


LARGE = 1024
"""With more symbols than this, logits have a row a position."""
SPREAD = 30.0
"""Nats between the greatest and the least bias up to which a bound of a position's logits is as good as their maximum:
the sum of exponentials, 1 at least with the maximum, is then e^-30 at least, far from where float32 loses digits."""


def labels_per_block(labels: int, rows: int, vocabulary_size: int, most: int) -> int:
    """How many labels of one step a block has: blocks of about the same size, of at most `most` logits if they can."""
    fitting = max(1, min(labels, most // (rows * vocabulary_size)))
    return -(-labels // -(-labels // fitting))


class _Operands(NamedTuple):
    """Of the output layer, in C blocks of N positions a step; `bias` is -inf for what is never generated."""

    hidden: Float[Array, "T C H N"]
    weight: Float[Array, "V H"]
    bias: Float[Array, "V"]
    label_bias: Float[Array, "C V L #B"] | None


class _SymbolsFirst:
    """The output layer over blocks of logits with a column a position: hidden states are read as they are."""

    axis = 0
    """The dimension of the symbols."""

    def __init__(self, operands: _Operands, rounding: Rounding) -> None:
        self.hidden, self.weight, self.bias, self.label_bias = operands
        self.transposed = operands.weight.T  # once, not for each block: a product wants its first operand in rows
        self.rounding = rounding

    def logits(self, hidden: Float[Array, "H N"]) -> tuple[Float[Array, "V N"], Float[Array, "N"]]:
        """Of a block, and the greatest of each position."""
        logits = product(self.weight, hidden, rounding=self.rounding) + self.bias[:, None]
        return logits, logits.max(0)

    def zeros(self) -> tuple[Float[Array, "V H"], Float[Array, "V"]]:
        """Gradients of weight and bias, before the first block."""
        return jnp.zeros_like(self.weight), jnp.zeros_like(self.bias)

    def add(
        self, totals: tuple[Array, Array], hidden: Float[Array, "H N"], errors: Float[Array, "V N"]
    ) -> tuple[Float[Array, "V H"], Float[Array, "V"]]:
        """Those gradients with a block's share, from the gradient of its logits."""
        weight, bias = totals
        return weight + product(errors, hidden, (1, 1), self.rounding), bias + errors.sum(1)

    def of_hidden(self, errors: Float[Array, "V N"]) -> Float[Array, "H N"]:
        """The gradient of a block's hidden states."""
        return product(self.transposed, errors, rounding=self.rounding)

    def gradients(self, hidden: Array, totals: Any, label_bias: Array | None) -> _Operands:
        """All of them, as operands are laid out."""
        weight, bias = totals
        return _Operands(hidden, weight, bias, label_bias)


class _PositionsFirst:
    """The same with a row a position, for which hidden states are transposed: products with many symbols are faster.

    When it comes to gradients the bias is a weight of one more unit (U = H + 1), which is always 1: that spares a pass
    over the errors. With rounded products its gradient is the sum of rounded errors.
    """

    axis = 1

    def __init__(self, operands: _Operands, rounding: Rounding) -> None:
        hidden, weight, self.bias, label_bias = operands
        # what is never generated has no say in the bound of logits, whatever its product would be
        self.weight = weight.at[jnp.array(NEVER_GENERATED)].set(weight[END])
        with_one = jnp.pad(hidden, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1.0)
        self.hidden = jnp.swapaxes(hidden, 2, 3), with_one
        self.label_bias = None if label_bias is None else jnp.moveaxis(label_bias, 1, 3)
        self.rounding = rounding
        self.greatest_bias = self.bias.max()
        least = jnp.where(self.bias == -jnp.inf, self.greatest_bias, self.bias).min()
        self.biases_are_close = self.greatest_bias - least < SPREAD

    def logits(
        self, hidden: tuple[Float[Array, "N H"], Float[Array, "U N"]]
    ) -> tuple[Float[Array, "N V"], Float[Array, "N"]]:
        """Of a block, and the greatest of each position or, where biases are close, a bound that spares a pass."""
        products = product(hidden[0], self.weight, (1, 1), self.rounding)
        greatest = jax.lax.cond(
            self.biases_are_close,
            lambda: products.max(1) + self.greatest_bias,
            lambda: (products + self.bias).max(1),
        )
        return products + self.bias, greatest

    def zeros(self) -> Float[Array, "U V"]:
        """Gradients of weight and bias, before the first block."""
        return jnp.zeros((self.hidden[1].shape[2], len(self.weight)), self.weight.dtype)

    def add(
        self, total: Array, hidden: tuple[Float[Array, "N H"], Float[Array, "U N"]], errors: Float[Array, "N V"]
    ) -> Float[Array, "U V"]:
        """Those gradients with a block's share, from the gradient of its logits."""
        return total + product(hidden[1], errors, rounding=self.rounding)

    def of_hidden(self, errors: Float[Array, "N V"]) -> Float[Array, "N H"]:
        """The gradient of a block's hidden states."""
        return product(errors, self.weight, rounding=self.rounding)

    def gradients(self, hidden: Array, total: Any, label_bias: Array | None) -> _Operands:
        """All of them, as operands are laid out."""
        label_bias = None if label_bias is None else jnp.moveaxis(label_bias, 3, 1)
        return _Operands(jnp.swapaxes(hidden, 2, 3), total[:-1].T, total[-1], label_bias)


_OutputLayer = _SymbolsFirst | _PositionsFirst


def _layout(weight: Float[Array, "V H"]) -> type[_OutputLayer]:
    return _PositionsFirst if len(weight) > LARGE else _SymbolsFirst


def _logits(
    layer: _OutputLayer, hidden: Any, label_bias: Array | None
) -> tuple[Float[Array, "..."], Float[Array, "N"]]:
    """Of a block, one dimension for symbols and one for positions; and the greatest of each position, or a bound."""
    logits, greatest = layer.logits(hidden)
    if label_bias is None:
        return logits, greatest
    by_label = _by_label(logits, label_bias, layer)
    logits = (by_label + label_bias).reshape(logits.shape)
    return logits, logits.max(layer.axis)


def _by_label(of_positions: Float[Array, "..."], label_bias: Array, layer: _OutputLayer) -> Float[Array, "..."]:
    """Positions in two dimensions, as labels and rows."""
    place, size = 1 - layer.axis, of_positions.shape
    return of_positions.reshape(*size[:place], label_bias.shape[place], -1, *size[place + 1 :])


def _read(operands: _Operands, targets: Int[Array, "T N"], rounding: Rounding) -> Float[Array, "T C N"]:
    """Log-probabilities of the symbols."""
    layer = _layout(operands.weight)(operands, rounding)

    def of_block(_: None, block: tuple[Any, Array, Array | None]) -> tuple[None, Array]:
        hidden, symbols, label_bias = block
        return None, _chosen(*_logits(layer, hidden, label_bias), symbols, layer.axis)[0]

    def of_step(_: None, step: tuple[Any, Array]) -> tuple[None, Array]:
        hidden, symbols = step
        blocks = _blocks(hidden, operands), _repeated(symbols, operands), layer.label_bias
        return jax.lax.scan(of_block, None, blocks)

    return jax.lax.scan(of_step, None, (_joined(layer.hidden), targets))[1]


def _differentiate(
    operands: _Operands, targets: Int[Array, "T N"], weights: Float[Array, "T C N"], rounding: Rounding
) -> tuple[Float[Array, "T C N"], _Operands]:
    """Log-probabilities of the symbols, and the gradients of their weighted sum, from logits made once."""
    layer = _layout(operands.weight)(operands, rounding)
    symbols_of_v = jnp.expand_dims(jnp.arange(len(operands.weight)), 1 - layer.axis)

    def of_block(totals: Any, block: tuple) -> tuple[Any, tuple]:
        hidden, symbols, label_bias, weights = block
        chosen, shares, sums = _chosen(*_logits(layer, hidden, label_bias), symbols, layer.axis)
        scaled, symbols, weights = (jnp.expand_dims(part, layer.axis) for part in (weights / sums, symbols, weights))
        errors = jnp.where(symbols_of_v == symbols, weights, 0.0) - shares * scaled
        of_labels = None if label_bias is None else _sum_rows(errors, label_bias, layer)
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


def _blocks(hidden: Any, operands: _Operands) -> Any:
    """The blocks of a step that `_joined` joined."""
    return jax.tree.map(lambda part: part.reshape(operands.hidden.shape[1], -1, part.shape[1]), hidden)


def _chosen(
    logits: Float[Array, "..."], greatest: Float[Array, "N"], symbols: Int[Array, "N"], axis: int
) -> tuple[Float[Array, "N"], Float[Array, "..."], Float[Array, "N"]]:
    """Log-probabilities of the symbols; and all probabilities but for a factor, with the sums to divide them by.

    Exponentials are taken once, for the sums and for the gradient: they are the dearest of what is no product.
    """
    shares = jnp.exp(logits - jnp.expand_dims(greatest, axis))
    sums = shares.sum(axis)
    found = jnp.take_along_axis(logits, jnp.expand_dims(symbols, axis), axis)
    return found.squeeze(axis) - greatest - jnp.log(sums), shares, sums


def _repeated(symbols: Int[Array, "N"], operands: _Operands) -> Int[Array, "C N"]:
    return jnp.broadcast_to(symbols, (operands.hidden.shape[1], len(symbols)))


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

    if weights is None:
        return _differentiate(operands, targets, gradient, rounding)[1], None, None
    factor, expected = _common_factor(gradient, weights)

    def again(_: tuple[_Operands, Array]) -> tuple[_Operands, Array]:
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


def _sum_rows(errors: Float[Array, "..."], label_bias: Array, layer: _OutputLayer) -> Array:
    """Summed to the shape of the bias."""
    by_label, rows = _by_label(errors, label_bias, layer), 2 - layer.axis
    return by_label.sum(rows, keepdims=True) if label_bias.shape[rows] == 1 else by_label


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
    found = _symbols(_Operands(columns, weight, bias, label_bias), targets, weights, rounding)
    by_label = found.reshape(steps, blocks * taken, rows)[:, :labels].transpose(1, 2, 0)
    return jnp.where(padding, 0.0, by_label)
