"""Which evaluation's weights are kept, and when training stops early."""

import dataclasses
import math

import numpy as np
import pytest
from fake_backend import FakeBackend
from fit_problems import DIMENSIONS, TRAINING, VALIDATION, assert_same_weights, build, make_config, with_objective

from seqssvae.config import OptimizerConfig
from seqssvae.training.fit import fit


class Scripted(FakeBackend):
    """Gets the first so many of the validation labels right, evaluation by evaluation, with a given confidence."""

    script: list[tuple[int, float]]
    elbos: list[float] | None = None

    def evaluate(self, batch, seed):
        evaluation = super().evaluate(batch, seed)
        right, confidence = self.script[self.evaluations]
        terms = evaluation.terms
        if self.elbos is not None:
            terms = terms._replace(reconstruction=terms.reconstruction + self.elbos[self.evaluations])
        if set(batch.rows[batch.row_mask]) & {len(VALIDATION) - 1}:
            self.evaluations += 1
        wrong = batch.rows >= right
        log_q_y = np.full((len(batch.y), 2), math.log(1 - confidence))
        log_q_y[np.arange(len(batch.y)), np.where(wrong, 1 - batch.y, batch.y)] = math.log(confidence)
        return evaluation._replace(log_q_y=log_q_y, terms=terms)


def run_script(script, elbos=None, **training):
    config = make_config(epochs=len(script), batch_size=64, buckets=1, **{"standard_errors": 0.0, **training})
    backend = Scripted(config, DIMENSIONS)
    backend.script, backend.elbos, backend.evaluations = script, elbos, 0
    result = fit(config, TRAINING, VALIDATION, backend)
    return result, backend


def test_training_stops_after_patience_evaluations_without_a_better_metric_and_keeps_the_best_weights():
    script = [(5, 0.9), (12, 0.9), (11, 0.9), (12, 0.95), (10, 0.9), (20, 0.9)]
    result, backend = run_script([(right, 0.6) for right, _ in script], patience=3)
    assert [record.validation.accuracy for record in result.records] == [0.25, 0.6, 0.55, 0.6, 0.5]
    assert result.best is result.records[1]
    assert result.state.waited == 3
    assert result.state.best_step == result.records[1].step
    assert_same_weights(backend.get_weights(), result.state.best_weights)
    assert not np.array_equal(
        result.state.best_weights["decoder.label_bias"], result.state.weights["decoder.label_bias"]
    )


def test_between_equal_accuracies_the_lower_classification_loss_is_best_but_patience_runs_on():
    result, _ = run_script([(12, 0.7), (12, 0.8), (12, 0.6), (12, 0.65)], patience=3)
    losses = [record.validation.classification for record in result.records]
    assert min(losses) == losses[2]  # 12 of 20 are right: .6 is the best confidence
    assert result.best is result.records[2]
    assert (result.state.waited, len(result.records)) == (3, 4)


def test_of_evaluations_within_a_standard_error_of_the_best_a_better_trained_ones_weights_are_kept():
    script = [(14, 0.9), (12, 0.9), (9, 0.9), (13, 0.9), (12, 0.9), (10, 0.9)]  # of 20; a standard error is 2.05 rows
    result, backend = run_script(script, standard_errors=1.0, patience=6)
    assert [record.standard_error for record in result.records][:2] == pytest.approx(
        [math.sqrt(0.7 * 0.3 / 20), math.sqrt(0.6 * 0.4 / 20)]
    )
    assert result.best is result.records[4]
    assert result.state.best_step == result.records[4].step
    assert result.state.best[0] == 0.7
    assert result.state.best_error == result.records[0].standard_error
    assert result.state.waited == 5
    assert_same_weights(backend.get_weights(), result.state.best_weights)
    two, _ = run_script(script, standard_errors=2.0, patience=6)
    assert two.best is two.records[5]
    none, _ = run_script(script, patience=6)
    assert none.best is none.records[0]
    equal, _ = run_script([(20, 0.9), (20, 0.8)], standard_errors=1.0)  # no error at all, and the lower loss first
    assert equal.best is equal.records[1]


