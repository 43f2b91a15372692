"""What a trained model makes of the labels: which it predicts, and how far its generator tells them apart."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import NO_LABEL
from seqssvae.inference.agreement import Agreement, agreement


class LabelUse(NamedTuple):
    """What a model makes of each label on some rows.

    Args:
        predicted: The number of rows of which it is the most probable label.
        observed: The number of rows that have it.
        hits: The number of those that are predicted to have it.
        probability: The mean of p(y|x); 0 where there is no row.
        prior: p(y).
    """

    predicted: Int[np.ndarray, " K"]
    observed: Int[np.ndarray, " K"]
    hits: Int[np.ndarray, " K"]
    probability: Float[np.ndarray, " K"]
    prior: Float[np.ndarray, " K"]

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return int(self.predicted.sum())

    @property
    def labelled_rows(self) -> int:
        """The number of rows that have a label."""
        return int(self.observed.sum())

    @property
    def accuracy(self) -> float | None:
        """The share of labelled rows whose label is predicted; None where there are none."""
        return int(self.hits.sum()) / self.labelled_rows if self.labelled_rows else None

    @property
    def agreement(self) -> Agreement:
        """The agreement of what is predicted with the labels; all rows must have one."""
        return agreement(self.observed, self.predicted, int(self.hits.sum()))


def label_use(
    log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"], label_prior: Float[np.ndarray, " K"]
) -> LabelUse:
    """Count labels and predictions.

    Args:
        log_p: log p(y|x).
        y: Label ids, `NO_LABEL` where they are missing.
        label_prior: p(y).
    """
    count, best = log_p.shape[1], log_p.argmax(axis=1)
    return LabelUse(
        np.bincount(best, minlength=count),
        np.bincount(y[y != NO_LABEL], minlength=count),
        np.bincount(best[best == y], minlength=count),
        np.exp(log_p).sum(axis=0) / max(len(y), 1),
        np.asarray(label_prior, float),
    )


class LabelSeparation(NamedTuple):
    """How far log p(x|y,z) tells labels apart where z is held.

    Args:
        spread: The difference between the most and the least likely label, averaged over rows, in nats: 0 of a decoder
            that ignores y.
        by_label: For rows of each label, log p(x|y,z) of that label less its mean over the others, in nats a row; not a
            number where a label has no row.
        rows: The number of rows of each label.
    """

    spread: float
    by_label: Float[np.ndarray, " K"]
    rows: Int[np.ndarray, " K"]


def label_separation(log_likelihood: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"]) -> LabelSeparation:
    """Measure how far the generator tells labels apart.

    Args:
        log_likelihood: log p(x|y,z) of every label, at one z of each row.
        y: Label ids, `NO_LABEL` where they are missing.
    """
    count, known = log_likelihood.shape[1], np.flatnonzero(y != NO_LABEL)
    own = log_likelihood[known, y[known]]
    others = (log_likelihood[known].sum(axis=1) - own) / max(count - 1, 1)
    rows = np.bincount(y[known], minlength=count)
    with np.errstate(invalid="ignore"):
        by_label = np.bincount(y[known], weights=own - others, minlength=count) / np.where(rows, rows, np.nan)
    return LabelSeparation(float(np.ptp(log_likelihood, axis=1).mean()), by_label, rows)
