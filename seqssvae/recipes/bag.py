"""Naive Bayes on bags of n-grams, which learns from all rows by EM."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.linear import bag_vocabulary, ngram_arrays, stored_ngrams
from seqssvae.recipes.mixture import Mixture, in_groups
from seqssvae.recipes.ngrams import NgramVocabulary
from seqssvae.recipes.rows import Learned, LearningRows, log_normalised

PSEUDO_COUNT = 0.1


@dataclass(frozen=True, eq=False)
class Bag:
    """A multinomial distribution over n-grams for each label.

    Args:
        ngrams: The n-grams, G in all.
        log_probabilities: Of each n-gram, by label.
        label_shares: p(y).
    """

    ngrams: NgramVocabulary
    log_probabilities: Float[np.ndarray, "G K"]
    label_shares: Float[np.ndarray, " K"]

    @classmethod
    def learn(cls, rows: LearningRows, unlabelled_shares: Float[np.ndarray, " K"]) -> Learned:
        """Learn from all rows, and without each fold of the labelled ones."""
        ngrams = bag_vocabulary(rows)
        counted = in_groups(ngrams.count(rows.all_rows), rows)
        mixture = Mixture(counted, rows.one_hot, rows.label_shares, unlabelled_shares, _log_probabilities)
        learned = _log_probabilities(mixture.learn(np.arange(len(rows.y))))
        return Learned(mixture.cross_validate(rows.folds), cls(ngrams, learned, rows.label_shares))

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x)."""
        return log_normalised(self.ngrams.count(rows) @ self.log_probabilities + np.log(self.label_shares))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        own = {"log_probabilities": self.log_probabilities, "label_shares": self.label_shares}
        return {**ngram_arrays(self.ngrams), **own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Bag":
        """The member that these arrays are of."""
        return cls(stored_ngrams(arrays), arrays["log_probabilities"], arrays["label_shares"])


def _log_probabilities(counts: Float[np.ndarray, "G K"]) -> Float[np.ndarray, "G K"]:
    smoothed = counts + PSEUDO_COUNT
    return np.log(smoothed) - np.log(smoothed.sum(axis=0))
