"""How well a trained model does on rows, and what it predicts for them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend, Batch, ELBOTerms, Evaluation
from seqssvae.config import Config
from seqssvae.data.batches import corpus_batches
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError, NonFiniteError
from seqssvae.inference.likelihood import importance_metrics, row_likelihoods
from seqssvae.inference.metrics import Metrics, elbo_metrics, label_metrics, standard_error, validation_loss
from seqssvae.inference.per_row import classify_rows, embed_rows, evaluate_rows


class CorpusEvaluation(NamedTuple):
    """How well a model does on a corpus.

    Args:
        metrics: Means over its rows.
        confusion: The number of rows by label (first index) and most probable label (second).
        standard_error: The standard error of the metric that decides early stopping, `training.metric`.
        rows: Terms of the ELBO, and log q(y|x), of each row.
    """

    metrics: Metrics
    confusion: Int[np.ndarray, "K K"]
    standard_error: float
    rows: Evaluation


def evaluate(
    backend: Backend,
    corpus: Corpus,
    config: Config,
    seed: int = 0,
    importance_samples: int = 0,
    batches: Iterable[Batch] | None = None,
) -> CorpusEvaluation:
    """Compute metrics at beta 1 without dropout: y is summed out in every row's ELBO, and labels are for accuracy.

    Args:
        backend: The model.
        corpus: At least one row.
        config: The model's configuration (objective, metric, batch size, buckets).
        seed: Seed of the noise of z.
        importance_samples: The number of draws of z for the importance-weighted bound; 0: it is not computed.
        batches: Batches that hold every row of the corpus once, to be gone through twice; None: they are made with
            buckets of its own.

    Raises:
        NonFiniteError: If a row's term or log q(y|x) is not a number.
    """
    count, symbols = len(corpus), int(np.sum(corpus.lengths))

    def all_batches() -> Iterator[Batch]:
        return corpus_batches(corpus, config) if batches is None else iter(batches)

    fields: dict[str, float | None] = {}
    if config.objective.name == "classifier":  # which has no ELBO
        no_terms = ELBOTerms(*np.zeros((len(ELBOTerms._fields), count)))
        evaluation = Evaluation(no_terms, classify_rows(backend, all_batches(), count))
    else:
        evaluation = evaluate_rows(backend, all_batches(), count, seed)
        fields |= elbo_metrics(evaluation.terms, symbols)
        if importance_samples:
            likelihoods = row_likelihoods(backend, all_batches(), count, seed, importance_samples)
            fields |= importance_metrics(likelihoods)
    _check_finite(evaluation.terms, evaluation.log_q_y, corpus)
    fields |= label_metrics(evaluation.log_q_y, corpus.y)
    labelled = np.flatnonzero(corpus.y >= 0)
    loss = validation_loss(fields, config.objective)
    return CorpusEvaluation(
        Metrics(count, len(labelled), symbols, loss=loss, **fields),
        count_confusion(corpus.y[labelled], evaluation.log_q_y[labelled]),
        standard_error(config.training.metric, evaluation, corpus.y, corpus.lengths, config.objective),
        evaluation,
    )


def predict_proba(backend: Backend, corpus: Corpus, config: Config) -> Float[np.ndarray, "N K"]:
    """Compute q(y|x) of every row, in the order of the corpus; the probabilities of each row sum to 1."""
    log_q_y = classify_rows(backend, corpus_batches(corpus, config), len(corpus)).astype(float)
    _check_finite(None, log_q_y, corpus)
    probabilities = np.exp(log_q_y)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def encode(backend: Backend, corpus: Corpus, config: Config, features: bool = False) -> Float[np.ndarray, "N D"]:
    """Compute the embedding of every row, in the order of the corpus.

    Args:
        backend: The model.
        corpus: The rows.
        config: The model's configuration.
        features: Whether it is the features that q(y|x) reads, in place of the sum over y of q(y|x) loc(x, y): z leaves
            out what the label explains, and may be unused.

    Raises:
        ConfigurationError: If z was not trained, and it is not the features that are asked for.
    """
    if config.objective.name == "classifier" and not features:
        raise ConfigurationError(
            "objective.name: classifier has no z that was trained: take its features (--features, or features=True)."
        )
    return embed_rows(backend, corpus_batches(corpus, config), len(corpus), features)


def _check_finite(terms: ELBOTerms | None, log_q_y: Float[np.ndarray, "N K"], corpus: Corpus) -> None:
    """Raise an error for the first term that is not finite; log q(y|x) may be minus infinity."""
    for name, values in ({} if terms is None else terms._asdict()).items():
        if not (finite := np.isfinite(values)).all():
            rows = np.flatnonzero(~finite)
            raise NonFiniteError(f"the {name.replace('_', ' of ')} is {values[rows[0]]} in rows {corpus.places(rows)}")
    if len(rows := np.flatnonzero(np.isnan(log_q_y).any(axis=1))):
        raise NonFiniteError(f"log q(y|x) is not a number in rows {corpus.places(rows)}")


def count_confusion(y: Int[np.ndarray, " N"], log_p: Float[np.ndarray, "N K"]) -> Int[np.ndarray, "K K"]:
    """The number of rows by label (first index) and most probable label (second).

    Args:
        y: Labels, none of them missing.
        log_p: log p(y|x).
    """
    confusion = np.zeros((log_p.shape[1], log_p.shape[1]), np.int64)
    np.add.at(confusion, (y, log_p.argmax(axis=1)), 1)
    return confusion
