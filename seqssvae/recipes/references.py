"""What this tool competes with, by scikit-learn: classifiers on n-grams, with and without rows that have no label."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.semi_supervised import SelfTrainingClassifier

from seqssvae.backend import NO_LABEL
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import END
from seqssvae.recipes.rows import LearningRows

EM_ITERATIONS, PSEUDO_COUNT = 15, 0.1
THRESHOLD, ROUNDS = 0.75, 4
"""With these the competitors do better, on most sets that we have, than with scikit-learn's defaults."""

Reference = Callable[[Any, Int[np.ndarray, " N"], Any, Any], Int[np.ndarray, " M"]]
"""From counts of labelled rows, their labels, counts of rows without label and of further rows: the latter's labels."""


def logistic_regression(labelled: Any, y: Int[np.ndarray, " N"], unlabelled: Any, rows: Any) -> Any:
    """Logistic regression on TF-IDF, which learns from labelled rows alone."""
    weighted = TfidfTransformer(sublinear_tf=True).fit(labelled)
    model = LogisticRegression(C=10.0, max_iter=300).fit(weighted.transform(labelled), y)
    return model.predict(weighted.transform(rows))


def self_training(labelled: Any, y: Int[np.ndarray, " N"], unlabelled: Any, rows: Any) -> Any:
    """The same, which then labels the rows of which it is sure and learns from them, too (Yarowsky 1995)."""
    all_rows = scipy.sparse.vstack([labelled, unlabelled]).tocsr()
    weighted = TfidfTransformer(sublinear_tf=True).fit(all_rows)
    model = SelfTrainingClassifier(LogisticRegression(C=10.0, max_iter=300), threshold=THRESHOLD, max_iter=ROUNDS)
    model.fit(weighted.transform(all_rows), np.concatenate([y, np.full(unlabelled.shape[0], NO_LABEL)]))
    return model.predict(weighted.transform(rows))


def naive_bayes_em(labelled: Any, y: Int[np.ndarray, " N"], unlabelled: Any, rows: Any) -> Any:
    """Multinomial naive Bayes with EM over all rows (Nigam et al. 2000)."""
    model = MultinomialNB(alpha=PSEUDO_COUNT, fit_prior=False).fit(labelled, y)
    classes, count = model.classes_, unlabelled.shape[0]
    every_label = scipy.sparse.vstack([labelled, *[unlabelled] * len(classes)])
    targets = np.concatenate([y, np.repeat(classes, count)])
    for _ in range(EM_ITERATIONS if count else 0):
        weights = np.concatenate([np.ones(len(y)), model.predict_proba(unlabelled).T.ravel()])
        model = MultinomialNB(alpha=PSEUDO_COUNT, fit_prior=False).fit(every_label, targets, sample_weight=weights)
    return model.predict(rows)


REFERENCES: dict[str, Reference] = {
    "logistic regression on n-grams": logistic_regression,
    "naive Bayes on n-grams with EM": naive_bayes_em,
    "self-training on n-grams": self_training,
}
"""The competitors, by name."""


def cross_validate(reference: Reference, rows: LearningRows) -> Int[np.ndarray, " N"]:
    """The label that a competitor gives to each labelled row without having seen the row's fold."""
    predicted = np.empty_like(rows.y)
    for fold in range(rows.fold_count):
        kept = rows.without_fold(fold)
        predicted[rows.folds == fold] = predict(reference, kept, rows.in_fold(fold))
    return predicted


def predict(reference: Reference, rows: LearningRows, others: RaggedArray) -> Int[np.ndarray, " M"]:
    """The labels that a competitor that learned from some rows gives to others."""
    order = 1 if rows.symbols_are_words else 4
    counter = CountVectorizer(analyzer=lambda row: _ngrams(row, order), min_df=2 if len(rows.unlabelled) else 1)
    counts = counter.fit_transform([*rows.labelled, *rows.unlabelled])
    count = len(rows.labelled)
    return reference(counts[:count], rows.y, counts[count:], counter.transform(list(others)))


def _ngrams(row: Int[np.ndarray, " T"], order: int) -> list[tuple[int, ...]]:
    """The n-grams up to an order, the beginning and END of the row being symbols of their own where n is above 1."""
    symbols: Sequence[int] = row.tolist()
    inside = [(symbol,) for symbol in symbols if symbol != END]
    padded = [0, *symbols]
    longer = range(2, order + 1)
    return inside + [tuple(padded[i : i + n]) for n in longer for i in range(len(padded) - n + 1)]


def accuracy(predicted: Int[np.ndarray, " N"], y: Int[np.ndarray, " N"]) -> Float[np.ndarray, ""]:
    """The share of labels that are right."""
    return np.mean(predicted == y)
