"""The training loop, with a fast double for the twins."""

import dataclasses
import math

import numpy as np
import pytest
from fake_backend import CONSISTENCY, FakeBackend
from fit_problems import (
    DIMENSIONS,
    TRAINING,
    VALIDATION,
    assert_same_weights,
    build,
    make_config,
    make_corpus,
    with_objective,
)

from seqssvae.backend import NO_LABEL, StepTotals
from seqssvae.config import BetaConfig, ConsistencyConfig, OptimizerConfig
from seqssvae.data.batches import evaluation_batches
from seqssvae.errors import ConfigurationError, UserError
from seqssvae.inference.evaluate import evaluate
from seqssvae.training.fit import CHUNK, fit
from seqssvae.training.progress_lines import ProgressLines
from seqssvae.training.state import Observer
from seqssvae.training.step_order import StepOrder, total_steps


class Recorder(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.states = []

    def started(self, total_steps, state):
        self.events.append(("started", total_steps))

    def advanced(self, step, epoch, rows):
        self.events.append(("advanced", step))

    def evaluated(self, record, state):
        self.events.append(("evaluated", record.step))
        self.states.append(state)

    def finished(self, state):
        self.events.append(("finished", state.step))


def test_training_learns_the_labels_and_the_symbols():
    config = make_config(epochs=20)
    backend = build(config)
    result = fit(config, TRAINING, VALIDATION, backend)
    first, last = result.records[0].validation, result.records[-1].validation
    assert first.accuracy <= last.accuracy >= 0.9
    assert last.classification < first.classification
    assert last.elbo_per_symbol > first.elbo_per_symbol
    assert last.elbo == pytest.approx(last.reconstruction - last.kl_z - last.kl_y)
    assert last.bits_per_symbol == pytest.approx(-last.elbo_per_symbol / math.log(2))
    assert last.loss == pytest.approx(-last.elbo + config.objective.alpha * last.classification)
    assert last.elbo * last.rows == pytest.approx(last.elbo_per_symbol * last.symbols)
    assert (last.rows, last.labelled_rows, last.symbols) == (20, 20, int(VALIDATION.lengths.sum()))


def test_validation_is_the_evaluation_of_the_validation_rows_with_the_seed_and_buckets_of_training():
    config = make_config(epochs=1, seed=3)
    backend = build(config)
    record = fit(config, TRAINING, VALIDATION, backend).records[-1]
    training, buckets = config.training, StepOrder(config, TRAINING).buckets
    batches = list(evaluation_batches(VALIDATION, training.batch_size, buckets, training.batch_symbols))
    evaluation = evaluate(backend, VALIDATION, config, seed=3, batches=batches)
    assert (record.validation, record.standard_error) == (evaluation.metrics, evaluation.standard_error)


def test_training_metrics_are_means_over_the_rows_since_the_last_evaluation():
    config = make_config(epochs=1)
    backend, taken = build(config), []
    original = backend.train
    backend.train = lambda steps: taken.extend(totals := original(steps)) or totals
    record = fit(config, TRAINING, VALIDATION, backend).records[0]
    terms = [total.terms for total in taken]
    rows = sum(total.rows for total in taken)
    assert record.training.rows == rows
    assert record.training.reconstruction == pytest.approx(sum(term.reconstruction for term in terms) / rows)
    classification = sum(term.classification for term in terms) / sum(total.labelled_rows for total in taken)
    assert record.training.classification == pytest.approx(classification)
    assert record.training.loss == pytest.approx(np.mean([total.loss for total in taken]))
    assert record.gradient_norm == pytest.approx(np.mean([total.gradient_norm for total in taken]))
    assert record.training.accuracy is None
    assert record.training.consistency is None


def test_consistency_is_a_mean_over_the_rows_without_a_label():
    config = with_objective(make_config(epochs=1), consistency=ConsistencyConfig(3.0))
    record = fit(config, TRAINING, VALIDATION, build(config)).records[0]
    assert 0 < record.training.labelled_rows < record.training.rows
    assert record.training.consistency == pytest.approx(CONSISTENCY)
    assert record.validation.consistency is None
    alone = with_objective(config, name="classifier")
    assert fit(alone, TRAINING, VALIDATION, build(alone)).records[0].training.consistency == pytest.approx(CONSISTENCY)


@pytest.mark.parametrize("batching", ["joint", "alternate"])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(batching):
    def weights(seed):
        config = with_objective(make_config(seed=seed), batching=batching)
        return fit(config, TRAINING, VALIDATION, build(config)).state.weights

    assert_same_weights(weights(3), weights(3))
    assert not np.array_equal(weights(3)["decoder.label_bias"], weights(4)["decoder.label_bias"])


@pytest.mark.parametrize(
    ("interval", "batching", "ratio", "standard_errors"),
    [(0, "joint", 1.0, 0.0), (4, "joint", 0.4, 0.5), (5, "alternate", 0.3, 1.0)],
)
def test_resuming_from_any_evaluation_ends_in_the_same_weights(interval, batching, ratio, standard_errors):
    config = make_config(evaluation_interval=interval, standard_errors=standard_errors)
    config = with_objective(config, batching=batching, labelled_ratio=ratio)
    optimizer = OptimizerConfig(learning_rate=0.05, schedule="cosine", warmup_steps=3)
    config = dataclasses.replace(config, optimizer=optimizer)
    recorder = Recorder()
    whole = fit(config, TRAINING, VALIDATION, build(config), [recorder])
    assert len(recorder.states) >= 4
    for state in recorder.states:
        rest = fit(config, TRAINING, VALIDATION, build(config), resume=state)
        assert_same_weights(rest.state.weights, whole.state.weights)
        assert_same_weights(rest.state.best_weights, whole.state.best_weights)
        assert_same_weights(rest.state.optimizer, whole.state.optimizer)
        assert (rest.state.step, rest.state.best_step) == (whole.state.step, whole.state.best_step)
        assert (rest.state.waited, rest.state.best_error) == (whole.state.waited, whole.state.best_error)
        skipped = len(whole.records) - len(rest.records)
        assert [r._replace(seconds=0) for r in rest.records] == [r._replace(seconds=0) for r in whole.records[skipped:]]


@pytest.mark.parametrize("lost", ["weights", "optimizer", "epoch_step", "step"])
def test_resuming_without_a_part_of_the_state_ends_elsewhere(lost):
    config = make_config(evaluation_interval=4)
    recorder = Recorder()
    whole = fit(config, TRAINING, VALIDATION, build(config), [recorder])
    state = recorder.states[1]
    fresh = build(config)
    replacement = {
        "weights": fresh.get_weights(),
        "optimizer": fresh.get_optimizer_state(),
        "epoch_step": 0,
        "step": state.step - 1,
    }[lost]
    rest = fit(config, TRAINING, VALIDATION, build(config), resume=dataclasses.replace(state, **{lost: replacement}))
    assert not np.array_equal(rest.state.weights["decoder.label_bias"], whole.state.weights["decoder.label_bias"])


def test_evaluations_come_after_each_epoch_or_after_so_many_steps_and_at_the_end():
    per_epoch = total_steps(make_config(epochs=1), TRAINING)

    def evaluated(**training):
        config = make_config(**training)
        return [record.step for record in fit(config, TRAINING, VALIDATION, build(config)).records]

    assert evaluated() == [per_epoch * epoch for epoch in (1, 2, 3, 4)]
    assert evaluated(evaluation_interval=5, max_steps=12) == [5, 10, 12]
    assert evaluated(max_steps=per_epoch + 1) == [per_epoch, per_epoch + 1]


def test_steps_carry_their_number_beta_and_learning_rate():
    config = dataclasses.replace(
        with_objective(
            make_config(max_steps=8),
            beta=BetaConfig(floor=0.2, maximum=1.0, steps=4),
            consistency=ConsistencyConfig(3.0, steps=2),
        ),
        optimizer=OptimizerConfig(learning_rate=0.1, schedule="linear"),
    )
    backend, steps = build(config), []
    original = backend.train
    backend.train = lambda taken: steps.extend(taken) or original(taken)
    record = fit(config, TRAINING, VALIDATION, backend).records[-1]
    assert [step.step for step in steps] == list(range(8))
    np.testing.assert_allclose([step.beta for step in steps], [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    np.testing.assert_allclose([step.consistency for step in steps], [0, 1.5, 3, 3, 3, 3, 3, 3])
    np.testing.assert_allclose([step.learning_rate for step in steps], 0.1 * (1 - np.arange(8) / 8))
    assert (record.beta, record.learning_rate) == (steps[-1].beta, steps[-1].learning_rate)


def test_joint_steps_hold_both_kinds_of_rows_in_few_shapes_and_every_unlabelled_row_once_an_epoch():
    config = make_config(epochs=1)
    backend, steps = build(config), []
    original = backend.train
    backend.train = lambda taken: steps.extend(taken) or original(taken)
    fit(config, TRAINING, VALIDATION, backend)
    assert all(step.labelled is not None and step.unlabelled is not None for step in steps)
    assert len({(step.labelled.x.shape, step.unlabelled.x.shape) for step in steps}) <= config.training.buckets
    rows = np.concatenate([step.unlabelled.rows[step.unlabelled.row_mask] for step in steps])
    np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(TRAINING.y == NO_LABEL))


def test_the_backend_gets_chunks_and_observers_hear_of_them():
    config = make_config(epochs=1, batch_size=1, labelled_batch_size=1, evaluation_interval=CHUNK + 10)
    corpus = make_corpus(2 * CHUNK + 12, 12)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=2))
    backend, recorder = build(config), Recorder()
    total = total_steps(config, corpus)
    fit(config, corpus, VALIDATION, backend, [recorder])
    assert total == 4 * CHUNK
    assert backend.train_calls[:4] == [CHUNK, 10, CHUNK, 10]
    assert sum(backend.train_calls) == total
    first = [("advanced", CHUNK), ("advanced", CHUNK + 10), ("evaluated", CHUNK + 10)]
    assert recorder.events[:4] == [("started", total), *first]
    assert recorder.events[-2:] == [("evaluated", total), ("finished", total)]


