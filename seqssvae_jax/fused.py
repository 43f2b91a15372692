"""Recurrent layers read by the kernels in `seqssvae.kernels`: rounded products, and all else of a step with them.

It is what `recurrence._forward` and `recurrence._backward` compute, but that gradients of gates are rounded before they
are summed over labels.
"""

from functools import cache
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from seqssvae import kernels
from seqssvae_jax.products import Rounding, product

if TYPE_CHECKING:
    from seqssvae_jax.recurrence import Layer

@cache
def _registered() -> bool:
    library = kernels.library()
    if library is None:
        return False
    for name in ("xla_forward", "xla_backward"):
        jax.ffi.register_ffi_target(f"seqssvae_{name}", jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def serves(layer: "Layer", rounding: Rounding) -> bool:
    """Whether there are kernels, for a CPU, for layers as this one with these products."""
    of_type = layer.weight_hh.dtype == jnp.float32 and rounding is not None and jnp.dtype(rounding) == jnp.bfloat16
    return of_type and kernels.serve(layer.weight_hh.shape[1]) and _registered()


def _call(name: str, layers: tuple["Layer", ...], keep: bool, arrays: list[Array], results: list[jax.ShapeDtypeStruct]) -> list[Array]:
    first = layers[0]
    _, steps, rows = first.row_gates.shape
    size, labels, _ = first.state[0].shape
    numbers = (len(first.state) == 2, len(layers), steps, size, labels * rows, rows, first.constant is not None, keep)
    call = jax.ffi.ffi_call(f"seqssvae_{name}", results, vmap_method="sequential")
    return list(call(*arrays, numbers=np.asarray(numbers, np.int32)))


def _like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def forward(layers: tuple["Layer", ...], keep: bool) -> tuple[tuple[Float[Array, "T H K B"], ...], ...]:
    """Outputs of each layer, and what is kept for the gradient, in an order of its own."""
    arrays, results = [], []
    for layer in layers:
        arrays += [part for part in (layer.row_gates, layer.constant, *layer.state, layer.weight_hh, layer.bias_n) if part is not None]
        steps = (layer.row_gates.shape[1], *layer.state[0].shape)
        kept = kernels.KEPT["gru" if layer.bias_n is not None else "lstm"] if keep else 0
        results += [jax.ShapeDtypeStruct(steps, layer.weight_hh.dtype)] * (1 + kept)
    found = _call("xla_forward", layers, keep, arrays, results)
    each = len(found) // len(layers)
    return tuple(tuple(found[first : first + each]) for first in range(0, len(found), each))


def backward(
    layers: tuple["Layer", ...],
    kept: tuple[tuple[Float[Array, "T H K B"], ...], ...],
    grad_outputs: tuple[Float[Array, "T H K B"], ...],
    rounding: Rounding,
) -> tuple["Layer", ...]:
    """Gradients of all that the layers have."""
    arrays, results = [], []
    for layer, of_layer, of_outputs in zip(layers, kept, grad_outputs, strict=True):
        arrays += [*layer.state, layer.weight_hh, *of_layer, of_outputs]
        found = [layer.row_gates, layer.constant, *layer.state, layer.bias_n]
        results += [_like(part) for part in found if part is not None]
        size, labels, rows = layer.state[0].shape
        columns = (len(of_outputs), labels * rows)
        lines = (len(layer.weight_hh),) if layer.bias_n is None else (len(layer.weight_hh), size)
        shapes = [(count, *columns) for count in lines] + [(*columns, size)]
        results += [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    found = iter(_call("xla_backward", layers, True, arrays, results))
    gradients = []
    for layer in layers:
        of_rows = next(found)
        of_constant = None if layer.constant is None else next(found)
        of_state = tuple(next(found) for _ in layer.state)
        of_bias = None if layer.bias_n is None else next(found)
        gates, *_, states = (next(found) for _ in range(2 if layer.bias_n is None else 3))
        of_weight = jax.lax.dot_general(
            gates, states, (((1, 2), (0, 1)), ((), ())), preferred_element_type=layer.weight_hh.dtype
        )
        if layer.bias_n is not None:  # a GRU's candidate comes first there
            of_weight = jnp.roll(of_weight, -states.shape[2], 0)
        gradients.append(layer._replace(row_gates=of_rows, constant=of_constant, state=of_state, weight_hh=of_weight, bias_n=of_bias))
    return tuple(gradients)
