"""What each estimator of a missing label costs and how good its gradient is, on a model and rows of one's own.

Every estimator has a process of its own; they take turns, so that the load of the machine falls on all alike. The noise
of z is drawn once and given to all, by label, so that what remains is the choice of labels; its gradient is compared
with the exact one of `enumerate` for the same noise.
"""

import ctypes
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqssvae.backend import NO_LABEL, Backend, Batch, Dimensions, GivenRows, TrainingStep, Weights, get_backend
from seqssvae.config import Config, GradientEstimatorName, ObjectiveConfig
from seqssvae.data.batches import pad
from seqssvae.data.corpus import Corpus
from seqssvae.errors import BackendError, DataError
from seqssvae.noise import SAMPLED, draw_noise, noise_specs

CLASSIFIER = "classifier."
"""Prefix of the weights of q(y|x) that no other part of the model has."""
MB = 1024 * 1024


class Choice(NamedTuple):
    """An estimator, and its k.

    Args:
        name: As in `seqssvae.config.ObjectiveConfig`.
        k: Of `top_k`.
    """

    name: GradientEstimatorName
    k: int = 0

    def __str__(self) -> str:
        return f"top_k, k = {self.k}" if self.name == "top_k" else self.name

    def passes(self, label_count: int) -> int:
        """How many labels of each row the decoder is run for."""
        if self.name in ("enumerate", "sequential"):
            return label_count
        if self.name == "top_k":
            return label_count if self.k >= label_count - 1 else self.k + 1
        return 1


class Quality(NamedTuple):
    """A gradient beside the exact one, relative to whose norm all is.

    Args:
        bias: Norm of the mean's difference, less what chance adds to it.
        chance: What chance adds, with as many draws: a bias below it cannot be told from none.
        deviation: Root of the variance: the norm of what one draw differs from the mean.
    """

    bias: float
    chance: float
    deviation: float


class Figures(NamedTuple):
    """What was found of one estimator.

    Args:
        choice: The estimator.
        passes: How many labels of each row the decoder is run for.
        every_weight: Of the gradient of all weights.
        classifier: Of the gradient of q(y|x)'s own weights.
        milliseconds: Of a training step: median and quartiles.
        megabytes: Peak memory of a training step above the process with weights, one gradient and optimiser state;
            None where it cannot be told (it can on Linux).
    """

    choice: Choice
    passes: int
    every_weight: Quality
    classifier: Quality
    milliseconds: tuple[float, float, float]
    megabytes: float | None


class Setting(NamedTuple):
    """What all estimators are given.

    Args:
        backend: Name of the twin.
        config: The run's configuration.
        dimensions: V and p(y).
        weights: The model's weights.
        batch: Rows, whose labels count as missing.
        device: The twin's device.
        seed: Of the noise.
    """

    backend: str
    config: Config
    dimensions: Dimensions
    weights: Weights
    batch: Batch
    device: str | None = None
    seed: int = 0


def random_batch(corpus: Corpus, size: int, seed: int) -> Batch:
    """So many rows (at most all) drawn at random, their labels missing, padded to the longest of them."""
    if not len(corpus):
        raise DataError(f"{corpus.origin} has no row that can be used.")
    chosen = np.sort(np.random.default_rng([seed, 0x20E5]).permutation(len(corpus))[:size])
    length = int(corpus.lengths[chosen].max())
    return pad(corpus.sequences, chosen, np.full(len(corpus), NO_LABEL), len(chosen), length, corpus.sources)


def choices(label_count: int, ks: Sequence[int]) -> list[Choice]:
    """Every estimator, `top_k` with each of these k that leave something to draw."""
    top = [Choice("top_k", k) for k in ks if k < label_count - 1]
    return [Choice("enumerate"), Choice("sequential"), *top, Choice("gumbel_softmax"), Choice("score_function")]


def compare_estimators(
    setting: Setting,
    chosen: Sequence[Choice],
    draws: int = 50,
    repetitions: int = 7,
    said: Callable[[str], None] = lambda text: None,
) -> list[Figures]:
    """Measure estimators.

    Args:
        setting: Model and rows.
        chosen: The estimators.
        draws: How often labels are drawn.
        repetitions: How many steps are timed.
        said: Is told what is being done.
    """
    label_count = len(setting.dimensions.label_prior)
    with ExitStack() as stack:
        workers = []
        for choice in chosen:
            said(f"{choice}: starting")
            workers.append(stack.enter_context(_Process(setting, choice)))
        exact = workers[[choice.name for choice in chosen].index("enumerate")].gradient(0)
        qualities = []
        for choice, worker in zip(chosen, workers, strict=True):
            said(f"{choice}: gradients")
            qualities.append(worker.qualities(exact, draws if choice.name in SAMPLED else 1))
        said("time")
        for worker in workers:
            worker.seconds()
        times = [[worker.seconds() for worker in workers] for _ in range(repetitions)]
    megabytes = []
    for choice in chosen:
        said(f"{choice}: memory")
        with _Process(setting, choice, trimmed=True) as worker:
            megabytes.append(worker.megabytes())
    spreads = [_spread([1e3 * row[place] for row in times]) for place in range(len(chosen))]
    return [
        Figures(choice, choice.passes(label_count), quality[0], quality[1], spread, peak)
        for choice, quality, spread, peak in zip(chosen, qualities, spreads, megabytes, strict=True)
    ]


