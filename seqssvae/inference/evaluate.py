"""How well a trained model does on rows, what it predicts for them, and new sequences for a label."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend, Batch, DecodingMethod, ELBOTerms, Evaluation
from seqssvae.config import Config
from seqssvae.config.checks import check_integer, check_literal
from seqssvae.data.batches import evaluation_batches
from seqssvae.data.buckets import choose_buckets
from seqssvae.data.corpus import Corpus
from seqssvae.data.vocabulary import END, Vocabulary
from seqssvae.errors import NonFiniteError
from seqssvae.inference.metrics import Metrics, elbo_metrics, label_metrics, standard_error, validation_loss
from seqssvae.inference.per_row import classify_rows, embed_rows, evaluate_rows, label_bounds
from seqssvae.noise import batch_seed

GENERATION_BATCH = 256
"""Most sequences generated at once."""
MOST_SYMBOLS = 10_000
"""Most symbols of a generated sequence where no number is given, however great `data.max_length` is."""
LONGEST_SEARCH, MOST_CANDIDATES = 100_000, 1000
"""Most symbols of a generated sequence that may be asked for, and most candidates of a beam search."""


class CorpusEvaluation(NamedTuple):
    """How well a model does on a corpus.

    Args:
        metrics: Means over its rows.
        confusion: The number of rows by label (first index) and most probable label (second).
        standard_error: The standard error of the metric that decides early stopping, `training.metric`.
    """

    metrics: Metrics
    confusion: Int[np.ndarray, "K K"]
    standard_error: float


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
    backend: Backend,
    corpus: Corpus,
    config: Config,
    seed: int = 0,
    importance_samples: int = 0,
    batches: Sequence[Batch] | None = None,
) -> CorpusEvaluation:
    """Compute metrics at beta 1 without dropout: y is summed out in every row's ELBO, and labels are for accuracy.

    Args:
        backend: The model.
        corpus: At least one row.
        config: The model's configuration (objective, metric, batch size, buckets).
        seed: Seed of the noise of z.
        importance_samples: The number of draws of z for the importance-weighted bound; 0: it is not computed.
        batches: Batches that hold every row of the corpus once; None: they are made with buckets of its own.

    Raises:
        NonFiniteError: If a row's term or log q(y|x) is not a number.
    """
    count, symbols = len(corpus), int(np.sum(corpus.lengths))

    def all_batches() -> Iterator[Batch]:
        return corpus_batches(corpus, config) if batches is None else iter(batches)

    if config.objective.name == "classifier":  # which has no ELBO
        no_terms = ELBOTerms(*np.zeros((len(ELBOTerms._fields), count)))
        evaluation, fields = Evaluation(no_terms, classify_rows(backend, all_batches(), count)), {}
    else:
        evaluation = evaluate_rows(backend, all_batches(), count, seed)
        fields = elbo_metrics(evaluation.terms, symbols)
        if importance_samples:
            bounds = label_bounds(backend, all_batches(), count, seed, importance_samples)
            fields["importance_bound"] = float(np.logaddexp.reduce(bounds, axis=1).mean())
    _check_finite(evaluation.terms, evaluation.log_q_y, corpus)
    fields |= label_metrics(evaluation.log_q_y, corpus.y)
    labelled = np.flatnonzero(corpus.y >= 0)
    loss = validation_loss(fields, config.objective)
    return CorpusEvaluation(
        Metrics(count, len(labelled), symbols, loss=loss, **fields),
        _confusion(corpus.y[labelled], evaluation.log_q_y[labelled]),
        standard_error(config.training.metric, evaluation, corpus.y, corpus.lengths, config.objective),
    )


def predict_proba(backend: Backend, corpus: Corpus, config: Config) -> Float[np.ndarray, "N K"]:
    """Compute q(y|x) of every row, in the order of the corpus; the probabilities of each row sum to 1."""
    log_q_y = classify_rows(backend, corpus_batches(corpus, config), len(corpus)).astype(float)
    _check_finite(None, log_q_y, corpus)
    probabilities = np.exp(log_q_y)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def encode(backend: Backend, corpus: Corpus, config: Config) -> Float[np.ndarray, "N Z"]:
    """Compute the embedding sum over y of q(y|x) loc(x, y) of every row, in the order of the corpus."""
    return embed_rows(backend, corpus_batches(corpus, config), len(corpus))


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
    """Generate sequences of one label, each from a z of its own drawn from p(z), or p(z|source,y).

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        label: Index of the label.
        count: The number of sequences.
        max_length: Most symbols of a sequence, without END.
        seed: Seed of z, and of the symbols where they are drawn.
        method: Draw each symbol, take the most probable one, or search the most probable sequence.
        beam_width: The number of candidates kept by `beam`.
        source: Symbol ids, with END, of what the sequences are made from, for a model that has sources.

    Raises:
        ConfigurationError: If the count is below 0, or the method or a number of the search is wrong.
    """
    check_integer("the number of sequences", count, 0)
    check_search(method, beam_width, max_length, seed)
    size = min(count, GENERATION_BATCH)
    y = np.full(size, label, np.int32)
    sources = None if source is None else np.tile(source, (size, 1))
    generated: list[Generated] = []
    for index in range(-(-count // size) if count else 0):
        batch = y, max_length, batch_seed(seed, index)
        x, log_p = backend.generate(*batch, method=method, beam_width=beam_width, source=sources)
        for ids, score in zip(np.asarray(x), np.asarray(log_p), strict=True):
            ended = bool(np.any(ids == END))
            generated.append(Generated(vocabulary.decode(ids)[:max_length], float(score), ended))
    return generated[:count]


def greatest_length(max_length: int | None, config: Config) -> int:
    """Return the most symbols of a generated sequence: the number given, or as in training."""
    return min(config.data.max_length, MOST_SYMBOLS) if max_length is None else max_length


def check_search(method: str, beam_width: int, max_length: int, seed: int) -> None:
    """Check how sequences are to be decoded.

    Args:
        method: One of `DecodingMethod`.
        beam_width: The number of candidates kept by `beam`.
        max_length: Most symbols of a sequence, without END.
        seed: Seed of what is drawn.

    Raises:
        ConfigurationError: If one of them is wrong.
    """
    check_literal("method", method, DecodingMethod)
    check_integer("beam_width", beam_width, 1, MOST_CANDIDATES)
    check_integer("max_length", max_length, 1, LONGEST_SEARCH)
    check_integer("seed", seed, 0)


def corpus_batches(corpus: Corpus, config: Config) -> Iterator[Batch]:
    """Batches that hold every row once, with buckets of this corpus's own."""
    if not len(corpus):
        return iter(())
    training = config.training
    buckets = choose_buckets(corpus.lengths, min(training.buckets, len(corpus)))
    return evaluation_batches(corpus, None, training.batch_size, buckets, training.batch_symbols)


def _check_finite(terms: ELBOTerms | None, log_q_y: Float[np.ndarray, "N K"], corpus: Corpus) -> None:
    """Raise an error for the first term that is not finite; log q(y|x) may be minus infinity."""
    for name, values in ({} if terms is None else terms._asdict()).items():
        if not (finite := np.isfinite(values)).all():
            rows = np.flatnonzero(~finite)
            raise NonFiniteError(f"the {name.replace('_', ' of ')} is {values[rows[0]]} in rows {corpus.places(rows)}")
    if len(rows := np.flatnonzero(np.isnan(log_q_y).any(axis=1))):
        raise NonFiniteError(f"log q(y|x) is not a number in rows {corpus.places(rows)}")


def _confusion(y: Int[np.ndarray, " N"], log_q_y: Float[np.ndarray, "N K"]) -> Int[np.ndarray, "K K"]:
    confusion = np.zeros((log_q_y.shape[1], log_q_y.shape[1]), np.int64)
    np.add.at(confusion, (y, log_q_y.argmax(axis=1)), 1)
    return confusion
