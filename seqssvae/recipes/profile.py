"""For each label, a distribution of symbols at each place, which learns from all rows by EM."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.mixture import LogProbabilities, Mixture, in_groups
from seqssvae.recipes.places import Places
from seqssvae.recipes.rows import Learned, LearningRows, log_normalised

STRENGTH = 1.0
"""Of the prior that a label's symbols at a place have from those of all rows, in multiples of their perplexity."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Symbols at places, independent of each other given the label (Stormo 2000, DNA binding sites).

    Args:
        places: The symbols at places, G in all.
        log_probabilities: Of each symbol at its place, by label.
        label_shares: p(y).
    """

    places: Places
    log_probabilities: Float[np.ndarray, "G K"]
    label_shares: Float[np.ndarray, " K"]

    @classmethod
    def learn(cls, rows: LearningRows, unlabelled_shares: Float[np.ndarray, " K"]) -> Learned:
        """Learn from all rows, and without each fold of the labelled ones."""
        places = Places.learn(rows.all_rows, rows.vocabulary_size, rows.label_count)
        counts = places.count(rows.all_rows)
        model = smoothed(places, np.asarray(counts.sum(axis=0)).ravel())
        mixture = Mixture(in_groups(counts, rows), rows.one_hot, rows.label_shares, unlabelled_shares, model)
        learned = model(mixture.learn(np.arange(len(rows.y))))
        return Learned(mixture.cross_validate(rows.folds), cls(places, learned, rows.label_shares))

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x)."""
        return log_normalised(self.places.count(rows) @ self.log_probabilities + np.log(self.label_shares))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        own = {"log_probabilities": self.log_probabilities, "label_shares": self.label_shares}
        return {**self.places.to_arrays(), **own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Profile":
        """The member that these arrays are of."""
        return cls(Places.from_arrays(arrays), arrays["log_probabilities"], arrays["label_shares"])


def smoothed(places: Places, all_counts: Float[np.ndarray, " G"]) -> LogProbabilities:
    """Return the model: the mean of a Dirichlet posterior of the symbols at each place.

    `p(x at place | y) = (count(place, x, y) + s q(x at place)) / (count(place, y) + s)`, q the distribution in all rows
    and s a multiple of its perplexity.

    Args:
        places: The symbols at places.
        all_counts: How often each stands in all rows.
    """
    place = places.place
    shape = len(np.unique(place)), len(place)
    one_each = scipy.sparse.csr_matrix((np.ones(len(place)), (place, np.arange(len(place)))), shape=shape)
    background = (all_counts + 0.5) / (one_each @ (all_counts + 0.5))[place]
    perplexity = np.exp(-(one_each @ (background * np.log(background))))
    strength = STRENGTH * perplexity[place][:, None]

    def log_probabilities(counts: Float[np.ndarray, "G K"]) -> Float[np.ndarray, "G K"]:
        return np.log((counts + strength * background[:, None]) / ((one_each @ counts)[place] + strength))

    return log_probabilities
