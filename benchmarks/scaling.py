"""What two devices are worth on this machine, in either twin: a batch that they share, and a batch twice as large.

    python -m benchmarks.scaling [--twins torch jax] [--rounds 15] [--steps 5]

A round takes some steps of one device on its batch, of both on the same batch (strong scaling), and of both on a batch
twice as large (weak scaling), one after the other. A device is one thread of the processor.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import median_and_spread
from benchmarks.sides import model_config
from benchmarks.sizes import Sizes
from seqssvae.backend import NO_LABEL, Batch, Dimensions, TrainingStep, get_backend
from seqssvae.config import Config
from seqssvae.data.vocabulary import END

SIZES = Sizes(labels=2, rows=64, steps=51, vocabulary=24, hidden=128)
FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def batch_of(rows: int) -> Batch:
    """Rows without label, all of the greatest length."""
    x = np.random.default_rng(0).integers(4, SIZES.vocabulary, (rows, SIZES.steps)).astype(np.int32)
    x[:, -1] = END
    return Batch(x, np.full(rows, NO_LABEL, np.int32), np.ones(rows, bool), np.arange(rows, dtype=np.int32))


def measure(twin: str, rounds: int, steps: int, barrier: Callable[[], Any], rank: int = 0) -> None:
    """Measure the rounds; the first of several processes prints what came of it."""
    config = Config(model=model_config(SIZES))
    dimensions = Dimensions(SIZES.vocabulary, (0.5, 0.5))
    one = get_backend(twin)(config, dimensions)
    two = get_backend(twin)(config, dimensions, devices=2)
    sides = [(one, SIZES.rows), (two, SIZES.rows), (two, 2 * SIZES.rows)]
    batches = {rows: batch_of(rows) for _, rows in sides}
    seconds: list[list[float]] = []
    for _ in range(rounds + 1):  # the first is not counted: it compiles
        times = []
        for backend, rows in sides:
            barrier()
            began = time.perf_counter()
            if backend is two or rank == 0:
                given = [TrainingStep(None, batches[rows], 1.0, 1e-3, number) for number in range(steps)]
                float(backend.train(given)[-1].loss)
            times.append((time.perf_counter() - began) / steps)
        seconds.append(times)
    if rank == 0:
        alone, shared, doubled = np.array(seconds[1:]).T
        for name, ratios, ideal in (("strong", alone / shared, 2), ("weak", 2 * alone / doubled, 2)):
            middle, low, high = median_and_spread(list(ratios))
            print(f"{twin} {name} scaling: {middle:.2f} [{low:.2f}, {high:.2f}] times the rows a second; ideal {ideal}")
        print(
            f"{twin}: one device takes {np.median(alone):.3f} s a step of {SIZES.rows} rows, T {SIZES.steps}",
            flush=True,
        )


def one_of_two(rank: int, rounds: int, steps: int, port: int) -> None:
    """What a process of PyTorch's does."""
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    measure("torch", rounds, steps, torch.distributed.barrier, rank)
    torch.distributed.destroy_process_group()


def run(twin: str, rounds: int, steps: int) -> None:
    """Measure a twin in this process, or in two of its own."""
    if twin == "torch":
        import torch

        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        port = store.port
        del store
        torch.multiprocessing.spawn(one_of_two, (rounds, steps, port), nprocs=2)
    else:
        import jax

        jax.config.update("jax_num_cpu_devices", 2)
        measure("jax", rounds, steps, lambda: None)


def main() -> None:
    """Measure the twins one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--twins", nargs="+", default=["torch", "jax"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        run(arguments.twins[0], arguments.rounds, arguments.steps)
        return
    for twin in arguments.twins:
        options = ["--twins", twin, "--rounds", str(arguments.rounds), "--steps", str(arguments.steps), "--here"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_FLAGS": FLAGS}
        subprocess.run([sys.executable, "-m", "benchmarks.scaling", *options], env=environment, check=True)


if __name__ == "__main__":
    main()
