"""What a model computes for each row of a corpus, in the order of the corpus whatever the order of the batches."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend, Batch, ELBOTerms, Evaluation
from seqssvae.noise import batch_seed


def evaluate_rows(backend: Backend, batches: Iterable[Batch], row_count: int, seed: int) -> Evaluation:
    """Compute the ELBO's terms and log q(y|x) of every row.

    Args:
        backend: The model.
        batches: Batches that hold every row of a corpus once.
        row_count: N, the number of rows of the corpus.
        seed: Seed of the noise of z, of which each batch draws its own.

    Returns:
        Arrays of shape `(N,)`, and `(N, K)` for log q(y|x).
    """
    terms = ELBOTerms(*(np.zeros(row_count) for _ in ELBOTerms._fields))
    log_q_y: np.ndarray | None = None
    for index, batch in enumerate(batches):
        evaluation = backend.evaluate(batch, seed=batch_seed(seed, index))
        rows = batch.rows[batch.row_mask]
        for target, term in zip(terms, evaluation.terms, strict=True):
            target[rows] = np.asarray(term, float)[batch.row_mask]
        log_q_y = _scatter(log_q_y, evaluation.log_q_y, batch, row_count)
    return Evaluation(terms, _or_empty(log_q_y, row_count))


def classify_rows(backend: Backend, batches: Iterable[Batch], row_count: int) -> Float[np.ndarray, "N K"]:
    """Compute log q(y|x) of every row; arguments are as for `evaluate_rows`."""
    log_q_y: np.ndarray | None = None
    for batch in batches:
        log_q_y = _scatter(log_q_y, backend.classify(batch.x, batch.source), batch, row_count)
    return _or_empty(log_q_y, row_count)


def embed_rows(
    backend: Backend, batches: Iterable[Batch], row_count: int, features: bool = False
) -> Float[np.ndarray, "N D"]:
    """Compute the embedding of every row, or its features; arguments are as for `evaluate_rows`."""
    embedding: np.ndarray | None = None
    for batch in batches:
        embedding = _scatter(embedding, backend.encode(batch.x, batch.source, features), batch, row_count)
    return _or_empty(embedding, row_count)


def latent_means(backend: Backend, batches: Iterable[Batch], y: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N Z"]:
    """Compute the mean of q(z|x,y) of every row at the label given for it; the rest is as for `evaluate_rows`."""
    means: np.ndarray | None = None
    for batch in batches:
        of_labels = np.asarray(backend.latents(batch.x, batch.source).loc)
        labels = np.where(batch.row_mask, y[batch.rows], 0)
        means = _scatter(means, of_labels[np.arange(len(labels)), labels], batch, len(y))
    return _or_empty(means, len(y))


def label_bounds(
    backend: Backend, batches: Iterable[Batch], row_count: int, seed: int, particles: int
) -> Float[np.ndarray, "N K"]:
    """Compute the importance-weighted bound of log p(x, y) of every row and label, tighter the more draws there are.

    `log( p(y) / P * sum_p p(x|y,z_p) p(z_p) / q(z_p|x,y) )`, z_p drawn from q(z|x,y). Their log-sum-exp is a lower
    bound of log p(x); normalised over y, they are the posterior p(y|x) of the generator.

    Args:
        backend: The model.
        batches: Batches that hold every row once.
        row_count: N.
        seed: Seed of the noise of z, of which each batch draws its own.
        particles: The number of draws of z.

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519.
    """
    bounds: np.ndarray | None = None
    for index, batch in enumerate(batches):
        weights = np.asarray(backend.log_weights(batch, batch_seed(seed, index), particles), float)
        bounds = _scatter(bounds, np.logaddexp.reduce(weights) - np.log(particles), batch, row_count)
    return _or_empty(bounds, row_count)


def _scatter(target: np.ndarray | None, values: np.ndarray, batch: Batch, row_count: int) -> np.ndarray:
    """Write the values of a batch's rows to their places; the first batch decides width and type."""
    values = np.asarray(values)
    if target is None:
        target = np.zeros((row_count, values.shape[1]), values.dtype)
    target[batch.rows[batch.row_mask]] = values[batch.row_mask]
    return target


def _or_empty(values: np.ndarray | None, row_count: int) -> np.ndarray:
    return np.zeros((row_count, 0)) if values is None else values
