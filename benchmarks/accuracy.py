"""What unlabelled rows are worth: accuracy with 50 labels per class, with and without the other rows, for both twins.

    python -m benchmarks.accuracy [--dataset peptides] [--seeds 10] [--precision bf16] [--output runs/accuracy.jsonl]

For each seed the classifier is trained on the labels alone, and the semi-supervised model on the same labels and all
other rows without theirs: same test rows, validation rows, early stopping and network q(y|x). Presets were chosen on
development rows that are never test rows. Runs of the same settings already in the output file are not repeated.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy import stats

from seqssvae.config import Config, Precision
from seqssvae.config.presets import PRESETS
from seqssvae.config.settings import to_yaml

SIDES = ("classifier", "ssvae")
TWINS = ("torch", "jax")


def presets(dataset: str, precision: Precision) -> list[Config]:
    """Both sides' configurations, in this precision."""
    configs = (preset() for preset in PRESETS[dataset])
    return [replace(config, training=replace(config.training, precision=precision)) for config in configs]


def run(task: tuple[str, Precision, str, int]) -> dict[str, Any]:
    """Train and test both sides of one twin and seed."""
    dataset, precision, twin, seed = task
    if twin == "torch":
        import torch

        torch.set_num_threads(1)
    from seqssvae.datasets import load_dataset
    from seqssvae.demo.experiment import prepare, run_pair

    config, own = presets(dataset, precision)
    pair = run_pair(prepare(load_dataset(dataset), config, seed), config, twin, own=own)
    result: dict[str, Any] = {"dataset": dataset, "settings": settings(dataset, precision), "twin": twin, "seed": seed}
    for side in SIDES:
        trained = getattr(pair, side)
        result[side] = trained.test.metrics.accuracy
        result[f"{side}_step"] = trained.result.state.best_step
        result[f"{side}_seconds"] = trained.result.state.seconds
    return result


def settings(dataset: str, precision: Precision) -> str:
    """A digest of both presets, to know runs of others by."""
    text = "".join(map(to_yaml, presets(dataset, precision)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(path: Path, dataset: str, precision: Precision) -> list[dict[str, Any]]:
    """The runs on file, of the settings that hold now."""
    if not path.exists():
        return []
    runs, current = map(json.loads, path.read_text().splitlines()), settings(dataset, precision)
    return [run for run in runs if run["dataset"] == dataset and run.get("settings") == current]


def run_missing(dataset: str, precision: Precision, seeds: int, path: Path, workers: int) -> list[dict[str, Any]]:
    """Run what is not on file, a core each, and append it."""
    done = {(run["twin"], run["seed"]) for run in finished(path, dataset, precision)}
    tasks = [(dataset, precision, twin, seed) for seed in range(seeds) for twin in TWINS if (twin, seed) not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(run, task) for task in tasks]
        for future in track(as_completed(futures), "Training", len(futures)):
            with path.open("a") as file:
                file.write(json.dumps(future.result()) + "\n")
    return [run for run in finished(path, dataset, precision) if run["seed"] < seeds]


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval (Student's t)."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.1f} [{values.mean() - half:+.1f}, {values.mean() + half:+.1f}]"


def report(runs: list[dict[str, Any]]) -> Iterator[str]:
    """The table, line by line."""
    accuracy = {
        (twin, side): 100 * np.array([r[side] for r in sorted(runs, key=lambda r: r["seed"]) if r["twin"] == twin])
        for twin in TWINS
        for side in SIDES
    }
    seeds = sorted({run["seed"] for run in runs})
    yield f"accuracy on held-out rows, %, seeds {seeds[0]} to {seeds[-1]}"
    yield f"{'':8}{'labels alone':>15}{'semi-supervised':>18}{'gain, paired [95 %]':>26}"
    for twin in TWINS:
        alone, both = accuracy[twin, "classifier"], accuracy[twin, "ssvae"]
        spread = [f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" for values in (alone, both)]
        yield f"{twin:8}{spread[0]:>15}{spread[1]:>18}{interval(both - alone):>26}"
    for side in SIDES:
        torch, jax = accuracy["torch", side], accuracy["jax", side]
        error = np.sqrt(torch.var(ddof=1) / len(torch) + jax.var(ddof=1) / len(jax))
        yield f"torch - jax, {side}: {torch.mean() - jax.mean():+.2f}, two standard errors {2 * error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy with and without unlabelled rows.")
    parser.add_argument("--dataset", choices=("peptides", "languages"), default="peptides")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to this less one")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, a core each")
    parser.add_argument("--output", type=Path, default=Path("runs/accuracy.jsonl"))
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(".cache/jax").absolute()))
    what = arguments.dataset, arguments.precision, arguments.seeds
    print(*report(run_missing(*what, arguments.output, arguments.workers)), sep="\n")


if __name__ == "__main__":
    main()
