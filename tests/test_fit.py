"""The training loop, with a fast double for the twins."""

import dataclasses
import math

import numpy as np
import pytest
from fake_backend import CONSISTENCY, FakeBackend

from seqssvae.backend import NO_LABEL, Dimensions, StepTotals
from seqssvae.config import (
    BetaConfig,
    Config,
    ConsistencyConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    OptimizerConfig,
)
from seqssvae.data.batches import evaluation_batches
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError, UserError
from seqssvae.inference.evaluate import evaluate
from seqssvae.training.fit import CHUNK, Observer, fit
from seqssvae.training.step_order import StepOrder, total_steps

MODEL = ModelConfig(latent_size=2, encoder=EncoderConfig(embedding_size=3, hidden_size=2), decoder=DecoderConfig(3, 2))
DIMENSIONS = Dimensions(vocabulary_size=8, label_prior=(0.5, 0.5))


def make_corpus(rows: int, labelled: int, seed: int = 0) -> Corpus:
    """Rows of two classes: class 0 is mostly of the symbols 4 and 5, class 1 of 6 and 7."""
    generator = np.random.default_rng(seed)
    y = np.arange(rows, dtype=np.int32) % 2
    sequences = []
    for label in y:
        own, other = ((4, 5), (6, 7)) if label == 0 else ((6, 7), (4, 5))
        symbols = np.where(generator.random((generator.integers(3, 9), 1)) < 0.75, own, other)
        sequences.append(np.array([*symbols[np.arange(len(symbols)), generator.integers(0, 2, len(symbols))], 3]))
    y[labelled:] = NO_LABEL
    return Corpus.from_sequences(sequences, y)


def make_config(**training: object) -> Config:
    settings = {"epochs": 4, "batch_size": 8, "labelled_batch_size": 4, "buckets": 2, "patience": 0, **training}
    config = Config(model=MODEL, optimizer=OptimizerConfig(learning_rate=0.05))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **settings))


def with_objective(config: Config, **fields: object) -> Config:
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, **fields))


def build(config: Config) -> FakeBackend:
    return FakeBackend(config, DIMENSIONS)


class Recorder(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.states = []

    def started(self, total_steps, state):
        self.events.append(("started", total_steps))

    def advanced(self, step):
        self.events.append(("advanced", step))

    def evaluated(self, record, state):
        self.events.append(("evaluated", record.step))
        self.states.append(state)

    def finished(self, state):
        self.events.append(("finished", state.step))


TRAINING, VALIDATION = make_corpus(60, 12), make_corpus(20, 20, seed=1)


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


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
    batches = list(evaluation_batches(VALIDATION, None, training.batch_size, buckets, training.batch_symbols))
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
    assert fit(alone, TRAINING, VALIDATION, build(alone)).records[0].training.consistency is None


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


class Scripted(FakeBackend):
    """Gets the first so many of the validation labels right, evaluation by evaluation, with a given confidence."""

    script: list[tuple[int, float]]

    def evaluate(self, batch, seed):
        evaluation = super().evaluate(batch, seed)
        right, confidence = self.script[self.evaluations]
        if set(batch.rows[batch.row_mask]) & {len(VALIDATION) - 1}:
            self.evaluations += 1
        wrong = batch.rows >= right
        log_q_y = np.full((len(batch.y), 2), math.log(1 - confidence))
        log_q_y[np.arange(len(batch.y)), np.where(wrong, 1 - batch.y, batch.y)] = math.log(confidence)
        return evaluation._replace(log_q_y=log_q_y)


def run_script(script, **training):
    config = make_config(epochs=len(script), batch_size=64, buckets=1, **training)
    backend = Scripted(config, DIMENSIONS)
    backend.script, backend.evaluations = script, 0
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


def test_of_evaluations_within_a_standard_error_of_the_best_the_last_ones_weights_are_kept():
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


@pytest.mark.parametrize(("metric", "best"), [("classification", min), ("loss", min), ("elbo", max)])
def test_the_best_evaluation_is_the_one_the_metric_says(metric, best):
    config = dataclasses.replace(make_config(metric=metric, epochs=11), optimizer=OptimizerConfig(learning_rate=2.0))
    result = fit(config, TRAINING, VALIDATION, build(config))
    values = [getattr(record.validation, metric) for record in result.records]
    assert values[-1] != best(values)
    assert result.best is result.records[values.index(best(values))]


def test_without_validation_rows_the_last_weights_are_best_and_patience_plays_no_part():
    config = make_config(patience=1)
    backend = build(config)
    result = fit(config, TRAINING, TRAINING.take(np.arange(0)), backend)
    assert len(result.records) == 4
    assert result.records[-1].validation is None
    assert_same_weights(result.state.best_weights, result.state.weights)
    assert result.best is result.records[-1]


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
        UserError, match=r"training loss is nan at step 14 .* those of step 10\).*optimizer.learning_rate"
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
