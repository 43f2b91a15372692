"""Rows as they are read, some at a time, and which columns of a file they are read from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.config import DataConfig
from seqssvae.errors import DataError

BLOCK_ROWS = 1 << 16
"""Rows that are read, or used, at a time."""

REMEDIES = {
    "sequence_column": "set data.sequence_column to the column of the sequences, counted from 1",
    "label_column": "a missing label is an empty column after a tab; set data.label_column to 0 if there is none",
    "source_column": "set data.source_column to the column of the sources, counted from 1, or to 0 if there are none",
    "group_column": "set data.group_column to the column of the groups, counted from 1, or to 0 if there are none",
    "id_column": "set data.id_column to the column of the identifiers, counted from 1, or to 0 if there are none",
    "labels_id_column": "set data.labels_id_column to the column of the identifiers, counted from 1",
}
"""What to do where a line lacks a column, or a file has none of that name."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a file.

    Args:
        columns: By what it is (sequence, label, source, group, id), the text of each row, empty where it is missing.
        lines: The number of each row's line in the file; of its row, where the file has no lines.
    """

    columns: Mapping[str, Sequence[str]]
    lines: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.lines)

    def part(self, rows: slice) -> "Block":
        """Some of the rows."""
        return Block({name: texts[rows] for name, texts in self.columns.items()}, self.lines[rows])


class Column(NamedTuple):
    """A column that is wanted.

    Args:
        role: What it is: sequence, label, source, group, id.
        field: The field of the configuration that names it.
        place: Its number, counted from 1, or its name.
    """

    role: str
    field: str
    place: int | str


def wanted_columns(data: DataConfig, roles: Iterable[str]) -> list[Column]:
    """The columns of these roles that the configuration names."""
    fields = {role: f"{role}_column" for role in roles}
    return [Column(role, field, getattr(data, field)) for role, field in fields.items() if getattr(data, field)]


def are_named(columns: Iterable[Column]) -> bool:
    """Whether a column is called by its name."""
    return any(isinstance(column.place, str) for column in columns)


def resolve(columns: Sequence[Column], names: Sequence[str], at: str, fewest: int = 0) -> dict[str, int]:
    """Find the place of each column, counted from 0, by role.

    Args:
        columns: The columns that are wanted.
        names: The names of those that there are.
        at: The file and the line that names them, for messages.
        fewest: Numbers up to this one are taken whatever the names; each line is to have the column then.

    Raises:
        DataError: If there is no such column, or several, or two of those that must not be are the same.
    """
    shown = ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    places: dict[str, int] = {}
    for column in columns:
        if isinstance(column.place, int):
            if column.place > max(len(names), fewest):
                raise DataError(f"{at}: there is no column {column.place} among {shown}; {REMEDIES[column.field]}.")
            place = column.place - 1
        else:
            if (count := names.count(column.place)) != 1:
                what = "no column" if count == 0 else "more than one column"
                remedy = f"set data.{column.field} to one of them" if count == 0 else "give its number"
                raise DataError(f"{at}: there is {what} {column.place!r} among {shown}; {remedy}.")
            place = names.index(column.place)
        same = next((other for other in columns if places.get(other.role) == place), None)
        if same is not None and "id" not in (same.role, column.role):
            raise DataError(f"{at}: data.{same.field} and data.{column.field} name the same column, {place + 1}.")
        places[column.role] = place
    return places


def in_blocks(blocks: Iterable[Block], rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """The same rows in blocks of this many each, the last of which may be smaller."""
    waiting: list[Block] = []
    for block in blocks:
        while len(block):
            room = rows - sum(map(len, waiting))
            waiting.append(block.part(slice(room)))
            block = block.part(slice(room, None))
            if sum(map(len, waiting)) == rows:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    columns = {name: [text for block in blocks for text in block.columns[name]] for name in blocks[0].columns}
    return Block(columns, np.concatenate([block.lines for block in blocks]))
