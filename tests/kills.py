"""Kills fits at random moments, resumes each until it ends, and compares what is left with a run that was not killed.

    python tests/kills.py --count 50 --seed 1

The moments are drawn over the whole of a fit, checkpoint writing included. Each fit is a process forked from one that
has loaded the twin, so that a kill falls into training rather than into importing.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

FIELDS = ["--training.patience=0", "--training.evaluation_interval=2"]
SIZES = ["model.latent_size=2", "model.encoder.embedding_size=3", "model.encoder.hidden_size=4"]
SIZES += ["model.decoder.embedding_size=3", "model.decoder.hidden_size=4", "data.validation_fraction=0.25"]
SIZES += [
    "training.batch_size=8",
    "training.labelled_batch_size=8",
    "training.buckets=1",
    "optimizer.learning_rate=0.01",
]
SIZES += ["training.checkpoint_minutes=0.000001"]
TWINS = ("torch", "jax")


def _fit(arguments: list[str]) -> None:
    from seqssvae.cli.main import main

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(main(arguments))


def _serve(requests, replies) -> None:
    """Load everything, and then run each fit that is asked for in a process of its own, which is killed if need be."""
    from seqssvae.backend import get_backend

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    twin = requests.get()
    get_backend(twin)
    replies.put(None)
    while (request := requests.get()) is not None:
        arguments, after = request
        began, process = time.monotonic(), multiprocessing.get_context("fork").Process(target=_fit, args=(arguments,))
        process.start()
        process.join(after)
        killed = process.is_alive()
        if killed:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        replies.put((None if killed else process.exitcode, time.monotonic() - began))


class Trainer:
    """A process that runs fits of one twin and kills them."""

    def __init__(self, twin: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.twin, self._requests, self._replies = twin, context.SimpleQueue(), context.SimpleQueue()
        self._process = context.Process(target=_serve, args=(self._requests, self._replies))
        self._process.start()
        self._requests.put(twin)
        self._replies.get()

    def fit(self, arguments: list[str], after: float | None = None) -> tuple[int | None, float]:
        """Run a fit, killed after so many seconds; its status (None if it was killed), and how long it took."""
        self._requests.put((["fit", "--recipe=ssvae", *arguments], after))
        return self._replies.get()

    def close(self) -> None:
        """End the process."""
        self._requests.put(None)
        self._process.join()


def final(run: Path) -> dict[str, object]:
    """What a finished run holds, without the seconds that it took."""
    from seqssvae.runs.checkpoints import CheckpointFiles
    from seqssvae.runs.files import read_metrics

    folder = CheckpointFiles(run).folder
    arrays = {name: (folder / f"{name}.safetensors").read_bytes() for name in ("weights", "last", "optimizer")}
    return {**arrays, "metrics": [{**record, "seconds": 0} for record in read_metrics(run)]}


def kill_and_resume(
    trainer: Trainer, place: Path, count: int, generator: random.Random, epochs: int = 4
) -> dict[str, int]:
    """Kill fits of a twin at random moments.

    Args:
        trainer: Runs and kills them.
        place: A directory for their runs.
        count: The number of fits.
        generator: Draws the moments.
        epochs: Of each fit: the more, the more kills fall into training rather than before it.

    Returns:
        How many there were, how many were killed, went on from a checkpoint, could not be read or resumed, and ended in
        other bits.
    """
    from seqssvae.errors import UserError
    from seqssvae.runs.run import RunDirectory

    write_rows(place / "train.tsv")
    new = [
        f"--data.train={place / 'train.tsv'}",
        f"--training.epochs={epochs}",
        *FIELDS,
        *(f"--{field}" for field in SIZES),
        f"--backend={trainer.twin}",
    ]
    if trainer.twin == "jax":
        trainer.fit([*new, f"--output={place / 'warm'}"])  # what is compiled is kept
    status, seconds = trainer.fit([*new, f"--output={place / 'whole'}"])
    assert status == 0
    whole = final(place / "whole")
    tally = dict.fromkeys(("fits", "killed", "resumed", "unreadable", "other bits"), 0)
    for number in range(count):
        run, tally["fits"] = place / f"run{number}", tally["fits"] + 1
        status, _ = trainer.fit([*new, f"--output={run}"], generator.uniform(0, seconds))
        tally["killed"] += status is None
        if (run / "latest.json").exists():
            try:
                RunDirectory(run).read_checkpoint()
            except UserError as error:
                print(run, error)
                tally["unreadable"] += 1
                continue
            tally["resumed"] += status is None
            status, _ = trainer.fit([f"--resume={run}"])
        else:
            status, _ = trainer.fit([*new, f"--output={run}"])
        tally["unreadable"] += status != 0
        tally["other bits"] += status == 0 and final(run) != whole
        shutil.rmtree(run, ignore_errors=True)
    return tally


def write_rows(path: Path) -> None:
    """Write a few rows, of which half are labelled."""
    generator = random.Random(0)
    texts = ["".join(generator.choices("abcd", k=generator.randint(3, 7))) for _ in range(48)]
    path.write_text(
        "".join(f"{text}\t{('left', 'right')[row % 2] if row < 24 else ''}\n" for row, text in enumerate(texts))
    )


def main() -> None:
    """Kill so many fits, half of either twin, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    for twin in TWINS:
        trainer = Trainer(twin)
        with tempfile.TemporaryDirectory() as place:
            drawn = random.Random(arguments.seed)
            tally = kill_and_resume(trainer, Path(place), arguments.count // 2, drawn, arguments.epochs)
        trainer.close()
        print(twin, tally)


if __name__ == "__main__":
    main()
