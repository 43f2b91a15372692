"""CSV, FASTA and JSON lines, each read some rows at a time."""

import csv
import json
from collections.abc import Iterator, Sequence
from io import BufferedReader
from itertools import chain, islice
from typing import Any

import numpy as np

from seqssvae.data.blocks import BLOCK_ROWS, Block, Column, resolve
from seqssvae.data.opening import decoded_lines
from seqssvae.data.tsv import lacks_column
from seqssvae.errors import DataError

Row = tuple[int, Sequence[str]]
"""The number of a row's line, and its texts, one for each column that is wanted."""


def csv_blocks(stream: BufferedReader, origin: str, columns: Sequence[Column], header: bool) -> Iterator[Block]:
    """Read rows of a CSV file: columns separated by commas, quoted by double quotes where need be (RFC 4180).

    Args:
        stream: The file; lines without any column are passed over.
        origin: What messages call it.
        columns: The columns to read.
        header: Whether the first line names the columns.

    Raises:
        DataError: If it is not UTF-8, or if a row lacks a column. The message names its first line.
    """
    return _blocks(_csv_rows(stream, origin, columns, header), columns)


def _csv_rows(stream: BufferedReader, origin: str, columns: Sequence[Column], header: bool) -> Iterator[Row]:
    reader = csv.reader(decoded_lines(stream, origin), strict=True)
    before, places = 0, resolve(columns, [], origin, fewest=2**31) if not header else {}
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{origin}:{before + 1}: not valid CSV ({error}); see how it is quoted.") from None
        line, before = before + 1, reader.line_num
        if not row:
            continue
        if header and not places:
            most = max((column.place for column in columns if isinstance(column.place, int)), default=0)
            places = resolve(columns, row, f"{origin}:{line}", fewest=most)
            continue
        try:
            yield line, [row[place] for place in places.values()]
        except IndexError:
            raise DataError(f"{origin}:{line}: {lacks_column(len(row), columns, places)}") from None


def fasta_blocks(stream: BufferedReader, origin: str, columns: Sequence[Column], separator: str) -> Iterator[Block]:
    """Read rows of a FASTA file: a line that begins with > and an identifier, and lines of the sequence behind it.

    Args:
        stream: The file; empty lines, and lines that begin with a semicolon, are passed over.
        origin: What messages call it.
        columns: The columns to read, of which there are the sequence and the identifier.
        separator: What separates symbols: if it is blank, lines are joined by it, and else without anything in between.

    Raises:
        DataError: If it is not UTF-8, begins otherwise, or if a source or a group is asked for.
    """
    for column in columns:
        if column.role in ("source", "group"):
            raise DataError(f"{origin}: FASTA has no {column.role}; set data.{column.field} to 0, or give a table.")
    joint = separator if separator.isspace() else ""

    def rows() -> Iterator[Row]:
        line, name, parts = 0, "", list[str]()
        for number, text in enumerate(decoded_lines(stream, origin), start=1):
            if text.startswith(">"):
                if line:
                    yield line, of_columns(name, parts)
                line, name, parts = number, (text[1:].split() or [""])[0], []
            elif not text.startswith(";") and (words := text.split()):
                if not line:
                    raise DataError(f"{origin}:{number}: FASTA begins with > and an identifier; see data.format.")
                parts.extend(words)
        if line:
            yield line, of_columns(name, parts)

    def of_columns(name: str, parts: Sequence[str]) -> list[str]:
        known = {"sequence": joint.join(parts), "id": name}
        return [known.get(column.role, "") for column in columns]

    return _blocks(rows(), columns)


def json_blocks(stream: BufferedReader, origin: str, columns: Sequence[Column]) -> Iterator[Block]:
    """Read rows of a file of JSON lines, an object a line.

    Args:
        stream: The file; empty lines are passed over.
        origin: What messages call it.
        columns: The columns to read; numbers count the keys of the first object.

    Raises:
        DataError: If a line is no object, has no sequence, or something else than a text, a number or null where there
            should be one. The message names it.
    """
    return _blocks(_json_rows(stream, origin, columns), columns)


def _json_rows(stream: BufferedReader, origin: str, columns: Sequence[Column]) -> Iterator[Row]:
    keys: dict[str, str] = {}
    unseen: dict[str, Column] = {}
    known: dict[str, None] = {}
    for number, text in enumerate(decoded_lines(stream, origin), start=1):
        if not text.strip():
            continue
        at = f"{origin}:{number}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{at}: not valid JSON ({error}); there must be an object a line.") from None
        if not isinstance(row, dict):
            raise DataError(f"{at}: there must be an object a line (JSON lines), not {type(row).__name__}.")
        if not keys:
            names = list(dict.fromkeys([*row, *(column.place for column in columns if isinstance(column.place, str))]))
            places = resolve(columns, names, at)
            keys = {role: names[place] for role, place in places.items()}
            unseen = {column.role: column for column in columns}
        if unseen:
            known.update(dict.fromkeys(row))
            unseen = {role: column for role, column in unseen.items() if keys[role] not in row}
        texts = [_json_text(row.get(key), key, at) for key in keys.values()]
        if "\\u" in text and any("\ud800" <= letter <= "\udfff" for value in texts for letter in value):
            raise DataError(f"{at}: half a surrogate pair, as in '\\\\ud800', is not Unicode; correct the line.")
        yield number, texts
    for role, column in unseen.items():
        raise DataError(
            f"{origin}: no object has the key {keys[role]!r}; set data.{column.field} to one of "
            f"{', '.join(map(repr, list(known)[:20]))}."
        )


def _json_text(value: Any, key: str, at: str) -> str:
    """A value as a text, empty where it is null or missing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    raise DataError(f"{at}: {key!r} must be a text, not a {'list' if isinstance(value, list) else 'nested object'}.")


def _blocks(rows: Iterator[Row], columns: Sequence[Column]) -> Iterator[Block]:
    """The rows in blocks; where a row is wrong, those before it are a block first."""
    while True:
        part: list[Row] = []
        failed: DataError | None = None
        try:
            part.extend(islice(rows, BLOCK_ROWS))
        except DataError as error:
            failed = error
        if part:
            lines, texts = zip(*part, strict=True)
            values = list(chain.from_iterable(texts))
            width = len(columns)
            by_role = {column.role: values[place::width] for place, column in enumerate(columns)}
            yield Block(by_role, np.array(lines, np.int32))
        if failed is not None:
            raise failed
        if not part:
            return
