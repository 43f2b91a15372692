"""Rows that lie in a file which is mapped into memory, of which little stays in the process."""

from collections.abc import Callable, Sequence
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

from seqssvae.data.ragged import RaggedArray, Rows, gathered


class MappedRows(Rows):
    """Rows in several parts of a mapped file, or some of them.

    Many rows that are taken at once are read in the file's order, part by part, and what is read of a part is let go
    before the next one is.

    Args:
        shards: The parts, one after the other.
        let_go: Has the system take back the pages of the file that the process has read.
        lengths: The number of entries of each row of all parts; None: it is found out.
        indices: Which rows these are, in this order; None: all.
    """

    def __init__(
        self,
        shards: Sequence[RaggedArray],
        let_go: Callable[[], None],
        lengths: Int[np.ndarray, " A"] | None = None,
        indices: Int[np.ndarray, " N"] | None = None,
    ) -> None:
        self._shards, self._let_go = shards, let_go
        self._starts = np.cumsum([0, *map(len, shards)])
        self._lengths = _lengths(shards, let_go) if lengths is None else lengths
        self._indices = indices

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self._lengths if self._indices is None else self._indices)

    def __getitem__(self, index: SupportsIndex) -> Int[np.ndarray, " _"]:  # type: ignore[override]  # a Sequence takes slices too, this does not
        """One row."""
        return self.take(np.array([range(len(self))[index]])).values

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """The number of entries of each row."""
        return self._lengths if self._indices is None else gathered(self._lengths, self._indices)

    def lengths_at(self, indices: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
        """The number of entries of the rows at these indices."""
        return gathered(self._lengths, self._places(indices))

    def take(self, indices: Int[np.ndarray, " R"]) -> RaggedArray:
        """Copy the rows at these indices, in this order, into memory."""
        rows = self._places(indices)
        lengths = self._lengths[rows].astype(np.int64)
        taken = RaggedArray.from_lengths(np.empty(int(lengths.sum()), np.int32), lengths)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        by_shard = np.argsort(numbers, kind="stable")
        ends = np.cumsum(np.bincount(numbers, minlength=len(self._shards)))
        for number in np.unique(numbers).tolist():
            chosen = by_shard[0 if number == 0 else ends[number - 1] : ends[number]]
            part = self._shards[number].take(rows[chosen] - self._starts[number])
            shift = np.repeat(taken.offsets[chosen] - part.offsets[:-1], lengths[chosen])
            taken.values[np.arange(len(part.values)) + shift] = part.values
            self._let_go()
        return taken

    def select(self, indices: Int[np.ndarray, " R"]) -> "MappedRows":
        """The rows at these indices, in this order, which stay in the file."""
        return MappedRows(self._shards, self._let_go, self._lengths, self._places(indices))

    def loaded(self) -> RaggedArray:
        """All rows in memory."""
        return self.take(np.arange(len(self)))

    def _places(self, indices: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
        return indices if self._indices is None else gathered(self._indices, indices)


def _lengths(shards: Sequence[RaggedArray], let_go: Callable[[], None]) -> Int[np.ndarray, " A"]:
    """The number of entries of each row, in two bytes each if they fit."""
    parts = [np.zeros(0, np.int16)]
    for shard in shards:
        lengths = np.diff(shard.offsets)
        parts.append(lengths.astype(np.int16 if lengths.max(initial=0) < 2**15 else np.int32))
        let_go()
    return np.concatenate(parts)
