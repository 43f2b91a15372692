"""Rows of different lengths in one flat array, as in an Arrow list column or a `tf.RaggedTensor`."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Int, Integer

ROWS_AT_ONCE = 1 << 14
"""Rows that are processed at a time, so that what is in between stays small and in the processor's cache."""

ROWS_OF_A_PART = 1 << 16
"""Rows that a part has, where all rows are gone through."""


def where(mask: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " M"]:
    """The indices at which a mask is True, ascending, in four bytes each as far as they fit."""
    indices = np.empty(np.count_nonzero(mask), np.int32 if len(mask) < 2**31 else np.int64)
    filled = 0
    for first in range(0, len(mask), ROWS_OF_A_PART):
        part = np.flatnonzero(mask[first : first + ROWS_OF_A_PART])
        np.add(part, first, out=indices[filled : filled + len(part)], casting="same_kind")
        filled += len(part)
    return indices


def occurrences(numbers: Int[np.ndarray, " N"], size: int = 0) -> Int[np.ndarray, " S"]:
    """How often each number from 0 occurs, as `np.bincount` counts, without a copy of all numbers."""
    parts = [numbers[first : first + ROWS_OF_A_PART] for first in range(0, len(numbers), ROWS_OF_A_PART)]
    size = max([size, *(int(part.max()) + 1 for part in parts)])
    return sum((np.bincount(part, minlength=size) for part in parts), np.zeros(size, np.int64))


def gathered(
    values: Integer[np.ndarray, " A"], indices: Int[np.ndarray, " N"], out: Int[np.ndarray, " N"] | None = None
) -> Integer[np.ndarray, " N"]:
    """`values[indices]`, without a copy of all indices in eight bytes each; `out` may be the indices themselves."""
    out = np.empty(len(indices), values.dtype) if out is None else out
    for first in range(0, len(indices), ROWS_OF_A_PART):
        part = slice(first, first + ROWS_OF_A_PART)
        out[part] = values[indices[part]]
    return out


def shuffled(count: int, generator: np.random.Generator) -> Int[np.ndarray, " N"]:
    """What `generator.permutation(count)` returns, in four bytes a number as far as they fit."""
    numbers = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    generator.shuffle(numbers)
    return numbers


class Rows(Sequence[np.ndarray]):
    """Rows of whole numbers of different lengths, in memory (`RaggedArray`) or not."""

    @property
    @abstractmethod
    def lengths(self) -> Int[np.ndarray, " N"]:
        """The number of entries of each row."""

    @abstractmethod
    def lengths_at(self, indices: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
        """The number of entries of the rows at these indices."""

    @abstractmethod
    def take(self, indices: Int[np.ndarray, " R"]) -> "RaggedArray":
        """Copy the rows at these indices, in this order, into memory."""

    @abstractmethod
    def select(self, indices: Int[np.ndarray, " R"]) -> "Rows":
        """The rows at these indices, in this order, where these rows are."""

    @abstractmethod
    def loaded(self) -> "RaggedArray":
        """All rows in memory."""

    def parts(self) -> Iterator["RaggedArray"]:
        """All rows, some at a time."""
        for first in range(0, len(self), ROWS_OF_A_PART):
            yield self.take(np.arange(first, min(first + ROWS_OF_A_PART, len(self))))

    def counts(self, size: int) -> Int[np.ndarray, " V"]:
        """How often each number, from 0 to below this size, occurs in all rows."""
        return sum((np.bincount(part.values, minlength=size) for part in self.parts()), np.zeros(size, np.int64))


@dataclass(frozen=True, eq=False)
class RaggedArray(Rows):
    """Rows of whole numbers, one after the other: row i is `values[offsets[i]:offsets[i + 1]]`.

    Args:
        values: The entries of all rows, of which there are S.
        offsets: Where each row begins, and last S: an entry more than there are rows.

    Example:
        >>> rows = RaggedArray.from_rows([[4, 5, 3], [3], [6, 3]])
        >>> rows.lengths.tolist()
        [3, 1, 2]
        >>> rows.take(np.array([2, 0])).values.tolist()
        [6, 3, 4, 5, 3]
    """

    values: Int[np.ndarray, " S"]
    offsets: Int[np.ndarray, " N_plus_1"]

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | Int[np.ndarray, " _"]]) -> "RaggedArray":
        """Copy rows into one array."""
        arrays = [np.asarray(row, np.int32) for row in rows]
        lengths = np.array([len(array) for array in arrays], np.int64)
        return cls(np.concatenate([np.zeros(0, np.int32), *arrays]), _offsets(lengths))

    @classmethod
    def from_lengths(cls, values: Int[np.ndarray, " S"], lengths: Int[np.ndarray, " N"]) -> "RaggedArray":
        """Divide an array into rows of these lengths."""
        return cls(values, _offsets(lengths))

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.offsets) - 1

    def __getitem__(self, index: SupportsIndex) -> Int[np.ndarray, " _"]:  # type: ignore[override]  # a Sequence takes slices too, this does not
        """One row, as a view."""
        row = range(len(self))[index]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """The number of entries of each row."""
        return np.diff(self.offsets)

    def lengths_at(self, indices: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
        """The number of entries of the rows at these indices."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def take(self, indices: Int[np.ndarray, " R"]) -> "RaggedArray":
        """Copy the rows at these indices, in this order."""
        return self._copy(self.offsets[indices], self.lengths_at(indices))

    def select(self, indices: Int[np.ndarray, " R"]) -> "RaggedArray":
        """Copy the rows at these indices, in this order."""
        return self.take(indices)

    def part(self, start: int, end: int) -> "RaggedArray":
        """The rows from one on to before another, as a view."""
        first, last = self.offsets[start], self.offsets[end]
        return RaggedArray(self.values[first:last], self.offsets[start : end + 1] - first)

    def loaded(self) -> "RaggedArray":
        """These rows, which are in memory already."""
        return self

    def cut(self, max_length: int) -> "RaggedArray":
        """Copy the first entries of each row, at most this many."""
        return self._copy(self.offsets[:-1], np.minimum(self.lengths, max_length))

    def insert_last(self, value: int, ids: Int[np.ndarray, " A"] | None = None) -> "RaggedArray":
        """Copy all rows with this value behind the last entry of each.

        Args:
            value: The value.
            ids: What to put in place of each entry: `ids[entry]`; None: the entries stay as they are.
        """
        offsets = self.offsets + np.arange(len(self.offsets))
        values = np.empty(offsets[-1], self.values.dtype)
        for first in range(0, len(self), ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, len(self))
            begin, end = self.offsets[first], self.offsets[last]
            part = self.values[begin:end] if ids is None else ids[self.values[begin:end]]
            values[offsets[first] : offsets[last]] = np.insert(part, self.offsets[first + 1 : last + 1] - begin, value)
        return RaggedArray(values, offsets)

    def _copy(self, starts: Int[np.ndarray, " R"], lengths: Int[np.ndarray, " R"]) -> "RaggedArray":
        """Copy so many values from each start on."""
        offsets = _offsets(lengths)
        values = np.empty(offsets[-1], self.values.dtype)
        for first in range(0, len(lengths), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            begin, end = offsets[first], offsets[min(first + ROWS_AT_ONCE, len(lengths))]
            shift = np.repeat(starts[rows] - offsets[:-1][rows], lengths[rows])
            values[begin:end] = self.values[np.arange(begin, end) + shift]
        return RaggedArray(values, offsets)


def _offsets(lengths: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N_plus_1"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
