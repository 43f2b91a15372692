"""Compares the gradient estimators of a missing label, on a model and rows of your own: quality, time and memory.

Every gradient estimator has a process of its own. They take turns, so that the load of the machine falls on all alike.
The noise of z is drawn once and given to all, by label, so that only the choice of labels differs; each gradient is
compared with the exact one of `enumerate` for the same noise.
"""

import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.connection import Connection
from typing import Any

from seqssvae.checks.gradient_estimators import GradientEstimator, Measurement, Setting
from seqssvae.checks.measuring import Measurer
from seqssvae.errors import BackendError
from seqssvae.noise import SAMPLED
from seqssvae.training.allocation import keep_freed_memory


def compare_gradient_estimators(
    setting: Setting,
    estimators: Sequence[GradientEstimator],
    draws: int = 50,
    repetitions: int = 7,
    report: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Measure gradient estimators.

    Args:
        setting: Model and rows.
        estimators: The gradient estimators, `enumerate` among them.
        draws: How often labels are drawn.
        repetitions: How many steps are timed.
        report: Called with a few words on what is being measured.

    Raises:
        BackendError: If one cannot be measured.
    """
    label_count = len(setting.dimensions.label_prior)
    with ExitStack() as stack:
        workers = []
        for estimator in estimators:
            report(f"{estimator}: starting")
            workers.append(stack.enter_context(_Worker(setting, estimator)))
        exact = workers[[estimator.name for estimator in estimators].index("enumerate")].gradient(0)
        qualities = []
        for estimator, worker in zip(estimators, workers, strict=True):
            report(f"{estimator}: gradients")
            qualities.append(worker.qualities(exact, draws if estimator.name in SAMPLED else 1))
        report("time")
        for worker in workers:
            worker.seconds()
        times = [[worker.seconds() for worker in workers] for _ in range(repetitions)]
    megabytes = []
    for estimator in estimators:
        report(f"{estimator}: memory")
        with _Worker(setting, estimator, trimmed=True) as worker:
            megabytes.append(worker.megabytes())
    spreads = [_spread([1e3 * row[place] for row in times]) for place in range(len(estimators))]
    return [
        Measurement(estimator, estimator.passes(label_count), quality[0], quality[1], spread, peak)
        for estimator, quality, spread, peak in zip(estimators, qualities, spreads, megabytes, strict=True)
    ]


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return middle, low, high


class _Worker(AbstractContextManager):
    """A process with a `Measurer`, whose methods it has.

    Args:
        setting: Model and rows.
        estimator: The gradient estimator.
        trimmed: Whether the process returns freed memory to the kernel, so that the memory of a step can be measured;
            otherwise it keeps freed memory, as training by the command line does.

    Raises:
        BackendError: If the process cannot be started.
    """

    def __init__(self, setting: Setting, estimator: GradientEstimator, trimmed: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.estimator = estimator
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, setting, estimator, trimmed), daemon=True)
        self.process.start()
        other.close()
        self._receive()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.connection.send((name, arguments))
            return self._receive()

        return call

    def __exit__(self, *_: Any) -> None:
        if self.process.is_alive():
            self.connection.send(None)
        self.process.join(10)

    def _receive(self) -> Any:
        try:
            result, error = self.connection.recv()
        except EOFError:
            error = "its process came to an end (out of memory?)"
        if error:
            raise BackendError(f"{self.estimator} could not be measured: {error}")
        return result


def _serve(connection: Connection, setting: Setting, estimator: GradientEstimator, trimmed: bool) -> None:
    """Measure in a process of its own: answer each call with its result or the text of its error, until None comes."""
    if not trimmed:
        keep_freed_memory()
    try:
        measurer = Measurer(setting, estimator)
        connection.send((None, None))
    except Exception as error:
        connection.send((None, f"{type(error).__name__}: {error}"))
        return
    while (call := connection.recv()) is not None:
        name, arguments = call
        try:
            connection.send((getattr(measurer, name)(*arguments), None))
        except Exception as error:
            connection.send((None, f"{type(error).__name__}: {error}"))
