"""Recurrent layers read by the kernels in `seqssvae.kernels`: rounded products, and all else of a step with them.

It is what `recurrence._GRU` and `recurrence._LSTM` compute, but for the rounding: sums of products stay in float32, and
gradients of gates are rounded before they are summed over labels.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqssvae import kernels
from seqssvae_torch.products import Rounding


def serves(gates: Tensor, hidden_size: int, rounding: Rounding) -> bool:
    """Whether there are kernels for layers of this size with these gates and products."""
    of_type = gates.dtype == torch.float32 and rounding == torch.bfloat16
    return of_type and gates.device.type == "cpu" and kernels.serve(hidden_size)


def _arrays(
    layer: int, constants: dict[str, Tensor | None], by_step: dict[str, Tensor], kept: Tensor | None
) -> dict[str, Any]:
    """Addresses of one layer's arrays.

    Args:
        layer: Which.
        constants: Arrays of all layers, one after the other.
        by_step: Arrays of all layers at each step.
        kept: One array of all layers for each number that is kept.
    """
    found: dict[str, Any] = {
        name: array if array is None else array[layer].data_ptr() for name, array in constants.items()
    }
    found |= {name: array[0, layer].data_ptr() for name, array in by_step.items()}
    for name in ("first", "grad_first"):
        found[name] = [found.pop(f"{name}.{state}", None) for state in range(2)]
    return found | {"kept": [] if kept is None else [of[layer].data_ptr() for of in kept]}


class Fused(torch.autograd.Function):
    """Layers that know nothing of each other, over whole sequences.

    Gates are `(D, G, T, B)` and `(D, G, K*B)`, states `(D, H, K*B)`, weights `(D, G, H)` and `(D, H)`, outputs
    `(T, D, H, K*B)`. An LSTM has no `bias_n`, and a GRU no `cell`; without first states they are zeros.
    """

    @staticmethod
    def forward(
        context: Any,
        row_gates: Tensor,
        constant: Tensor | None,
        hidden: Tensor | None,
        cell: Tensor | None,
        weight_hh: Tensor,
        bias_n: Tensor | None,
        keep: bool,
    ) -> Tensor:
        layers, _, steps, rows = row_gates.shape
        size, columns = weight_hh.shape[2], rows if hidden is None else hidden.shape[2]
        kind = "lstm" if bias_n is None else "gru"
        outputs = row_gates.new_empty(steps, layers, size, columns)
        kept = outputs.new_empty(kernels.KEPT[kind], layers, steps, size, columns, dtype=torch.float16) if keep else None
        given = {"constant": constant, "first.0": hidden, "first.1": cell, "weight": weight_hh, "bias_n": bias_n}
        shape = {"cell": kind, "steps": steps, "size": size, "columns": columns, "rows": rows}
        arrays = [_arrays(layer, given | {"row_gates": row_gates}, {"outputs": outputs}, kept) for layer in range(layers)]
        kernels.run("recurrence_forward", arrays, **shape, **_threads())
        context.save_for_backward(outputs, kept, *given.values())
        context.shape = shape
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, kept, constant, hidden, cell, weight_hh, bias_n = context.saved_tensors
        steps, layers, size, columns = outputs.shape
        gates, rows = weight_hh.shape[1], context.shape["rows"]
        of_gates, of_candidate = (
            outputs.new_empty(layers, lines, steps, columns, dtype=torch.bfloat16) for lines in (gates, size)
        )
        states = outputs.new_empty(layers, steps * columns, size, dtype=torch.bfloat16)
        given = {"constant": constant, "first.0": hidden, "first.1": cell, "weight": weight_hh, "bias_n": bias_n}
        found = {
            "grad_rows": outputs.new_empty(layers, gates, steps, rows),
            "grad_constant": _like(constant),
            "grad_first.0": _like(hidden),
            "grad_first.1": _like(cell),
            "grad_bias": _like(bias_n),
        }
        constants = given | found | {"grad_columns": of_gates, "grad_candidate": of_candidate, "states": states}
        by_step = {"outputs": outputs, "grad_outputs": grad_outputs[0].contiguous()}
        arrays = [_arrays(layer, constants, by_step, kept) for layer in range(layers)]
        kernels.run("recurrence_backward", arrays, **context.shape, **_threads())
        grad_weight = torch.empty_like(weight_hh)
        for of_layer, found_gates, found_states in zip(grad_weight, of_gates, states, strict=True):
            of_layer.copy_(found_gates.flatten(1) @ found_states)
        if bias_n is not None:  # a GRU's candidate comes first there
            grad_weight = grad_weight.roll(-size, 1)
        grad_rows, grad_constant, grad_hidden, grad_cell, grad_bias = found.values()
        return grad_rows, grad_constant, grad_hidden, grad_cell, grad_weight, grad_bias, None


def _like(array: Tensor | None) -> Tensor | None:
    return None if array is None else torch.empty_like(array, memory_format=torch.contiguous_format)


def _threads() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "team": kernels.openmp_team()}


def read(
    row_gates: Float[Tensor, "D G T B"],
    constant: Float[Tensor, "D G N"] | None,
    states: tuple[Float[Tensor, "D H N"] | None, ...],
    weight_hh: Float[Tensor, "D G H"],
    bias_n: Float[Tensor, "D H"] | None,
) -> Float[Tensor, "T D H N"]:
    """Outputs of D layers: GRUs where there is a `bias_n`, LSTMs where there is none."""
    hidden, cell = states if len(states) == 2 else (*states, None)
    given = (part if part is None else part.contiguous() for part in (row_gates, constant, hidden, cell, weight_hh, bias_n))
    return Fused.apply(*given, torch.is_grad_enabled())
