"""The labels that a fitted estimator predicts."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from seqssvae.config.checks import check_number
from seqssvae.data.in_memory import is_collection, read_labels
from seqssvae.errors import DataError
from seqssvae.estimator.fitted import FittedMixin, Sequences
from seqssvae.recipes.predictors import PredictionMethod, predict_log_proba


class PredictionMixin(FittedMixin):
    """Mixin of an estimator that predicts labels."""

    def predict_proba(
        self, X: Sequences, source: Sequences | None = None, method: PredictionMethod | None = None
    ) -> Float[np.ndarray, "N K"]:
        """Return the probability of each label, with a column for each entry of `classes_`.

        Args:
            X: Sequences: texts, or lists of symbols.
            source: The source of each, if the estimator was fitted with sources.
            method: `classifier` for q(y|x) of the network, `generative` for p(y|x) by Bayes' rule from its generator,
                `combined` for all that was learned; None for `combined` with `recipe="auto"`, else `classifier`.
        """
        fitted = self._get_fitted()
        probabilities = np.exp(predict_log_proba(fitted, fitted.encode(X, source), method))
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict_log_proba(
        self, X: Sequences, source: Sequences | None = None, method: PredictionMethod | None = None
    ) -> Float[np.ndarray, "N K"]:
        """Return the logarithm of `predict_proba`; arguments are the same."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, source, method))

    def predict(
        self,
        X: Sequences,
        source: Sequences | None = None,
        method: PredictionMethod | None = None,
        abstain_below: float | None = None,
    ) -> np.ndarray:
        """Return the most probable label of each sequence.

        Args:
            X: Sequences: texts, or lists of symbols.
            source: The source of each, if the estimator was fitted with sources.
            method: As of `predict_proba`.
            abstain_below: Where no label is as probable as this, the marker of a missing label is returned; None to
                give each sequence a label.

        Raises:
            ConfigurationError: If `abstain_below` is no probability.
        """
        probabilities = self.predict_proba(X, source, method)
        labels = self.classes_[probabilities.argmax(axis=1)]
        if abstain_below is None:
            return labels
        check_number("abstain_below", abstain_below, 0.0, 1.0)
        labels = labels.astype(object)
        labels[probabilities.max(axis=1) < abstain_below] = None if is_collection(self.missing) else self.missing
        return labels

    def score(self, X: Sequences, y: Iterable[Any], source: Sequences | None = None) -> float:
        """Return the accuracy over the sequences that have a label.

        Args:
            X: Sequences: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one.
            source: The source of each, if the estimator was fitted with sources.

        Raises:
            DataError: If no sequence has a label.
        """
        predicted = self.predict(X, source)
        values = read_labels(y, len(predicted), self.missing)
        hits = [label == value for label, value in zip(predicted, values, strict=True) if value is not None]
        if not hits:
            raise DataError("y has no label to score the predictions by.")
        return float(np.mean(hits))
