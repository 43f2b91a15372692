"""Generative models of counted n-grams, one for each label, that learn from all rows by EM."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.rows import Learned, LearningRows, log_normalised

GROUPS = 5
GROUP_STREAM = 0xE5
ITERATIONS = 5
MOST_UNLABELLED = 20_000
"""Rows without label that EM learns from: more of them move the counts of few labels' n-grams no further."""

LogProbabilities = Callable[[Float[np.ndarray, "G K"]], Float[np.ndarray, "G K"]]
"""From how often each n-gram stands in rows of each label: the logarithm of its probability given the label."""


class CountedRows(NamedTuple):
    """Rows as counts of G n-grams.

    Args:
        labelled: Counts of the labelled rows.
        unlabelled: Counts of the rows without label, in groups.
    """

    labelled: scipy.sparse.csr_matrix
    unlabelled: Sequence[scipy.sparse.csr_matrix]


@dataclass(frozen=True, eq=False)
class Mixture:
    """How a generative model of labels and n-grams learns.

    The E-step of a row uses what was learned without the group that the row is in. A long row is as certain of its
    label as its n-grams are many; if it could remember itself, EM would never change its mind.

    Args:
        rows: The rows as counts.
        one_hot: Labels of the labelled rows.
        label_shares: The shares of the labels among labelled rows, p(y) of a row to predict.
        unlabelled_shares: The shares among rows without label, p(y) in the E-step.
        log_probabilities: The model.

    References:
        Nigam, McCallum, Thrun and Mitchell 2000, Text classification from labeled and unlabeled documents using EM,
        section 4 (without the groups).
    """

    rows: CountedRows
    one_hot: Float[np.ndarray, "N K"]
    label_shares: Float[np.ndarray, " K"]
    unlabelled_shares: Float[np.ndarray, " K"]
    log_probabilities: LogProbabilities

    def learn(self, kept: Int[np.ndarray, " M"]) -> Float[np.ndarray, "G K"]:
        """The counts of each label's n-grams after EM.

        Args:
            kept: Indices of the labelled rows to learn from.
        """
        observed = self.rows.labelled[kept].T @ self.one_hot[kept]
        groups, prior = self.rows.unlabelled, np.log(self.unlabelled_shares)
        total, expected = observed, [np.zeros_like(observed)] * len(groups)
        for _ in range(ITERATIONS):
            posteriors = (
                np.exp(log_normalised(group @ self.log_probabilities(total - own) + prior))
                for group, own in zip(groups, expected, strict=True)
            )
            expected = [group.T @ posterior for group, posterior in zip(groups, posteriors, strict=True)]
            total = observed + sum(expected)
        return total

    def score(self, counts: scipy.sparse.csr_matrix, learned: Float[np.ndarray, "G K"]) -> Float[np.ndarray, "N K"]:
        """log p(y|x) of rows, from what was learned."""
        return log_normalised(counts @ self.log_probabilities(learned) + np.log(self.label_shares))

    def cross_validate(self, folds: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N K"]:
        """log p(y|x) of each labelled row by what was learned without its fold."""
        result = np.zeros_like(self.one_hot)
        for fold in np.unique(folds):
            held_out = np.flatnonzero(folds == fold)
            learned = self.learn(np.flatnonzero(folds != fold))
            result[held_out] = self.score(self.rows.labelled[held_out], learned)
        return result


class Features(Protocol):
    """What is counted in rows: G features."""

    def count(self, rows: RaggedArray) -> scipy.sparse.csr_matrix:
        """How often each row has each: a sparse matrix of shape `(N, G)`."""
        ...

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The features as arrays."""
        ...


@dataclass(frozen=True, eq=False)
class CountedMember:
    """Features that are independent of each other given the label, each with its probability.

    Args:
        features: The features, G in all.
        log_probabilities: Of each, by label.
        label_shares: p(y).
    """

    features: Features
    log_probabilities: Float[np.ndarray, "G K"]
    label_shares: Float[np.ndarray, " K"]

    @classmethod
    def from_counts(
        cls,
        features: Features,
        rows: LearningRows,
        unlabelled_shares: Float[np.ndarray, " K"],
        model: Callable[[Float[np.ndarray, " G"]], LogProbabilities],
    ) -> Learned:
        """Learn from all rows, and without each fold of the labelled ones.

        Args:
            features: What to count.
            rows: The rows.
            unlabelled_shares: The shares of the labels among rows without label.
            model: From how often each feature stands in all rows, the model.
        """
        counts = features.count(rows.all_rows)
        log_probabilities = model(np.asarray(counts.sum(axis=0)).ravel())
        counted = in_groups(counts, rows)
        mixture = Mixture(counted, rows.one_hot, rows.label_shares, unlabelled_shares, log_probabilities)
        learned = log_probabilities(mixture.learn(np.arange(len(rows.y))))
        return Learned(mixture.cross_validate(rows.folds), cls(features, learned, rows.label_shares))

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x)."""
        return log_normalised(self.features.count(rows) @ self.log_probabilities + np.log(self.label_shares))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        own = {"log_probabilities": self.log_probabilities, "label_shares": self.label_shares}
        return {**self.features.to_arrays(), **own}


def group_of_rows(count: int, seed: int) -> list[Int[np.ndarray, " _"]]:
    """Divide the rows without label into groups; of very many rows some are in none."""
    order = np.random.default_rng([seed, GROUP_STREAM]).permutation(count)[:MOST_UNLABELLED]
    return [np.sort(group) for group in np.array_split(order, min(GROUPS, max(1, len(order))))]


def in_groups(counts: scipy.sparse.csr_matrix, rows: LearningRows) -> CountedRows:
    """Divide counts of the labelled rows, and of the rows without label behind them."""
    labelled = len(rows.labelled)
    groups = group_of_rows(len(rows.unlabelled), rows.seed)
    return CountedRows(counts[:labelled], [counts[labelled + group] for group in groups])
