"""A process that has one side of a comparison, and measures it on request."""

import ctypes
import multiprocessing
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sizes import Sizes
from seqssvae.training.allocation import keep_freed_memory

TWINS = ("torch", "jax")
SIDES = ("ours", "recipe")


class Side:
    """One model in this process: ours or the recipe's, in one of the two frameworks."""

    def __init__(self, twin: str, side: str, keep_freed: bool) -> None:
        self.twin, self.side = twin, side
        self.trainer: Any = None
        if keep_freed:
            keep_freed_memory()
        if twin == "torch":
            import torch

            torch.set_num_threads(multiprocessing.cpu_count())

    def build(self, sizes: Sizes, **options: Any) -> None:
        """Make a model of these sizes, in place of the last one."""
        from benchmarks import sides

        self.trainer = None
        self.trainer = sides.build(self.twin, self.side, sizes, **options)

    def seconds(self, x: np.ndarray, y: np.ndarray | None = None, warm: int = 0) -> float:
        """Time of one step on these rows, after so many that are not timed."""
        for _ in range(warm):
            self.trainer.step(x, y)
        began = time.perf_counter()
        self.trainer.step(x, y)
        return time.perf_counter() - began

    def peak(self, x: np.ndarray) -> tuple[float, float]:
        """Most memory held during a step, in MB, above what the process held before it; and what it held."""
        self.trainer.step(x, None)
        ctypes.CDLL(None).malloc_trim(0)  # what the last step left behind is not the process's
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        self.trainer.step(x, None)
        return _status("VmHWM") - before, before

    def weight_bytes(self) -> int:
        """Of all weights of our model."""
        return sum(value.nbytes for value in self.trainer.backend.get_weights().values())

    def rate(self, rows: int, inner: int, columns: int) -> float:
        """Floating-point operations per second of this framework's product of that shape: the best of both orders."""
        from benchmarks import sides

        return sides.product_rate(self.twin, rows, inner, columns)


def _status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _serve(connection: Connection, twin: str, side: str, keep_freed: bool) -> None:
    worker = Side(twin, side, keep_freed)
    while (call := connection.recv()) is not None:
        name, arguments, options = call
        try:
            connection.send((getattr(worker, name)(*arguments, **options), None))
        except Exception as error:
            connection.send((None, f"{type(error).__name__}: {error}"))


class Worker(AbstractContextManager):
    """A process with one side; its methods are those of `Side`.

    Args:
        twin: "torch" or "jax".
        side: "ours" or "recipe".
        keep_freed: Keep freed memory for the next step, as the command line does.
    """

    def __init__(self, twin: str, side: str, keep_freed: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, twin, side, keep_freed), daemon=True)
        self.process.start()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.connection.send((name, arguments, options))
            result, error = self.connection.recv()
            if error:
                raise RuntimeError(error)
            return result

        return call

    def __exit__(self, *_: Any) -> None:
        self.connection.send(None)
        self.process.join(10)
