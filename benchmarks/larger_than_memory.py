"""Rows that are more than memory should hold: what preparing, reading and training on them takes.

    python -m benchmarks.larger_than_memory --rows 20000000 --folder DIRECTORY

Each step is a process of its own, whose greatest resident set is that which the system reports, mapped pages included.
Rows have 3 to 13 of 20 letters. With `--objective classifier` all rows have a label, and else a hundredth. An epoch of
`--steps` steps alone tells the resident set as well: what a whole epoch reads is read by the step `read`.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MODEL = [
    *("model.latent_size=4", "model.encoder.embedding_size=8", "model.encoder.hidden_size=16"),
    *("model.decoder.embedding_size=8", "model.decoder.hidden_size=16", "model.decoder.conditioning=output"),
]
TRAINING = [
    *("training.epochs=1", "training.batch_size=2048", "training.labelled_batch_size=2048", "training.buckets=2"),
    *("training.patience=0", "data.validation_fraction=0.001"),
]


class Taken(NamedTuple):
    """What a process took: seconds, and its greatest resident set in bytes."""

    seconds: float
    resident: int


def write_rows(path: Path, rows: int, labelled: float) -> None:
    """Write made-up rows with two labels, of which this share is there."""
    generator, letters = np.random.default_rng(0), np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)
    with path.open("wb") as file:
        for first in range(0, rows, 1 << 18):
            count = min(1 << 18, rows - first)
            lengths = generator.integers(3, 14, count)
            text = letters[generator.integers(0, 20, lengths.sum())].tobytes()
            ends = np.cumsum(lengths).tolist()
            labels = np.where(generator.random(count) < labelled, generator.integers(1, 3, count), 0).tolist()
            starts = [0, *ends[:-1]]
            lines = zip(starts, ends, labels, strict=True)
            file.write(b"".join(text[start:end] + (b"\t\n", b"\tA\n", b"\tB\n")[label] for start, end, label in lines))


def run(arguments: Sequence[str]) -> Taken:
    """Run Python with these arguments to its end."""
    began, process = time.perf_counter(), os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, *arguments])
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: status {os.waitstatus_to_exitcode(status)}")
    return Taken(time.perf_counter() - began, usage.ru_maxrss * 1024)


def read_epoch(directory: str, objective: str) -> None:
    """Make all batches of an epoch, and print how long that took."""
    from seqssvae.config.settings import from_dict, merge
    from seqssvae.data.prepare import prepare_files
    from seqssvae.training.step_order import StepOrder

    settings: dict[str, object] = {"data": {"train": directory}, "objective": {"name": objective}}
    for field in TRAINING:
        name, _, value = field.partition("=")
        section, _, name = name.partition(".")
        settings = merge(settings, {section: {name: float(value) if "." in value else int(value)}})
    config = from_dict(settings)
    order = StepOrder(config, prepare_files(config).training)
    began, steps = time.perf_counter(), 0
    for chunk in order.chunks(64):
        steps += len(chunk.steps)
    print(f"{1000 * (time.perf_counter() - began) / steps:.2f} ms a step, {steps} steps", flush=True)


def show(name: str, taken: Taken, rows: int) -> None:
    """Print a line."""
    print(
        f"{name:<12} {taken.seconds:8.1f} s {rows / taken.seconds:12,.0f} rows/s {taken.resident / 1e6:8,.0f} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--objective", default="ssvae", choices=("ssvae", "classifier"))
    parser.add_argument("--steps", type=int, default=0, help="Steps to train; 0: an epoch.")
    parser.add_argument("--parts", nargs="+", default=["write", "prepare", "read", "train", "first"])
    parser.add_argument("--keep", action="store_true", help="Leave the files.")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        read_epoch(chosen.read, chosen.objective)
        return
    chosen.folder.mkdir(parents=True, exist_ok=True)
    rows, directory, place = chosen.folder / "rows.tsv", chosen.folder / "rows", chosen.folder / "run"
    fit = ["-m", "seqssvae", "fit", "--recipe=ssvae", "--quiet", f"--backend={chosen.backend}", f"--output={place}"]
    fit += [f"--objective.name={chosen.objective}", *(f"--{field}" for field in (*MODEL, *TRAINING))]
    shutil.rmtree(place, ignore_errors=True)
    for part in chosen.parts:
        if part == "write":
            write_rows(rows, chosen.rows, 1.0 if chosen.objective == "classifier" else 0.01)
        elif part == "prepare":
            shutil.rmtree(directory, ignore_errors=True)
            show(part, run(["-m", "seqssvae", "prepare", str(rows), "--output", str(directory)]), chosen.rows)
        elif part == "read":
            own = ["-m", "benchmarks.larger_than_memory", "--folder", str(chosen.folder), "--read", str(directory)]
            show(part, run([*own, "--objective", chosen.objective]), chosen.rows)
        elif part == "train":
            steps = [f"--training.max_steps={chosen.steps}"] if chosen.steps else []
            seen = 2048 * chosen.steps or chosen.rows
            show(part, run([*fit, *steps, f"--data.train={directory}"]), seen)
            shutil.rmtree(place)
        else:
            million = chosen.folder / "million.tsv"
            write_rows(million, 1_000_000, 0.01)
            show("first step", run([*fit, "--training.max_steps=1", f"--data.train={million}"]), 1_000_000)
            shutil.rmtree(place)
    if not chosen.keep:
        shutil.rmtree(chosen.folder)


if __name__ == "__main__":
    main()
