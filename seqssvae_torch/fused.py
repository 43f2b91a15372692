"""What the kernels in `seqssvae.kernels` do for bfloat16 products: recurrent layers and output layers, or parts of one.

Recurrent layers compute what `recurrence._GRU` and `recurrence._LSTM` do, and differ in rounding: products of a step
stay in float32, and gradients of gates are rounded before they are summed over labels. The gradient of the state's
weights is one product over all steps; until then the gradients of all gates are held, in bfloat16.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from seqssvae import kernels
from seqssvae_torch.products import Rounding, add_product


def serves(gates: Tensor, hidden_size: int, rounding: Rounding) -> bool:
    """Whether there are kernels for layers of this size with these gates and products."""
    of_type = gates.dtype == torch.float32 and rounding == torch.bfloat16 and gates.device.type == "cpu"
    return of_type and gates.numel() > 0 and kernels.read_layers_of(hidden_size)


class _Arrays:
    """The arrays of D layers, each in one piece, and where a layer's parts are, by their names in `recurrence.h`."""

    def __init__(self, layers: int) -> None:
        self.layers: list[dict[str, int | list[int | None] | None]] = [{} for _ in range(layers)]
        self.held: list[Tensor | None] = []
        """For as long as addresses are in use."""

    def by_layer(self, **arrays: Float[Tensor, "D ..."] | None) -> "_Arrays":
        """Add arrays of which each layer has a part."""
        return self._add(arrays)

    def by_step(self, **arrays: Float[Tensor, "T D H N"]) -> "_Arrays":
        """Add arrays of which each layer has a part at each step."""
        self.held += arrays.values()
        return self._add({name: array[0] for name, array in arrays.items()})

    def lists(self, **arrays: tuple[Shaped[Tensor, "D ..."] | None, ...]) -> "_Arrays":
        """Add arrays that share a name."""
        for parts in arrays.values():
            self.held += parts
        for place, layer in enumerate(self.layers):
            for name, parts in arrays.items():
                layer[name] = [None if part is None else part[place].data_ptr() for part in parts]
        return self

    def _add(self, arrays: Mapping[str, Tensor | None]) -> "_Arrays":
        self.held += arrays.values()
        for place, layer in enumerate(self.layers):
            for name, array in arrays.items():
                layer[name] = None if array is None else array[place].data_ptr()
        return self

    def run(self, function: str, shape: Mapping[str, Any]) -> None:
        """Call a kernel with them."""
        kernels.run(function, self.layers, **shape, threads=torch.get_num_threads(), team=kernels.openmp_team())


