"""Measures one gradient estimator in this process: the quality of its gradient, the time and the memory of a step."""

import ctypes
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqssvae.backend import Backend, GivenRows, TrainingStep, Weights, get_backend
from seqssvae.checks.gradient_estimators import GradientEstimator, GradientQuality, Setting
from seqssvae.config import ObjectiveConfig
from seqssvae.noise import draw_noise, noise_specs

CLASSIFIER = "classifier."
"""Prefix of the weights of q(y|x) that no other part of the model has."""
BASELINE_STEPS = 50
"""Steps in which `score_function` learns its baseline before it is measured."""
MB = 1024 * 1024


class Measurer:
    """A model that is trained with one gradient estimator.

    The noise of z is the same for all gradient estimators, by label, so that they differ in the choice of labels alone.

    Args:
        setting: Model and rows.
        estimator: The gradient estimator.
    """

    def __init__(self, setting: Setting, estimator: GradientEstimator) -> None:
        self.setting, self.steps = setting, 0
        self.objective = ObjectiveConfig(gradient_estimator=estimator.name, k=estimator.k)
        self.config = replace(
            setting.config,
            objective=replace(
                setting.config.objective,
                name="ssvae",
                gradient_estimator=estimator.name,
                k=estimator.k,
                num_particles=1,
            ),
        )
        self.twin: Backend = get_backend(setting.backend)(self.config, setting.dimensions, setting.device)
        self.twin.set_weights(setting.weights)
        self._learn_baseline()

    def gradient(self, draw: int) -> Weights:
        """Return the gradient with the labels of one draw.

        Args:
            draw: Number of the draw, which with the seed determines the labels.
        """
        setting, (rows, steps) = self.setting, self.setting.batch.x.shape
        labels = len(setting.dimensions.label_prior)
        sources = setting.batch.source_steps
        specs = noise_specs(setting.config.model, labels, rows, steps, objective=self.objective, source_steps=sources)
        sampled = {"y": specs.pop("y")} if "y" in specs else {}
        noise = draw_noise(specs, np.random.default_rng([setting.seed, 0xE57]))
        noise |= draw_noise(sampled, np.random.default_rng([setting.seed, 0xD8A, draw]))
        given, beta = GivenRows(setting.batch, noise), self.config.objective.beta.maximum
        return self.twin.differentiate(None, given, beta, self._temperature).gradients

    def qualities(self, exact: Weights, draws: int) -> tuple[GradientQuality, GradientQuality]:
        """Compare the gradient with the exact one.

        Args:
            exact: The exact gradient.
            draws: How often labels are drawn.

        Returns:
            The quality of the gradient of all weights, and of the weights that q(y|x) alone has.
        """
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
        """Measure the time of one training step."""
        began = time.perf_counter()
        self._step(1e-9)
        return time.perf_counter() - began

    def megabytes(self) -> float | None:
        """Measure the peak memory of one training step above the process before it, less one gradient of all weights.

        Returns:
            The memory, or None where it cannot be measured (it can on Linux).
        """
        for _ in range(2):
            self._step(1e-9)
        if not sys.platform.startswith("linux"):
            return None
        ctypes.CDLL(None).malloc_trim(0)  # what the last step freed does not belong to the process before this one
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return None
        before = _process_megabytes("VmRSS")
        self._step(1e-9)
        gradient = sum(value.nbytes for value in self.setting.weights.values()) / MB
        return max(_process_megabytes("VmHWM") - before - gradient, 0.0)

    def _learn_baseline(self) -> None:
        """Have `score_function` learn its baseline, from steps that do not move a weight."""
        if self.objective.gradient_estimator == "score_function":
            for _ in range(BASELINE_STEPS):
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


def _quality(
    exact: Weights, sums: dict[str, np.ndarray], squares: dict[str, float], draws: int, names: list[str]
) -> GradientQuality:
    norm = sum(float((exact[name].astype(float) ** 2).sum()) for name in names)
    mean = sum(float(((sums[name] / draws) ** 2).sum()) for name in names)
    variance = max(sum(squares[name] for name in names) - draws * mean, 0.0) / max(draws - 1, 1)
    chance = variance / draws
    return GradientQuality(*(float(np.sqrt(max(part, 0.0) / norm)) for part in (mean - chance, chance, variance)))


def _process_megabytes(name: str) -> float:
    """Return an entry of this process's memory, which Linux gives in KB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
