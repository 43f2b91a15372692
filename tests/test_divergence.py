"""Values that are not finite stop training, or their step is skipped; in every twin, and before anything reads them."""

import dataclasses
import math
from typing import ClassVar

import numpy as np
import pytest
from fake_backend import FakeBackend
from hypothesis import given
from hypothesis import strategies as st
from kills import final
from test_fit import DIMENSIONS, TRAINING, VALIDATION, Recorder, assert_same_weights, make_config
from toy import toy_config, toy_table
from toy_runs import train, with_training

from seqssvae.backend import ELBOTerms, StepTotals, get_backend
from seqssvae.config import ObjectiveConfig
from seqssvae.data.batches import evaluation_batches
from seqssvae.data.buckets import bounded_size
from seqssvae.data.prepare import prepare_table
from seqssvae.errors import ConfigurationError, NonFiniteError, UserError
from seqssvae.inference.evaluate import evaluate, predict_proba
from seqssvae.runs.run import RunDirectory
from seqssvae.training.divergence import PENDING, StepReports
from seqssvae.training.fit import fit
from seqssvae.training.step_order import StepOrder


class Spoiled(FakeBackend):
    """Some of its steps are not finite, and move nothing; `finite` says which rows were to blame."""

    bad: ClassVar[dict[int, tuple[str, float]]] = {}

    def _train_step(self, step):
        if step.step not in self.bad:
            return super()._train_step(step)
        kept, moments, number = self.get_weights(), {name: m.copy() for name, m in self.moments.items()}, self.step
        totals = super()._train_step(step)
        self.weights, self.moments, self.step = kept, moments, number
        name, value = self.bad[step.step]
        flags = [np.arange(len(batch.x)) != 1 for batch in (step.labelled, step.unlabelled) if batch]
        terms = totals.terms._replace(**{name: value}) if name in totals.terms._fields else totals.terms
        return totals._replace(loss=math.nan, terms=terms, finite=tuple(flags))


def spoiled(config, **bad):
    backend = Spoiled(config, DIMENSIONS)
    backend.bad = {int(name[1:]): value for name, value in bad.items()}
    return backend


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kl_z", math.inf, "the kl of z is inf and the training loss is nan"),
        ("reconstruction", -math.inf, "the reconstruction is -inf and"),
        ("loss", math.nan, "the training loss is nan"),
    ],
)
def test_step_term_and_rows_are_named(name, value, message):
    config = make_config(evaluation_interval=5)
    corpus = dataclasses.replace(TRAINING, lines=np.arange(60, dtype=np.int32) + 101, origin="train.tsv")
    step = next(
        scheduled.step
        for chunk in StepOrder(config, corpus).chunks(64)
        for scheduled in chunk.steps
        if scheduled.step.step == 7
    )
    rows = sorted(101 + int(batch.rows[1]) for batch in (step.labelled, step.unlabelled))
    with pytest.raises(UserError) as raised:
        fit(config, corpus, VALIDATION, spoiled(config, _7=(name, value), _8=(name, value)))
    assert message in str(raised.value)
    assert f"at step 8, in rows train.tsv:{rows[0]}, {rows[1]} (" in str(raised.value)
    assert "those of step 5)" in str(raised.value)


def test_steps_that_are_skipped_are_as_if_they_had_not_been():
    config = make_config(evaluation_interval=5, on_nonfinite="skip")
    with pytest.warns(
        UserWarning, match=r"1 of 5 steps were skipped: the kl of z is inf .* at step 8, in rows memory:"
    ):
        result = fit(config, TRAINING, VALIDATION, spoiled(config, _7=("kl_z", math.inf)))
    assert all(math.isfinite(record.training.loss) for record in result.records)
    with pytest.raises(UserError, match="at step 6, in rows"):
        fit(config, TRAINING, VALIDATION, spoiled(config, **{f"_{step}": ("kl_z", math.nan) for step in range(5, 10)}))


