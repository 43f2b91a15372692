import itertools
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.data import padding
from seqssvae.data.batches import BatchStream, evaluation_batches
from seqssvae.data.buckets import choose_buckets
from seqssvae.data.corpus import Corpus
from seqssvae.data.padding import pad

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=50)
SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**31 - 1)


def corpus_of(lengths, y=None, sources=None):
    """A corpus whose symbols tell the row: row r is r + 4, repeated, and END; sources have these lengths."""
    rows, *source = ([[row + 4] * (n - 1) + [3] for row, n in enumerate(of)] for of in (lengths, sources) if of)
    return Corpus.from_sequences(rows, np.arange(len(lengths)) % 3 - 1 if y is None else y, *source)


def check_rows(batch, corpus):
    """Each slot holds its row, padded, or is filler; returns the real rows."""
    real = []
    for x, y, row, is_real in zip(batch.x, batch.y, batch.rows, batch.row_mask, strict=True):
        if is_real:
            sequence = corpus.sequences[row]
            assert x.tolist() == [*sequence, *[0] * (len(x) - len(sequence))]
            assert y == corpus.y[row]
            real.append(int(row))
        else:
            assert (x.any(), y, row) == (False, -1, -1)
    return real


def as_lists(batches):
    return [None if batch is None else (batch.x.tolist(), batch.y.tolist(), batch.rows.tolist()) for batch in batches]


def padded_symbols(lengths, chosen):
    return sum(min(bucket for bucket in chosen if bucket >= length) for length in lengths)


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=30), count=st.integers(1, 4))
def test_no_other_buckets_pad_less(lengths, count):
    chosen = choose_buckets(np.array(lengths), count)
    assert len(chosen) <= count
    others = itertools.combinations(sorted(set(lengths)), min(count, len(set(lengths))))
    least = min(padded_symbols(lengths, other) for other in others if other[-1] == max(lengths))
    assert padded_symbols(lengths, chosen) == least


def test_of_many_lengths_quantiles_are_candidates():
    lengths = np.random.default_rng(0).integers(1, 5000, 20_000)
    assert (
        padded_symbols(lengths[:500], choose_buckets(lengths, 8))
        < padded_symbols(lengths[:500], (lengths.max(),)) * 0.6
    )


