"""Metrics of a model: means over rows and symbols, in training and on rows held out."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import ELBOTerms, Evaluation, Weights
from seqssvae.config import ObjectiveConfig, StoppingMetric, has_consistency, has_distillation


class Metrics(NamedTuple):
    """Means over rows. None where there is nothing to average: no labelled row, or no ELBO (a classifier has none).

    Args:
        rows: The number of rows.
        labelled_rows: How many of them have a label.
        symbols: The number of symbols they have, END included.
        loss: What is minimised, at beta 1: minus `elbo` plus alpha times `classification`, or `classification` alone of
            a classifier's objective. In training: as minimised, with the term of `consistency`.
        elbo: The ELBO with beta 1, in nats per row.
        elbo_per_symbol: The ELBO with beta 1, in nats per symbol.
        bits_per_symbol: Minus the ELBO with beta 1, in bits per symbol.
        reconstruction: log p(x|y,z), in nats per row.
        kl_z: log q(z|x,y) - log p(z) at the drawn z, in nats per row.
        kl_y: KL(q(y|x) || p(y)), in nats per row (in training -log p(y) where a label is observed).
        classification: The negative log-likelihood -log q(y|x) of the label, in nats per labelled row.
        accuracy: The share of labelled rows whose most probable label is their label; not computed in training.
        consistency: The cross entropy of q(y|x) with dropout from q(y|x) without, sharpened, in nats per row without
            label; computed in training alone, where the objective has this term.
        distillation: The cross entropy of q(y|x) from the posterior that it is to be like, in nats per row without
            label; computed in training alone, where the objective has this term.
        importance_bound: A tighter lower bound of log p(x) than the ELBO, in nats per row, where it was asked for.
        importance_error: The standard error of the importance bound, as far as it is due to the draws of z.
        effective_samples: The number of equally weighted draws that would know log p(x) as well, the mean over rows.
        label_entropy: The entropy of q(y|x), in nats per row; not computed in training.
        perplexity: The exponential of minus the ELBO with beta 1 in nats per symbol: so many equally probable symbols
            would be as hard to guess.
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
    distillation: float | None = None
    importance_bound: float | None = None
    importance_error: float | None = None
    effective_samples: float | None = None
    label_entropy: float | None = None
    perplexity: float | None = None


def _elbo_fields(terms: ELBOTerms, rows: int, symbols: int) -> dict[str, float]:
    """Compute the fields of `Metrics` that come from sums of terms over rows."""
    elbo = float(terms.reconstruction - terms.kl_z - terms.kl_y)
    return {
        "elbo": elbo / rows,
        "elbo_per_symbol": elbo / symbols,
        "bits_per_symbol": -elbo / symbols / math.log(2),
        "perplexity": _exp(-elbo / symbols),
        "reconstruction": float(terms.reconstruction) / rows,
        "kl_z": float(terms.kl_z) / rows,
        "kl_y": float(terms.kl_y) / rows,
    }


def training_metrics(totals: Weights, objective: ObjectiveConfig) -> Metrics:
    """Compute means over the rows of training steps.

    Args:
        totals: The totals of each step, as `seqssvae.training.totals` names them.
        objective: Says which terms there are.

    Returns:
        Means over rows, except for the loss, which is the mean over steps.
    """
    terms = ELBOTerms(*(sum(totals[f"terms.{name}"].tolist()) for name in ELBOTerms._fields))
    rows, labelled_rows, symbols = (sum(totals[name].tolist()) for name in ("rows", "labelled_rows", "symbols"))
    fields = _elbo_fields(terms, rows, symbols) if objective.name == "ssvae" else {}
    for name, has_term in (("consistency", has_consistency), ("distillation", has_distillation)):
        if has_term(objective) and rows > labelled_rows:
            fields[name] = float(getattr(terms, name)) / (rows - labelled_rows)
    return Metrics(
        rows,
        labelled_rows,
        symbols,
        loss=float(np.mean(totals["loss"])),
        classification=float(terms.classification) / labelled_rows if labelled_rows else None,
        **fields,
    )