def test_memory_does_not_grow_with_the_steps_between_evaluations():
    config, alive, most = make_config(), 0, 0
    step = next(StepOrder(config, TRAINING).chunks(1)).steps[0].step

    class Flags:
        """Flags of each row that know how many of them there are."""

        def __init__(self):
            nonlocal alive
            alive += 1

        def __del__(self):
            nonlocal alive
            alive -= 1

    nothing = ELBOTerms(*[0.5] * len(ELBOTerms._fields))
    reports = StepReports(TRAINING, "stop", 0, {})
    for number in range(0, 5 * PENDING, 64):
        chunk = range(number, number + 64)
        reports.add(
            [dataclasses.replace(step, step=one) for one in chunk],
            [StepTotals(float(one), 1.0, nothing, 8, 4, 40, (Flags(),)) for one in chunk],
        )
        most = max(most, alive)
    assert most <= PENDING + 64
    totals = reports.totals_at_evaluation()
    assert alive == 0
    np.testing.assert_array_equal(totals["loss"], np.arange(5 * PENDING))
    np.testing.assert_array_equal(totals["terms.kl_z"], np.full(5 * PENDING, 0.5))
    assert sum(array.nbytes for array in totals.values()) <= 5 * PENDING * 100
    resumed = StepReports(TRAINING, "stop", 0, totals)
    resumed.add([step], [StepTotals(-1.0, 1.0, nothing, 8, 4, 40)])
    np.testing.assert_array_equal(resumed.totals()["loss"], [*range(5 * PENDING), -1])


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_rows_are_named_however_many_steps_follow(on_nonfinite):
    config = make_config(evaluation_interval=3 * PENDING, epochs=1000, on_nonfinite=on_nonfinite)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, max_steps=3 * PENDING))
    backend, steps = spoiled(config, _7=("kl_z", math.inf)), []
    train = backend.train
    backend.train = lambda given: steps.extend(given) or train(given)
    message = r"the kl of z is inf .* at step 8, in rows memory:"
    if on_nonfinite == "skip":
        with pytest.warns(UserWarning, match=rf"1 of {3 * PENDING} steps were skipped: {message}"):
            record = fit(config, TRAINING, VALIDATION, backend).records[0]
        assert record.training.rows == sum(
            sum(int(batch.row_mask.sum()) for batch in (step.labelled, step.unlabelled) if batch)
            for step in steps
            if step.step != 7
        )
    else:
        with pytest.raises(UserError, match=rf"Training diverged: {message}"):
            fit(config, TRAINING, VALIDATION, backend)
        assert PENDING <= len(steps) < 2 * PENDING  # it stops where it is found


