"""For each label, a distribution of symbols at each place, which learns from all rows by EM."""

from collections.abc import Mapping

import numpy as np
import scipy.sparse
from jaxtyping import Float

from seqssvae.recipes.mixture import CountedMember, LogProbabilities
from seqssvae.recipes.places import Places
from seqssvae.recipes.rows import Learned, LearningRows

STRENGTH = 1.0
"""Of the prior that a label's symbols at a place have from those of all rows, in multiples of their perplexity."""


class Profile(CountedMember):
    """Symbols at places, independent of each other given the label (Stormo 2000, DNA binding sites)."""

    @classmethod
    def learn(cls, rows: LearningRows, unlabelled_shares: Float[np.ndarray, " K"]) -> Learned:
        """Learn from all rows, and without each fold of the labelled ones."""
        places = Places.learn(rows.all_rows, rows.vocabulary_size, rows.label_count)
        return cls.from_counts(places, rows, unlabelled_shares, lambda all_counts: smoothed(places, all_counts))

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
