"""Naive Bayes on bags of n-grams, which learns from all rows by EM."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from seqssvae.recipes.linear import bag_vocabulary
from seqssvae.recipes.mixture import CountedMember
from seqssvae.recipes.ngrams import NgramVocabulary
from seqssvae.recipes.rows import Learned, LearningRows

PSEUDO_COUNT = 0.1


class Bag(CountedMember):
    """A multinomial distribution over n-grams for each label."""

    @classmethod
    def learn(cls, rows: LearningRows, unlabelled_shares: Float[np.ndarray, " K"]) -> Learned:
        """Learn from all rows, and without each fold of the labelled ones."""
        return cls.from_counts(bag_vocabulary(rows), rows, unlabelled_shares, lambda all_counts: smoothed)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Bag":
        """The member that these arrays are of."""
        return cls(NgramVocabulary.from_arrays(arrays), arrays["log_probabilities"], arrays["label_shares"])


def smoothed(counts: Float[np.ndarray, "G K"]) -> Float[np.ndarray, "G K"]:
    """The logarithm of each n-gram's share among those of each label, with `PSEUDO_COUNT` more of each."""
    counts = counts + PSEUDO_COUNT
    return np.log(counts) - np.log(counts.sum(axis=0))
