"""Batches of few shapes: rows of about the same length together, padded to one of a few lengths, so many to a batch.

Places that would be empty in a batch of long rows are given to shorter ones, so that an epoch has no more batches than
its rows fill, however many lengths there are.

All is a function of seed and epoch, so that training resumed at an epoch sees the batches it would have seen.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Batch
from seqssvae.config import ObjectiveConfig
from seqssvae.data.corpus import Corpus
from seqssvae.data.vocabulary import PAD
from seqssvae.errors import ConfigurationError

BATCH_STREAM = 3
"""The random stream of the order of rows, apart from those of other choices made with the same seed."""


CANDIDATES = 256
"""Most lengths considered as a bucket's; of more different ones, so many quantiles."""


def buckets(lengths: Int[np.ndarray, " N"], count: int) -> tuple[int, ...]:
    """The lengths that batches are padded to: those with which all rows together are padded least.

    Args:
        lengths: Lengths of the rows, END included.
        count: How many to have at most.

    Returns:
        Ascending lengths, the last of which is the greatest of all.
    """
    candidates = np.unique(lengths)
    if len(candidates) > CANDIDATES:
        candidates = np.unique(np.quantile(lengths, np.arange(1, CANDIDATES + 1) / CANDIDATES, method="higher"))
    up_to = np.searchsorted(np.sort(lengths), candidates, side="right")  # rows that each is long enough for
    size = len(candidates)
    # symbols that rows longer than candidate i (all, for i = -1) and not than j take when padded to j
    symbols = np.where(
        np.arange(-1, size)[:, None] < np.arange(size), (up_to - np.concatenate([[0], up_to])[:, None]) * candidates, 0
    ).astype(float)
    symbols[np.arange(-1, size)[:, None] >= np.arange(size)] = np.inf
    least, choices = symbols[0], []
    for _ in range(min(count, size) - 1):
        totals = least[:, None] + symbols[1:]
        choices.append(totals.argmin(0))
        fewer, least = least, totals.min(0)
        if fewer[-1] <= least[-1]:  # no further bucket saves anything
            choices.pop()
            break
    place = size - 1
    chosen = [place]
    for choice in reversed(choices):
        place = int(choice[place])
        chosen.append(place)
    return tuple(int(length) for length in candidates[chosen[::-1]])


