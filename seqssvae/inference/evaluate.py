"""What a trained model says of rows: metrics, labels, embeddings; and new sequences for a label."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend, Batch, DecodingMethod
from seqssvae.config import Config
from seqssvae.data.batches import buckets, evaluation_batches
from seqssvae.data.corpus import Corpus
from seqssvae.data.vocabulary import END, Vocabulary
from seqssvae.inference.metrics import (
    Metrics,
    classify_rows,
    elbo_metrics,
    evaluate_rows,
    importance_bounds,
    label_metrics,
    validation_loss,
)
from seqssvae.inference.metrics import encode_rows as embed_rows

GENERATION_BATCH = 256
"""Most sequences generated at once."""


class CorpusEvaluation(NamedTuple):
    """How well a model does on a corpus.

    Args:
        metrics: Means over its rows.
        confusion: Number of rows by label (first index) and most probable label (second).
    """

    metrics: Metrics
    confusion: Int[np.ndarray, "K K"]


class Generated(NamedTuple):
    """One generated sequence.

    Args:
        symbols: Its symbols.
        log_p: log p(x|y,z), END included.
        ended: Whether it came to its END before the greatest length.
    """

    symbols: list[str]
    log_p: float
    ended: bool


def evaluate(
    backend: Backend, corpus: Corpus, config: Config, seed: int = 0, importance_samples: int = 0
) -> CorpusEvaluation:
    """Metrics at beta 1 without dropout, y summed out in every row's ELBO; accuracy over the labelled rows.

    Args:
        backend: The model.
        corpus: At least one row.
        config: The model's configuration (objective, batch size, buckets).
        seed: Seed of the noise of z.
        importance_samples: Draws of z for the importance-weighted bound; 0: it is not computed.
    """
    batches = list(_batches(corpus, config))
    symbols = int(np.sum(corpus.lengths))
    if config.objective.name == "classifier":
        log_q_y, fields = classify_rows(backend, batches, len(corpus)), {}
    else:
        found = evaluate_rows(backend, batches, len(corpus), seed)
        log_q_y, fields = found.log_q_y, elbo_metrics(found.terms, symbols)
        if importance_samples:
            bounds = importance_bounds(backend, batches, len(corpus), seed, importance_samples)
            fields["importance_bound"] = float(bounds.mean())
    fields |= label_metrics(log_q_y, corpus.y)
    labelled = np.flatnonzero(corpus.y >= 0)
    loss = validation_loss(fields, config.objective)
    return CorpusEvaluation(
        Metrics(len(corpus), len(labelled), symbols, loss=loss, **fields),
        _confusion(corpus.y[labelled], log_q_y[labelled].argmax(axis=1), log_q_y.shape[1]),
    )


def predict_proba(backend: Backend, corpus: Corpus, config: Config) -> Float[np.ndarray, "N K"]:
    """q(y|x) of every row, in the order of the corpus; each row sums to 1."""
    log_q_y = classify_rows(backend, _batches(corpus, config), len(corpus)).astype(float)
    probabilities = np.exp(log_q_y)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def encode(backend: Backend, corpus: Corpus, config: Config) -> Float[np.ndarray, "N Z"]:
    """The embedding sum over y of q(y|x) loc(x, y) of every row, in the order of the corpus."""
    return embed_rows(backend, _batches(corpus, config), len(corpus))


def generate(
    backend: Backend,
    vocabulary: Vocabulary,
    label: int,
    count: int,
    max_length: int,
    seed: int = 0,
    method: DecodingMethod = "sample",
    beam_width: int = 5,
    source: Int[np.ndarray, " S"] | None = None,
) -> list[Generated]:
    """New sequences of one label, each from a z of its own drawn from p(z), or p(z|source,y).

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        label: Index of the label.
        count: Number of sequences.
        max_length: Most symbols of a sequence, without END.
        seed: Of z, and of the symbols where they are sampled.
        method: Draw each symbol, take the most probable one, or search the most probable sequence.
        beam_width: Number of candidates kept by `beam`.
        source: What they are made from, with END, of a model that has sources.
    """
    size = min(count, GENERATION_BATCH)
    y = np.full(size, label, np.int32)
    sources = None if source is None else np.tile(source, (size, 1))
    generated: list[Generated] = []
    for index in range(-(-count // size) if count else 0):
        batch_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0] >> 1)
        x, log_p = backend.generate(y, max_length, batch_seed, method=method, beam_width=beam_width, source=sources)
        for ids, score in zip(np.asarray(x), np.asarray(log_p), strict=True):
            ended = bool(np.any(ids == END))
            generated.append(Generated(vocabulary.decode(ids)[:max_length], float(score), ended))
    return generated[:count]


def _batches(corpus: Corpus, config: Config) -> Iterator[Batch]:
    if not len(corpus):
        return iter(())
    lengths = buckets(corpus.lengths, min(config.training.buckets, len(corpus)))
    training = config.training
    return iter(evaluation_batches(corpus, None, training.batch_size, lengths, training.batch_symbols))


def _confusion(y: Int[np.ndarray, " N"], predicted: Int[np.ndarray, " N"], label_count: int) -> Int[np.ndarray, "K K"]:
    confusion = np.zeros((label_count, label_count), np.int64)
    np.add.at(confusion, (y, predicted), 1)
    return confusion
