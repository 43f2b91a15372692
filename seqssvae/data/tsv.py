"""Rows of a TSV file: UTF-8, one row a line, columns separated by tabs, nothing quoted."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seqssvae.config import DataConfig
from seqssvae.data.vocabulary import split_symbols
from seqssvae.errors import DataError

REMEDIES = {
    "sequence_column": "set data.sequence_column to the column of the sequences, counted from 1",
    "label_column": "a missing label is an empty column after a tab; set data.label_column to 0 if there is none",
    "source_column": "set data.source_column to the column of the sources, counted from 1, or to 0 if there are none",
    "group_column": "set data.group_column to the column of the groups, counted from 1, or to 0 if there are none",
}
"""What to do where a line lacks a column."""


class Row(NamedTuple):
    """One row as it was read.

    Args:
        symbols: The sequence.
        label: Its label, None where it is missing.
        group: Its group, None where it has none.
        line: Line of the file, counted from 1.
        source: The sequence that it is made from, None where there is none.
    """

    symbols: tuple[str, ...]
    label: str | None
    group: str | None
    line: int
    source: tuple[str, ...] | None = None


def read_rows(path: str | Path, data: DataConfig, labelled: bool = True, targets: bool = True) -> list[Row]:
    """Read all rows of a file.

    Args:
        path: The file. Lines end with LF or CRLF; a byte order mark is passed over.
        data: Columns, separator, and whether there is a header.
        labelled: Whether to read labels and groups; without, their columns need not be there.
        targets: Whether to read the sequences; without, only the sources are read.

    Returns:
        At least one row.

    Raises:
        DataError: If the file cannot be read, is empty, is not UTF-8, or if a line lacks a column or its sequence
            or source is empty. The message names file, line and remedy.
    """
    names = [*["sequence_column"] * targets, "source_column", *["label_column", "group_column"] * labelled]
    columns = {name: getattr(data, name) for name in names if getattr(data, name)}
    rows = [_parse(path, number, line, columns, data) for number, line in _lines(path, data.header)]
    if not rows:
        what = "there is nothing after the header line" if data.header else "the file is empty"
        raise DataError(f"{path}: {what}; it must have a row per line, with columns separated by tabs.")
    return rows


def _lines(path: str | Path, header: bool) -> Iterator[tuple[int, str]]:
    lines = _text(path).removeprefix("\ufeff").split("\n")
    if lines[-1] == "":  # what is behind the last line's end
        lines.pop()
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if "\r" in line:
            raise DataError(
                f"{path}:{number}: a carriage return within the line; save the file with LF or CRLF line ends."
            )
        if not (header and number == 1):
            yield number, line


def _text(path: str | Path) -> str:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a directory; give a TSV file.") from None
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}); check its permissions.") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in UTF-8 "
            "(iconv -f OLD_ENCODING -t UTF-8)."
        ) from None


def _parse(path: str | Path, number: int, line: str, columns: dict[str, int], data: DataConfig) -> Row:
    fields = line.split("\t")
    for name, column in columns.items():
        if column > len(fields):
            count = f"{len(fields)} column" + ("" if len(fields) == 1 else "s")
            raise DataError(f"{path}:{number}: there is no column {column} among {count}; {REMEDIES[name]}.")
    found: dict[str, tuple[str, ...]] = {}
    for name, separator in (("sequence", data.separator), ("source", data.source_separator)):
        if place := columns.get(f"{name}_column", 0):
            found[name] = tuple(split_symbols(fields[place - 1], separator))
            if not found[name]:
                raise DataError(f"{path}:{number}: the {name} is empty; remove the line, or see data.{name}_column.")
    label, group = (_optional(fields, columns.get(name, 0)) for name in ("label_column", "group_column"))
    return Row(found.get("sequence", ()), label, group, number, found.get("source"))


def _optional(fields: list[str], column: int) -> str | None:
    return (fields[column - 1] or None) if column else None
