"""What `score_function` expects of a row: learned from the steps before, so that it does not depend on the label drawn.

A baseline is a dictionary of tensors, by the names of `seqssvae.parameters.baseline_shapes`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqssvae.data.vocabulary import PAD

State = dict[str, Tensor]

RATE = 0.5
"""Share of a row's error that the symbols' part makes good; below 2 it converges (Widrow & Hoff's rule, normalised)."""


def expected(state: State, x: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """The mean of the signals seen, with decaying weights, plus what each symbol adds; 0 before anything was seen."""
    mean = state["baseline.average"] / state["baseline.mass"].clamp(min=torch.finfo(state["baseline.mass"].dtype).tiny)
    return mean + _of_symbols(state, x)


def updated(
    state: State, x: Int[Tensor, "B T"], signal: Float[Tensor, " B"], row_mask: Bool[Tensor, " B"], decay: float
) -> State:
    """The baseline after having seen what came of these rows.

    Args:
        state: Before.
        x: Symbol ids.
        signal: log p(x|y,z) minus the KL of z, weighted, of each row.
        row_mask: True for real rows.
        decay: Weight of what was known before.
    """
    rows = row_mask.sum().clamp(min=1)
    residual = torch.where(row_mask, signal - _of_symbols(state, x), 0.0).sum() / rows
    after = {
        "baseline.average": decay * state["baseline.average"] + (1 - decay) * residual,
        "baseline.mass": decay * state["baseline.mass"] + (1 - decay),
    }
    if "baseline.symbols" in state:
        error = torch.where(row_mask, signal - expected({**state, **after}, x), 0.0)
        real = (x != PAD).to(signal.dtype)
        same = (x[:, :, None] == x[:, None, :]).to(signal.dtype) * real[:, :, None] * real[:, None, :]
        steps = RATE * error / (1 + same.sum((1, 2))) / rows  # the denominator: the squared norm of the counts
        after["baseline.symbols"] = state["baseline.symbols"].index_add(
            0, x.flatten(), (steps[:, None] * real).flatten()
        )
    return after


def _of_symbols(state: State, x: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
    if "baseline.symbols" not in state:
        return state["baseline.average"].new_zeros(len(x))
    return torch.where(x == PAD, 0.0, state["baseline.symbols"][x]).sum(1)
