"""The output layer for a block of positions: its logits, their log-probabilities, and its share of the gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from seqssvae.data.vocabulary import END, NEVER_GENERATED
from seqssvae_jax.ops.products import Rounding, product

LARGE = 1024
"""With more symbols than this, logits have a row a position."""
SPREAD = 30.0
"""Nats between the greatest and the least bias up to which a bound of a position's logits is as good as their maximum:
the sum of exponentials, 1 at least with the maximum, is then e^-30 at least, far from where float32 loses digits."""


class Operands(NamedTuple):
    """Operands of the output layer, in C blocks of N positions a step; `bias` is -inf for what is never generated."""

    hidden: Float[Array, "T C H N"]
    weight: Float[Array, "V H"]
    bias: Float[Array, " V"]
    label_bias: Float[Array, "C V L #B"] | None


class _SymbolsFirst:
    """The output layer over blocks of logits with a column a position: hidden states are read as they are."""

    axis = 0
    """The dimension of the symbols."""

    def __init__(self, operands: Operands, rounding: Rounding) -> None:
        self.hidden, self.weight, self.bias, self.label_bias = operands
        self.transposed = operands.weight.T  # once, not for each block: a product wants its first operand in rows
        self.rounding = rounding

    def logits(self, hidden: Float[Array, "H N"]) -> tuple[Float[Array, "V N"], Float[Array, " N"]]:
        """The logits of a block, and the greatest of each position."""
        logits = product(self.weight, hidden, rounding=self.rounding) + self.bias[:, None]
        return logits, logits.max(0)

    def zeros(self) -> tuple[Float[Array, "V H"], Float[Array, " V"]]:
        """Gradients of weight and bias, before the first block."""
        return jnp.zeros_like(self.weight), jnp.zeros_like(self.bias)

    def add(
        self, totals: tuple[Array, Array], hidden: Float[Array, "H N"], errors: Float[Array, "V N"]
    ) -> tuple[Float[Array, "V H"], Float[Array, " V"]]:
        """Those gradients with a block's share, from the gradient of its logits."""
        weight, bias = totals
        return weight + product(errors, hidden, (1, 1), self.rounding), bias + errors.sum(1)

    def of_hidden(self, errors: Float[Array, "V N"]) -> Float[Array, "H N"]:
        """The gradient of a block's hidden states."""
        return product(self.transposed, errors, rounding=self.rounding)

    def gradients(self, hidden: Array, totals: Any, label_bias: Array | None) -> Operands:
        """All of them, as operands are laid out."""
        weight, bias = totals
        return Operands(hidden, weight, bias, label_bias)


class _PositionsFirst:
    """The same with a row a position, for which hidden states are transposed: products with many symbols are faster.

    When it comes to gradients the bias is a weight of one more unit (U = H + 1), which is always 1: that spares a pass
    over the errors. With rounded products its gradient is the sum of rounded errors.
    """

    axis = 1

    def __init__(self, operands: Operands, rounding: Rounding) -> None:
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
    ) -> tuple[Float[Array, "N V"], Float[Array, " N"]]:
        """The logits of a block and the greatest of each position; where biases are close a bound, to spare a pass."""
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

    def gradients(self, hidden: Array, total: Any, label_bias: Array | None) -> Operands:
        """All of them, as operands are laid out."""
        label_bias = None if label_bias is None else jnp.moveaxis(label_bias, 3, 1)
        return Operands(jnp.swapaxes(hidden, 2, 3), total[:-1].T, total[-1], label_bias)


OutputLayer = _SymbolsFirst | _PositionsFirst


def output_layer(operands: Operands, rounding: Rounding) -> OutputLayer:
    """The quickest for as many symbols."""
    return (_PositionsFirst if len(operands.weight) > LARGE else _SymbolsFirst)(operands, rounding)


def logits_of(
    layer: OutputLayer, hidden: Any, label_bias: Array | None
) -> tuple[Float[Array, "..."], Float[Array, " N"]]:
    """The logits of a block, with one dimension for symbols and one for positions; the greatest of each, or a bound."""
    logits, greatest = layer.logits(hidden)
    if label_bias is None:
        return logits, greatest
    by_label = _by_label(logits, label_bias, layer)
    logits = (by_label + label_bias).reshape(logits.shape)
    return logits, logits.max(layer.axis)


def _by_label(of_positions: Float[Array, "..."], label_bias: Array, layer: OutputLayer) -> Float[Array, "..."]:
    """Positions in two dimensions, as labels and rows."""
    place, size = 1 - layer.axis, of_positions.shape
    return of_positions.reshape(*size[:place], label_bias.shape[place], -1, *size[place + 1 :])


def chosen_of(
    logits: Float[Array, "..."], greatest: Float[Array, " N"], symbols: Int[Array, " N"], axis: int
) -> tuple[Float[Array, " N"], Float[Array, "..."], Float[Array, " N"]]:
    """Log-probabilities of the symbols; and all probabilities but for a factor, with the sums to divide them by.

    Exponentials are taken once, for the sums and for the gradient: they are the dearest of what is no product.
    """
    shares = jnp.exp(logits - jnp.expand_dims(greatest, axis))
    sums = shares.sum(axis)
    chosen = jnp.take_along_axis(logits, jnp.expand_dims(symbols, axis), axis)
    return chosen.squeeze(axis) - greatest - jnp.log(sums), shares, sums


def sum_rows(errors: Float[Array, "..."], label_bias: Array, layer: OutputLayer) -> Array:
    """Summed to the shape of the bias."""
    by_label, rows = _by_label(errors, label_bias, layer), 2 - layer.axis
    return by_label.sum(rows, keepdims=True) if label_bias.shape[rows] == 1 else by_label
