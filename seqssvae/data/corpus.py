"""Rows encoded as numbers, ready to be put into batches."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import NO_LABEL
from seqssvae.config import DataConfig, TooLong
from seqssvae.data.lookalikes import plain_form
from seqssvae.data.ragged import RaggedArray, Rows, gathered
from seqssvae.data.schema import Schema
from seqssvae.data.table import NO_TEXT, SymbolColumn, Table
from seqssvae.data.vocabulary import END, UNK, Labels, Vocabulary
from seqssvae.errors import DataError

NO_GROUP = NO_TEXT
"""The entry of `Corpus.groups` where a row has no group."""


class CorpusCounts(NamedTuple):
    """What happened to the rows as they were encoded.

    Args:
        rows: The number of rows read.
        skipped: How many were left out because they are too long.
        truncated: How many were cut because they are too long.
        unknown_symbols: How many symbols became UNK, those of sources included.
    """

    rows: int
    skipped: int
    truncated: int
    unknown_symbols: int


@dataclass(frozen=True, eq=False)
class Corpus:
    """Encoded rows.

    Args:
        sequences: Symbol ids of each row, with END.
        y: Label ids, `NO_LABEL` where missing.
        groups: The number of each row's group, `NO_GROUP` where it has none.
        origin: Where the rows are from: a path or a description.
        counts: What happened to the rows of the origin.
        sources: Symbol ids of the source of each row, with END; None where there are no sources.
        posterior: Probabilities of the labels of each row, for `objective.posterior: given`; None where none are given.
        lines: The number of each row's line in the origin; None where rows are known by their place alone.
        buckets: The lengths that its rows are padded to where they are evaluated; None: they are chosen for them.
    """

    sequences: Rows
    y: Int[np.ndarray, " N"]
    groups: Int[np.ndarray, " N"]
    origin: str
    counts: CorpusCounts
    sources: Rows | None = None
    posterior: Float[np.ndarray, "N K"] | None = None
    lines: Int[np.ndarray, " N"] | None = None
    buckets: tuple[int, ...] | None = None

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[Sequence[int] | Int[np.ndarray, " _"]],
        y: Sequence[int] | Int[np.ndarray, " N"],
        sources: Iterable[Sequence[int] | Int[np.ndarray, " _"]] | None = None,
        origin: str = "memory",
    ) -> "Corpus":
        """Make a corpus, without groups, of rows that are encoded already.

        Args:
            sequences: Symbol ids of each row, with END.
            y: Label ids, `NO_LABEL` where missing.
            sources: Symbol ids of the source of each row, with END.
            origin: Where the rows are from.
        """
        rows = RaggedArray.from_rows(sequences)
        return cls(
            sequences=rows,
            y=np.asarray(y, dtype=np.int32),
            groups=np.full(len(rows), NO_GROUP, dtype=np.int32),
            origin=origin,
            counts=CorpusCounts(rows=len(rows), skipped=0, truncated=0, unknown_symbols=0),
            sources=None if sources is None else RaggedArray.from_rows(sources),
        )

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.sequences)

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """The number of symbols of each row, END included."""
        return self.sequences.lengths

    def take(self, indices: Int[np.ndarray, " R"]) -> "Corpus":
        """The corpus of the rows at these indices, in this order; the counts remain those of the origin."""
        return dataclasses.replace(
            self,
            sequences=self.sequences.select(indices),
            y=gathered(self.y, indices),
            groups=_picked(self.groups, indices),
            sources=None if self.sources is None else self.sources.select(indices),
            posterior=None if self.posterior is None else self.posterior[indices],
            lines=None if self.lines is None else self.lines[indices],
        )

    def places(self, indices: Int[np.ndarray, " R"]) -> str:
        """Where the rows at these indices are from, the first five of them if there are more."""
        lines = sorted(set((indices if self.lines is None else self.lines[indices]).tolist()))
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        return f"{self.origin}:{', '.join(map(str, lines[:5]))}{more}"

    def with_labels(self, y: Int[np.ndarray, " M"]) -> "Corpus":
        """The corpus of the same rows with other labels."""
        if len(y) != len(self):
            raise ValueError(f"y must have {len(self)} entries, one for each row, not {len(y)}.")
        return dataclasses.replace(self, y=np.asarray(y, dtype=np.int32))

    def with_posterior(self, posterior: Float[np.ndarray, "M K"]) -> "Corpus":
        """The corpus of the same rows with probabilities of their labels."""
        valid = posterior.ndim == 2 and len(posterior) == len(self) and bool((posterior >= 0).all())
        if not valid or not np.allclose(posterior.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError(f"posterior must have {len(self)} rows of probabilities that sum to 1.")
        return dataclasses.replace(self, posterior=posterior)


def _picked(values: Int[np.ndarray, " N"], indices: Int[np.ndarray, " R"]) -> Int[np.ndarray, " R"]:
    """The values at these indices; of one value for all rows, which takes no memory, the same for fewer."""
    return gathered(values, indices) if values.strides[0] else np.broadcast_to(values[:1], len(indices))


class LimitedTable(NamedTuple):
    """Rows none of which is too long.

    Args:
        table: The rows.
        skipped: How many were left out because they are too long.
        truncated: How many were cut because they are too long.
    """

    table: Table
    skipped: int
    truncated: int


def limit_lengths(table: Table, data: DataConfig, too_long: TooLong | None = None) -> LimitedTable:
    """Leave out or cut rows whose sequence or source has more than `data.max_length` symbols.

    Args:
        table: The rows.
        data: The greatest length, and what to do with longer rows.
        too_long: What to do with longer rows, in place of `data.too_long`.

    Raises:
        DataError: If no row is left.
    """
    limited = limit_part(table, data, too_long)
    check_rows_left(len(limited.table), table.origin, data)
    return limited


def limit_part(table: Table, data: DataConfig, too_long: TooLong | None = None) -> LimitedTable:
    """Do the same for some of the rows, of which none may be left."""
    lengths = table.sequences.codes.lengths
    if table.sources is not None:
        lengths = np.maximum(lengths, table.sources.codes.lengths)
    fits = lengths <= data.max_length
    count = len(table) - int(np.count_nonzero(fits))
    if count and (too_long or data.too_long) == "truncate":
        return LimitedTable(table.cut(data.max_length), 0, count)
    return LimitedTable(table.take(np.flatnonzero(fits)) if count else table, count, 0)


def check_rows_left(count: int, origin: str, data: DataConfig) -> None:
    """Raise an error if no row is short enough."""
    if not count:
        raise DataError(
            f"{origin}: every sequence is longer than {data.max_length} symbols; raise data.max_length, or set "
            "data.too_long: truncate."
        )


def encode_table(table: Table, schema: Schema, data: DataConfig, too_long: TooLong | None = None) -> Corpus:
    """Encode rows with the symbols and labels of the training rows.

    Args:
        table: The rows.
        schema: The symbols, of which others become UNK, and the classes.
        data: The greatest length, and what to do with longer rows.
        too_long: What to do with longer rows, in place of `data.too_long`.

    Raises:
        DataError: If a label was never seen in training, all rows are too long, or the schema has sources and the
            table has none.
    """
    return encode_limited(limit_lengths(table, data, too_long), schema)


def encode_limited(limited: LimitedTable, schema: Schema) -> Corpus:
    """Encode rows none of which is too long; see `encode_table`."""
    table = limited.table
    sequences, sources = encode_column(table.sequences, schema.vocabulary), None
    if schema.source_vocabulary is not None:
        if table.sources is None:
            raise DataError(f"{table.origin}: the model has sources; set data.source_column to their column.")
        sources = encode_column(table.sources, schema.source_vocabulary)
    unknown = sum(np.count_nonzero(rows.values == UNK) for rows in (sequences, sources) if rows is not None)
    counts = CorpusCounts(len(table) + limited.skipped, limited.skipped, limited.truncated, int(unknown))
    y = label_ids(table, schema.labels)
    return Corpus(sequences, y, table.groups.codes, table.origin, counts, sources, lines=table.lines)


def encode_column(column: SymbolColumn, vocabulary: Vocabulary) -> RaggedArray:
    """Symbol ids of each row of a column, with END."""
    return column.codes.insert_last(END, vocabulary.lookup(column.symbols))


def label_ids(table: Table, labels: Labels) -> Int[np.ndarray, " N"]:
    """The id of each row's label, `NO_LABEL` where it is missing."""
    unknown = len(labels)
    ids = [labels.index(name) if name in labels else unknown for name in table.labels.texts]
    y = np.array([*ids, NO_LABEL], np.int32)[table.labels.codes]  # the last one is at the index NO_TEXT
    if (y == unknown).any():
        row = int((y == unknown).argmax())
        label = str(table.labels[row])
        meant = next((name for name in labels.names if plain_form(name) == plain_form(label)), None)
        known = f"known are {labels}" if meant is None else f"{meant!r} is written otherwise"
        raise DataError(
            f"{table.origin}:{table.lines[row]}: the label {label!r} was never seen in training ({known}); "
            "correct it, or leave it empty if it is missing."
        )
    return y
