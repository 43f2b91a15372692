"""How well each label is predicted."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class LabelReport(NamedTuple):
    """Figures of each label. Macro averages are means over labels that have a row or are predicted.

    Args:
        precision: The share of rows predicted to have the label that have it; 0 where there are none.
        recall: The share of rows of the label that are predicted to have it; 0 where there are none.
        f1: The harmonic mean of the two.
        support: The number of rows of the label.
        predicted: The number of rows predicted to have it.
        macro_f1: The mean of F1 over labels.
        balanced_accuracy: The mean of recall over labels that have a row.
    """

    precision: Float[np.ndarray, " K"]
    recall: Float[np.ndarray, " K"]
    f1: Float[np.ndarray, " K"]
    support: Int[np.ndarray, " K"]
    predicted: Int[np.ndarray, " K"]
    macro_f1: float
    balanced_accuracy: float

    def figures(self, label: int) -> tuple[str, str, str]:
        """Precision, recall and F1 of a label, and - where there is no row that they could be of."""
        support, predicted = self.support[label], self.predicted[label]
        known = predicted > 0, support > 0, support + predicted > 0
        values = self.precision[label], self.recall[label], self.f1[label]
        first, second, third = (f"{value:.3f}" if there else "-" for value, there in zip(values, known, strict=True))
        return first, second, third

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """The figures as plain values."""
        parts = {name: getattr(self, name).tolist() for name in ("precision", "recall", "f1", "support", "predicted")}
        by_label = {label: {name: part[k] for name, part in parts.items()} for k, label in enumerate(names)}
        return {"macro_f1": self.macro_f1, "balanced_accuracy": self.balanced_accuracy, "by_label": by_label}


def label_report(confusion: Int[np.ndarray, "K K"]) -> LabelReport:
    """Precision, recall and F1 of every label.

    Args:
        confusion: The number of rows by label (first index) and predicted label (second).
    """
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    known = (support + predicted) > 0
    return LabelReport(
        precision,
        recall,
        f1,
        support,
        predicted,
        float(f1[known].mean()) if known.any() else 0.0,
        float(recall[support > 0].mean()) if support.any() else 0.0,
    )
