"""Precision, recall, F1 and calibration against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from seqssvae.inference.evaluate import count_confusion
from seqssvae.inference.label_report import label_report
from seqssvae.recipes.calibration import calibration_interval, expected_calibration_error, reliability


@given(st.integers(2, 5), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_figures_are_scikit_learns(label_count, pairs):
    y, predicted = (np.minimum(part, label_count - 1) for part in np.array(pairs).T)
    labels = np.arange(label_count)
    report = label_report(confusion_matrix(y, predicted, labels=labels))
    expected = precision_recall_fscore_support(y, predicted, labels=labels, zero_division=0)
    for figures, values in zip(report[:4], expected, strict=True):
        np.testing.assert_allclose(figures, values)
    macro = precision_recall_fscore_support(y, predicted, average="macro", zero_division=0)[2]
    assert report.macro_f1 == pytest.approx(macro)
    recalls = [np.mean(predicted[y == label] == label) for label in np.unique(y)]
    assert report.balanced_accuracy == pytest.approx(np.mean(recalls))
    if len(set(y)) > 1 and set(predicted) <= set(y):  # else scikit-learn warns
        assert report.balanced_accuracy == pytest.approx(balanced_accuracy_score(y, predicted))
    np.testing.assert_array_equal(report.predicted, np.bincount(predicted, minlength=label_count))


def predictions(rows=400, seed=0):
    """Probabilities of two labels, too sure of themselves, and labels."""
    generator = np.random.default_rng(seed)
    p = generator.uniform(0.02, 0.98, rows)
    y = (generator.random(rows) < 0.5 + 0.5 * (p - 0.5)).astype(int)
    return np.log(np.stack([1 - p, p], axis=1)), y


def test_counts_of_labels_and_predictions_are_scikit_learns():
    log_p, y = predictions()
    np.testing.assert_array_equal(count_confusion(y, log_p), confusion_matrix(y, log_p.argmax(axis=1)))


def test_reliability_is_scikit_learns_curve():
    """Of the most probable label: its confidence against whether it is right."""
    log_p, y = predictions()
    confidence, hits = np.exp(log_p).max(axis=1), log_p.argmax(axis=1) == y
    right, confidences = calibration_curve(hits, confidence, n_bins=10)
    curve = reliability(log_p, y)
    known = curve.rows > 0
    assert curve.rows.sum() == len(y)
    assert not known[:5].any()  # the most probable of two labels has at least one half
    assert np.isnan(curve.confidence[~known]).all()
    np.testing.assert_allclose(curve.confidence[known], confidences)
    np.testing.assert_allclose(curve.accuracy[known], right)
    gaps = np.abs(curve.confidence - curve.accuracy)[known]
    assert expected_calibration_error(log_p, y) == pytest.approx(np.average(gaps, weights=curve.rows[known]))


def test_the_interval_covers_what_more_rows_find():
    truth = expected_calibration_error(*predictions(200_000, seed=1))
    inside = 0
    for seed in range(20):
        low, high = calibration_interval(*predictions(400, seed=seed + 2), seed=seed, resamples=200)
        assert low < high
        inside += low < truth < high
    assert inside >= 17
    assert calibration_interval(*predictions(), seed=3) == calibration_interval(*predictions(), seed=3)