def test_what_is_hardly_worse_is_measured_from_the_best_and_not_from_what_was_kept():
    result, _ = run_script([(15, 0.9), (14, 0.9), (13, 0.9), (12, 0.9), (11, 0.9)], standard_errors=1.0)
    assert result.best is result.records[1]  # of 20; a standard error of .75 is 1.94 rows
    later, _ = run_script([(11, 0.9), (16, 0.9), (14, 0.9)], standard_errors=1.0)  # 1.79 rows; of the first's .55, 2.22
    assert later.best is later.records[1]


@pytest.mark.parametrize("metric", ["accuracy", "classification"])
def test_of_evaluations_within_a_standard_error_of_the_best_the_elbo_decides(metric):
    script = [(9, 0.9), (15, 0.9), (15, 0.9), (15, 0.9), (14, 0.9), (16, 0.9), (15, 0.9)]  # of .8, one is 1.79 rows
    elbos = [9.0, 3.0, 5.0, 4.0, 4.8, 4.5, 1.0]
    result, backend = run_script(script, elbos, standard_errors=1.0, metric=metric)
    assert result.best is result.records[2]
    assert result.state.best_step == result.records[2].step
    assert result.state.kept == (result.state.kept[0], result.records[2].validation.elbo_per_symbol)
    assert_same_weights(backend.get_weights(), result.state.best_weights)
    exact, _ = run_script(script, elbos, standard_errors=0.0, metric=metric)
    assert exact.best is exact.records[5]
    fell, _ = run_script([*script, (20, 0.9)], [*elbos, 0.5], standard_errors=1.0, metric=metric)
    assert fell.best is fell.records[7]  # nothing else is near it any more


def test_where_there_is_no_generator_the_last_of_them_is_kept():
    config = make_config(epochs=3, batch_size=64, buckets=1, standard_errors=1.0)
    backend = Scripted(with_objective(config, name="classifier"), DIMENSIONS)
    backend.script, backend.elbos, backend.evaluations = [(15, 0.9), (14, 0.9), (14, 0.9)], [3.0, 2.0, 1.0], 0
    result = fit(backend.config, TRAINING, VALIDATION, backend)
    assert result.best is result.records[2]


@pytest.mark.parametrize(("metric", "best"), [("classification", min), ("loss", min), ("elbo", max)])
def test_the_best_evaluation_is_the_one_the_metric_says(metric, best):
    config = dataclasses.replace(
        make_config(metric=metric, epochs=11, standard_errors=0.0), optimizer=OptimizerConfig(learning_rate=2.0)
    )
    result = fit(config, TRAINING, VALIDATION, build(config))
    values = [getattr(record.validation, metric) for record in result.records]
    assert values[-1] != best(values)
    assert result.best is result.records[values.index(best(values))]


@pytest.mark.parametrize("standard_errors", [0.0, 1.0])
def test_no_evaluation_decides_before_the_least_number_of_steps(standard_errors):
    script = [(20, 0.9), (10, 0.9), (9, 0.9), (11, 0.9), (10, 0.8), (9, 0.8)]
    early, _ = run_script([(right, 0.6) for right, _ in script], patience=2, standard_errors=0.0)
    assert early.state.best_step == early.records[0].step
    assert len(early.records) == 3
    steps = [record.step for record in early.records]
    settings = {"patience": 2, "standard_errors": standard_errors, "min_steps": steps[1] + 1}
    result, backend = run_script(script, **settings)
    assert result.records[3].validation.accuracy == result.state.best[0] == 0.55
    assert [record.validation.accuracy for record in result.records] == [1.0, 0.5, 0.45, 0.55, 0.5, 0.45]
    assert result.state.waited == 2
    assert result.state.best_step in ([record.step for record in result.records[2:]])
    assert_same_weights(backend.get_weights(), result.state.best_weights)
    if not standard_errors:
        assert result.best is result.records[3]
    # what ends before keeps its last weights, as without validation rows
    none, backend = run_script(script[:3], **{**settings, "min_steps": 10**6})
    assert none.state.best is None
    assert none.state.waited == 0
    assert none.best is none.records[-1]
    assert_same_weights(backend.get_weights(), none.state.weights)


def test_without_validation_rows_the_last_weights_are_best_and_patience_plays_no_part():
    config = make_config(patience=1)
    backend = build(config)
    result = fit(config, TRAINING, TRAINING.take(np.arange(0)), backend)
    assert len(result.records) == 4
    assert result.records[-1].validation is None
    assert_same_weights(result.state.best_weights, result.state.weights)
    assert result.best is result.records[-1]
