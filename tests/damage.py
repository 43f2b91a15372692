"""Damages run directories in many ways, opens each, and counts what became of it.

    PYTHONPATH=. python tests/damage.py --count 500

A trial may end in an error of the project, or in the results of the run that was not damaged; nothing else will do.
"""

import argparse
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
from toy import toy_config
from toy_runs import train, with_training, without_manifest

from seqssvae.errors import UserError
from seqssvae.runs.run import RunDirectory

LARGE = Path(tempfile.gettempdir()) / f"seqssvae-large-{os.getpid()}.json"
"""200 MB of nested lists, to which damaged runs link."""


def _flip(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, generator: random.Random) -> None:
    os.truncate(path, generator.randrange(path.stat().st_size))


def _fill(path: Path, generator: random.Random) -> None:
    path.write_bytes(generator.randbytes(generator.randrange(1, 5000)))


def _replaced(make):
    def damage(path: Path, generator: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _swap(path: Path, generator: random.Random) -> None:
    other = generator.choice([entry for entry in path.parent.iterdir() if entry != path])
    content = path.read_bytes()
    if other.is_file():
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)


DAMAGES = {
    "a flipped bit": _flip,
    "cut off": _cut,
    "random bytes": _fill,
    "swapped": _swap,
    "missing": _replaced(lambda path: None),
    "a pipe": _replaced(os.mkfifo),
    "an endless device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a sparse file": _replaced(_sparse),
    "a directory": _replaced(lambda path: path.mkdir()),
    "200 MB of JSON": _replaced(lambda path: path.symlink_to(LARGE)),
}


def results(path: Path) -> object:
    """What a run holds that matters: weights, symbols, labels, and the state it goes on from."""
    directory = RunDirectory(path)
    weights, step = directory.weights
    checkpoint = directory.read_checkpoint()
    state = checkpoint.state
    arrays = [weights, state.weights, state.optimizer]
    return (
        directory.schema,
        directory.config,
        directory.trained_by,
        step,
        [(name, np.asarray(value).tobytes()) for group in arrays for name, value in sorted(group.items())],
        checkpoint.history,
    )


def main() -> None:
    """Damage so many copies, and print how many ended how, the longest trial, and the memory that was used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator, tally, longest = random.Random(arguments.seed), Counter(), 0.0
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        train(run, with_training(toy_config(), evaluation_interval=4))
        old = without_manifest(run, Path(place) / "old")
        expected = results(run)
        with LARGE.open("wb") as file:
            file.writelines([b"[", *[b"[]," * (1 << 20)] * 66, b"[]]"])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(arguments.count):
            source = old if number % 5 == 4 else run  # a run of an earlier version has no checksums
            copy = shutil.copytree(source, Path(place) / f"copy{number}")
            files = [path for path in copy.rglob("*") if path.is_file()]
            latest = RunDirectory(copy).files.folder
            chosen = generator.choice([path for path in files if path.parent in (copy, latest)])
            name = generator.choice(sorted(DAMAGES))
            DAMAGES[name](chosen, generator)
            began = time.monotonic()
            try:
                same = results(copy) == expected
                kind = "as before" if same else ("other, without checksums" if source is old else "OTHER RESULT")
            except UserError as error:
                kind = "one sentence" if "\n" not in str(error) else "MORE THAN A SENTENCE"
            except Exception:
                traceback.print_exc()
                kind = "TRACEBACK"
            longest = max(longest, time.monotonic() - began)
            tally[kind] += 1
            if kind.isupper():
                print(name, chosen, kind)
            shutil.rmtree(copy)
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    LARGE.unlink()
    print(dict(tally), f"longest {longest:.2f} s", f"{memory:.0f} MiB above the usual (with what the trials write)")


if __name__ == "__main__":
    main()
