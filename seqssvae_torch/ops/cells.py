"""Recurrent cells: their weights, the equations of one step, and how labels are folded into rows."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqssvae_torch.ops.products import linear

State = tuple[Tensor, ...]
"""The output h and, for a long short-term memory, the cell c."""


class CellWeights(NamedTuple):
    """Weights of a recurrent cell, laid out as in `seqssvae.parameters`.

    A gated recurrent unit has gates r, z, n (G = 3H) and a `bias_n`; a long short-term memory has i, f, g, o (G = 4H)
    and none.
    """

    weight_ih: Float[Tensor, "G I"]
    weight_hh: Float[Tensor, "G H"]
    bias: Float[Tensor, " G"]
    bias_n: Float[Tensor, " H"] | None = None

    def zero_state(self, labels: int, rows: int) -> State:
        """States of zeros, each of shape `(K, B, H)`."""
        zeros = self.bias.new_zeros(labels, rows, self.weight_hh.shape[1])
        return (zeros,) if self.bias_n is not None else (zeros, zeros)


def fold(by_label: Float[Tensor, "K B *F"]) -> Float[Tensor, " N *F"]:
    """Fold the enumeration dimension into the batch: row `k * B + b` is label k's copy of row b.

    This is the order of `rows.repeat(K, 1)` and of `rows.expand(K, B, F).reshape(K * B, F)`. It is not that of
    `rows.repeat_interleave(K, 0)`, which would give row b the results of other rows and labels.
    """
    return by_label.reshape(by_label.shape[0] * by_label.shape[1], *by_label.shape[2:])


def unfold(folded: Float[Tensor, " N *F"], labels: int) -> Float[Tensor, "K B *F"]:
    """Inverse of `fold`."""
    return folded.reshape(labels, folded.shape[0] // labels, *folded.shape[1:])


def cell_step(weights: CellWeights, gates: Float[Tensor, "*#N G"], state: State) -> State:
    """One step of a cell; the first entry of the state is the output.

    Args:
        weights: Of the cell.
        gates: What the inputs contribute to the gates: `W_i x + b`, and what is constant over time.
        state: The state before.
    """
    if weights.bias_n is not None:
        return (gru_step(gates, state[0], weights.weight_hh, weights.bias_n),)
    hidden, cell = state
    return lstm_step(gates, hidden, cell, weights.weight_hh)


def gru_step(
    gates: Float[Tensor, "*#N G"],
    hidden: Float[Tensor, "*#N H"],
    weight_hh: Float[Tensor, "G H"],
    bias_n: Float[Tensor, " H"],
) -> Float[Tensor, "*#N H"]:
    """One step of a gated recurrent unit (Cho et al. 2014), with the reset gate inside the candidate's product.

    `r = sigmoid(a_r + W_r h)`, `z = sigmoid(a_z + W_z h)`, `n = tanh(a_n + r * (W_n h + bias_n))`,
    `h' = n + z * (h - n)`, where `a` are the gates given.
    """
    reset_in, update_in, candidate_in = gates.chunk(3, -1)
    reset_h, update_h, candidate_h = linear(hidden, weight_hh).chunk(3, -1)
    reset = torch.sigmoid(reset_in + reset_h)
    update = torch.sigmoid(update_in + update_h)
    candidate = torch.tanh(candidate_in + reset * (candidate_h + bias_n))
    return candidate + update * (hidden - candidate)


def lstm_step(
    gates: Float[Tensor, "*#N G"],
    hidden: Float[Tensor, "*#N H"],
    cell: Float[Tensor, "*#N H"],
    weight_hh: Float[Tensor, "G H"],
) -> tuple[Float[Tensor, "*#N H"], Float[Tensor, "*#N H"]]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    `i, f, g, o = a + W h`, `c' = sigmoid(f) * c + sigmoid(i) * tanh(g)`, `h' = sigmoid(o) * tanh(c')`.
    """
    input_gate, forget_gate, candidate, output_gate = (gates + linear(hidden, weight_hh)).chunk(4, -1)
    cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
    return torch.sigmoid(output_gate) * torch.tanh(cell), cell
