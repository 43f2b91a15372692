"""A linear classifier on symbols at places that learns from labels alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.linear import cross_validated_logistic
from seqssvae.recipes.places import Places
from seqssvae.recipes.rows import Learned, LearningRows, log_normalised

INVERSE_PENALTY = 0.1


@dataclass(frozen=True, eq=False)
class Positional:
    """Logistic regression on which symbol stands at which place.

    Args:
        places: The symbols at places, G in all.
        weight: Weights, by label.
        bias: By label.
    """

    places: Places
    weight: Float[np.ndarray, "K G"]
    bias: Float[np.ndarray, " K"]

    @classmethod
    def learn(cls, rows: LearningRows) -> Learned:
        """Learn from all labelled rows, and without each fold; rows without label tell what there is at places."""
        places = Places.learn(rows.all_rows, rows.vocabulary_size, rows.label_count)
        out_of_fold, weight, bias = cross_validated_logistic(places.count(rows.labelled), rows, INVERSE_PENALTY)
        return Learned(out_of_fold, cls(places, weight, bias))

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x)."""
        return log_normalised(self.places.count(rows) @ self.weight.T + self.bias)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        return {**self.places.to_arrays(), "weight": self.weight, "bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Positional":
        """The member that these arrays are of."""
        return cls(Places.from_arrays(arrays), arrays["weight"], arrays["bias"])
