"""Recurrent layers over whole sequences, for K labels times B rows."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from seqssvae_torch.ops import recurrence_custom_vjp, recurrence_fused
from seqssvae_torch.ops.cells import CellWeights, State, cell_step
from seqssvae_torch.ops.implementations import implementation
from seqssvae_torch.ops.products import linear


def recurrence(
    cells: Sequence[CellWeights],
    inputs: Sequence[Float[Tensor, "#K B T I"]],
    constant: Float[Tensor, "K B G"] | None = None,
    state: State | None = None,
) -> tuple[Float[Tensor, "K B T H"], ...]:
    """Read sequences with cells that do not depend on each other, such as the directions of an encoder.

    Args:
        cells: One cell, or several of the same kind and sizes.
        inputs: What each cell reads: the same for all labels (K is 1 there), or of each label.
        constant: What label and z add to the gates of every step. It goes with a single cell, and so does `state`.
        state: First states, each of shape `(K, B, H)`; None for zeros.

    Returns:
        The outputs of each cell.
    """
    chosen = implementation(inputs[0].device, inputs[0].dtype)
    if chosen == "custom_vjp":
        return recurrence_custom_vjp.recurrence(cells, inputs, constant, state)
    if chosen == "fused":
        return recurrence_fused.recurrence(cells, inputs, constant, state)
    return tuple(reference(cell, of_cell, constant, state) for cell, of_cell in zip(cells, inputs, strict=True))


def reference(
    cell: CellWeights,
    inputs: Float[Tensor, "#K B T I"],
    constant: Float[Tensor, "K B G"] | None = None,
    state: State | None = None,
) -> Float[Tensor, "K B T H"]:
    """What `recurrence` computes, for one cell: `h_t = step(W_i x_t + b + constant, h_(t-1))`."""
    gates = linear(inputs, cell.weight_ih, cell.bias)
    if state is None:
        state = cell.zero_state(*inputs.shape[:2])
    outputs = []
    for step in range(inputs.shape[2]):
        of_step = gates[:, :, step] if constant is None else gates[:, :, step] + constant
        state = cell_step(cell, of_step, state)
        outputs.append(state[0])
    return torch.stack(outputs, 2)
