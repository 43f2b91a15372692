"""Rows padded to batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Batch
from seqssvae.data.corpus import Corpus
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import PAD

BATCHES_AT_ONCE, SYMBOLS_AT_ONCE = 64, 1 << 20
"""Most batches whose rows are fetched together, and how many symbols, padding included, are enough for that. Rows that
lie in a file are read in its order, in one pass for all of these batches."""


@dataclass(frozen=True)
class BatchPlan:
    """A batch that is not padded yet.

    Args:
        indices: Its rows.
        size: B, at least as many.
        time_steps: T.
        source_steps: S, of a corpus with sources.
    """

    indices: Int[np.ndarray, " R"]
    size: int
    time_steps: int
    source_steps: int


def pad(
    corpus: Corpus, indices: Int[np.ndarray, " R"], size: int, time_steps: int, source_steps: int | None = None
) -> Batch:
    """Make a batch of the rows at these indices, with filler rows behind them.

    Args:
        corpus: The rows.
        indices: Which of them.
        size: B.
        time_steps: T.
        source_steps: S, of a corpus with sources; None: the length of the longest of these sources.

    Raises:
        ValueError: If there are more rows than `size`, or one is longer than `time_steps`.
    """
    source_steps = longest_source(corpus, indices) if source_steps is None else source_steps
    (batch,) = padded_batches(corpus, [BatchPlan(indices, size, time_steps, source_steps)])
    return batch


def padded_batches(corpus: Corpus, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
    """The batches that are planned, some at a time."""
    for together in _at_once(iter(plans)):
        indices = np.concatenate([plan.indices for plan in together])
        rows = corpus.sequences.take(indices)
        sources = None if corpus.sources is None else corpus.sources.take(indices)
        end = 0
        for plan in together:
            start, end = end, end + len(plan.indices)
            x = pad_sequences(rows.part(start, end), plan.size, plan.time_steps, plan.indices)
            source = None
            if sources is not None:
                source = pad_sequences(sources.part(start, end), plan.size, plan.source_steps, plan.indices)
            yield _batch(corpus, plan, x, source)


def _at_once(plans: Iterator[BatchPlan]) -> Iterator[list[BatchPlan]]:
    """First one plan, then two, four and so on: the first batch is there soon, and few rows are fetched in vain."""
    together: list[BatchPlan] = []
    most, symbols = 1, 0
    for plan in plans:
        together.append(plan)
        symbols += plan.size * (plan.time_steps + plan.source_steps)
        if len(together) == most or symbols >= SYMBOLS_AT_ONCE:
            yield together
            together, symbols, most = [], 0, min(2 * most, BATCHES_AT_ONCE)
    if together:
        yield together


def _batch(corpus: Corpus, plan: BatchPlan, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None) -> Batch:
    size, count = plan.size, len(plan.indices)
    y = np.full(size, NO_LABEL, dtype=np.int32)
    y[:count] = corpus.y[plan.indices]
    rows = np.full(size, -1, dtype=np.int32)
    rows[:count] = plan.indices
    posterior = None
    if corpus.posterior is not None:
        posterior = np.full((size, corpus.posterior.shape[1]), 1.0 / corpus.posterior.shape[1])
        posterior[:count] = corpus.posterior[plan.indices]
    return Batch(x, y, np.arange(size) < count, rows, source, posterior)


def pad_sequences(
    sequences: RaggedArray, size: int, time_steps: int, places: Int[np.ndarray, " R"] | None = None
) -> Int[np.ndarray, "B T"]:
    """Pad sequences to one length, with filler rows behind them.

    Args:
        sequences: The sequences, R of them.
        size: B, at least R.
        time_steps: T.
        places: Their places in their corpus, by which an error names one; None: 0 to R - 1.

    Raises:
        ValueError: If there are more sequences than `size`, or one is longer than `time_steps`.
    """
    if len(sequences) > size:
        raise ValueError(f"{len(sequences)} rows do not fit into a batch of {size}.")
    lengths = sequences.lengths
    if (too_long := lengths > time_steps).any():
        row = int(too_long.argmax())
        place = row if places is None else places[row]
        raise ValueError(f"Row {place} has {lengths[row]} symbols, more than the batch's {time_steps}.")
    x = np.full((size, time_steps), PAD, dtype=np.int32)
    x[: len(sequences)][np.arange(time_steps) < lengths[:, None]] = sequences.values
    return x


def longest_source(corpus: Corpus, indices: Int[np.ndarray, " R"]) -> int:
    """S of a batch with these rows; 0 without sources."""
    if corpus.sources is None:
        return 0
    return int(corpus.sources.lengths_at(indices).max()) if len(indices) else 1
