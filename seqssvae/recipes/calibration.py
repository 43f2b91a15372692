"""How good the probabilities of labels are, by each way to predict."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend
from seqssvae.config import Config
from seqssvae.data.corpus import Corpus
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.names import PredictionMethod
from seqssvae.recipes.predictors import predict_log_proba

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


def method_metrics(
    backend: Backend, corpus: Corpus, config: Config, ensemble: Ensemble | None
) -> dict[PredictionMethod, MethodMetrics]:
    """How each way to predict does on the labelled rows of a corpus.

    Args:
        backend: The network.
        corpus: The rows.
        config: The network's configuration.
        ensemble: What was learned beside the network.
    """
    methods: list[PredictionMethod] = ["classifier"]
    if config.objective.name != "classifier":
        methods += ["generative", "combined"]
    elif ensemble is not None:
        methods.append("combined")
    rows = corpus.take(np.flatnonzero(corpus.y >= 0))
    return {
        method: label_metrics(predict_log_proba(backend, rows, config, ensemble, method), rows.y) for method in methods
    }


def label_metrics(log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> MethodMetrics:
    """Accuracy, loss and calibration of predictions."""
    hits = log_p.argmax(axis=1) == y
    balanced = np.mean([hits[y == label].mean() for label in np.unique(y)])
    loss = -log_p[np.arange(len(y)), y].mean()
    return MethodMetrics(float(hits.mean()), float(balanced), float(loss), expected_calibration_error(log_p, y))


def expected_calibration_error(log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> float:
    """The mean difference between how probable the most probable label is said to be and how often it is right.

    Rows are divided into ten bins by that probability (Guo et al. 2017, On calibration of modern neural networks,
    equation 3).
    """
    confidence, hits = np.exp(log_p.max(axis=1)), log_p.argmax(axis=1) == y
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - hits, minlength=BINS)
    return float(np.abs(gaps).sum() / len(y))
