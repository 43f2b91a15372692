"""A linear classifier on n-grams that learns from labels alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.ngrams import NgramVocabulary
from seqssvae.recipes.rows import Learned, LearningRows, log_normalised

INVERSE_PENALTY = 10.0
ORDER_OF_WORDS, ORDER_OF_LETTERS = 1, 4


@dataclass(frozen=True, eq=False)
class Linear:
    """Logistic regression on TF-IDF weighted n-grams.

    Args:
        ngrams: The n-grams, G in all.
        inverse_frequency: The logarithm of how few rows have each.
        weight: Weights, by label and n-gram.
        bias: By label.
    """

    ngrams: NgramVocabulary
    inverse_frequency: Float[np.ndarray, " G"]
    weight: Float[np.ndarray, "K G"]
    bias: Float[np.ndarray, " K"]

    @classmethod
    def learn(cls, rows: LearningRows) -> Learned:
        """Learn from all labelled rows, and without each fold; rows without label tell how frequent n-grams are."""
        ngrams = bag_vocabulary(rows)
        counts = ngrams.count(rows.labelled)
        frequency = _rows_with(counts) + _rows_with(ngrams.count(rows.unlabelled))
        inverse = np.log((1 + len(rows.labelled) + len(rows.unlabelled)) / (1 + frequency)) + 1
        features = _weighted(counts, inverse)
        out_of_fold, weight, bias = cross_validated_logistic(features, rows, INVERSE_PENALTY)
        return Learned(out_of_fold, cls(ngrams, inverse, weight, bias))

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x)."""
        return log_normalised(_weighted(self.ngrams.count(rows), self.inverse_frequency) @ self.weight.T + self.bias)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        own = {"inverse_frequency": self.inverse_frequency, "weight": self.weight, "bias": self.bias}
        return {**self.ngrams.to_arrays(), **own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Linear":
        """The member that these arrays are of."""
        return cls(NgramVocabulary.from_arrays(arrays), arrays["inverse_frequency"], arrays["weight"], arrays["bias"])


def bag_vocabulary(rows: LearningRows) -> NgramVocabulary:
    """The n-grams of a bag: symbols where they are like words, else n-grams of up to four symbols."""
    order = ORDER_OF_WORDS if rows.symbols_are_words else ORDER_OF_LETTERS
    return NgramVocabulary.learn(rows.all_rows, rows.vocabulary_size, order)


def _rows_with(counts: scipy.sparse.csr_matrix) -> Float[np.ndarray, " G"]:
    return np.bincount(counts.indices, minlength=counts.shape[1]).astype(float)


def _weighted(counts: scipy.sparse.csr_matrix, inverse: Float[np.ndarray, " G"]) -> scipy.sparse.csr_matrix:
    """Sublinear TF-IDF with rows of length 1."""
    weighted = counts.copy()
    weighted.data = (1 + np.log(counts.data)) * inverse[counts.indices]
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return scipy.sparse.diags(1 / np.maximum(norms, 1e-12)) @ weighted


def cross_validated_logistic(
    features: scipy.sparse.csr_matrix, rows: LearningRows, inverse_penalty: float
) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, "K G"], Float[np.ndarray, " K"]]:
    """Fit a logistic regression to all labelled rows, and without each fold.

    Args:
        features: Features of the labelled rows, of shape `(N, G)`.
        rows: The rows.
        inverse_penalty: C, the inverse of the weight of the squares of the weights.

    Returns:
        log p(y|x) of each labelled row by what was learned without its fold; weights and biases by all rows.
    """
    out_of_fold = np.zeros((len(rows.y), rows.label_count))
    for fold in range(rows.fold_count):
        kept, held_out = rows.folds != fold, rows.folds == fold
        weight, bias = fit_logistic(features[kept], rows.y[kept], rows.label_count, inverse_penalty)
        out_of_fold[held_out] = log_normalised(features[held_out] @ weight.T + bias)
    return out_of_fold, *fit_logistic(features, rows.y, rows.label_count, inverse_penalty)


def fit_logistic(
    features: scipy.sparse.csr_matrix, y: Int[np.ndarray, " N"], label_count: int, inverse_penalty: float
) -> tuple[Float[np.ndarray, "K G"], Float[np.ndarray, " K"]]:
    """Fit a logistic regression.

    Args:
        features: Features of the rows, of shape `(N, G)`.
        y: Their labels.
        label_count: K.
        inverse_penalty: C, the inverse of the weight of the squares of the weights.

    Returns:
        Weights and biases of all labels; one that no row has is as improbable as makes no difference.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    present = np.unique(y)
    weight, bias = np.zeros((label_count, features.shape[1])), np.full(label_count, -10.0)
    if len(present) == 1 or not features.shape[1]:
        bias[present] = np.log(np.bincount(y)[present] / len(y))
        return weight, bias
    model = LogisticRegression(C=inverse_penalty, max_iter=300).fit(features, y)
    if len(present) == 2:  # which scikit-learn describes by one row
        weight[present] = np.concatenate([-model.coef_, model.coef_]) / 2
        bias[present] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    return weight, bias