@given(count=st.integers(1, 3), most=st.integers(0, 60), seed=st.integers(0, 5))
def test_batches_hold_at_most_so_many_symbols(count, most, seed):
    corpus = corpus_of([3, 4, 4, 9, 9, 12, 2, 2, 5, 6])
    chosen = choose_buckets(corpus.lengths, count)
    batches = list(BatchStream(corpus, np.arange(10), 4, chosen, seed, batch_symbols=most).epoch(0))
    rows = np.concatenate([batch.rows[batch.row_mask] for batch in batches])
    assert sorted(rows) == list(range(10))
    assert len({batch.x.shape for batch in batches}) <= len(chosen)
    for batch in batches:
        assert len(batch.x) == (min(4, max(1, most // batch.x.shape[1])) if most else 4)


@given(run_length=st.integers(1, 4), seed=st.integers(0, 5))
def test_batches_of_one_bucket_follow_each_other(run_length, seed):
    corpus = corpus_of([3] * 9 + [6] * 12)
    stream = BatchStream(corpus, np.arange(21), 2, (3, 6), seed, run_length=run_length)
    lengths = [batch.x.shape[1] for batch in stream.epoch(seed)]
    runs = [len(list(run)) for _, run in itertools.groupby(lengths)]
    assert len(lengths) == len(stream) == 11
    assert sum(run % run_length != 0 for run in runs) <= 2  # the last ones of each bucket


def test_buckets_of_few_lengths():
    assert choose_buckets(np.arange(1, 101), 4) == (25, 50, 75, 100)
    assert choose_buckets(np.arange(1, 101), 1) == (100,)
    assert choose_buckets(np.array([5, 5, 5, 9]), 3) == (5, 9)


@given(LENGTHS, st.integers(1, 6))
def test_buckets_ascend_to_the_greatest_length(lengths, count):
    chosen = choose_buckets(np.array(lengths), count)
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) <= count
    assert chosen[-1] == max(lengths)
    assert set(chosen) <= set(lengths)


def test_pad_fills_up_rows_and_time_steps():
    corpus = corpus_of([2, 3, 2], y=[1, -1, 0])
    batch = pad(corpus, np.array([2, 1]), 3, 4)
    assert batch.x.tolist() == [[6, 3, 0, 0], [5, 5, 3, 0], [0, 0, 0, 0]]
    assert batch.y.tolist() == [0, -1, -1]
    assert batch.row_mask.tolist() == [True, True, False]
    assert batch.rows.tolist() == [2, 1, -1]
    assert (batch.x.dtype, batch.y.dtype, batch.row_mask.dtype) == (np.int32, np.int32, np.bool_)


def test_pad_refuses_what_does_not_fit():
    corpus = corpus_of([2, 5])
    with pytest.raises(ValueError, match="2 rows do not fit into a batch of 1"):
        pad(corpus, np.array([0, 1]), 1, 9)
    with pytest.raises(ValueError, match="Row 1 has 5 symbols, more than the batch's 4"):
        pad(corpus, np.array([0, 1]), 2, 4)


def test_few_rows_are_fetched_that_nobody_asks_for(monkeypatch):
    """The first batch is there as soon as its own rows are, and then at most as many are fetched as were used."""
    corpus, fetched = corpus_of([3] * 1000), [0]
    take = type(corpus.sequences).take

    def counted(self, indices):
        fetched[0] += len(indices)
        return take(self, indices)

    monkeypatch.setattr(type(corpus.sequences), "take", counted)
    stream = BatchStream(corpus, np.arange(1000), 5, (3,), seed=0).starting_at(70)
    for number, batch in enumerate(itertools.islice(stream, 300), start=1):
        assert len(batch.x) == 5
        assert fetched[0] <= 5 * min(2 * number - 1, number + padding.BATCHES_AT_ONCE - 1)


@given(LENGTHS, SIZES, SEEDS, st.integers(1, 5), st.integers(1, 90), st.integers(0, 9), st.booleans())
def test_batches_do_not_depend_on_how_many_are_made_at_once(lengths, size, seed, batches, symbols, first, has_sources):
    corpus = corpus_of(lengths, sources=[1 + length % 3 for length in lengths] if has_sources else None)
    corpus = corpus.with_posterior(np.random.default_rng(seed).dirichlet([1, 1], len(lengths)))

    def made():
        stream = BatchStream(corpus, np.arange(len(lengths)), size, (8, 40), seed)
        return [*stream.epoch(1), *itertools.islice(stream.starting_at(first), 7), *evaluation_batches(corpus, 3, (9,))]

    whole = made()
    with patch.multiple(padding, BATCHES_AT_ONCE=batches, SYMBOLS_AT_ONCE=symbols):
        parts = made()
    assert as_lists(parts) == as_lists(whole)
    assert [batch.posterior.tolist() for batch in parts] == [batch.posterior.tolist() for batch in whole]
    if has_sources:
        assert [batch.source.tolist() for batch in parts] == [batch.source.tolist() for batch in whole]


@given(st.data(), LENGTHS, st.integers(0, 3), st.integers(0, 4), st.booleans())
def test_a_padded_batch_is_what_a_loop_over_rows_makes(data, lengths, filler, further, has_sources):
    sources = data.draw(st.lists(st.integers(1, 9), min_size=len(lengths), max_size=len(lengths)))
    corpus = corpus_of(lengths, sources=sources if has_sources else None)
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1)))  # some more than once, or none at all
    steps = max((lengths[index] for index in indices), default=1) + further
    batch = pad(corpus, np.array(indices, np.int64), len(indices) + filler, steps)
    x = [[*corpus.sequences[index].tolist(), *[0] * (steps - lengths[index])] for index in indices]
    assert batch.x.tolist() == x + [[0] * steps] * filler
    assert batch.y.tolist() == [int(corpus.y[index]) for index in indices] + [-1] * filler
    assert batch.rows.tolist() == indices + [-1] * filler
    assert batch.row_mask.tolist() == [True] * len(indices) + [False] * filler
    if not has_sources:
        assert batch.source is None
        return
    longest = max((sources[index] for index in indices), default=1)
    source = [[*corpus.sources[index].tolist(), *[0] * (longest - sources[index])] for index in indices]
    assert batch.source.tolist() == source + [[0] * longest] * filler


