"""Batches of few shapes: rows of about the same length together, padded to one of a few lengths, so many to a batch.

Places that would be empty in a batch of long rows are given to shorter ones, so that an epoch has no more batches than
its rows fill, however many lengths there are.

All is a function of seed and epoch, so that training resumed at an epoch sees the batches it would have seen.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import Batch
from seqssvae.config import Config
from seqssvae.data.buckets import (
    bounded_size,
    bucket_of_rows,
    choose_buckets,
    doubled_buckets,
    number_of_bucket,
    rows_per_batch,
)
from seqssvae.data.corpus import Corpus
from seqssvae.data.padding import BatchPlan, longest_source, padded_batches
from seqssvae.data.ragged import ROWS_OF_A_PART, gathered, occurrences, shuffled, where

BATCH_STREAM = 3
"""The random stream of the order of rows, apart from those of other choices made with the same seed."""


def evaluation_batches(
    corpus: Corpus, batch_size: int, buckets: Sequence[int], batch_symbols: int = 0
) -> Iterator[Batch]:
    """Make batches that have every row once, each padded to its bucket and filled up to its number of rows.

    Args:
        corpus: The rows.
        batch_size: B.
        buckets: Lengths to pad to. A row longer than the last is padded to that one doubled as often as it takes.
        batch_symbols: Most symbols of a batch, padding included; 0: any number.
    """
    return padded_batches(corpus, _evaluation_plans(corpus, batch_size, buckets, batch_symbols))


def _evaluation_plans(
    corpus: Corpus, batch_size: int, buckets: Sequence[int], batch_symbols: int
) -> Iterator[BatchPlan]:
    steps_of_rows = bucket_of_rows(corpus.lengths, buckets)
    for time_steps in np.unique(steps_of_rows).tolist():
        rows = where(steps_of_rows == time_steps)
        size = rows_per_batch(bounded_size(batch_size, len(rows)), batch_symbols, time_steps)
        source_steps = longest_source(corpus, rows)
        for start in range(0, len(rows), size):
            yield BatchPlan(rows[start : start + size], size, time_steps, source_steps)


class EvaluationBatches(Iterable[Batch]):
    """What `evaluation_batches` makes of all rows, as often as it is gone through; none of it is kept in between.

    Args:
        corpus: The rows.
        batch_size: B.
        buckets: Lengths to pad to.
        batch_symbols: Most symbols of a batch, padding included; 0: any number.
    """

    def __init__(self, corpus: Corpus, batch_size: int, buckets: Sequence[int], batch_symbols: int = 0) -> None:
        self._arguments = corpus, batch_size, buckets, batch_symbols

    def __iter__(self) -> Iterator[Batch]:
        return evaluation_batches(*self._arguments)


def corpus_batches(corpus: Corpus, config: Config) -> Iterator[Batch]:
    """Batches that hold every row once, with buckets of this corpus's own."""
    if not len(corpus):
        return iter(())
    training = config.training
    buckets = corpus.buckets or corpus_buckets(corpus, config)
    return evaluation_batches(corpus, training.batch_size, buckets, training.batch_symbols)


def corpus_buckets(corpus: Corpus, config: Config) -> tuple[int, ...]:
    """The lengths with which the rows of a corpus are padded least."""
    return choose_buckets(corpus.lengths, min(config.training.buckets, len(corpus)))


class _BucketShare(NamedTuple):
    """The batches of one epoch that are padded to the same length.

    Args:
        time_steps: T.
        rows: The number of rows in all of them.
        batches: The number of batches.
        size: B of each of them.
    """

    time_steps: int
    rows: int
    batches: int
    size: int

    @property
    def capacity(self) -> int:
        """The number of rows that they have places for."""
        return self.batches * self.size


def _divide_into_batches(
    counts: Sequence[int], sizes: Sequence[int], batch_size: int, batch_symbols: int
) -> list[_BucketShare]:
    """Divide rows, longest first, into batches.

    Each batch takes as many as it has places for. If they do not come out even, the places left over are spread over
    the batches of all lengths, as far as the rows are short enough for that, so that no batch is nearly empty.

    Args:
        counts: The number of rows of each bucket, the longest first.
        sizes: The buckets, in this order.
        batch_size: B.
        batch_symbols: Most symbols of a batch, padding included; 0: any number.
    """
    full: list[_BucketShare] = []
    ends = dict(zip(sizes, itertools.accumulate(counts), strict=True))  # rows at least as long
    total, start = sum(counts), 0
    for time_steps, end in ends.items():
        if start >= end:  # all rows of this length are in batches of longer ones
            continue
        size = rows_per_batch(batch_size, batch_symbols, time_steps)
        count = ceil((end - start) / size)
        full.append(_BucketShare(time_steps, min(count * size, total - start), count, size))
        start += count * size
    # rows that are to be in the batches of each length or longer ones: those too long for shorter ones, and those that
    # find no place there
    least = [total]
    for share in reversed(full[1:]):
        too_long = max(end for time_steps, end in ends.items() if time_steps > share.time_steps)
        least.insert(0, max(too_long, least[0] - share.capacity))
    shares, taken, capacity = [], 0, sum(share.capacity for share in full)
    for share, needed in zip(full, least, strict=True):
        evenly = ceil(Fraction((total - taken) * share.capacity, capacity))
        end = max(needed, taken + evenly)
        shares.append(share._replace(rows=end - taken))
        taken, capacity = end, capacity - share.capacity
    return shares


