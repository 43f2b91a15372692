"""The matrix products that a training step on unlabelled rows needs, and how many a program does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import torch
from torch.utils.flop_counter import FlopCounterMode

from seqssvae.config import ModelConfig
from seqssvae.parameters import GATES, STATES, feature_size


class Product(NamedTuple):
    """`(M, I) @ (I, N)`, so many times, on the way forward; each operand that learns costs as much on the way back.

    Args:
        rows: M.
        inner: I.
        columns: N.
        times: How often.
        backward: Operands that learn (2: both).
    """

    rows: int
    inner: int
    columns: int
    times: int = 1
    backward: int = 2

    @property
    def flops(self) -> int:
        """Floating-point operations forward and back, a multiplication and an addition being two."""
        return 2 * self.rows * self.inner * self.columns * self.times * (1 + self.backward)


def necessary(model: ModelConfig, labels: int, rows: int, steps: int, vocabulary: int) -> dict[str, Product]:
    """What a step needs if nothing is done twice, for one layer each in encoder and decoder.

    What does not depend on the label is computed once per row, what does not depend on the step once per label and
    row, and the encoder's first state of zeros is not multiplied. For observed labels `labels` is 1.
    """
    hidden, latent = model.decoder.hidden_size, model.latent_size
    features, gates, columns = feature_size(model), GATES[model.cell], labels * rows
    directions = 2 if model.encoder.bidirectional else 1
    size, conditioning = model.encoder.hidden_size, model.decoder.conditioning
    products = {
        "encoder input": Product(rows * steps, model.encoder.embedding_size, gates * size, directions),
        "encoder recurrence": Product(rows, size, gates * size, directions * (steps - 1)),
        "q(z|x,y) hidden": Product(rows, features, size),
        "q(z|x,y) loc and scale": Product(columns, size, 2 * latent),
        "decoder input": Product(rows * steps, model.decoder.embedding_size, gates * hidden),
        "output": Product(columns * steps, hidden, vocabulary),
    }
    if conditioning == "output":
        products["decoder recurrence"] = Product(rows, hidden, gates * hidden, steps)
        products["decoder projection"] = Product(rows * steps, hidden, hidden)
        products["condition"] = Product(columns, latent, hidden)
        return products
    states = STATES[model.cell] * hidden
    products["decoder recurrence"] = Product(columns, hidden, gates * hidden, steps)
    products["initial state"] = Product(columns, latent, hidden)
    products["initial state output"] = Product(columns, hidden, states)
    if conditioning == "every_step":
        products["condition"] = Product(columns, latent, gates * hidden)
    return products


def total(products: dict[str, Product]) -> int:
    """Floating-point operations of all products."""
    return sum(product.flops for product in products.values())


def _in_place(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    return 2 * left[0] * left[1] * right[1]


def _in_place_of_layers(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    return 2 * left[0] * left[1] * left[2] * right[2]


def torch_flops(function: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products that a function does."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.addmm_: _in_place, torch.ops.aten.baddbmm_: _in_place_of_layers}
    )
    with counter:
        function()
    return counter.get_total_flops()


def jaxpr_flops(jaxpr: Any) -> int:
    """Floating-point operations of the matrix products of a program, those in a scan times its length.

    Of two branches the second counts, which is the one that is taken where the condition holds; a loop without a known
    length counts nothing, as the one of ours that starts only where weights did not come true (`likelihood.py`).
    """
    flops = 0
    for equation in jaxpr.eqns:
        parameters = equation.params
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = parameters["dimension_numbers"]
            left, result = equation.invars[0].aval, equation.outvars[0].aval
            inner = 1
            for dimension in contracted:
                inner *= left.shape[dimension]
            flops += 2 * result.size * inner
        elif equation.primitive.name == "cond":
            flops += jaxpr_flops(parameters["branches"][1].jaxpr)
        elif equation.primitive.name != "while":
            for name in ("jaxpr", "call_jaxpr", "body_jaxpr"):
                if name in parameters:
                    inner_jaxpr = getattr(parameters[name], "jaxpr", parameters[name])
                    flops += jaxpr_flops(inner_jaxpr) * parameters.get("length", 1)
    return flops


def jax_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of the matrix products that a function of these arguments does."""
    return jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)
