"""Recurrent layers read by the kernels in `seqssvae.kernels`: rounded products, and all else of a step with them.

They compute what `recurrence._scan` and `recurrence._scan_back` do, and differ in rounding: gradients of gates are
rounded before they are summed over labels. The gradient of the state's weights is one product over all steps; until
then the gradients of all gates are held, in bfloat16.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from seqssvae import kernels
from seqssvae_jax.products import Rounding

if TYPE_CHECKING:
    from seqssvae_jax.recurrence import Layer


@cache
def _registered() -> bool:
    """Tell XLA of the kernels, if there are any."""
    library = kernels.library()
    if library is None:
        return False
    for name in ("xla_forward", "xla_backward"):
        jax.ffi.register_ffi_target(f"seqssvae_{name}", jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


MOST_LAYERS = 8
"""That are read together."""


def serves(layers: tuple["Layer", ...], rounding: Rounding) -> bool:
    """Whether there are kernels, where a program runs on a CPU, for such layers with these products.

    All have to be alike in what they have and in its sizes.
    """
    if rounding is None or jnp.dtype(rounding) != jnp.bfloat16 or len(layers) > MOST_LAYERS:
        return False
    kinds = {jax.tree.structure(layer) for layer in layers}
    sizes = {tuple(part.shape for part in jax.tree.leaves(layer)) for layer in layers}
    parts = jax.tree.leaves(layers)
    if len(kinds) > 1 or len(sizes) > 1 or any(part.dtype != jnp.float32 or part.size == 0 for part in parts):
        return False
    return kernels.read_layers_of(layers[0].weight_hh.shape[1]) and _registered()


def _given(parts: Sequence[Array | None]) -> list[Array]:
    return [part for part in parts if part is not None]


def _call(
    name: str, layers: tuple["Layer", ...], keep: bool, arrays: list[Array], results: list[jax.ShapeDtypeStruct]
) -> list[Array]:
    """Arrays and results in the order of `xla.c`."""
    first = layers[0]
    _, steps, rows = first.row_gates.shape
    size, labels, _ = first.state[0].shape
    numbers = (len(first.state) == 2, len(layers), steps, size, labels * rows, rows, first.constant is not None, keep)
    call = jax.ffi.ffi_call(f"seqssvae_{name}", results, vmap_method="sequential")
    return list(call(*arrays, numbers=np.asarray(numbers, np.int32)))


def forward(layers: tuple["Layer", ...], keep: bool) -> tuple[tuple[Float[Array, "T H K B"], ...], ...]:
    """Outputs of each layer, and what is kept for the gradient: arrays as `recurrence._scan` keeps them.

    But the numbers in them are in an order of their own (`place_of` in `columns.h`), and those of two bytes fill half.
    """
    arrays, results = [], []
    for layer in layers:
        arrays += _given((layer.row_gates, layer.constant, *layer.state, layer.weight_hh, layer.bias_n))
        outputs = jax.ShapeDtypeStruct((layer.row_gates.shape[1], *layer.state[0].shape), layer.weight_hh.dtype)
        results += [outputs] * (1 + (len(kernels.KEPT["lstm" if layer.bias_n is None else "gru"]) if keep else 0))
    found = _call("xla_forward", layers, keep, arrays, results)
    each = len(found) // len(layers)
    return tuple(tuple(found[first : first + each]) for first in range(0, len(found), each))


def backward(
    layers: tuple["Layer", ...],
    kept: tuple[tuple[Float[Array, "T H K B"], ...], ...],
    grad_outputs: tuple[Float[Array, "T H K B"], ...],
) -> tuple["Layer", ...]:
    """Gradients of all that the layers have; those of gates are in bfloat16 until they are summed."""
    arrays, results = [], []
    for layer, of_layer, of_outputs in zip(layers, kept, grad_outputs, strict=True):
        arrays += [*layer.state, layer.weight_hh, *of_layer, of_outputs]
        of_rows = (layer.row_gates, layer.constant, *layer.state, layer.bias_n)
        results += [jax.ShapeDtypeStruct(part.shape, part.dtype) for part in _given(of_rows)]
        size, labels, rows = layer.state[0].shape
        columns, is_gru = (len(of_outputs), labels * rows), layer.bias_n is not None
        shapes = [(len(layer.weight_hh), *columns), *[(size, *columns)] * is_gru, (*columns, size)]
        results += [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    of_layers = iter(_call("xla_backward", layers, True, arrays, results))
    gradients = []
    for layer in layers:
        row_gates, constant = next(of_layers), None if layer.constant is None else next(of_layers)
        state = tuple(next(of_layers) for _ in layer.state)
        bias_n = None if layer.bias_n is None else next(of_layers)
        gates, *_, states = [next(of_layers) for _ in range(2 if layer.bias_n is None else 3)]
        dimensions = (((1, 2), (0, 1)), ((), ()))
        weight = jax.lax.dot_general(gates, states, dimensions, preferred_element_type=layer.weight_hh.dtype)
        if layer.bias_n is not None:  # a GRU's candidate comes first there
            weight = jnp.roll(weight, -states.shape[2], 0)
        gradients.append(type(layer)(row_gates, constant, state, weight, bias_n))
    return tuple(gradients)