class _Fused(torch.autograd.Function):
    """Layers that know nothing of each other, over whole sequences.

    Gates are `(D, G, T, B)` and `(D, G, K*B)`, states `(D, H, K*B)`, weights `(D, G, H)` and `(D, H)`, outputs
    `(T, D, H, K*B)`, all in one piece. An LSTM has no `bias_n`, and a GRU no `cell`; without first states they are
    zeros.
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
        dtypes = [torch.int16 if size_of == 2 else torch.float32 for size_of in kernels.KEPT[kind]] if keep else []
        kept = tuple(torch.empty(layers, size, steps, columns, dtype=dtype) for dtype in dtypes)
        arrays = _Arrays(layers).by_layer(row_gates=row_gates, constant=constant, weight=weight_hh, bias_n=bias_n)
        shape = {"cell": kind, "steps": steps, "size": size, "columns": columns, "rows": rows}
        arrays.by_step(outputs=outputs).lists(first=(hidden, cell), kept=kept)
        arrays.run("recurrence_forward", shape)
        context.save_for_backward(outputs, constant, hidden, cell, weight_hh, bias_n, *kept)
        context.shape = shape
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, constant, hidden, cell, weight_hh, bias_n, *kept = context.saved_tensors
        steps, layers, size, columns = outputs.shape
        gates, short = weight_hh.shape[1], torch.bfloat16
        grad_rows = outputs.new_empty(layers, gates, steps, context.shape["rows"])
        grad_constant, grad_hidden, grad_cell, grad_bias = map(_empty_like, (constant, hidden, cell, bias_n))
        grad_columns = outputs.new_empty(layers, gates, steps * columns, dtype=short)
        grad_candidate = None if bias_n is None else outputs.new_empty(layers, size, steps * columns, dtype=short)
        states = outputs.new_empty(layers, steps * columns, size, dtype=short)
        arrays = _Arrays(layers).by_layer(weight=weight_hh, states=states, grad_rows=grad_rows, grad_bias=grad_bias)
        arrays.by_layer(grad_constant=grad_constant, grad_columns=grad_columns, grad_candidate=grad_candidate)
        arrays.by_step(outputs=outputs, grad_outputs=grad_outputs[0].contiguous())
        arrays.lists(first=(hidden, cell), grad_first=(grad_hidden, grad_cell), kept=tuple(kept))
        arrays.run("recurrence_backward", context.shape)
        grad_weight = torch.empty_like(weight_hh)
        for of_layer, of_gates, of_states in zip(grad_weight, grad_columns, states, strict=True):
            of_layer.copy_(of_gates @ of_states)
        if bias_n is not None:  # a GRU's candidate comes first there
            grad_weight = grad_weight.roll(-size, 1)
        return grad_rows, grad_constant, grad_hidden, grad_cell, grad_weight, grad_bias, None


def serves_output(operands: tuple[Tensor, ...], rounding: Rounding) -> bool:
    """Whether there are kernels for output layers with these hidden states, weight and bias, and these products."""
    of_type = all(operand.dtype == torch.float32 and operand.device.type == "cpu" for operand in operands)
    empty = any(operand.numel() == 0 for operand in operands)
    return of_type and not empty and rounding == torch.bfloat16 and kernels.wanted()


def _run_output(
    function: str, sizes: Sequence[int], given: Mapping[str, Tensor], written: Mapping[str, Tensor], size: int = 0
) -> None:
    """Sizes are S, V and N; `size` is H, of a whole layer."""
    for name, array in written.items():
        if not array.is_contiguous():
            raise ValueError(f"{function}: {name} is written in place, but lies in pieces: it has to be in one.")
    pieces = {name: array.contiguous() for name, array in given.items()} | dict(written)
    addresses = {name: piece.data_ptr() for name, piece in pieces.items()}
    threads, team = torch.get_num_threads(), kernels.openmp_team()
    kernels.run_output(function, addresses, sizes=tuple(sizes), size=size, threads=threads, team=team)


class OutputGradients(NamedTuple):
    """That of hidden states, in one piece, is written, and the others are added to."""

    hidden: Float[Tensor, "S H N"]
    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, "V"]


def read_output(
    hidden: Float[Tensor, "S H N"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"],
    targets: Int[Tensor, "S 1 N"],
    weights: Float[Tensor, "S 1 N"] | None = None,
    gradients: OutputGradients | None = None,
) -> Float[Tensor, "S 1 N"]:
    """Log-probabilities of symbols; and with weights, gradients of `sum(weights * log_probs)`.

    Logits stay in float32, and errors, which are their gradient, are rounded. H is a multiple of 8.
    """
    (steps, size, columns), symbols, short = hidden.shape, len(weight), torch.bfloat16
    sums, chosen = hidden.new_empty(targets.shape), hidden.new_empty(targets.shape)
    given = {"hidden": hidden, "weight": weight, "bias": bias, "targets": targets.to(torch.int32)}
    written = {"sums": sums, "chosen": chosen}
    if weights is None or gradients is None:
        _run_output("likelihood_layer", (steps, symbols, columns), given, written, size)
        return chosen - sums.log_()
    errors = hidden.new_empty(symbols, steps * columns, dtype=short)
    states = hidden.new_empty(steps * columns, size, dtype=short)
    written |= {"errors": errors, "states": states, "grad_hidden": gradients.hidden, "grad_bias": gradients.bias}
    _run_output("likelihood_layer", (steps, symbols, columns), given | {"weights": weights}, written, size)
    add_product(gradients.weight, errors, states, short)
    return chosen - sums.log_()


def sum_exponentials(
    logits: Float[Tensor, "S V N"], bias: Float[Tensor, "V"], shift: Float[Tensor, "S 1 N"]
) -> Float[Tensor, "S 1 N"]:
    """Of `logits + bias - shift`, over symbols; logits are bfloat16 and in one piece."""
    sums = shift.new_empty(shift.shape)
    _run_output("likelihood_sums", logits.shape, {"logits": logits, "bias": bias, "shift": shift}, {"sums": sums})
    return sums


def write_errors(
    logits: Float[Tensor, "S V N"],
    bias: Float[Tensor, "V"],
    normalizer: Float[Tensor, "S 1 N"],
    targets: Int[Tensor, "S 1 N"],
    weights: Float[Tensor, "S 1 N"],
    grad_bias: Float[Tensor, "V"],
) -> None:
    """Over bfloat16 logits: `weights (one_hot(targets) - exp(logits + bias - normalizer))`; its sum to `grad_bias`."""
    given = {"bias": bias, "shift": normalizer, "targets": targets.to(torch.int32), "weights": weights}
    _run_output("likelihood_errors", logits.shape, given, {"logits": logits, "grad_bias": grad_bias})


def _empty_like(array: Tensor | None) -> Tensor | None:
    return None if array is None else torch.empty_like(array)


def read(
    row_gates: Float[Tensor, "D G T B"],
    constant: Float[Tensor, "D G N"] | None,
    states: tuple[Float[Tensor, "D H N"] | None, ...],
    weight_hh: Float[Tensor, "D G H"],
    bias_n: Float[Tensor, "D H"] | None,
) -> Float[Tensor, "T D H N"]:
    """Outputs of D layers: GRUs where there is a `bias_n`, LSTMs where there is none."""
    hidden, cell = states if len(states) == 2 else (*states, None)
    given = (row_gates, constant, hidden, cell, weight_hh, bias_n)
    in_pieces = (part if part is None else part.contiguous() for part in given)
    return _Fused.apply(*in_pieces, torch.is_grad_enabled())
