"""Recurrent layers by PyTorch's own GRU and LSTM, which are one call each way, and one kernel of cuDNN's on a GPU.

Their equations are those of `cells`, with two biases for each gate, of which the second is zero but for `bias_n`. What
is constant over time enters with the inputs, through an identity matrix beside their weights. Nothing is rounded,
whatever the precision of a run's products: what is more exact than asked for is right as well.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seqssvae_torch.ops.cells import CellWeights, State, fold, unfold


def recurrence(
    cells: Sequence[CellWeights],
    inputs: Sequence[Float[Tensor, "#K B T I"]],
    constant: Float[Tensor, "K B G"] | None = None,
    state: State | None = None,
) -> tuple[Float[Tensor, "K B T H"], ...]:
    """As `seqssvae_torch.ops.recurrence`."""
    return tuple(_layer(cell, of_cell, constant, state) for cell, of_cell in zip(cells, inputs, strict=True))


def _layer(
    cell: CellWeights, inputs: Float[Tensor, "#K B T I"], constant: Float[Tensor, "K B G"] | None, state: State | None
) -> Float[Tensor, "K B T H"]:
    labels, weight_ih = len(inputs) if state is None else len(state[0]), cell.weight_ih
    read = inputs[0] if labels == 1 else fold(inputs.expand(labels, -1, -1, -1))
    if state is None:
        first = [read.new_zeros(1, len(read), cell.weight_hh.shape[1])] * (1 if cell.bias_n is not None else 2)
    else:
        first = [fold(part)[None].contiguous() for part in state]
    if constant is not None:
        of_steps = fold(constant)[:, None].expand(-1, read.shape[1], -1)
        read = torch.cat([read, of_steps], -1)
        weight_ih = torch.cat([weight_ih, torch.eye(len(weight_ih), dtype=read.dtype, device=read.device)], 1)
    settings = (
        True,
        1,
        0.0,
        torch.is_grad_enabled(),
        False,
        True,
    )  # biases, layers, dropout, training, both ways, rows first
    if cell.bias_n is None:
        weights = weight_ih, cell.weight_hh, cell.bias, torch.zeros_like(cell.bias)
        return unfold(torch.lstm(read, first, weights, *settings)[0], labels)
    second_bias = functional.pad(cell.bias_n, (2 * len(cell.bias_n), 0))
    weights = weight_ih, cell.weight_hh, cell.bias, second_bias
    return unfold(torch.gru(read, first[0], weights, *settings)[0], labels)