class BatchStream:
    """An endless stream of batches, epoch by epoch, each a function of seed and epoch.

    Args:
        corpus: The rows.
        indices: Which of them, at least one.
        batch_size: B. Rows are dealt out evenly, as far as their lengths allow it, so that no batch is nearly empty.
        buckets: Lengths to pad to.
        seed: Seed of the order.
        time_steps: T, where every batch is to be padded to it, whatever its rows' lengths.
        batch_symbols: Most symbols of a batch, padding included; 0: any number.
        run_length: How many batches of one bucket follow each other, as far as there are so many.

    Raises:
        ValueError: If there are no rows, or one is longer than `time_steps`.
    """

    def __init__(
        self,
        corpus: Corpus,
        indices: Int[np.ndarray, " R"],
        batch_size: int,
        buckets: Sequence[int],
        seed: int,
        time_steps: int | None = None,
        batch_symbols: int = 0,
        run_length: int = 1,
    ) -> None:
        self._corpus = corpus
        self._run_length = run_length
        self._indices = np.asarray(indices)
        batch_size = bounded_size(batch_size, len(self._indices))
        self._seed = seed
        lengths = corpus.sequences.lengths_at(self._indices)
        if len(self._indices) == 0:
            raise ValueError("A stream of batches needs at least one row.")
        if time_steps is not None and time_steps < lengths.max():
            raise ValueError(f"time_steps must be at least {lengths.max()}, not {time_steps}.")
        sizes = doubled_buckets(int(lengths.max()), tuple(buckets) if time_steps is None else (time_steps,))
        self._bucket_of_rows = number_of_bucket(lengths, sizes)
        counts = occurrences(self._bucket_of_rows, len(sizes)).tolist()
        self._shares = _divide_into_batches(counts[::-1], sizes[::-1], batch_size, batch_symbols)
        self._bucket_count = len(sizes)
        # one length of sources for each bucket, so that there are as many shapes as buckets
        self._source_steps = dict.fromkeys(sizes, 0)
        if corpus.sources is not None:
            for number, size in enumerate(sizes):
                self._source_steps[size] = longest_source(corpus, self._indices[self._bucket_of_rows <= number])

    def __len__(self) -> int:
        """The number of batches of an epoch, the same in every epoch."""
        return sum(share.batches for share in self._shares)

    @property
    def rows(self) -> int:
        """The number of rows of an epoch."""
        return len(self._indices)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, in which every row is once."""
        return padded_batches(self._corpus, self._plans(epoch))

    def starting_at(self, batch: int) -> Iterator[Batch]:
        """The endless stream from this batch on, counted from 0 over all epochs."""
        epochs = (self._plans(epoch) for epoch in itertools.count(batch // len(self)))
        plans = itertools.islice(itertools.chain.from_iterable(epochs), batch % len(self), None)
        return padded_batches(self._corpus, plans)

    def _plans(self, epoch: int) -> list[BatchPlan]:
        generator = np.random.default_rng([self._seed, BATCH_STREAM, epoch])
        order = shuffled(len(self._indices), generator)
        longest_first = _longest_first(order, gathered(self._bucket_of_rows, order), self._bucket_count)
        del order  # of many rows, much memory
        gathered(self._indices, longest_first, out=longest_first)
        runs: list[list[BatchPlan]] = []
        taken = 0
        for share in self._shares:
            # shorter rows come last: dealt out in turns, they do not end up in the same batch
            rows = longest_first[taken : taken + share.rows]
            shape = share.size, share.time_steps, self._source_steps[share.time_steps]
            plans = [BatchPlan(rows[place :: share.batches], *shape) for place in range(share.batches)]
            runs.extend(plans[start : start + self._run_length] for start in range(0, len(plans), self._run_length))
            taken += share.rows
        return [plan for place in generator.permutation(len(runs)) for plan in runs[place]]


def _longest_first(
    order: Int[np.ndarray, " R"], bucket: Int[np.ndarray, " R"], bucket_count: int
) -> Int[np.ndarray, " R"]:
    """The rows in their order, those of longer buckets first.

    Args:
        order: The rows.
        bucket: The number of the bucket of each.
        bucket_count: The number of buckets.
    """
    sorted_rows, filled = np.empty_like(order), 0
    for number in reversed(range(bucket_count)):
        for first in range(0, len(order), ROWS_OF_A_PART):  # all at once, their places would take eight bytes each
            part = slice(first, first + ROWS_OF_A_PART)
            chosen = order[part][bucket[part] == number]
            sorted_rows[filled : filled + len(chosen)] = chosen
            filled += len(chosen)
    return sorted_rows
