"""A cell as a task of a process of its own."""

from pathlib import Path
from typing import Any

from benchmarks.few_labels.sets import load_set

Cell = tuple[str, int, int, str]


def run(cell: Cell, folder: Path | None, network_seeds: int) -> dict[str, Any]:
    """Run one cell."""
    name, labels, seed, twin = cell
    if twin == "torch":
        import torch

        torch.set_num_threads(1)
    from benchmarks.few_labels.run import run_cell

    result = run_cell(load_set(name, folder), labels, seed, twin, seed < network_seeds)
    return {"set": name, "labels": labels, "seed": seed, "twin": twin, **result}
