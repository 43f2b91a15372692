"""A linear classifier on symbols at places that learns from labels alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.linear import fit_logistic
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
        features = places.count(rows.labelled)
        out_of_fold = np.zeros((len(rows.y), rows.label_count))
        for fold in range(rows.fold_count):
            kept, held_out = rows.folds != fold, rows.folds == fold
            weight, bias = fit_logistic(features[kept], rows.y[kept], rows.label_count, INVERSE_PENALTY)
            out_of_fold[held_out] = log_normalised(features[held_out] @ weight.T + bias)
        return Learned(out_of_fold, cls(places, *fit_logistic(features, rows.y, rows.label_count, INVERSE_PENALTY)))

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
