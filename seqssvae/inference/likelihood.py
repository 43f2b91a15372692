"""log p(x) of each row by importance sampling, and how well it is known."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seqssvae.backend import Backend, Batch
from seqssvae.config import Config
from seqssvae.data.batches import corpus_batches
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError
from seqssvae.noise import batch_seed


class RowLikelihood(NamedTuple):
    """Estimates of log p(x).

    Args:
        log_p: The importance-weighted bound of log p(x), in nats; its exponential is unbiased.
        standard_error: Of `log_p`, by the spread of the weights; not a number where there is one draw.
        effective_samples: The number of equally weighted draws that would know as much.
    """

    log_p: Float[np.ndarray, " N"]
    standard_error: Float[np.ndarray, " N"]
    effective_samples: Float[np.ndarray, " N"]


def row_likelihood(log_weights: Float[np.ndarray, "P N K"]) -> RowLikelihood:
    """log p(x) from the importance weights of every draw and label.

    Args:
        log_weights: log p(x, y, z) - log q(z|x,y), as `Backend.log_weights` returns.

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519; Owen 2013,
        Monte Carlo theory, methods and examples, equation 9.13, for the effective number of draws; the standard error
        is the delta method's.
    """
    draws = len(log_weights)
    of_draw = np.logaddexp.reduce(np.asarray(log_weights, float), axis=2)
    total = np.logaddexp.reduce(of_draw)
    effective = np.exp(2 * total - np.logaddexp.reduce(2 * of_draw))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.maximum(draws / effective - 1, 0) / (draws - 1))
    return RowLikelihood(total - np.log(draws), error, effective)


def importance_metrics(likelihood: RowLikelihood) -> dict[str, float | None]:
    """The means over rows as fields of `Metrics`."""
    error = float(np.sqrt(np.sum(likelihood.standard_error**2))) / len(likelihood.log_p)
    return {
        "importance_bound": float(likelihood.log_p.mean()),
        "importance_error": error if np.isfinite(error) else None,
        "effective_samples": float(likelihood.effective_samples.mean()),
    }


def row_likelihoods(
    backend: Backend, batches: Iterable[Batch], row_count: int, seed: int, particles: int
) -> RowLikelihood:
    """log p(x) of every row, in the order of the corpus.

    Args:
        backend: The model.
        batches: Batches that hold every row once.
        row_count: N.
        seed: Seed of the noise of z, of which each batch draws its own.
        particles: The number of draws of z for each label.
    """
    parts = np.zeros((len(RowLikelihood._fields), row_count))
    for index, batch in enumerate(batches):
        weights = backend.log_weights(batch, batch_seed(seed, index), particles)[:, batch.row_mask]
        parts[:, batch.rows[batch.row_mask]] = np.stack(row_likelihood(weights))
    return RowLikelihood(*parts)


def corpus_likelihood(backend: Backend, corpus: Corpus, config: Config, seed: int, particles: int) -> RowLikelihood:
    """log p(x) of every row of a corpus.

    Args:
        backend: The model.
        corpus: The rows.
        config: The model's configuration.
        seed: Seed of the noise of z.
        particles: The number of draws of z for each label.

    Raises:
        ConfigurationError: If the model has no generator.
    """
    if config.objective.name == "classifier":
        raise ConfigurationError("log p(x) needs a generator, and objective.name: classifier has none.")
    return row_likelihoods(backend, corpus_batches(corpus, config), len(corpus), seed, particles)
