"""Rows that lie in a file which is mapped into memory: what is read of it the system may drop again."""

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

from seqssvae.data.ragged import RaggedArray, Rows, gathered


class MappedRows(Rows):
    """Rows in several parts of a mapped file, or some of them.

    Args:
        shards: The parts, one after the other.
        lengths: The number of entries of each row of all parts; None: it is found out.
        indices: Which rows these are, in this order; None: all.
    """

    def __init__(
        self,
        shards: Sequence[RaggedArray],
        lengths: Int[np.ndarray, " A"] | None = None,
        indices: Int[np.ndarray, " N"] | None = None,
    ) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])
        self._lengths = _lengths(shards) if lengths is None else lengths
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
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero(numbers == number)
            part = self._shards[number].take(rows[chosen] - self._starts[number])
            shift = np.repeat(taken.offsets[chosen] - part.offsets[:-1], lengths[chosen])
            taken.values[np.arange(len(part.values)) + shift] = part.values
        return taken

    def select(self, indices: Int[np.ndarray, " R"]) -> "MappedRows":
        """The rows at these indices, in this order, which stay in the file."""
        return MappedRows(self._shards, self._lengths, self._places(indices))

    def loaded(self) -> RaggedArray:
        """All rows in memory."""
        return self.take(np.arange(len(self)))

    def _places(self, indices: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
        return indices if self._indices is None else gathered(self._indices, indices)


def _lengths(shards: Sequence[RaggedArray]) -> Int[np.ndarray, " A"]:
    """The number of entries of each row, in two bytes each if they fit."""
    longest = max((int(np.diff(shard.offsets).max(initial=0)) for shard in shards), default=0)
    kind = np.int16 if longest < 2**15 else np.int32
    return np.concatenate([np.zeros(0, kind), *(np.diff(shard.offsets).astype(kind) for shard in shards)])
