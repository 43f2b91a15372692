"""Rows as they were read, a column each, with every different text stored once and a number in its place.

Files (`seqssvae.data.files`) and rows in memory (`seqssvae.data.in_memory`) both become a `Table`.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from typing import SupportsIndex, TypeVar

import numpy as np
from jaxtyping import Int

from seqssvae.data.ragged import ROWS_AT_ONCE, RaggedArray

NO_TEXT = -1
"""The code of a text that is missing."""

Row = TypeVar("Row", bound=Collection[str])
"""A text or a list of symbols."""


def split_symbols(text: str, separator: str) -> list[str]:
    """Split a text into its symbols.

    Args:
        text: The text.
        separator: What separates symbols (nothing between two separators is no symbol); empty: each character is one.
    """
    return list(filter(None, text.split(separator))) if separator else list(text)


class Codes(dict[str | None, int]):
    """The code of each text: a new text gets the next code, from 0, and one is left out, whose code is `NO_TEXT`.

    Args:
        left_out: The text that is left out, or None.
    """

    def __init__(self, left_out: str | None = None) -> None:
        super().__init__({left_out: NO_TEXT})

    def __missing__(self, text: str | None) -> int:
        self[text] = code = len(self) - 1
        return code

    def of(self, texts: Iterable[str | None], count: int) -> Int[np.ndarray, " M"]:
        """The codes of so many texts."""
        return np.fromiter(map(self.__getitem__, texts), np.int32, count)

    def texts(self) -> tuple[str, ...]:
        """All texts but the one left out, by code."""
        return tuple(map(str, islice(self, 1, None)))


@dataclass(frozen=True, eq=False)
class TextColumn(Sequence[str | None]):
    """A column with at most one text a row, dictionary-encoded: row i has `texts[codes[i]]`.

    Args:
        texts: The different texts, some of which may be in no row.
        codes: The index of each row's text, `NO_TEXT` where the text is missing.
    """

    texts: tuple[str, ...]
    codes: Int[np.ndarray, " N"]

    @classmethod
    def from_texts(cls, texts: Iterable[str | None], count: int) -> "TextColumn":
        """Encode so many texts, None where they are missing."""
        codes = Codes(left_out=None)
        values = codes.of(texts, count)
        return cls(codes.texts(), values)

    @classmethod
    def missing(cls, count: int) -> "TextColumn":
        """A column of so many rows without a text."""
        return cls((), np.full(count, NO_TEXT, np.int32))

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.codes)

    def __getitem__(self, index: SupportsIndex) -> str | None:  # type: ignore[override]  # a Sequence takes slices too, this does not
        """The text of one row, None where it is missing."""
        code = int(self.codes[index.__index__()])
        return None if code == NO_TEXT else self.texts[code]

    def take(self, indices: Int[np.ndarray, " R"]) -> "TextColumn":
        """The column of the rows at these indices, in this order."""
        return TextColumn(self.texts, self.codes[indices])

    def counts(self) -> dict[str, int]:
        """How many rows have each text."""
        counts = np.bincount(self.codes[self.codes != NO_TEXT], minlength=len(self.texts))
        return dict(zip(self.texts, counts.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class SymbolColumn(Sequence[tuple[str, ...]]):
    """A column with a sequence of symbols a row, dictionary-encoded: row i has `symbols[code]` for each of its codes.

    Args:
        symbols: The different symbols, some of which may be in no row.
        codes: The index of each symbol of each row.
    """

    symbols: tuple[str, ...]
    codes: RaggedArray

    @classmethod
    def from_symbols(cls, rows: Iterable[Collection[str]]) -> "SymbolColumn":
        """Encode sequences of symbols."""
        encoder = SymbolEncoder()
        encoder.add_symbols(rows)
        return encoder.column()

    @classmethod
    def from_texts(cls, texts: Iterable[str], separator: str) -> "SymbolColumn":
        """Split texts into symbols, as `split_symbols` does, and encode them."""
        encoder = SymbolEncoder(separator)
        encoder.add(texts)
        return encoder.column()

    @classmethod
    def empty(cls, count: int) -> "SymbolColumn":
        """A column of so many rows without any symbol."""
        return cls((), RaggedArray(np.zeros(0, np.int32), np.zeros(count + 1, np.int64)))

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.codes)

    def __getitem__(self, index: SupportsIndex) -> tuple[str, ...]:  # type: ignore[override]  # a Sequence takes slices too, this does not
        """The symbols of one row."""
        return tuple(self.symbols[code] for code in self.codes[index].tolist())

    def take(self, indices: Int[np.ndarray, " R"]) -> "SymbolColumn":
        """The column of the rows at these indices, in this order."""
        return SymbolColumn(self.symbols, self.codes.take(indices))

    def cut(self, max_length: int) -> "SymbolColumn":
        """The column of the first symbols of each row, at most this many."""
        return SymbolColumn(self.symbols, self.codes.cut(max_length))

    def counts(self) -> dict[str, int]:
        """How often each symbol occurs in all rows together."""
        counts = np.bincount(self.codes.values, minlength=len(self.symbols))
        return dict(zip(self.symbols, counts.tolist(), strict=True))

    def joined(self, separator: str) -> Iterator[str]:
        """The text of each row: its symbols with the separator between them."""
        for first in range(0, len(self), ROWS_AT_ONCE):
            offsets = self.codes.offsets[first : first + ROWS_AT_ONCE + 1]
            codes = self.codes.values[offsets[0] : offsets[-1]].tolist()
            symbols = [self.symbols[code] for code in codes]
            for start, end in pairwise((offsets - offsets[0]).tolist()):
                yield separator.join(symbols[start:end])


class SymbolEncoder:
    """Encodes sequences of symbols, some at a time, to a column.

    Args:
        separator: What separates the symbols of a text; empty: each character is one.
    """

    def __init__(self, separator: str = "") -> None:
        self._separator, self._codes = separator, Codes(left_out="" if separator else None)
        self._values, self._lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]

    def add(self, texts: Iterable[str]) -> None:
        """Split texts into symbols, as `split_symbols` does, and encode them."""
        if self._separator:
            self.add_symbols(text.split(self._separator) for text in texts)
        else:
            self._add(texts, _encode_characters)

    def add_symbols(self, rows: Iterable[Collection[str]]) -> None:
        """Encode lists of symbols."""
        self._add(rows, _encode_symbols)

    def _add(self, rows: Iterable[Row], encode: Callable[[Sequence[Row], int, Codes], Int[np.ndarray, " S"]]) -> None:
        remaining = iter(rows)
        while part := list(islice(remaining, ROWS_AT_ONCE)):
            counts = np.fromiter(map(len, part), np.int64, len(part))
            encoded = encode(part, int(counts.sum()), self._codes)
            kept = encoded != NO_TEXT
            if not kept.all():
                counts = np.bincount(np.repeat(np.arange(len(part)), counts)[kept], minlength=len(part))
                encoded = encoded[kept]
            self._values.append(encoded)
            self._lengths.append(counts)

    def first_empty(self, count: int) -> int | None:
        """The first of the last rows, so many, that has no symbol; None if each has one."""
        parts = [np.zeros(0, np.int64)]
        for lengths in reversed(self._lengths):
            if count <= 0:
                break
            parts.insert(0, lengths[max(len(lengths) - count, 0) :])
            count -= len(lengths)
        empty = np.concatenate(parts) == 0
        return int(empty.argmax()) if empty.any() else None

    def column(self) -> SymbolColumn:
        """The rows since the last column; a symbol keeps its code from column to column."""
        values, lengths = np.concatenate(self._values), np.concatenate(self._lengths)
        self._values, self._lengths = self._values[:1], self._lengths[:1]
        return SymbolColumn(self._codes.texts(), RaggedArray.from_lengths(values, lengths))


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a file or of memory.

    Args:
        sequences: The sequence of each row (without any symbol, where only sources were read).
        labels: Its label.
        groups: Its group.
        sources: The sequence that it is made from; None where there are no sources.
        lines: Its line of the file, counted from 1, or its index in memory.
        origin: Where the rows are from: a path or a description, for messages.
        texts: By what it is (sequence, source, id), the text of each row as it was; empty where it was not kept.
    """

    sequences: SymbolColumn
    labels: TextColumn
    groups: TextColumn
    sources: SymbolColumn | None
    lines: Int[np.ndarray, " N"]
    origin: str
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def from_rows(
        cls,
        sequences: Sequence[Sequence[str]],
        labels: Sequence[str | None] | None = None,
        groups: Sequence[str | None] | None = None,
        sources: Sequence[Sequence[str]] | None = None,
        origin: str = "memory",
    ) -> "Table":
        """Make a table of lists.

        Args:
            sequences: The symbols of each row.
            labels: The label of each row, None where it is missing; None: all are missing.
            groups: The group of each row, None where it has none; None: no row has one.
            sources: The symbols of each row's source, where there are sources.
            origin: Where the rows are from.
        """
        count = len(sequences)
        return cls(
            SymbolColumn.from_symbols(sequences),
            TextColumn.missing(count) if labels is None else TextColumn.from_texts(labels, count),
            TextColumn.missing(count) if groups is None else TextColumn.from_texts(groups, count),
            None if sources is None else SymbolColumn.from_symbols(sources),
            np.arange(count, dtype=np.int32),
            origin,
        )

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.lines)

    def take(self, indices: Int[np.ndarray, " R"], origin: str | None = None) -> "Table":
        """The table of the rows at these indices, in this order, with another origin if one is given."""
        return Table(
            self.sequences.take(indices),
            self.labels.take(indices),
            self.groups.take(indices),
            None if self.sources is None else self.sources.take(indices),
            self.lines[indices],
            self.origin if origin is None else origin,
            {name: [texts[index] for index in indices.tolist()] for name, texts in self.texts.items()},
        )

    def cut(self, max_length: int) -> "Table":
        """The table of the first symbols of each sequence and source, at most this many."""
        sources = None if self.sources is None else self.sources.cut(max_length)
        return dataclasses.replace(self, sequences=self.sequences.cut(max_length), sources=sources)


def _encode_symbols(rows: Sequence[Collection[str]], count: int, codes: Codes) -> Int[np.ndarray, " S"]:
    """The code of each of the rows' symbols, of which there are so many."""
    return codes.of(chain.from_iterable(rows), count)


def _encode_characters(rows: Sequence[str], count: int, codes: Codes) -> Int[np.ndarray, " S"]:
    """The code of each of the rows' characters, by a table over their code points."""
    points = np.frombuffer("".join(rows).encode("utf-32-le", "surrogatepass"), np.uint32)
    code_of_point = np.zeros(int(points.max(initial=0)) + 1, np.int32)
    code_of_point[points] = 1
    different = np.flatnonzero(code_of_point)
    code_of_point[different] = codes.of(map(chr, different.tolist()), len(different))
    return code_of_point[points]
