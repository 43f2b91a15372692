"""The places of the label's plates, and what each site of a program has there."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Cells(NamedTuple):
    """The places of y: one for each combination of the indices of its plates.

    Args:
        plates: Names of its plates, by dimension.
        shape: Batch shape of y.
        nesting: How many dimensions the plates of the programs take.
    """

    plates: dict[int, str]
    shape: torch.Size
    nesting: int

    def summed(self, name: str, node: Mapping[str, Any], log_prob: Tensor) -> Float[Tensor, "*S B"] | None:
        """Log-probabilities of a site, summed over the plates that y is not in; None where it is not in all of y's.

        Raises:
            ValueError: If it has dimensions that are no plates, or depends on y and is not in y's plates.
        """
        self.check_dimensions(name, node, log_prob)
        if self.is_outside(node):
            return None
        others = [dim for dim in plates_of(node) if dim not in self.plates and -dim <= log_prob.dim()]
        if others:
            log_prob = log_prob.sum(others, keepdim=True)
        labels = log_prob.shape[:1] if log_prob.dim() > self.nesting else ()
        own = log_prob.shape[len(labels) :]
        padded = (*[1] * (len(self.shape) - len(own)), *own[max(0, len(own) - len(self.shape)) :])
        return log_prob.reshape((*labels, *padded)).expand((*labels, *self.shape)).reshape((*labels, -1))

    def is_outside(self, node: Mapping[str, Any]) -> bool:
        """Return whether a site is not in all of y's plates."""
        plates = plates_of(node)
        return any(plates.get(dim) != plate for dim, plate in self.plates.items())

    def unmasked(self, mask: Any, like: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """1 for the rows that count by a mask of y, 0 for the others."""
        return torch.as_tensor(True if mask is None else mask).to(like).expand(self.shape).reshape(-1)

    def check_dimensions(self, name: str, node: Mapping[str, Any], log_prob: Tensor) -> None:
        """Raise a ValueError if a site has dimensions that are no plates, or depends on y and is not in y's plates."""
        plates = plates_of(node)
        deepest = max((-dim for dim in plates), default=0)
        if deepest > self.nesting:
            raise ValueError(
                f"the site {name!r} is within {deepest} dimensions of plates: max_plate_nesting must be at least that."
            )
        for dim in range(-1, -min(log_prob.dim(), self.nesting) - 1, -1):
            if log_prob.shape[dim] > 1 and dim not in plates:
                raise ValueError(f"the site {name!r} has a dimension {dim} that is no plate: declare it by to_event().")
        if log_prob.dim() > self.nesting + 1:
            raise ValueError(
                f"the site {name!r} has more dimensions than plates and labels: declare them by to_event()."
            )
        if self.is_outside(node) and log_prob.dim() > self.nesting:
            raise ValueError(outside_message(name))


def outside_message(name: str) -> str:
    """Return what is wrong with a site that depends on y and is not in y's plates."""
    return f"the site {name!r} depends on the label, but is not within the plates of the label."


def plates_of(node: Mapping[str, Any]) -> dict[int, str]:
    """Names of the plates that a site is in, by their dimension."""
    return {frame.dim: frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