def test_validation_without_labels_has_no_accuracy():
    config = make_config(metric="elbo")
    unlabelled = VALIDATION.with_labels(np.full(len(VALIDATION), NO_LABEL))
    last = fit(config, TRAINING, unlabelled, build(config)).records[-1].validation
    assert (last.accuracy, last.classification, last.labelled_rows) == (None, None, 0)
    assert last.loss == pytest.approx(-last.elbo)


def test_the_classifier_sees_labelled_rows_only_and_has_no_elbo():
    config = with_objective(make_config(epochs=30), name="classifier")
    backend, rows = build(config), set()
    original = backend.train

    def train(steps):
        assert all(step.unlabelled is None for step in steps)
        for step in steps:
            rows.update(step.labelled.rows[step.labelled.row_mask].tolist())
        return original(steps)

    backend.train = train
    last = fit(config, TRAINING, VALIDATION, backend).records[-1]
    assert rows == set(range(12))
    assert last.validation.elbo is last.training.elbo is None
    assert last.validation.loss == last.validation.classification


@pytest.mark.parametrize(
    ("training", "objective", "corpora", "message"),
    [
        ({}, {}, (TRAINING, VALIDATION.with_labels(np.full(20, -1))), "training.metric: accuracy needs labelled"),
        ({"metric": "elbo"}, {"name": "classifier"}, (TRAINING, VALIDATION), "training.metric: elbo does not go"),
        ({}, {"name": "classifier"}, (TRAINING.with_labels(np.full(60, -1)), VALIDATION), "needs labelled rows"),
        ({}, {}, (TRAINING.take(np.arange(0)), VALIDATION), "no row to train on"),
    ],
)
def test_what_cannot_work_is_said_before_training(training, objective, corpora, message):
    config = with_objective(make_config(**training), **objective)
    backend = build(config)
    with pytest.raises(ConfigurationError, match=message):
        fit(config, *corpora, backend)
    assert backend.train_calls == []


