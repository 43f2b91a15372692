"""Numbers that say how well a model does: per row and per symbol, in training and on rows held out."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend, Batch, ELBOTerms, Evaluation, StepTotals
from seqssvae.config import ObjectiveConfig, StoppingMetric, has_consistency


class Metrics(NamedTuple):
    """Means over rows. None where there is nothing to average: no labelled row, or no ELBO (a classifier has none).

    Args:
        rows: Number of rows.
        labelled_rows: How many of them have a label.
        symbols: Number of symbols they have, END included.
        loss: What is minimised, at beta 1: minus `elbo` plus alpha times `classification`. In training: as minimised,
            with what `consistency` adds.
        elbo: The ELBO with beta 1, nats a row.
        elbo_per_symbol: The same, nats a symbol.
        bits_per_symbol: Minus the same, bits a symbol.
        reconstruction: log p(x|y,z), nats a row.
        kl_z: log q(z|x,y) - log p(z) at the drawn z, nats a row.
        kl_y: KL(q(y|x) || p(y)), nats a row (-log p(y) where a label is observed, in training).
        classification: -log q(y|x) of the label, nats a labelled row.
        accuracy: Share of labelled rows whose most probable label is their label; not computed in training.
        consistency: Cross entropy of q(y|x) with dropout from q(y|x) without, sharpened, nats a row without label; in
            training, where the objective has this term.
        importance_bound: A tighter lower bound of log p(x) than the ELBO, nats a row, where it was asked for.
    """

    rows: int
    labelled_rows: int
    symbols: int
    loss: float | None = None
    elbo: float | None = None
    elbo_per_symbol: float | None = None
    bits_per_symbol: float | None = None
    reconstruction: float | None = None
    kl_z: float | None = None
    kl_y: float | None = None
    classification: float | None = None
    accuracy: float | None = None
    consistency: float | None = None
    importance_bound: float | None = None


def _elbo_fields(terms: ELBOTerms, rows: int, symbols: int) -> dict[str, float]:
    """The fields of `Metrics` that come from sums of terms over rows."""
    elbo = float(terms.reconstruction - terms.kl_z - terms.kl_y)
    return {
        "elbo": elbo / rows,
        "elbo_per_symbol": elbo / symbols,
        "bits_per_symbol": -elbo / symbols / math.log(2),
        "reconstruction": float(terms.reconstruction) / rows,
        "kl_z": float(terms.kl_z) / rows,
        "kl_y": float(terms.kl_y) / rows,
    }


def training_metrics(totals: Sequence[StepTotals], objective: ObjectiveConfig) -> Metrics:
    """Means over the rows of some training steps; the loss is the mean over steps. Fetches from the device."""
    terms = ELBOTerms(*(sum(float(getattr(step.terms, name)) for step in totals) for name in ELBOTerms._fields))
    rows, labelled_rows, symbols = (
        sum(int(getattr(step, name)) for step in totals) for name in ("rows", "labelled_rows", "symbols")
    )
    fields = _elbo_fields(terms, rows, symbols) if objective.name == "ssvae" else {}
    if has_consistency(objective) and rows > labelled_rows:
        fields["consistency"] = float(terms.consistency) / (rows - labelled_rows)
    return Metrics(
        rows,
        labelled_rows,
        symbols,
        loss=float(np.mean([float(step.loss) for step in totals])),
        classification=float(terms.classification) / labelled_rows if labelled_rows else None,
        **fields,
    )


def evaluate_rows(backend: Backend, batches: Iterable[Batch], row_count: int, seed: int) -> Evaluation:
    """Terms and q(y|x) of every row, in the order of the corpus.

    Args:
        backend: The model.
        batches: Batches that hold every row of a corpus once.
        row_count: N, rows of the corpus.
        seed: Seed of the noise of z; each batch draws its own.

    Returns:
        Arrays of shape `(N,)`, and `(N, K)` for q(y|x).
    """
    terms = np.zeros((len(ELBOTerms._fields), row_count))
    log_q_y: np.ndarray | None = None
    for index, batch in enumerate(batches):
        found = backend.evaluate(batch, seed=_batch_seed(seed, index))
        rows = batch.rows[batch.row_mask]
        terms[:, rows] = np.stack([np.asarray(term, float)[batch.row_mask] for term in found.terms])
        log_q_y = _scatter(log_q_y, found.log_q_y, batch, row_count)
    return Evaluation(ELBOTerms(*terms), _filled(log_q_y, row_count))


def classify_rows(backend: Backend, batches: Iterable[Batch], row_count: int) -> Float[np.ndarray, "N K"]:
    """log q(y|x) of every row, in the order of the corpus; arguments as for `evaluate_rows`."""
    log_q_y: np.ndarray | None = None
    for batch in batches:
        log_q_y = _scatter(log_q_y, backend.classify(batch.x, batch.source), batch, row_count)
    return _filled(log_q_y, row_count)


def encode_rows(backend: Backend, batches: Iterable[Batch], row_count: int) -> Float[np.ndarray, "N Z"]:
    """The embedding of every row, in the order of the corpus; arguments as for `evaluate_rows`."""
    embedding: np.ndarray | None = None
    for batch in batches:
        embedding = _scatter(embedding, backend.encode(batch.x, batch.source), batch, row_count)
    return _filled(embedding, row_count)


def importance_bounds(
    backend: Backend, batches: Iterable[Batch], row_count: int, seed: int, particles: int
) -> Float[np.ndarray, " N"]:
    """The importance-weighted bound of every row from so many draws of z; other arguments as for `evaluate_rows`."""
    found: np.ndarray | None = None
    for index, batch in enumerate(batches):
        bound = backend.importance_bound(batch, _batch_seed(seed, index), particles)
        found = _scatter(found, np.asarray(bound, float)[:, None], batch, row_count)
    return _filled(found, row_count).ravel()


def elbo_metrics(terms: ELBOTerms, symbols: int) -> dict[str, float]:
    """ELBO, its parts and bits per symbol of evaluated rows, as fields of `Metrics`.

    Args:
        terms: Terms of each row, arrays of shape `(N,)`.
        symbols: Number of symbols of these rows, END included.
    """
    return _elbo_fields(ELBOTerms(*(np.sum(term) for term in terms)), len(terms.reconstruction), symbols)


def label_metrics(log_q_y: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> dict[str, float]:
    """Accuracy and mean -log q(y|x) over the labelled rows, as fields of `Metrics`; empty where no row is labelled."""
    labelled = np.flatnonzero(y >= 0)
    if not len(labelled):
        return {}
    observed = log_q_y[labelled]
    return {
        "accuracy": float(np.mean(observed.argmax(axis=1) == y[labelled])),
        "classification": float(-np.mean(observed[np.arange(len(labelled)), y[labelled]])),
    }


def validation_loss(fields: dict[str, float], objective: ObjectiveConfig) -> float | None:
    """The objective at beta 1 on evaluated rows, from the fields found; None where nothing of it could be found."""
    classification = fields.get("classification")
    if objective.name == "classifier":
        return None if classification is None else objective.alpha * classification
    return -fields["elbo"] + objective.alpha * (classification or 0.0)


def standard_error(
    metric: StoppingMetric,
    found: Evaluation,
    y: Int[np.ndarray, " N"],
    lengths: Int[np.ndarray, " N"],
    objective: ObjectiveConfig,
) -> float:
    """Standard error of a metric over evaluated rows, as of a mean over rows drawn at random.

    It is the root of the sum of squares of what each row moves the metric by; of a share p of n rows, `accuracy`, that
    is `sqrt(p (1 - p) / n)`.

    Args:
        metric: As in `seqssvae.config.TrainingConfig`; `elbo` is per symbol.
        found: Terms of each row, unless the objective has none, and log q(y|x).
        y: Label ids, `NO_LABEL` where they are missing.
        lengths: Symbols of each row, END included.
        objective: What `loss` is.

    References:
        Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6: the infinitesimal jackknife.
    """
    labelled = np.flatnonzero(y >= 0)
    observed, wanted = found.log_q_y[labelled], y[labelled]

    def of_labelled(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        moved = np.zeros(len(y))
        moved[labelled] = (values - values.mean()) / len(values) if len(values) else 0.0
        return moved

    if metric == "accuracy":
        moved = of_labelled((observed.argmax(axis=1) == wanted).astype(float))
    elif metric == "elbo":
        elbo = _elbo_of_rows(found.terms)
        moved = (elbo - lengths * elbo.sum() / lengths.sum()) / lengths.sum()
    else:
        moved = of_labelled(-observed[np.arange(len(wanted)), wanted].astype(float))
    if metric == "loss":
        moved = objective.alpha * moved
        if objective.name == "ssvae":
            elbo = _elbo_of_rows(found.terms)
            moved = moved - (elbo - elbo.mean()) / len(elbo)
    return float(np.sqrt(np.sum(moved**2)))


def _elbo_of_rows(terms: ELBOTerms) -> Float[np.ndarray, " N"]:
    """The ELBO with beta 1 of each row."""
    return np.asarray(terms.reconstruction - terms.kl_z - terms.kl_y, float)


def _batch_seed(seed: int, index: int) -> int:
    """A seed for each batch, since the noise of two batches of one shape depends on the seed alone."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0] >> 1)


def _scatter(target: np.ndarray | None, values: np.ndarray, batch: Batch, row_count: int) -> np.ndarray:
    values = np.asarray(values)
    if target is None:
        target = np.zeros((row_count, values.shape[1]), values.dtype)
    target[batch.rows[batch.row_mask]] = values[batch.row_mask]
    return target


def _filled(values: np.ndarray | None, row_count: int) -> np.ndarray:
    if values is None or len(values) != row_count:
        return np.zeros((row_count, 0))
    return values