def elbo_metrics(terms: ELBOTerms, symbols: int) -> dict[str, float]:
    """Compute the ELBO, its parts and bits per symbol of evaluated rows, as fields of `Metrics`.

    Args:
        terms: The terms of each row, arrays of shape `(N,)`.
        symbols: The number of symbols of these rows, END included.
    """
    return _elbo_fields(ELBOTerms(*(np.sum(term) for term in terms)), len(terms.reconstruction), symbols)


def label_metrics(log_q_y: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> dict[str, float | None]:
    """Compute accuracy and mean negative log-likelihood of the labels, and their entropy, as fields of `Metrics`.

    Args:
        log_q_y: log q(y|x) of each row.
        y: Label ids, `NO_LABEL` where they are missing.

    Returns:
        Means over the labelled rows where there are any, and the entropy over all.
    """
    from scipy.special import entr  # takes as long to load as everything else of `seqssvae --help`

    entropy = float(entr(np.exp(np.asarray(log_q_y, float))).sum(axis=1).mean()) if len(log_q_y) else None
    labelled = np.flatnonzero(y >= 0)
    if not len(labelled):
        return {"label_entropy": entropy}
    observed = log_q_y[labelled]
    return {
        "label_entropy": entropy,
        "accuracy": float(np.mean(observed.argmax(axis=1) == y[labelled])),
        "classification": float(-np.mean(observed[np.arange(len(labelled)), y[labelled]])),
    }


def validation_loss(fields: Mapping[str, float | None], objective: ObjectiveConfig) -> float | None:
    """Compute the objective at beta 1 on evaluated rows.

    Args:
        fields: Fields of `Metrics`, as `elbo_metrics` and `label_metrics` compute them.
        objective: The objective.

    Returns:
        The loss; None for a classifier's objective where no row is labelled.
    """
    classification = fields.get("classification")
    if objective.name == "classifier":
        return classification
    elbo = fields["elbo"]
    assert elbo is not None
    return -elbo + objective.alpha * (classification or 0.0)


def standard_error(
    metric: StoppingMetric,
    evaluation: Evaluation,
    y: Int[np.ndarray, " N"],
    lengths: Int[np.ndarray, " N"],
    objective: ObjectiveConfig,
) -> float:
    """Compute the standard error of a metric over evaluated rows, as of a mean over rows drawn at random.

    It is the root of the sum of squares of what each row moves the metric by; of a share p of n rows, `accuracy`, that
    is `sqrt(p (1 - p) / n)`, and not less than `1 / n`: one row is no difference, even where all are right.

    Args:
        metric: As in `seqssvae.config.TrainingConfig`; `elbo` is per symbol.
        evaluation: The terms of each row (0 for a classifier's objective), and log q(y|x).
        y: Label ids, `NO_LABEL` where they are missing.
        lengths: The number of symbols of each row, END included.
        objective: Says what `loss` is.

    References:
        Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6: the infinitesimal jackknife.
    """
    labelled = np.flatnonzero(y >= 0)
    observed, wanted = evaluation.log_q_y[labelled], y[labelled]

    def of_labelled(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        moved = np.zeros(len(y))
        moved[labelled] = (values - values.mean()) / len(values) if len(values) else 0.0
        return moved

    if metric == "accuracy":
        moved = of_labelled((observed.argmax(axis=1) == wanted).astype(float))
    elif metric == "elbo":
        elbo = _elbo_of_rows(evaluation.terms)
        moved = (elbo - lengths * elbo.sum() / lengths.sum()) / lengths.sum()
    else:
        moved = of_labelled(-observed[np.arange(len(wanted)), wanted].astype(float))
    if metric == "loss" and objective.name == "ssvae":
        elbo = _elbo_of_rows(evaluation.terms)
        moved = objective.alpha * moved - (elbo - elbo.mean()) / len(elbo)
    least = 1 / len(labelled) if metric == "accuracy" and len(labelled) else 0.0
    return max(float(np.sqrt(np.sum(moved**2))), least)


def _exp(value: float) -> float:
    """The exponential; infinite where it is too great, as of a model that was not trained."""
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def _elbo_of_rows(terms: ELBOTerms) -> Float[np.ndarray, " N"]:
    """The ELBO with beta 1 of each row."""
    return np.asarray(terms.reconstruction - terms.kl_z - terms.kl_y, float)
