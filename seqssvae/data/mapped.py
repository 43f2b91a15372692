"""Rows that lie in a file which is mapped into memory, of which little stays in the process."""

import contextlib
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int

from seqssvae.data.ragged import RaggedArray, Rows, gathered


class MappedFile:
    """A file that is mapped into memory to be read.

    Args:
        path: The file.

    Attributes:
        buffer: What it holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedFile, (self.path,)

    def release(self) -> None:
        """Have the system take back the pages that were read: they stay in its cache, but not in this process."""
        with contextlib.suppress(OSError):  # where pages are locked into memory
            if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
                self.buffer.madvise(mmap.MADV_DONTNEED)


class MappedRows(Rows):
    """Rows in several parts of a mapped file, or some of them.

    Rows that are taken together are read in the file's order, whatever their own is, and the pages of a part are
    released before the next part is read.

    Args:
        shards: The parts, one after the other.
        file: The file that they are in.
        lengths: The number of entries of each row of all parts; None: it is found out.
        indices: Which rows these are, in this order; None: all.
    """

    def __init__(
        self,
        shards: Sequence[RaggedArray],
        file: MappedFile,
        lengths: Int[np.ndarray, " A"] | None = None,
        indices: Int[np.ndarray, " N"] | None = None,
    ) -> None:
        self._shards, self._file = shards, file
        self._starts = np.cumsum([0, *map(len, shards)])
        self._lengths = _lengths(shards, file) if lengths is None else lengths
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
        in_order = np.argsort(rows, kind="stable")
        ends = np.searchsorted(rows[in_order], self._starts).tolist()
        for shard, first, begin, end in zip(self._shards, self._starts, ends, ends[1:], strict=False):
            if begin == end:
                continue
            chosen = in_order[begin:end]
            part = shard.take(rows[chosen] - first)
            shift = np.repeat(taken.offsets[chosen] - part.offsets[:-1], lengths[chosen])
            taken.values[np.arange(len(part.values)) + shift] = part.values
            self._file.release()
        return taken

    def select(self, indices: Int[np.ndarray, " R"]) -> "MappedRows":
        """The rows at these indices, in this order, which stay in the file."""
        return MappedRows(self._shards, self._file, self._lengths, self._places(indices))

    def loaded(self) -> RaggedArray:
        """All rows in memory."""
        return self.take(np.arange(len(self)))

    def _places(self, indices: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
        return indices if self._indices is None else gathered(self._indices, indices)


def _lengths(shards: Sequence[RaggedArray], file: MappedFile) -> Int[np.ndarray, " A"]:
    """The number of entries of each row, in two bytes each if they fit."""
    parts = [np.zeros(0, np.int16)]
    for shard in shards:
        lengths = np.diff(shard.offsets)
        parts.append(lengths.astype(np.int16 if lengths.max(initial=0) < 2**15 else np.int32))
        file.release()
    return np.concatenate(parts)