def rows_of_batch(batch_size: int, batch_symbols: int, time_steps: int) -> int:
    """B of the batches padded to this length: `batch_size`, or fewer where `batch_symbols` allows no more (0: any)."""
    return min(batch_size, max(1, batch_symbols // time_steps)) if batch_symbols else batch_size


def pad(
    sequences: Sequence[Int[np.ndarray, " _"]],
    indices: Int[np.ndarray, " R"],
    y: Int[np.ndarray, " N"],
    size: int,
    time_steps: int,
    sources: Sequence[Int[np.ndarray, " _"]] | None = None,
    source_steps: int = 0,
) -> Batch:
    """A batch of the rows at these indices, with filler rows behind them.

    Args:
        sequences: All rows, with END.
        indices: Which of them.
        y: Labels of all rows.
        size: B.
        time_steps: T.
        sources: Sources of all rows, with END; None where there are none.
        source_steps: S; 0: the length of the longest of these sources.

    Raises:
        ValueError: If there are more rows than `size`, or one is longer than `time_steps`.
    """
    if len(indices) > size:
        raise ValueError(f"{len(indices)} rows do not fit into a batch of {size}.")
    x, source = padded(sequences, indices, size, time_steps), None
    if sources is not None:
        source = padded(sources, indices, size, source_steps or _longest(sources, indices))
    labels = np.full(size, NO_LABEL, dtype=np.int32)
    labels[: len(indices)] = y[indices]
    rows = np.full(size, -1, dtype=np.int32)
    rows[: len(indices)] = indices
    return Batch(x=x, y=labels, row_mask=np.arange(size) < len(indices), rows=rows, source=source)


def padded(
    sequences: Sequence[Int[np.ndarray, " _"]], indices: Int[np.ndarray, " R"], size: int, time_steps: int
) -> Int[np.ndarray, "B T"]:
    """The sequences at these indices, padded to one length, and filler rows behind them; errors are those of `pad`."""
    x = np.full((size, time_steps), PAD, dtype=np.int32)
    for slot, index in enumerate(indices):
        sequence = sequences[index]
        if len(sequence) > time_steps:
            raise ValueError(f"Row {index} has {len(sequence)} symbols, more than the batch's {time_steps}.")
        x[slot, : len(sequence)] = sequence
    return x


def _longest(sources: Sequence[Int[np.ndarray, " _"]] | None, indices: Int[np.ndarray, " R"]) -> int:
    """S of a batch with these rows; 0 without sources."""
    return 0 if sources is None else max((len(sources[index]) for index in indices), default=1)


@dataclass(frozen=True)
class _Plan:
    """One batch to be: its rows, and the length they are padded to."""

    indices: Int[np.ndarray, " R"]
    time_steps: int


class _Level(NamedTuple):
    """Batches of one epoch that are padded to the same length.

    Args:
        time_steps: T.
        rows: Rows of all of them.
        batches: How many they are.
        places: Rows that they have places for.
    """

    time_steps: int
    rows: int
    batches: int
    places: int


def _levels(time_steps: Int[np.ndarray, " R"], batch_size: int, batch_symbols: int) -> list[_Level]:
    """How rows, longest first, are divided into batches.

    Each batch takes as many as it has places for. If they do not come out even, the places left over are spread over
    the batches of all lengths, as far as the rows are short enough for that, so that no batch is nearly empty.

    Args:
        time_steps: The bucket of each row, in descending order.
        batch_size: B.
        batch_symbols: Most symbols of a batch, padding included; 0: any number.
    """
    full: list[_Level] = []
    start = 0
    while start < len(time_steps):
        length = int(time_steps[start])
        size = rows_of_batch(batch_size, batch_symbols, length)
        count = ceil(np.count_nonzero(time_steps[start:] == length) / size)
        full.append(_Level(length, min(count * size, len(time_steps) - start), count, count * size))
        start += count * size
    # rows that are to be in the batches of each length or longer ones: those too long for shorter ones, and those that
    # find no place there
    least = [len(time_steps)]
    for level in reversed(full[1:]):
        too_long = int(np.count_nonzero(time_steps > level.time_steps))
        least.insert(0, max(too_long, least[0] - level.places))
    levels, taken, places = [], 0, sum(level.places for level in full)
    for level, needed in zip(full, least, strict=True):
        evenly = ceil(Fraction((len(time_steps) - taken) * level.places, places))
        end = max(needed, taken + evenly)
        levels.append(level._replace(rows=end - taken))
        taken, places = end, places - level.places
    return levels


def _steps_of_rows(lengths: Int[np.ndarray, " R"], buckets: Sequence[int]) -> Int[np.ndarray, " R"]:
    """The least bucket that each row fits into; a row longer than all doubles the last as often as it takes."""
    sizes = list(buckets)
    while sizes[-1] < lengths.max(initial=0):
        sizes.append(2 * sizes[-1])
    return np.array(sizes)[np.searchsorted(sizes, lengths)]


def _by_bucket(
    indices: Int[np.ndarray, " R"], lengths: Int[np.ndarray, " R"], buckets: Sequence[int]
) -> Iterator[tuple[int, Int[np.ndarray, " S"]]]:
    """The rows that fall to each bucket, in the order given."""
    steps = _steps_of_rows(lengths, buckets)
    return ((int(length), indices[steps == length]) for length in np.unique(steps))


def evaluation_batches(
    corpus: Corpus,
    indices: Int[np.ndarray, " R"] | None,
    batch_size: int,
    buckets: Sequence[int],
    batch_symbols: int = 0,
) -> Iterator[Batch]:
    """Every row once, each batch padded to its bucket and filled up to its number of rows.

    Args:
        corpus: The rows.
        indices: Which of them; None: all.
        batch_size: B.
        buckets: Lengths to pad to. A row longer than the last is padded to that one doubled as often as it takes.
        batch_symbols: Most symbols of a batch, padding included; 0: any number.
    """
    chosen = np.arange(len(corpus)) if indices is None else np.asarray(indices)
    for time_steps, rows in _by_bucket(chosen, corpus.lengths[chosen], buckets):
        size = rows_of_batch(batch_size, batch_symbols, time_steps)
        source_steps = _longest(corpus.sources, rows)
        for start in range(0, len(rows), size):
            indices = rows[start : start + size]
            yield pad(corpus.sequences, indices, corpus.y, size, time_steps, corpus.sources, source_steps)


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
        together: How many batches of one bucket follow each other, as far as there are so many.

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
        together: int = 1,
    ) -> None:
        self._corpus = corpus
        self._batch_symbols = batch_symbols
        self._together = together
        self._indices = np.asarray(indices)
        self._batch_size = batch_size
        self._seed = seed
        self._lengths = corpus.lengths[self._indices]
        self._buckets = tuple(buckets) if time_steps is None else (time_steps,)
        if len(self._indices) == 0:
            raise ValueError("A stream of batches needs at least one row.")
        if time_steps is not None and time_steps < self._lengths.max():
            raise ValueError(f"time_steps must be at least {self._lengths.max()}, not {time_steps}.")
        self._row_steps = _steps_of_rows(self._lengths, self._buckets)
        self._levels = _levels(-np.sort(-self._row_steps), batch_size, batch_symbols)
        # of each length one of sources, so that there are as many shapes as buckets
        self._source_steps = {
            level.time_steps: _longest(corpus.sources, self._indices[self._row_steps <= level.time_steps])
            for level in self._levels
        }

    def __len__(self) -> int:
        """Batches of an epoch, the same in every epoch."""
        return sum(level.batches for level in self._levels)

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return len(self._indices)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, in which every row is once."""
        return map(self._pad, self._plans(epoch))

    def starting_at(self, batch: int) -> Iterator[Batch]:
        """The endless stream from this batch on, counted from 0 over all epochs."""
        epochs = (self._plans(epoch) for epoch in itertools.count(batch // len(self)))
        return map(self._pad, itertools.islice(itertools.chain.from_iterable(epochs), batch % len(self), None))

    def _plans(self, epoch: int) -> list[_Plan]:
        generator = np.random.default_rng([self._seed, BATCH_STREAM, epoch])
        shuffled = generator.permutation(len(self._indices))
        longest_first = self._indices[shuffled[np.argsort(-self._row_steps[shuffled], kind="stable")]]
        groups: list[list[_Plan]] = []
        taken = 0
        for level in self._levels:
            # shorter rows come last: dealt out in turns, they do not end up in the same batch
            parts = [
                longest_first[taken : taken + level.rows][place :: level.batches] for place in range(level.batches)
            ]
            plans = [_Plan(part, level.time_steps) for part in parts]
            groups.extend(plans[start : start + self._together] for start in range(0, len(plans), self._together))
            taken += level.rows
        return [plan for place in generator.permutation(len(groups)) for plan in groups[place]]

    def _pad(self, plan: _Plan) -> Batch:
        size = rows_of_batch(self._batch_size, self._batch_symbols, plan.time_steps)
        corpus, source_steps = self._corpus, self._source_steps[plan.time_steps]
        return pad(corpus.sequences, plan.indices, corpus.y, size, plan.time_steps, corpus.sources, source_steps)


def training_steps(
    labelled: BatchStream | None, unlabelled: BatchStream | None, objective: ObjectiveConfig, epoch: int
) -> Iterator[tuple[Batch | None, Batch | None]]:
    """The labelled and the unlabelled batch of each training step of one epoch.

    An epoch is one pass over the unlabelled rows, with `labelled_ratio` labelled batches for each unlabelled one (a
    fraction carries over to the next epoch, and the labelled stream goes on where it was); it is one pass over the
    labelled rows if there are no unlabelled ones, or if the objective is the classifier's.

    Args:
        labelled: Batches of rows whose label is observed, if there are any.
        unlabelled: Batches of rows whose label is summed out, if there are any.
        objective: Whether a step holds one batch (`alternate`: labelled ones before the unlabelled one that they belong
            to) or both (`joint`: the labelled one where it is due).
        epoch: Number of the epoch, from 0.

    Raises:
        ConfigurationError: If there is nothing to learn from.
    """
    if objective.name == "classifier" or unlabelled is None:
        if labelled is None:
            raise ConfigurationError(f"objective.name: {objective.name} has no rows to learn from; label some rows.")
        return ((batch, None) for batch in labelled.epoch(epoch))
    if labelled is None:
        return ((None, batch) for batch in unlabelled.epoch(epoch))
    return _paired_steps(labelled, unlabelled, objective, epoch)


def _paired_steps(
    labelled: BatchStream, unlabelled: BatchStream, objective: ObjectiveConfig, epoch: int
) -> Iterator[tuple[Batch | None, Batch | None]]:
    first = epoch * len(unlabelled)
    due_batches = labelled.starting_at(_labelled_before(first, objective))
    for number, unlabelled_batch in enumerate(unlabelled.epoch(epoch), start=first):
        due = list(
            itertools.islice(due_batches, _labelled_before(number + 1, objective) - _labelled_before(number, objective))
        )
        if objective.batching == "joint":
            yield (due[0] if due else None), unlabelled_batch
        else:
            yield from ((batch, None) for batch in due)
            yield None, unlabelled_batch


def _labelled_before(unlabelled_batches: int, objective: ObjectiveConfig) -> int:
    """Labelled batches that are due by the time so many unlabelled ones are done: the ratio's multiple, rounded up."""
    ratio = Fraction(str(objective.labelled_ratio))  # exactly the decimal fraction that was asked for
    return ceil(unlabelled_batches * ratio)


def count_steps(
    labelled: BatchStream | None, unlabelled: BatchStream | None, objective: ObjectiveConfig, epochs: int
) -> int:
    """How many steps `training_steps` yields in so many epochs."""
    if objective.name == "classifier" or unlabelled is None:
        return 0 if labelled is None else epochs * len(labelled)
    steps = epochs * len(unlabelled)
    if labelled is None or objective.batching == "joint":
        return steps
    return steps + _labelled_before(steps, objective)