class Measured:
    """One estimator in this process."""

    def __init__(self, setting: Setting, choice: Choice) -> None:
        self.setting, self.steps = setting, 0
        objective = self.objective = ObjectiveConfig(gradient_estimator=choice.name, k=choice.k)
        config = replace(
            setting.config,
            objective=replace(
                setting.config.objective,
                name="ssvae",
                gradient_estimator=objective.gradient_estimator,
                k=objective.k,
                num_particles=1,
            ),
        )
        self.config = config
        self.twin: Backend = get_backend(setting.backend)(config, setting.dimensions, setting.device)
        self.twin.set_weights(setting.weights)
        self._know_the_baseline()

    def _know_the_baseline(self) -> None:
        """Have `score_function` learn what to expect, from steps that do not move a weight."""
        if self.objective.gradient_estimator == "score_function":
            for _ in range(50):
                self._step(0.0)
            self.twin.set_weights(self.setting.weights)

    def _step(self, learning_rate: float) -> float:
        self.steps += 1
        beta = self.config.objective.beta.maximum
        step = TrainingStep(None, self.setting.batch, beta, learning_rate, self.steps, self._temperature)
        return float(self.twin.train([step])[0].loss)

    @property
    def _temperature(self) -> float:
        return self.config.objective.temperature.floor

    def gradient(self, draw: int) -> Weights:
        """The gradient with the labels of one draw."""
        setting, (rows, steps) = self.setting, self.setting.batch.x.shape
        labels = len(setting.dimensions.label_prior)
        sources = setting.batch.source_steps
        specs = noise_specs(setting.config.model, labels, rows, steps, objective=self.objective, source_steps=sources)
        sampled = {"y": specs.pop("y")} if "y" in specs else {}
        noise = draw_noise(specs, np.random.default_rng([setting.seed, 0xE57]))
        noise |= draw_noise(sampled, np.random.default_rng([setting.seed, 0xD8A, draw]))
        given, beta = GivenRows(setting.batch, noise), self.config.objective.beta.maximum
        return self.twin.differentiate(None, given, beta, self._temperature).gradients

    def qualities(self, exact: Weights, draws: int) -> tuple[Quality, Quality]:
        """The gradient beside the exact one: of all weights, and of q(y|x)'s own."""
        sums: dict[str, np.ndarray] = {}
        squares: dict[str, float] = {}
        for draw in range(draws):
            for name, value in self.gradient(draw).items():
                error = value.astype(float) - exact[name]
                sums[name] = sums.get(name, 0.0) + error
                squares[name] = squares.get(name, 0.0) + float((error**2).sum())
        own = [name for name in exact if name.startswith(CLASSIFIER)]
        return _quality(exact, sums, squares, draws, list(exact)), _quality(exact, sums, squares, draws, own)

    def seconds(self) -> float:
        """Of one training step."""
        began = time.perf_counter()
        self._step(1e-9)
        return time.perf_counter() - began

    def megabytes(self) -> float | None:
        """Peak of one training step above the process before it, without one gradient of all weights."""
        for _ in range(2):
            self._step(1e-9)
        if not sys.platform.startswith("linux"):
            return None
        ctypes.CDLL(None).malloc_trim(0)  # what the last step left behind is not the process's
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return None
        before = _status("VmRSS")
        self._step(1e-9)
        gradient = sum(value.nbytes for value in self.setting.weights.values()) / MB
        return max(_status("VmHWM") - before - gradient, 0.0)


def _quality(
    exact: Weights, sums: dict[str, np.ndarray], squares: dict[str, float], draws: int, names: list[str]
) -> Quality:
    norm = sum(float((exact[name].astype(float) ** 2).sum()) for name in names)
    mean = sum(float(((sums[name] / draws) ** 2).sum()) for name in names)
    variance = max(sum(squares[name] for name in names) - draws * mean, 0.0) / max(draws - 1, 1)
    chance = variance / draws
    return Quality(*(float(np.sqrt(max(part, 0.0) / norm)) for part in (mean - chance, chance, variance)))


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return middle, low, high


def _status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _serve(connection: Connection, setting: Setting, choice: Choice) -> None:
    try:
        measured = Measured(setting, choice)
        connection.send((None, None))
    except Exception as error:
        connection.send((None, f"{type(error).__name__}: {error}"))
        return
    while (call := connection.recv()) is not None:
        name, arguments = call
        try:
            connection.send((getattr(measured, name)(*arguments), None))
        except Exception as error:
            connection.send((None, f"{type(error).__name__}: {error}"))


class _Process(AbstractContextManager):
    """A process with one estimator; methods are those of `Measured`.

    Args:
        setting: Model and rows.
        choice: The estimator.
        trimmed: Whether the process gives freed memory back, so that what a step takes can be told.
    """

    def __init__(self, setting: Setting, choice: Choice, trimmed: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.choice = choice
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, setting, choice), daemon=True)
        before = os.environ.get("SEQSSVAE_MALLOC")
        if trimmed:
            os.environ["SEQSSVAE_MALLOC"] = "0"
        try:
            self.process.start()
        finally:
            if trimmed:
                os.environ.pop("SEQSSVAE_MALLOC")
                if before is not None:
                    os.environ["SEQSSVAE_MALLOC"] = before
        other.close()
        self._receive()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.connection.send((name, arguments))
            return self._receive()

        return call

    def _receive(self) -> Any:
        try:
            result, error = self.connection.recv()
        except EOFError:
            error = "its process came to an end (out of memory?)"
        if error:
            raise BackendError(f"{self.choice} could not be measured: {error}")
        return result

    def __exit__(self, *_: Any) -> None:
        if self.process.is_alive():
            self.connection.send(None)
        self.process.join(10)
