"""The order of training steps: what an epoch is, which batches a step has, and where evaluations are due."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import Config, ConsistencyConfig, ObjectiveConfig, TrainingConfig
from seqssvae.data.batches import BatchStream
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError
from seqssvae.training.fit import CHUNK
from seqssvae.training.step_order import StepOrder, count_steps, training_steps

SEEDS = st.integers(0, 2**31 - 1)


def corpus_of(count, labelled=0, longest=3):
    """Rows of up to so many symbols with END, the first of which have a label."""
    sequences = [[4] * (2 + row % (longest - 1)) + [3] for row in range(count)]
    return Corpus.from_sequences(sequences, [row % 2 if row < labelled else -1 for row in range(count)])


def as_lists(batches):
    return [None if batch is None else (batch.x.tolist(), batch.y.tolist(), batch.rows.tolist()) for batch in batches]


def streams(labelled_rows, unlabelled_rows, seed=0):
    corpus = corpus_of(labelled_rows + unlabelled_rows)
    rows = np.arange(labelled_rows + unlabelled_rows)
    parts = (rows[:labelled_rows], rows[labelled_rows:])
    return tuple(BatchStream(corpus, part, 2, (3,), seed) if len(part) else None for part in parts)


def pattern(steps):
    return ["".join(name for name, batch in zip("LU", step, strict=True) if batch is not None) for step in steps]


@pytest.mark.parametrize(
    ("batching", "ratio", "expected"),
    [
        ("joint", 1.0, "LU LU LU LU"),
        ("joint", 0.5, "LU U LU U"),
        ("joint", 0.3, "LU U U LU"),
        ("alternate", 1.0, "L U L U L U L U"),
        ("alternate", 0.5, "L U U L U U"),
        ("alternate", 1.5, "L L U L U L L U L U"),
    ],
)
def test_steps_of_an_epoch(batching, ratio, expected):
    labelled, unlabelled = streams(6, 8)
    objective = ObjectiveConfig(batching=batching, labelled_ratio=ratio)
    assert pattern(training_steps(labelled, unlabelled, objective, 0)) == expected.split()


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["joint", "alternate"]),
    st.sampled_from([0.07, 0.1, 0.3, 0.5, 0.9, 1.0, 1.7, 3.0]),
    st.integers(1, 5),
)
def test_streams_go_on_over_epochs(labelled_rows, unlabelled_rows, batching, ratio, epochs):
    if batching == "joint" and ratio > 1:
        ratio = 1 / ratio
    labelled, unlabelled = streams(labelled_rows, unlabelled_rows)
    objective = ObjectiveConfig(batching=batching, labelled_ratio=ratio)
    steps = [step for epoch in range(epochs) for step in training_steps(labelled, unlabelled, objective, epoch)]
    found_labelled, found_unlabelled = (
        [batch for batch in part if batch is not None] for part in zip(*steps, strict=True)
    )
    assert as_lists(found_unlabelled) == as_lists(batch for epoch in range(epochs) for batch in unlabelled.epoch(epoch))
    due = -(-len(found_unlabelled) * Fraction(str(ratio)) // 1)
    assert len(found_labelled) == due
    going_on = labelled.starting_at(0)
    assert as_lists(found_labelled) == as_lists(next(going_on) for _ in found_labelled)
    assert len(steps) == count_steps(labelled, unlabelled, objective, epochs)
    if batching == "alternate":
        assert set(pattern(steps)) <= {"L", "U"}
    else:
        assert set(pattern(steps)) <= {"LU", "U"}


def test_ratio_is_exactly_the_decimal_fraction():
    labelled, unlabelled = streams(2, 200)  # in floating point, 0.07 * 100 is above 7
    objective = ObjectiveConfig(batching="alternate", labelled_ratio=0.07)
    assert count_steps(labelled, unlabelled, objective, 1) == 107
    assert pattern(training_steps(labelled, unlabelled, objective, 0)).count("L") == 7


def test_epoch_is_the_same_when_training_resumes_there():
    objective = ObjectiveConfig(batching="alternate", labelled_ratio=0.7)
    running = streams(7, 9)
    for epoch in range(3):
        list(training_steps(*running, objective, epoch))
    expected = [as_lists(step) for step in training_steps(*running, objective, 3)]
    assert [as_lists(step) for step in training_steps(*streams(7, 9), objective, 3)] == expected


def test_one_kind_of_rows_alone():
    labelled, _ = streams(4, 0)
    assert pattern(training_steps(labelled, None, ObjectiveConfig(), 0)) == ["L", "L"]
    assert count_steps(labelled, None, ObjectiveConfig(), 3) == 6
    _, unlabelled = streams(0, 6)
    assert pattern(training_steps(None, unlabelled, ObjectiveConfig(), 0)) == ["U", "U", "U"]
    assert count_steps(None, unlabelled, ObjectiveConfig(batching="alternate"), 2) == 6


def test_classifier_sees_each_labelled_row_once_and_no_other():
    labelled, unlabelled = streams(4, 6)
    objective = ObjectiveConfig(name="classifier")
    steps = list(training_steps(labelled, unlabelled, objective, 1))
    assert pattern(steps) == ["L", "L"]
    assert as_lists(batch for batch, _ in steps) == as_lists(labelled.epoch(1))
    assert count_steps(labelled, unlabelled, objective, 5) == 10


def test_classifier_with_a_consistency_term_sees_the_rows_without_a_label_too():
    labelled, unlabelled = streams(4, 6)
    term = ConsistencyConfig(weight=0.5)
    for batching in ("joint", "alternate"):
        ours, theirs = (ObjectiveConfig(name, batching=batching, consistency=term) for name in ("classifier", "ssvae"))
        expected = pattern(training_steps(labelled, unlabelled, theirs, 1))
        assert pattern(training_steps(labelled, unlabelled, ours, 1)) == expected
        assert count_steps(labelled, unlabelled, ours, 5) == count_steps(labelled, unlabelled, theirs, 5)


@pytest.mark.parametrize("name", ["classifier", "ssvae"])
def test_nothing_to_learn_from(name):
    _, unlabelled = streams(0, 6)
    with pytest.raises(ConfigurationError, match=f"objective.name: {name} has no rows to learn from; label some rows"):
        training_steps(None, unlabelled if name == "classifier" else None, ObjectiveConfig(name=name), 0)


# The steps of a run

TRAINING = corpus_of(60, labelled=12, longest=8)


def make_config(**training):
    return Config(
        training=TrainingConfig(**{"epochs": 4, "batch_size": 8, "labelled_batch_size": 4, "buckets": 2, **training})
    )


def test_no_epoch_is_drawn_after_the_last_step(monkeypatch):
    order = StepOrder(make_config(epochs=1000, max_steps=3), TRAINING)
    drawn = []
    batches = order._batches
    monkeypatch.setattr(order, "_batches", lambda epoch: drawn.append(epoch) or batches(epoch))
    assert sum(len(chunk.steps) for chunk in order.chunks(CHUNK)) == 3
    assert drawn == [0]


@pytest.mark.parametrize("interval", [0, 2, 5])
@pytest.mark.parametrize("most", range(1, 9))
def test_chunks_end_where_an_evaluation_is_due(most, interval):
    order = StepOrder(make_config(epochs=2, max_steps=4, evaluation_interval=interval), TRAINING)
    chunks = list(order.chunks(most))
    assert [scheduled.step.step for chunk in chunks for scheduled in chunk.steps] == list(range(4))
    assert all(0 < len(chunk.steps) <= most for chunk in chunks)
    ends = [chunk.steps[-1].step.step + 1 for chunk in chunks if chunk.ends_segment]
    of_epochs = [scheduled.step.step + 1 for chunk in chunks for scheduled in chunk.steps if scheduled.ends_epoch]
    assert ends == sorted({*([step for step in (2, 4) if interval == 2] if interval else of_epochs), 4})


@pytest.mark.parametrize(("symbols", "dispatched"), [(1, 1), (60, 1), (150, 1), (60, 3), (1, 100), (10**9, 1)])
def test_chunks_of_large_batches_have_few_steps(monkeypatch, symbols, dispatched):
    monkeypatch.setattr("seqssvae.training.step_order.SYMBOLS_AT_ONCE", symbols)
    order = StepOrder(make_config(epochs=9, evaluation_interval=8, steps_per_dispatch=dispatched), TRAINING)
    chunks = list(order.chunks(5))
    places = [
        [sum(batch.x.size for batch in (of.step.labelled, of.step.unlabelled) if batch) for of in chunk.steps]
        for chunk in chunks
    ]
    assert [of.step.step for chunk in chunks for of in chunk.steps] == list(range(order.total_steps))
    for chunk, sizes in zip(chunks, places, strict=True):
        full = sum(sizes) >= symbols and len(sizes) >= min(dispatched, 5)
        assert chunk.ends_segment or full or len(sizes) == 5
        assert sum(sizes[:-1]) < symbols or len(sizes) <= min(dispatched, 5)
    ends = list(itertools.accumulate(len(chunk.steps) for chunk in chunks))
    resumed = order.chunks(5, ends[0], chunks[0].steps[-1].epoch, chunks[0].steps[-1].epoch_step)
    assert [len(chunk.steps) for chunk in resumed] == [len(chunk.steps) for chunk in chunks[1:]]


def test_the_order_of_rows_is_a_function_of_seed_and_epoch():
    def rows(seed):
        chunks = list(StepOrder(make_config(seed=seed, epochs=2), TRAINING).chunks(CHUNK))
        assert all(chunk.ends_segment for chunk in chunks)
        return [[scheduled.step.unlabelled.rows.tolist() for scheduled in chunk.steps] for chunk in chunks]

    first, again, other = rows(1), rows(1), rows(2)
    assert first == again
    assert first[0] != other[0]
    assert first[0] != first[1]


def test_rows_of_either_kind_are_in_an_order_of_their_own():
    """Or else the same places would meet in every epoch: with as many of either kind, first with first."""
    config = make_config(batch_size=4, epochs=1)
    (chunk,) = StepOrder(config, corpus_of(24, labelled=12, longest=2)).chunks(CHUNK)
    steps = [scheduled.step for scheduled in chunk.steps]
    labelled, unlabelled = (
        [row for step in steps for row in batch(step).rows.tolist()]
        for batch in (lambda step: step.labelled, lambda step: step.unlabelled)
    )
    assert sorted(labelled) == list(range(12))
    assert [row - 12 for row in unlabelled] != labelled
