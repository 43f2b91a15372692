"""What a model computes for rows, with a z drawn by NumPy, so that both twins compute the same."""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

from seqssvae.backend import Backend, Batch, Latents
from seqssvae.config import Config
from seqssvae.data.batches import evaluation_batches
from seqssvae.data.corpus import Corpus
from seqssvae.inference.per_row import classify_rows


class RowFacts(NamedTuple):
    """What a model with a generator computes for each row.

    Args:
        log_q_y: log q(y|x).
        latents: q(z|x,y) and p(z), or p(z|source,y), of every label.
        log_likelihood: log p(x|y,z) of every label, z being held: the mean of q(z|x,y) of the row's label, or else of
            its most probable one.
        reconstruction: log p(x|y,z) at a z drawn from q(z|x,y), averaged over q(y|x).
        kl_z: log q(z|x,y) - log p(z) at that z, averaged over q(y|x).
        kl_y: KL(q(y|x) || p(y)).
        bound: log sum_y p(y) p(x|y,z) p(z) / q(z|x,y) at that z, a bound of log p(x) that q(y|x) has no part in: the
            ELBO at the best q(y|x).
    """

    log_q_y: Float[np.ndarray, "N K"]
    latents: Latents
    log_likelihood: Float[np.ndarray, "N K"]
    reconstruction: Float[np.ndarray, " N"]
    kl_z: Float[np.ndarray, " N"]
    kl_y: Float[np.ndarray, " N"]
    bound: Float[np.ndarray, " N"]

    @property
    def elbo(self) -> Float[np.ndarray, " N"]:
        """The ELBO with beta 1, in nats a row."""
        return self.reconstruction - self.kl_z - self.kl_y


def look_at_rows(
    backend: Backend, corpus: Corpus, config: Config, label_prior: Float[np.ndarray, " K"], seed: int
) -> RowFacts:
    """Compute the facts of rows, in the order of the corpus.

    Args:
        backend: The model, which has a generator.
        corpus: The rows, at least one.
        config: The model's configuration.
        label_prior: p(y), of a model without sources.
        seed: Seed of the z that is drawn.
    """
    batches = _one_length_batches(corpus, config)
    log_q_y = np.asarray(classify_rows(backend, batches, len(corpus)), float)
    y = np.where(corpus.y >= 0, corpus.y, log_q_y.argmax(axis=1))
    generator, rows, parts = np.random.default_rng(seed), [], []
    for batch in batches:
        latents = Latents(*(np.asarray(part, float) for part in backend.latents(batch.x, batch.source)))
        noise = generator.normal(size=latents.loc.shape)
        drawn = latents.loc + latents.scale * noise
        mean = latents.loc[np.arange(len(batch.x)), y[batch.rows]]  # of filler rows it is of no account
        held, reconstruction = (
            np.asarray(backend.log_likelihood(batch.x, z, batch.source), float)
            for z in (np.broadcast_to(mean[:, None], drawn.shape), drawn)
        )
        log_q_z = _log_standard_normal(noise) - np.log(latents.scale).sum(axis=-1)
        standard = (drawn - latents.prior_loc) / latents.prior_scale
        log_p_z = _log_standard_normal(standard) - np.log(latents.prior_scale).sum(axis=-1)
        log_p_y = np.broadcast_to(np.log(label_prior), held.shape)
        if batch.source is not None:
            log_p_y = np.asarray(backend.classify_source(batch.source), float)
        of_batch = *latents, held, reconstruction, log_q_z - log_p_z, log_p_y
        rows.append(batch.rows[batch.row_mask])
        parts.append([part[batch.row_mask] for part in of_batch])
    order, q_y = np.argsort(np.concatenate(rows)), np.exp(log_q_y)
    joined = [np.concatenate(part)[order] for part in zip(*parts, strict=True)]
    held, reconstruction, kl_z, log_p_y = joined[4:]
    bound = scipy.special.logsumexp(log_p_y + reconstruction - kl_z, axis=1)
    kl_y = (scipy.special.xlogy(q_y, q_y) - q_y * log_p_y).sum(axis=1)
    reconstruction, kl_z = ((q_y * part).sum(axis=1) for part in (reconstruction, kl_z))
    return RowFacts(log_q_y, Latents(*joined[:4]), held, reconstruction, kl_z, kl_y, bound)


def _one_length_batches(corpus: Corpus, config: Config) -> list[Batch]:
    """Batches of one length, so that what a twin compiles is compiled once."""
    size = min(config.training.batch_size, len(corpus))
    return list(evaluation_batches(corpus, size, [int(corpus.lengths.max())], config.training.batch_symbols))


def _log_standard_normal(z: Float[np.ndarray, "B K Z"]) -> Float[np.ndarray, "B K"]:
    return -0.5 * (np.square(z).sum(axis=-1) + z.shape[-1] * np.log(2 * np.pi))
