"""Tables made of blocks of rows, as they are read from a file."""

from collections.abc import Collection

import numpy as np

from seqssvae.config import DataConfig
from seqssvae.data.blocks import Block
from seqssvae.data.table import Codes, SymbolColumn, SymbolEncoder, Table, TextColumn
from seqssvae.errors import DataError


class TextEncoder:
    """Encodes texts, some at a time, to a column; an empty text is a missing one."""

    def __init__(self) -> None:
        self._codes, self._values = Codes(left_out=""), [np.zeros(0, np.int32)]

    def add(self, texts: Collection[str]) -> None:
        """Encode further texts."""
        self._values.append(self._codes.of(texts, len(texts)))

    def column(self) -> TextColumn:
        """The rows since the last column; a text keeps its code from column to column."""
        values, self._values = np.concatenate(self._values), self._values[:1]
        return TextColumn(self._codes.texts(), values)


class TableBuilder:
    """Makes tables of blocks of rows, among which a symbol, or a label, keeps its code.

    Args:
        data: The separators of symbols.
        origin: Where the rows are from, for messages.
        texts: Whether to keep the texts of sequences and sources as they were, and the identifiers.
    """

    def __init__(self, data: DataConfig, origin: str, texts: bool = False) -> None:
        self.origin, self._keeps_texts = origin, texts
        separators = {"sequence": data.separator, "source": data.source_separator}
        self._symbols = {name: SymbolEncoder(separator) for name, separator in separators.items()}
        self._texts = {name: TextEncoder() for name in ("label", "group")}
        self._clear()

    def _clear(self) -> None:
        self._kept: dict[str, list[str]] = {}
        self._lines = [np.zeros(0, np.int32)]
        self._roles: set[str] = set()

    def add(self, block: Block) -> None:
        """Add rows.

        Raises:
            DataError: If a sequence or a source has no symbol. The message names its line.
        """
        self._roles |= set(block.columns)
        self._lines.append(block.lines)
        for role, texts in block.columns.items():
            if role in self._symbols:
                self._symbols[role].add(texts)
            elif role in self._texts:
                self._texts[role].add(texts)
            if self._keeps_texts and role in ("sequence", "source", "id"):
                self._kept.setdefault(role, []).extend(texts)
        self._check_not_empty(block)

    def _check_not_empty(self, block: Block) -> None:
        """Raise an error for the first row of a block whose sequence or source has no symbol."""
        empty = {
            role: int(block.lines[place])
            for role, encoder in self._symbols.items()
            if role in block.columns and (place := encoder.first_empty(len(block))) is not None
        }
        if empty:
            role = min(empty, key=lambda role: empty[role])
            where = f"{self.origin}:{empty[role]}"
            raise DataError(f"{where}: the {role} is empty; remove the line, or see data.{role}_column.")

    def table(self) -> Table:
        """The rows since the last table."""
        lines = np.concatenate(self._lines)
        symbols = {name: encoder.column() for name, encoder in self._symbols.items() if name in self._roles}
        texts = {name: encoder.column() for name, encoder in self._texts.items() if name in self._roles}
        made = Table(
            symbols.get("sequence", SymbolColumn.empty(len(lines))),
            texts.get("label", TextColumn.missing(len(lines))),
            texts.get("group", TextColumn.missing(len(lines))),
            symbols.get("source"),
            lines,
            self.origin,
            self._kept,
        )
        self._clear()
        return made
