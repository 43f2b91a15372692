"""Standard errors of metrics, against what rows of other weights would move them by."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.backend import NO_LABEL, ELBOTerms, Evaluation
from seqssvae.config import ObjectiveConfig
from seqssvae.inference.metrics import standard_error


def weighted(metric, evaluation, y, lengths, objective, weights):
    """The metric of rows that count as often as their weights say."""
    terms = evaluation.terms
    elbo = weights * (terms.reconstruction - terms.kl_z - terms.kl_y)
    if metric == "elbo":
        return elbo.sum() / (weights * lengths).sum()
    has_label = y != NO_LABEL
    of_label = np.array([row[max(label, 0)] for row, label in zip(evaluation.log_q_y, y, strict=True)])
    counts = weights * has_label
    if metric == "accuracy":
        return (counts * (evaluation.log_q_y.argmax(1) == y)).sum() / counts.sum()
    classification = -(counts * of_label).sum() / counts.sum()
    if metric == "classification":
        return classification
    if objective.name == "classifier":
        return classification
    return objective.alpha * classification - elbo.sum() / weights.sum()


@pytest.mark.parametrize("name", ["ssvae", "classifier"])
@pytest.mark.parametrize("metric", ["accuracy", "classification", "elbo", "loss"])
@given(
    rows=st.integers(2, 30),
    labels=st.integers(2, 4),
    share=st.floats(0, 1),
    alpha=st.floats(0.1, 50),
    seed=st.integers(0, 2**31),
)
def test_a_standard_error_is_the_root_of_the_squares_of_what_each_row_moves_the_metric_by(
    metric, name, rows, labels, share, alpha, seed
):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, labels))
    evaluation = Evaluation(
        ELBOTerms(*generator.normal(size=(len(ELBOTerms._fields), rows))),
        logits - np.logaddexp.reduce(logits, 1)[:, None],
    )
    y = np.where(generator.random(rows) < share, generator.integers(0, labels, rows), NO_LABEL)
    y[0] = 0
    lengths, objective = generator.integers(1, 9, rows), ObjectiveConfig(name=name, alpha=alpha)
    moved = []
    for row in range(rows):
        more, less = np.ones(rows), np.ones(rows)
        more[row], less[row] = 1 + 1e-5, 1 - 1e-5
        higher, lower = (weighted(metric, evaluation, y, lengths, objective, weights) for weights in (more, less))
        moved.append((higher - lower) / 2e-5)
    expected = math.sqrt(sum(by**2 for by in moved))
    if metric == "accuracy":
        expected = max(expected, 1 / np.sum(y != NO_LABEL))
    assert standard_error(metric, evaluation, y, lengths, objective) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_the_standard_error_of_a_share_is_the_textbooks():
    log_q_y = np.log(np.tile([0.8, 0.2], (50, 1)))
    y = np.repeat([0, 1, NO_LABEL], [30, 10, 10])
    evaluation = Evaluation(ELBOTerms(*np.zeros((len(ELBOTerms._fields), 50))), log_q_y)
    error = standard_error("accuracy", evaluation, y, np.ones(50, int), ObjectiveConfig())
    assert error == pytest.approx(math.sqrt(0.75 * 0.25 / 40))


@pytest.mark.parametrize("rows", [1, 4, 50])
def test_one_row_is_no_difference_where_all_are_right(rows):
    evaluation = Evaluation(
        ELBOTerms(*np.zeros((len(ELBOTerms._fields), rows))), np.log(np.tile([0.8, 0.2], (rows, 1)))
    )
    error = standard_error("accuracy", evaluation, np.zeros(rows, int), np.ones(rows, int), ObjectiveConfig())
    assert error == pytest.approx(1 / rows)
