"""Rows of a TSV file: UTF-8, one row a line, columns separated by tabs, nothing quoted."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seqssvae.config import DataConfig
from seqssvae.errors import DataError
from seqssvae.vocabulary import split_symbols

REMEDIES = {
    "sequence_column": "set data.sequence_column to the column of the sequences, counted from 1",
    "label_column": "a missing label is an empty column after a tab; set data.label_column to 0 if there is none",
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
    """

    symbols: tuple[str, ...]
    label: str | None
    group: str | None
    line: int


def read_rows(path: str | Path, data: DataConfig, labelled: bool = True) -> list[Row]:
    """Read all rows of a file.

    Args:
        path: The file. Lines end with LF or CRLF; a byte order mark is passed over.
        data: Columns, separator, and whether there is a header.
        labelled: Whether to read labels and groups. Without, only the column of the sequences needs to be there.

    Returns:
        At least one row.

    Raises:
        DataError: If the file cannot be read, is empty, is not UTF-8, or if a line lacks a column or its sequence is
            empty. The message names file, line and remedy.
    """
    columns = {"sequence_column": data.sequence_column}
    if labelled:
        columns |= {name: getattr(data, name) for name in ("label_column", "group_column") if getattr(data, name)}
    rows = [_parse(path, number, line, columns, data.separator) for number, line in _lines(path, data.header)]
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


def _parse(path: str | Path, number: int, line: str, columns: dict[str, int], separator: str) -> Row:
    fields = line.split("\t")
    for name, column in columns.items():
        if column > len(fields):
            count = f"{len(fields)} column" + ("" if len(fields) == 1 else "s")
            raise DataError(f"{path}:{number}: there is no column {column} among {count}; {REMEDIES[name]}.")
    symbols = tuple(split_symbols(fields[columns["sequence_column"] - 1], separator))
    if not symbols:
        raise DataError(f"{path}:{number}: the sequence is empty; remove the line, or see data.sequence_column.")
    label, group = (_optional(fields, columns.get(name, 0)) for name in ("label_column", "group_column"))
    return Row(symbols, label, group, number)


def _optional(fields: list[str], column: int) -> str | None:
    return (fields[column - 1] or None) if column else None