def test_a_loss_that_is_not_finite_stops_training_and_leaves_the_last_good_state():
    class Diverging(FakeBackend):
        def _train_step(self, step) -> StepTotals:
            totals = super()._train_step(step)
            return totals._replace(loss=math.nan) if step.step == 13 else totals

    config = make_config(evaluation_interval=5, epochs=10)
    recorder = Recorder()
    with pytest.raises(
        UserError, match=r"training loss is nan at step 14, in rows .* those of step 10\).*optimizer.learning_rate"
    ):
        fit(config, TRAINING, VALIDATION, Diverging(config, DIMENSIONS), [recorder])
    assert recorder.events[-1] == ("finished", 10)
    assert recorder.states[-1].step == 10
    assert all(np.isfinite(value).all() for value in recorder.states[-1].weights.values())


def test_a_finished_run_can_go_on_for_more_epochs():
    short, long = make_config(epochs=2), make_config(epochs=4)
    state = fit(short, TRAINING, VALIDATION, build(short)).state
    on = fit(long, TRAINING, VALIDATION, build(long), resume=state)
    whole = fit(long, TRAINING, VALIDATION, build(long))
    assert_same_weights(on.state.weights, whole.state.weights)
    assert fit(short, TRAINING, VALIDATION, build(short), resume=state).records == []


@pytest.mark.parametrize(
    ("platform", "given", "named"),
    [
        ("cpu", {}, set()),
        ("gpu", {}, {"training.deterministic: false", "training.matmul_precision: high"}),
        ("gpu", {"deterministic": False}, {"training.matmul_precision: high"}),
        ("gpu", {"matmul_precision": "high"}, {"training.deterministic: false"}),
        ("gpu", {"deterministic": False, "matmul_precision": "high"}, set()),
        ("gpu", {"deterministic": False, "precision": "float64"}, set()),
        ("tpu", {}, {"training.matmul_precision: high"}),
    ],
)
def test_what_settings_cost_on_an_accelerator_is_said_before_training(platform, given, named, capsys):
    config = make_config(epochs=1, **given)
    backend, heard = build(config), []
    backend.platform = platform

    class Listener(Observer):
        def noted(self, text):
            heard.append(text)

        def started(self, total_steps, state):
            heard.append("started")

    lines = ProgressLines("training")
    fit(config, TRAINING, VALIDATION, backend, [Listener(), lines])
    fit(config, TRAINING, VALIDATION, backend, [lines])
    assert heard[-1] == "started"
    fields = {"training.deterministic: false", "training.matmul_precision: high"}
    assert {field for field in fields if field in "".join(heard[:-1])} == named
    assert len(heard) == 1 + bool(named)
    printed = capsys.readouterr().err
    assert all(printed.count(text) == 1 for text in heard[:-1])
