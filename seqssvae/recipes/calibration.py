"""How good the probabilities of labels are, by each way to predict."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

BINS = 10


class MethodMetrics(NamedTuple):
    """How one way to predict does on labelled rows.

    Args:
        accuracy: The share of rows whose most probable label is their label.
        balanced_accuracy: The mean over labels of that share among rows of the label.
        log_loss: The mean of -log p(y|x), in nats.
        calibration_error: The expected calibration error.
    """

    accuracy: float
    balanced_accuracy: float
    log_loss: float
    calibration_error: float


def label_metrics(log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> MethodMetrics:
    """Accuracy, loss and calibration of predictions."""
    hits = log_p.argmax(axis=1) == y
    balanced = np.mean([hits[y == label].mean() for label in np.unique(y)])
    loss = -log_p[np.arange(len(y)), y].mean()
    return MethodMetrics(float(hits.mean()), float(balanced), float(loss), expected_calibration_error(log_p, y))


class Reliability(NamedTuple):
    """Rows divided into ten bins by the probability of their most probable label.

    Args:
        rows: The number of rows of each bin.
        confidence: The mean of that probability; not a number in a bin without rows.
        accuracy: The share of rows whose label it is; not a number in a bin without rows.
    """

    rows: Int[np.ndarray, " 10"]
    confidence: Float[np.ndarray, " 10"]
    accuracy: Float[np.ndarray, " 10"]


def reliability(log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> Reliability:
    """How often labels are right that are said to be so probable (Guo et al. 2017, equations 1 and 2)."""
    confidence, hits, bins = _binned(log_p, y)
    rows = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = (
            np.bincount(bins, weights=part, minlength=BINS) / np.where(rows, rows, np.nan)
            for part in (confidence, hits)
        )
        return Reliability(rows, *means)


def expected_calibration_error(log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> float:
    """The mean difference between how probable the most probable label is said to be and how often it is right.

    Rows are divided into ten bins by that probability (Guo et al. 2017, On calibration of modern neural networks,
    equation 3).
    """
    return float(_calibration_error(*_binned(log_p, y)))


def calibration_interval(
    log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"], seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """The interval of .95 of the expected calibration error, by the bootstrap over rows.

    Of few rows the error is above 0 even if every probability is right, and so is the interval.

    Args:
        log_p: log p(y|x).
        y: Labels.
        seed: Seed of the resamples.
        resamples: Their number.

    References:
        Efron 1979, Bootstrap methods: another look at the jackknife: percentiles of resamples.
    """
    parts, generator = _binned(log_p, y), np.random.default_rng(seed)
    errors = [
        _calibration_error(*(part[chosen] for part in parts))
        for chosen in (generator.integers(0, len(y), len(y)) for _ in range(resamples))
    ]
    low, high = np.quantile(errors, [0.025, 0.975])
    return float(low), float(high)


def _binned(
    log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The probability of each row's most probable label, whether it is right, and the row's bin."""
    confidence, hits = np.exp(log_p.max(axis=1)), (log_p.argmax(axis=1) == y).astype(float)
    return confidence, hits, np.minimum((confidence * BINS).astype(int), BINS - 1)


def _calibration_error(
    confidence: Float[np.ndarray, " N"], hits: Float[np.ndarray, " N"], bins: Int[np.ndarray, " N"]
) -> float:
    gaps = np.bincount(bins, weights=confidence - hits, minlength=BINS)
    return float(np.abs(gaps).sum() / len(hits))
