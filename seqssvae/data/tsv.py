"""TSV files: UTF-8, a row a line, columns separated by tabs, nothing quoted.

A file is read in one go. Where its lines and columns begin and end is found for all lines at once; only a file that is
not as it should be is looked at line by line, for the message.
"""

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from seqssvae.config import DataConfig
from seqssvae.data.lookalikes import warn_of_header
from seqssvae.data.ragged import ROWS_AT_ONCE
from seqssvae.data.table import NO_TEXT, SymbolColumn, Table, TextColumn
from seqssvae.errors import DataError

REMEDIES = {
    "sequence_column": "set data.sequence_column to the column of the sequences, counted from 1",
    "label_column": "a missing label is an empty column after a tab; set data.label_column to 0 if there is none",
    "source_column": "set data.source_column to the column of the sources, counted from 1, or to 0 if there are none",
    "group_column": "set data.group_column to the column of the groups, counted from 1, or to 0 if there are none",
}
"""What to do where a line lacks a column."""

TAB, LINE_FEED, CARRIAGE_RETURN = b"\t\n\r"
"""Bytes, none of which is part of another character in UTF-8."""


@dataclass(frozen=True, eq=False)
class _Fields:
    """One field of each line: where it begins and ends in the file.

    Args:
        content: The file.
        starts: The place of the first byte of each field.
        ends: The place behind its last byte.
    """

    content: bytes
    starts: Int[np.ndarray, " N"]
    ends: Int[np.ndarray, " N"]

    def texts(self) -> Iterator[str]:
        """The text of each field."""
        for first in range(0, len(self.starts), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            places = zip(self.starts[rows].tolist(), self.ends[rows].tolist(), strict=True)
            yield from [self.content[start:end].decode() for start, end in places]

    def to_column(self) -> TextColumn:
        """The texts as a column, in which an empty field is a missing text."""
        filled = self.ends > self.starts
        chosen = _Fields(self.content, self.starts[filled], self.ends[filled])
        column = TextColumn.from_texts(chosen.texts(), len(chosen.starts))
        codes = np.full(len(filled), NO_TEXT, np.int32)
        codes[filled] = column.codes
        return TextColumn(column.texts, codes)


class _Lines:
    """All lines of a file: where they begin and end, and where the tabs in them are.

    Args:
        content: The file.
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

    def fields(self, column: int, lines: slice) -> _Fields:
        """The fields in a column, counted from 1, of lines that have it."""
        tabs, ends = self._first_tabs[lines] + column - 1, self.ends[lines]
        starts = self.starts[lines] if column == 1 else self._tabs[tabs - 1] + 1
        return _Fields(self.content, starts, np.minimum(self._tabs[tabs], ends))


def read_table(path: str | Path, data: DataConfig, labelled: bool = True, targets: bool = True) -> Table:
    """Read all rows of a file.

    Args:
        path: The file. Lines end with LF or CRLF; a byte order mark is passed over.
        data: Columns, separators, and whether there is a header.
        labelled: Whether to read labels and groups; without, their columns need not be there.
        targets: Whether to read the sequences; without, only the sources are read.

    Returns:
        At least one row.

    Raises:
        DataError: If the file cannot be read, is empty, is not UTF-8, or if a line lacks a column or its sequence
            or source is empty. The message names file, line and remedy.

    Warns:
        UserWarning: If the first line seems to name the columns, and `data.header` is false.
    """
    names = [*["sequence_column"] * targets, "source_column", *["label_column", "group_column"] * labelled]
    columns = {name: getattr(data, name) for name in names if getattr(data, name)}
    lines = _Lines(_read(path))
    malformed = lines.column_counts < max(columns.values(), default=0)
    if data.header:
        malformed[:1] = False
    malformed |= lines.have_return
    first = int(malformed.argmax()) if malformed.any() else len(lines)
    table = _to_table(lines, slice(int(data.header), first), columns, data, str(path))
    _check_not_empty(table, columns)
    if first < len(lines):
        raise DataError(f"{path}:{first + 1}: {_what_is_malformed(lines, first, columns)}")
    if not len(table):
        what = "there is nothing after the header line" if data.header else "the file is empty"
        raise DataError(f"{path}: {what}; it must have a row per line, with columns separated by tabs.")
    if not data.header:
        warn_of_header(table)
    return table


def _read(path: str | Path) -> bytes:
    """The content of a file, which is UTF-8, without a byte order mark."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a directory; give a TSV file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "that is no path"
        raise DataError(f"{path}: the file cannot be read ({reason}); check its permissions.") from error
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in UTF-8 "
            "(iconv -f OLD_ENCODING -t UTF-8)."
        ) from None
    return content.removeprefix(codecs.BOM_UTF8)


def _to_table(lines: _Lines, rows: slice, columns: Mapping[str, int], data: DataConfig, origin: str) -> Table:
    """The table of some lines, each of which has all columns."""
    numbers = np.arange(len(lines), dtype=np.int32)[rows] + 1

    def symbols(name: str, separator: str) -> SymbolColumn | None:
        if name not in columns:
            return None
        return SymbolColumn.from_texts(lines.fields(columns[name], rows).texts(), separator)

    def texts(name: str) -> TextColumn:
        return lines.fields(columns[name], rows).to_column() if name in columns else TextColumn.missing(len(numbers))

    sequences = symbols("sequence_column", data.separator)
    return Table(
        SymbolColumn.empty(len(numbers)) if sequences is None else sequences,
        texts("label_column"),
        texts("group_column"),
        symbols("source_column", data.source_separator),
        numbers,
        origin,
    )


def _check_not_empty(table: Table, columns: Mapping[str, int]) -> None:
    """Raise an error for the first row whose sequence or source has no symbol."""
    empty = {
        name: int(table.lines[(column.codes.lengths == 0).argmax()])
        for name, column in (("sequence", table.sequences), ("source", table.sources))
        if f"{name}_column" in columns and column is not None and not column.codes.lengths.all()
    }
    if empty:
        name = min(empty, key=lambda name: empty[name])
        where = f"{table.origin}:{empty[name]}"
        raise DataError(f"{where}: the {name} is empty; remove the line, or see data.{name}_column.")


def _what_is_malformed(lines: _Lines, line: int, columns: Mapping[str, int]) -> str:
    """What to say of a line that has a carriage return in it, or lacks a column."""
    if lines.have_return[line]:
        return "a carriage return within the line; save the file with LF or CRLF line ends."
    count = int(lines.column_counts[line])
    name = next(name for name, column in columns.items() if column > count)
    counted = f"{count} column" + ("" if count == 1 else "s")
    return f"there is no column {columns[name]} among {counted}; {REMEDIES[name]}."