def test_what_new_steps_reported_is_not_waited_for():
    """A device that takes steps while more are sent to it may be some behind."""

    class OnDevice:
        def __init__(self, value, number):
            self.value, self.number = value, number

        def __float__(self):
            fetched.append(self.number)
            return self.value

    step, fetched = next(StepOrder(make_config(), TRAINING).chunks(1)).steps[0].step, []
    reports = StepReports(TRAINING, "stop", 0, {})
    for number in range(0, 3 * PENDING, 64):
        chunk = range(number, number + 64)
        numbers = [[OnDevice(0.5, one) for _ in range(2 + len(ELBOTerms._fields))] for one in chunk]
        reports.add(
            [dataclasses.replace(step, step=one) for one in chunk],
            [StepTotals(loss, norm, ELBOTerms(*terms), 8, 4, 40) for loss, norm, *terms in numbers],
        )
        assert max(fetched, default=-1) < max(number + 64 - PENDING // 2, 0)
    assert fetched
    assert len(reports.totals()["loss"]) == 3 * PENDING


def test_nothing_reads_weights_that_are_not_finite():
    class Overflowing(FakeBackend):
        def train(self, steps):
            totals = super().train(steps)
            if steps[-1].step > 5:
                self.weights["decoder.output.bias"][4] = np.inf
            return totals

        def evaluate(self, batch, seed):
            assert all(np.isfinite(value).all() for value in self.weights.values())
            return super().evaluate(batch, seed)

    config, recorder = make_config(evaluation_interval=5), Recorder()
    with pytest.raises(UserError, match=r"the weight decoder\.output\.bias is not finite after step 10 .* step 5\)"):
        fit(config, TRAINING, VALIDATION, Overflowing(config, DIMENSIONS), [recorder])
    assert recorder.states[-1].step == 5


def test_an_evaluation_names_term_and_rows():
    class Broken(FakeBackend):
        def evaluate(self, batch, seed):
            evaluation = super().evaluate(batch, seed)
            evaluation.terms.kl_z[np.isin(batch.rows, [3, 4])] = np.nan
            return evaluation

        def classify(self, x, source=None):
            return np.full_like(super().classify(x), np.nan)

    config = make_config()
    with pytest.raises(NonFiniteError, match="the kl of z is nan in rows memory:3, 4"):
        evaluate(Broken(config, DIMENSIONS), VALIDATION, config)
    with pytest.raises(NonFiniteError, match=r"log q\(y\|x\) is not a number in rows memory:0, 1, 2, 3, 4 and 15 more"):
        predict_proba(Broken(config, DIMENSIONS), VALIDATION, config)
    with pytest.raises(UserError, match=r"in validation after step .* the kl of z is nan in rows memory:3, 4"):
        fit(config, TRAINING, VALIDATION, Broken(config, DIMENSIONS))


EXTREMES = {
    "learning rate": {"optimizer": {"learning_rate": 1e30}},
    "plain descent": {"optimizer": {"name": "sgd", "learning_rate": 1e25, "clip_norm": 0.0}},
    "weight decay": {"optimizer": {"name": "adamw", "weight_decay": 1e30}},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("twin", "on_nonfinite", "extreme"),
    [
        *(("torch", on_nonfinite, extreme) for on_nonfinite in ("stop", "skip") for extreme in EXTREMES),
        ("jax", "stop", "learning rate"),
        pytest.param("jax", "skip", "plain descent", marks=pytest.mark.thorough),
    ],
)
def test_diverging_is_one_sentence_in_both_twins(twin, on_nonfinite, extreme):
    config = toy_config()
    sections = {
        name: dataclasses.replace(getattr(config, name), **fields) for name, fields in EXTREMES[extreme].items()
    }
    training = dataclasses.replace(config.training, on_nonfinite=on_nonfinite, epochs=3, buckets=1)
    config = dataclasses.replace(config, training=training, **sections)
    prepared = prepare_table(toy_table(), config)
    backend = get_backend(twin)(config, prepared.schema.dimensions)
    with pytest.raises(UserError, match=r"Training diverged: .* (after|at) step"):
        fit(config, prepared.training, prepared.validation, backend)


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_a_step_that_is_skipped_moves_neither_weights_nor_the_optimizer(twin):
    config = toy_config()
    training = dataclasses.replace(config.training, on_nonfinite="skip", buckets=1)
    config = dataclasses.replace(config, training=training)
    prepared = prepare_table(toy_table(), config)
    step = next(StepOrder(config, prepared.training).chunks(1)).steps[0].step
    backend = get_backend(twin)(config, prepared.schema.dimensions)
    backend.train([step])
    before, state = backend.get_weights(), backend.get_optimizer_state()
    (totals,) = backend.train([dataclasses.replace(step, beta=math.inf)])
    assert not math.isfinite(float(totals.loss))
    assert_same_weights(backend.get_weights(), before)
    assert_same_weights(backend.get_optimizer_state(), state)
    (totals,) = backend.train([step])
    assert math.isfinite(float(totals.loss))
    assert [np.asarray(flags).all() for flags in totals.finite] == [True, True]
    assert int(backend.get_optimizer_state()["step"]) == 2


def twin_whose_steps_are_not_finite(twin, bad):
    """A twin in which beta is infinite in these steps."""

    class Spoiling(get_backend(twin)):
        def train(self, steps):
            return super().train([dataclasses.replace(one, beta=math.inf) if one.step in bad else one for one in steps])

    return Spoiling


@pytest.mark.filterwarnings("ignore:.* steps were skipped")
@pytest.mark.parametrize(
    ("twin", "bad"),
    [
        ("torch", {1, 7, 9}),
        ("jax", {1, 7, 9}),
        ("torch", {6, 7, 8}),
        pytest.param("jax", {6, 7, 8}, marks=pytest.mark.thorough),
    ],
)
def test_a_run_that_skips_steps_and_is_stopped_midway_goes_on_to_the_same_bits(tmp_path, monkeypatch, twin, bad):
    """Steps are skipped before and after the checkpoint; or all are that were taken since the last evaluation."""
    monkeypatch.setattr("seqssvae.training.fit.CHUNK", 3)
    config = with_training(toy_config(), on_nonfinite="skip", buckets=1, evaluation_interval=6, max_steps=12)
    twin = twin_whose_steps_are_not_finite(twin, bad)
    state = train(tmp_path / "whole", config, twin)[0].state
    assert (state.step, int(state.optimizer["step"])) == (12, 12 - len(bad))
    with monkeypatch.context() as patch:
        patch.setattr(twin, "train", stopped_after(twin.train, 9))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", with_training(config, checkpoint_minutes=1e-9), twin)
    assert RunDirectory(tmp_path / "run").read_checkpoint().state.step == 9
    train(tmp_path / "run", config, twin, resume=tmp_path / "run")
    assert final(tmp_path / "run") == final(tmp_path / "whole")


def stopped_after(train, count):
    """Have training interrupted where this step is the next."""

    def taking(self, steps):
        if steps[0].step >= count:
            raise KeyboardInterrupt
        return train(self, steps)

    return taking


# Sizes


@given(st.integers(1, 2**31), st.integers(1, 10**6))
def test_a_batch_has_at_most_about_twice_as_many_places_as_there_are_rows(batch_size, rows):
    size = bounded_size(batch_size, rows)
    assert size == batch_size or size == 1024 or rows <= size < 2 * rows
    assert size <= batch_size


def test_huge_batches_take_no_more_memory_than_the_rows():
    config = make_config(batch_size=2_000_000_000, labelled_batch_size=2_000_000_000)
    (chunk, *_) = StepOrder(config, TRAINING).chunks(1)
    assert chunk.steps[0].step.unlabelled.x.shape[0] == 1024
    assert all(len(batch.x) == 1024 for batch in evaluation_batches(VALIDATION, 2_000_000_000, (10,)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batching": "alternate", "labelled_ratio": 1e9}, "above 0 and at most 1000"),
        ({"num_particles": 10**6}, "of at least 1 and at most 1000"),
    ],
)
def test_numbers_with_which_a_step_would_not_end_are_refused(fields, message):
    with pytest.raises(ConfigurationError, match=message):
        ObjectiveConfig(**fields)