@given(LENGTHS, SIZES, st.integers(1, 4))
def test_evaluation_sees_every_row_once_in_few_shapes(lengths, batch_size, count):
    corpus = corpus_of(lengths)
    chosen = choose_buckets(corpus.lengths, count)
    batches = list(evaluation_batches(corpus, batch_size, chosen))
    assert sorted(row for batch in batches for row in check_rows(batch, corpus)) == list(range(len(lengths)))
    assert {batch.x.shape for batch in batches} <= {(batch_size, length) for length in chosen}


def test_evaluation_pads_to_the_least_bucket_that_suffices():
    corpus = corpus_of([3, 4, 5, 8, 9])
    batches = list(evaluation_batches(corpus, 2, (4, 8)))
    assert [(batch.x.shape[1], check_rows(batch, corpus)) for batch in batches] == [(4, [0, 1]), (8, [2, 3]), (16, [4])]


def test_rows_longer_than_all_buckets_double_the_last():
    corpus = corpus_of([4, 33])
    assert [batch.x.shape[1] for batch in evaluation_batches(corpus, 2, (4,))] == [4, 64]


def test_evaluation_of_no_rows():
    assert list(evaluation_batches(corpus_of([3]).take(np.arange(0)), 4, (3,))) == []


@given(LENGTHS, SIZES, st.integers(1, 4), SEEDS, st.integers(0, 3))
def test_epoch_has_every_row_once_in_few_shapes(lengths, batch_size, count, seed, epoch):
    corpus = corpus_of(lengths)
    chosen = choose_buckets(corpus.lengths, count)
    indices = np.arange(0, len(lengths), 2)
    stream = BatchStream(corpus, indices, batch_size, chosen, seed)
    batches = list(stream.epoch(epoch))
    assert sorted(row for batch in batches for row in check_rows(batch, corpus)) == indices.tolist()
    assert all(batch.row_mask.any() for batch in batches)
    assert {batch.x.shape for batch in batches} <= {(batch_size, length) for length in chosen}
    assert len(batches) == len(stream) == -(-len(indices) // batch_size)  # no more than the rows fill
    assert stream.rows == len(indices)


@given(LENGTHS, SIZES, SEEDS)
def test_epoch_of_fixed_time_steps(lengths, batch_size, seed):
    corpus = corpus_of(lengths)
    stream = BatchStream(corpus, np.arange(len(lengths)), batch_size, (1,), seed, time_steps=40)
    batches = list(stream.epoch(1))
    assert sorted(row for batch in batches for row in check_rows(batch, corpus)) == list(range(len(lengths)))
    assert {batch.x.shape for batch in batches} == {(batch_size, 40)}
    assert len(batches) == len(stream) == -(-len(lengths) // batch_size)


def test_rows_of_a_bucket_are_dealt_out_evenly():
    corpus = corpus_of([5] * 9)
    stream = BatchStream(corpus, np.arange(9), 4, (5,), seed=0)
    assert [batch.row_mask.sum() for batch in stream.epoch(0)] == [3, 3, 3]


def test_empty_places_are_given_to_shorter_rows():
    corpus = corpus_of([3] * 50 + [6] * 21 + [9] * 5)
    stream = BatchStream(corpus, np.arange(76), 4, (3, 6, 9), seed=0)
    batches = list(stream.epoch(0))
    shapes = [batch.x.shape[1] for batch in batches]
    assert [shapes.count(length) for length in (3, 6, 9)] == [12, 5, 2]  # three of 6 stand with 9, two of 3 with 6
    assert all(batch.row_mask.all() for batch in batches)
    others = BatchStream(corpus, np.arange(76), 4, (3, 6, 9), seed=1).epoch(0)
    lifted = [
        {int(row) for b in epoch if b.x.shape[1] == 9 for row in b.rows if row < 71} for epoch in (batches, others)
    ]
    assert lifted[0] != lifted[1]  # drawn anew


def test_places_left_over_are_spread_over_all_lengths():
    corpus = corpus_of([3] * 22 + [6] * 22 + [9] * 22)
    stream = BatchStream(corpus, np.arange(66), 64, (3, 6, 9), seed=0)
    filled = {batch.x.shape[1]: int(batch.row_mask.sum()) for batch in stream.epoch(0)}
    assert filled == {9: 44, 3: 22}  # and not 64 and 2


@given(LENGTHS, SIZES, st.integers(0, 60), st.integers(1, 5), SEEDS)
def test_longer_batches_take_shorter_rows_only_where_they_have_place(lengths, batch_size, most, count, seed):
    corpus = corpus_of(lengths)
    chosen = choose_buckets(corpus.lengths, count)
    batches = list(BatchStream(corpus, np.arange(len(lengths)), batch_size, chosen, seed, batch_symbols=most).epoch(0))
    assert sorted(row for batch in batches for row in check_rows(batch, corpus)) == list(range(len(lengths)))
    own = {length: 0 for length in chosen}
    for length in lengths:
        own[min(bucket for bucket in chosen if bucket >= length)] += 1
    for length in chosen:
        sizes = [len(batch.x) for batch in batches if batch.x.shape[1] == length]
        assert len(sizes) <= -(-own[length] // (sizes or [1])[0])  # as many as its own rows need, or fewer
        filled = [batch.row_mask.sum() for batch in batches if batch.x.shape[1] == length]
        assert not filled or max(filled) - min(filled) <= 1


def test_epochs_depend_on_seed_and_number_alone():
    corpus = corpus_of([3, 9] * 20)

    def stream(seed):
        return BatchStream(corpus, np.arange(40), 4, (3, 9), seed)

    first = stream(0)
    list(first.epoch(5))
    assert as_lists(first.epoch(2)) == as_lists(stream(0).epoch(2))
    orders = {str(as_lists(stream(seed).epoch(epoch))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_lengths_are_in_random_order():
    corpus = corpus_of([3, 9] * 50)
    stream = BatchStream(corpus, np.arange(100), 5, (3, 9), seed=1)
    lengths = [batch.x.shape[1] for batch in stream.epoch(0)]
    assert sorted(lengths) == [3] * 10 + [9] * 10
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


def test_batches_mix_other_rows_in_each_epoch():
    stream = BatchStream(corpus_of([3] * 40), np.arange(40), 4, (3,), seed=0)
    sets = [{frozenset(batch.rows.tolist()) for batch in stream.epoch(epoch)} for epoch in range(2)]
    assert sets[0] != sets[1]


@given(st.integers(0, 30), SEEDS)
def test_stream_goes_on_through_its_epochs(start, seed):
    stream = BatchStream(corpus_of([3, 9] * 5), np.arange(10), 3, (3, 9), seed)
    whole = [batch for epoch in range(9) for batch in stream.epoch(epoch)]
    going_on = stream.starting_at(start)
    assert as_lists(next(going_on) for _ in range(5)) == as_lists(whole[start : start + 5])


def test_stream_refuses_no_rows_and_too_few_time_steps():
    corpus = corpus_of([3, 9])
    with pytest.raises(ValueError, match="at least one row"):
        BatchStream(corpus, np.arange(0), 4, (9,), 0)
    with pytest.raises(ValueError, match="time_steps must be at least 9, not 8"):
        BatchStream(corpus, np.arange(2), 4, (9,), 0, time_steps=8)
