"""TSV files: UTF-8, a row a line, columns separated by tabs, nothing quoted.

Some of a file is read at a time. Where lines and columns begin and end is found for all lines at once; only what is not
as it should be is looked at line by line, for the message.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from io import BufferedReader

import numpy as np
from jaxtyping import Bool, Int

from seqssvae.data.blocks import REMEDIES, Block, Column, resolve
from seqssvae.data.opening import decoded
from seqssvae.errors import DataError

BYTES_AT_ONCE = 1 << 20
"""Bytes of a file that are read at a time."""

TAB, LINE_FEED, CARRIAGE_RETURN = b"\t\n\r"
"""Bytes, none of which is part of another character in UTF-8."""


class _Lines:
    """Whole lines of a file: where they begin and end, and where the tabs in them are.

    Args:
        content: The lines.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._places = np.frombuffer(content, np.uint8)
        breaks = np.flatnonzero(self._places == LINE_FEED)
        if content and content[-1] != LINE_FEED:
            breaks = np.append(breaks, len(content))
        self.starts = np.concatenate([np.zeros(1, np.int64), breaks + 1])[: len(breaks)]
        filled = breaks > self.starts
        ends_in_return = filled & (self._places[np.where(filled, breaks - 1, 0)] == CARRIAGE_RETURN)
        self.ends = breaks - ends_in_return
        self._tabs = np.append(np.flatnonzero(self._places == TAB), len(content))
        self._first_tabs = np.searchsorted(self._tabs, self.starts)

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def column_counts(self) -> Int[np.ndarray, " L"]:
        """The number of columns of each line."""
        return np.searchsorted(self._tabs, self.ends) - self._first_tabs + 1

    @cached_property
    def have_return(self) -> Bool[np.ndarray, " L"]:
        """Whether there is a carriage return within a line."""
        returns = np.flatnonzero(self._places == CARRIAGE_RETURN)
        return np.searchsorted(returns, self.ends) > np.searchsorted(returns, self.starts)

    def fields(self, column: int, lines: slice) -> list[str]:
        """The texts in a column, counted from 0, of lines that have it."""
        tabs, ends = self._first_tabs[lines] + column, self.ends[lines]
        starts = self.starts[lines] if column == 0 else self._tabs[tabs - 1] + 1
        places = zip(starts.tolist(), np.minimum(self._tabs[tabs], ends).tolist(), strict=True)
        return [self.content[start:end].decode() for start, end in places]

    def names(self) -> list[str]:
        """All columns of the first line."""
        return self.content[: self.ends[0]].decode().split("\t") if len(self) else []


def tsv_blocks(stream: BufferedReader, origin: str, columns: Sequence[Column], header: bool) -> Iterator[Block]:
    """Read rows of a TSV file, some at a time.

    Args:
        stream: The file. Lines end with LF or CRLF; a byte order mark is passed over.
        origin: What messages call it.
        columns: The columns to read.
        header: Whether the first line names the columns.

    Raises:
        DataError: If it is not UTF-8, or if a line lacks a column. The message names the line, and what is right.
    """
    before, places = 0, resolve(columns, [], origin, fewest=2**31) if not header else {}
    for content in _whole_lines(stream):
        content = content.removeprefix(b"" if before else b"\xef\xbb\xbf")
        decoded(content, origin, before + 1)
        lines = _Lines(content)
        if is_header := header and not before:
            most = max((column.place for column in columns if isinstance(column.place, int)), default=0)
            places = resolve(columns, lines.names(), f"{origin}:1", fewest=most)
        malformed = lines.column_counts < 1 + max(places.values(), default=-1)
        if is_header:
            malformed[:1] = False
        malformed |= lines.have_return
        first = int(malformed.argmax()) if malformed.any() else len(lines)
        rows = slice(int(is_header), first)
        numbers = np.arange(len(lines), dtype=np.int32)[rows] + 1 + before
        yield Block({role: lines.fields(place, rows) for role, place in places.items()}, numbers)
        if first < len(lines):
            raise DataError(f"{origin}:{before + first + 1}: {_what_is_malformed(lines, first, columns, places)}")
        before += len(lines)


def _whole_lines(stream: BufferedReader) -> Iterator[bytes]:
    """The content in pieces, each of which, but perhaps for the last, ends with a line feed."""
    parts: list[bytes] = []
    while content := stream.read(BYTES_AT_ONCE):
        end = content.rfind(b"\n") + 1
        if end:
            yield b"".join([*parts, content[:end]])
            parts = []
        parts.append(content[end:])
    if any(parts):
        yield b"".join(parts)


def _what_is_malformed(lines: _Lines, line: int, columns: Sequence[Column], places: dict[str, int]) -> str:
    """What to say of a line that has a carriage return in it, or lacks a column."""
    if lines.have_return[line]:
        return "a carriage return within the line; save the file with LF or CRLF line ends."
    return lacks_column(int(lines.column_counts[line]), columns, places)


def lacks_column(count: int, columns: Sequence[Column], places: dict[str, int]) -> str:
    """What to say of a line that has so many columns, and lacks one.

    Args:
        count: The number of its columns.
        columns: The columns that are wanted.
        places: Where they are, counted from 0, by role.
    """
    column = next(column for column in columns if places[column.role] >= count)
    counted = f"{count} column" + ("" if count == 1 else "s")
    return f"there is no column {places[column.role] + 1} among {counted}; {REMEDIES[column.field]}."
