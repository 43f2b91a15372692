"""Sums over the rows of an epoch, and over all processes that share in it."""

import numpy as np
import torch
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Evaluation
from seqssvae.config import ObjectiveConfig


class Totals:
    """Sums over evaluated rows, whose means are those of the whole epoch.

    They are the ELBO's three terms, rows, cross entropy, rows that are predicted correctly, and rows with a label.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(7, dtype=torch.float64)

    def add(self, evaluation: Evaluation, y: Int[np.ndarray, " B"]) -> None:
        """Add the rows of a batch, with their labels."""
        known = y != NO_LABEL
        of_known = evaluation.log_q_y[known]
        cross_entropy = -of_known[np.arange(known.sum()), y[known]].sum()
        correct = (of_known.argmax(-1) == y[known]).sum()
        terms = [term.sum() for term in evaluation.terms[:3]]
        self.sums += torch.tensor([*terms, len(y), cross_entropy, correct, known.sum()], dtype=torch.float64)

    def means(self, objective: ObjectiveConfig, device: torch.device) -> dict[str, float]:
        """Means over the rows of all processes, by name; `loss` is what the objective minimises, at beta 1."""
        total = self.sums.to(device, torch.float32)
        if _is_distributed():
            torch.distributed.all_reduce(total)
        reconstruction, kl_z, kl_y, rows, cross_entropy, correct, known = total.tolist()
        is_generative, loss, means = objective.name == "ssvae", 0.0, {}
        if is_generative:
            means = {"reconstruction": reconstruction / rows, "kl_z": kl_z / rows, "kl_y": kl_y / rows}
            loss = means["kl_z"] + means["kl_y"] - means["reconstruction"]
        if known:
            means |= {"classification": cross_entropy / known, "label_accuracy": correct / known}
            loss += (objective.alpha if is_generative else 1.0) * means["classification"]
        return {"loss": loss, **means}


def over_processes(counts: list[int], device: torch.device) -> tuple[list[int], int]:
    """Sums over all processes, and the number of processes."""
    if not _is_distributed():
        return counts, 1
    total = torch.tensor(counts, device=device)
    torch.distributed.all_reduce(total)
    return total.tolist(), torch.distributed.get_world_size()


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
