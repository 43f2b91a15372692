"""Three predictors of a label: q(y|x), the generator's own posterior p(y|x), and all that was learned together."""

from typing import Protocol

import numpy as np
from jaxtyping import Float

from seqssvae.backend import NO_LABEL, Backend
from seqssvae.config import Config
from seqssvae.data.batches import corpus_batches
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError
from seqssvae.inference.per_row import classify_rows, label_bounds
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.names import PredictionMethod
from seqssvae.recipes.pool import Pool, calibrate, fit_mixture

PARTICLES = 8
MOST_ROWS, MOST_PAIRS = 500, 5000
"""Labelled rows that the network's predictions are calibrated by, and those rows times labels, of which each is decoded
`PARTICLES` times."""
ROW_STREAM = 0xCA1
EQUAL = Pool(np.ones(2), np.full(2, 0.5))
"""How q(y|x) and p(y|x) are joined where nothing was held out to calibrate them by."""


class Predictor(Protocol):
    """A trained model, as a run or an estimator holds it."""

    @property
    def backend(self) -> Backend:
        """The network."""
        ...

    @property
    def config(self) -> Config:
        """The network's configuration."""
        ...

    @property
    def ensemble(self) -> Ensemble | None:
        """What was learned of the labels beside the network."""
        ...

    @property
    def network_pool(self) -> Pool | None:
        """Temperatures of q(y|x) and p(y|x), and their weights where both are joined; None: 1 and equal weights."""
        ...


def predict_log_proba(
    model: Predictor, corpus: Corpus, method: PredictionMethod | None = None, seed: int = 0
) -> Float[np.ndarray, "N K"]:
    """log p(y|x) of every row.

    Args:
        model: The model.
        corpus: The rows.
        method: `classifier` is q(y|x) of the network. `generative` is p(y|x) by Bayes' rule from its p(x|y), of which z
            is summed out by importance sampling. Both are divided by their temperatures. `combined` is the ensemble;
            or, where there is none, the weighted mean of the two probabilities. None: the ensemble where there is one,
            and else `classifier`.
        seed: Seed of the draws of z.

    Raises:
        ConfigurationError: If there is no such method, or the network has no generator.
    """
    backend, config, ensemble = model.backend, model.config, model.ensemble
    method = method or ("classifier" if ensemble is None else "combined")
    if method not in ("classifier", "generative", "combined"):
        raise ConfigurationError(f"method must be classifier, generative or combined, not {method!r}.")
    if not len(corpus):
        return np.zeros((0, backend.classify(np.zeros((1, 1), np.int32)).shape[1]))
    if method == "combined" and ensemble is not None:
        return ensemble.log_proba(corpus.sequences.loaded())
    if method != "classifier" and config.objective.name == "classifier":
        raise ConfigurationError(f"method {method!r} needs a generator, and objective.name: classifier has none.")
    pool = model.network_pool or EQUAL
    if method == "classifier":
        return calibrate(_classified(backend, config, corpus), pool.temperatures[0])
    if method == "generative":
        return calibrate(_generative(backend, config, corpus, seed), pool.temperatures[1])
    return pool.log_proba([_classified(backend, config, corpus), _generative(backend, config, corpus, seed)])


def predict_by_each_method(
    model: Predictor, corpus: Corpus, log_q_y: Float[np.ndarray, "N K"] | None = None, seed: int = 0
) -> dict[PredictionMethod, Float[np.ndarray, "N K"]]:
    """log p(y|x) of every row by each method that the model has; what several of them need is computed once.

    Args:
        model: The model.
        corpus: The rows, at least one.
        log_q_y: log q(y|x) of the rows, if it is known.
        seed: Seed of the draws of z.

    Returns:
        By method, what `predict_log_proba` returns.
    """
    backend, config, pool = model.backend, model.config, model.network_pool or EQUAL
    scores = [_classified(backend, config, corpus) if log_q_y is None else log_q_y]
    if config.objective.name != "classifier":
        scores.append(_generative(backend, config, corpus, seed))
    names: tuple[PredictionMethod, ...] = ("classifier", "generative")
    log_proba = {name: calibrate(*pair) for name, *pair in zip(names, scores, pool.temperatures, strict=False)}
    if model.ensemble is not None:
        log_proba["combined"] = model.ensemble.log_proba(corpus.sequences.loaded())
    elif len(scores) == len(names):
        log_proba["combined"] = pool.log_proba(scores)
    return log_proba


def fit_network_pool(backend: Backend, config: Config, held_out: Corpus, label_count: int) -> Pool | None:
    """Fit temperatures of the network's own ways to predict, and their weights, on rows that it was not trained on.

    Args:
        backend: The network.
        config: Its configuration.
        held_out: The rows; of very many labelled ones some are drawn, by `training.seed`.
        label_count: K.

    Returns:
        The pool of q(y|x) and p(y|x), or of q(y|x) alone where there is no generator; None without labelled rows.
    """
    rows, seed = np.flatnonzero(held_out.y != NO_LABEL), config.training.seed
    if not len(rows):
        return None
    most = min(MOST_ROWS, max(1, MOST_PAIRS // label_count))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng([seed, ROW_STREAM]).choice(rows, most, replace=False))
    corpus = held_out.take(rows)
    scores = [_classified(backend, config, corpus)]
    if config.objective.name != "classifier":
        scores.append(_generative(backend, config, corpus, seed))
    return fit_mixture(scores, corpus.y)


def _classified(backend: Backend, config: Config, corpus: Corpus) -> Float[np.ndarray, "N K"]:
    return classify_rows(backend, corpus_batches(corpus, config), len(corpus))


def _generative(backend: Backend, config: Config, corpus: Corpus, seed: int) -> Float[np.ndarray, "N K"]:
    return label_bounds(backend, corpus_batches(corpus, config), len(corpus), seed, PARTICLES)
