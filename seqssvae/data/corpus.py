"""Rows as numbers: what is learned from the training rows (vocabulary, labels), and all rows encoded with it."""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL
from seqssvae.config import DataConfig, ModelConfig, TooLong
from seqssvae.data.tsv import Row
from seqssvae.data.vocabulary import UNK, Labels, Vocabulary
from seqssvae.errors import ConfigurationError, DataError


class CorpusCounts(NamedTuple):
    """What happened to the rows as they were encoded.

    Args:
        rows: Rows read.
        skipped: Rows left out because they are too long.
        truncated: Rows cut because they are too long.
        unknown_symbols: Symbols that became UNK, those of sources included.
    """

    rows: int
    skipped: int
    truncated: int
    unknown_symbols: int


@dataclass(frozen=True)
class Corpus:
    """Encoded rows.

    Args:
        sequences: Ids of each row, with END.
        y: Label ids, `NO_LABEL` where missing.
        groups: Group of each row, None where it has none.
        origin: Where the rows are from: a path, or `memory`.
        counts: What happened to the rows of the origin.
        sources: Ids of the source of each row, with END; None where there are no sources.
    """

    sequences: tuple[Int[np.ndarray, " _"], ...]
    y: Int[np.ndarray, " N"]
    groups: tuple[str | None, ...]
    origin: str
    counts: CorpusCounts
    sources: tuple[Int[np.ndarray, " _"], ...] | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.sequences)

    @cached_property
    def lengths(self) -> Int[np.ndarray, " N"]:
        """Symbols of each row, END included."""
        return np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)

    def take(self, indices: Int[np.ndarray, " M"]) -> "Corpus":
        """The corpus of these rows, in this order; the counts remain those of the origin."""
        chosen = [int(index) for index in indices]
        return dataclasses.replace(
            self,
            sequences=tuple(self.sequences[index] for index in chosen),
            y=self.y[chosen],
            groups=tuple(self.groups[index] for index in chosen),
            sources=self.sources and tuple(self.sources[index] for index in chosen),
        )

    def with_labels(self, y: Int[np.ndarray, " N"]) -> "Corpus":
        """The same rows with other labels."""
        if len(y) != len(self):
            raise ValueError(f"y must have {len(self)} entries, one for each row, not {len(y)}.")
        return dataclasses.replace(self, y=np.asarray(y, dtype=np.int32))


def build_schema(rows: Sequence[Row], data: DataConfig, origin: str) -> tuple[Vocabulary, Labels]:
    """Learn from training rows which symbols and which labels there are.

    Rows that `data.too_long` leaves out, and symbols that it cuts off, do not count.

    Args:
        rows: The training rows.
        data: Limits, and the classes where they are listed.
        origin: Where the rows are from, for messages.

    Raises:
        DataError: If all rows are too long, all symbols too rare, or if the classes are not listed and no row, or only
            one class, is labelled.

    Warns:
        UserWarning: If no row has a label, or none has a certain label, of those listed.
    """
    kept = _kept(rows, data)
    _check_any_left(kept, data, origin)
    vocabulary = Vocabulary.from_sequences((row.symbols for row in kept), data.separator, data.minimum_count)
    if not vocabulary.symbols:
        raise DataError(f"{origin}: no symbol occurs {data.minimum_count} times; lower data.minimum_count.")
    observed = Counter(row.label for row in kept if row.label is not None)
    if data.labels is None:
        return vocabulary, _labels_found(observed, data, origin)
    _warn_of_unobserved(data.labels, observed, origin)
    return vocabulary, Labels(tuple(data.labels))


def build_source_vocabulary(rows: Sequence[Row], data: DataConfig, origin: str) -> Vocabulary | None:
    """Learn from training rows which symbols their sources have; None where there are no sources.

    Raises:
        DataError: If all of them are too rare.
    """
    if not data.source_column:
        return None
    sources = (row.source or () for row in _kept(rows, data))
    vocabulary = Vocabulary.from_sequences(sources, data.source_separator, data.minimum_count)
    if not vocabulary.symbols:
        raise DataError(f"{origin}: no symbol of sources occurs {data.minimum_count} times; lower data.minimum_count.")
    return vocabulary


def _kept(rows: Sequence[Row], data: DataConfig) -> list[Row]:
    """The rows that are not too long, or what is left of them."""
    return [row for row in (_shorten(row, data.max_length, data.too_long) for row in rows) if row is not None]


def _labels_found(observed: Counter[str], data: DataConfig, origin: str) -> Labels:
    if not observed:
        where = f"in column {data.label_column}" if data.label_column else "because data.label_column is 0"
        raise DataError(f"{origin}: no row has a label {where}; label some rows, or list the classes in data.labels.")
    if len(observed) == 1:
        raise DataError(
            f"{origin}: all labelled rows have the same label, {next(iter(observed))!r}; label rows of at least two "
            "classes, or list the classes in data.labels."
        )
    return Labels(tuple(sorted(observed)))


def _warn_of_unobserved(listed: Sequence[str], observed: Counter[str], origin: str) -> None:
    unobserved = [name for name in listed if not observed[name]]
    if len(unobserved) == len(listed):
        warnings.warn(f"{origin}: no row has a label, so which class gets which label is arbitrary.", stacklevel=3)
    elif unobserved:
        names = ", ".join(unobserved)
        warnings.warn(f"{origin}: no row has the label {names}, so what it stands for is arbitrary.", stacklevel=3)


def encode_rows(
    rows: Sequence[Row],
    vocabulary: Vocabulary,
    labels: Labels,
    data: DataConfig,
    origin: str,
    too_long: TooLong | None = None,
    source_vocabulary: Vocabulary | None = None,
) -> Corpus:
    """Encode rows with the symbols and labels of the training rows.

    Args:
        rows: The rows.
        vocabulary: The symbols; others become UNK.
        labels: The classes.
        data: The longest sequence taken, and what to do with longer ones.
        origin: Where the rows are from, for messages.
        too_long: What to do with longer ones, in place of `data.too_long`.
        source_vocabulary: The symbols of sources, of a model that has them.

    Raises:
        DataError: If a label was never seen in training, all rows are too long, or one has no source and needs it.
    """
    kept: list[Row] = []
    truncated = 0
    for row in rows:
        shortened = _shorten(row, data.max_length, too_long or data.too_long)
        if shortened is not None:
            kept.append(shortened)
            truncated += shortened is not row
    _check_any_left(kept, data, origin)
    sequences = tuple(vocabulary.encode(row.symbols) for row in kept)
    sources = None
    if source_vocabulary is not None:
        if any(row.source is None for row in kept):
            raise DataError(f"{origin}: the model has sources; set data.source_column to their column.")
        sources = tuple(source_vocabulary.encode(row.source or ()) for row in kept)
    return Corpus(
        sequences=sequences,
        y=np.array([_label_id(row, labels, origin) for row in kept], dtype=np.int32),
        groups=tuple(row.group for row in kept),
        origin=origin,
        counts=CorpusCounts(
            rows=len(rows),
            skipped=len(rows) - len(kept),
            truncated=truncated,
            unknown_symbols=int(np.count_nonzero(np.concatenate([*sequences, *(sources or ())]) == UNK)),
        ),
        sources=sources,
    )


def _shorten(row: Row, max_length: int, too_long: TooLong) -> Row | None:
    if max(len(row.symbols), len(row.source or ())) <= max_length:
        return row
    if too_long == "skip":
        return None
    return row._replace(symbols=row.symbols[:max_length], source=row.source and row.source[:max_length])


def _check_any_left(kept: Sequence[Row], data: DataConfig, origin: str) -> None:
    if not kept:
        raise DataError(
            f"{origin}: every sequence is longer than {data.max_length} symbols; raise data.max_length, or set "
            "data.too_long: truncate."
        )


def _label_id(row: Row, labels: Labels, origin: str) -> int:
    if row.label is None:
        return NO_LABEL
    if row.label not in labels:
        raise DataError(
            f"{origin}:{row.line}: the label {row.label!r} was never seen in training (known are {labels}); correct "
            "it, or leave it empty if it is missing."
        )
    return labels.index(row.label)


def label_prior(model: ModelConfig, labels: Labels, y: Int[np.ndarray, " N"]) -> tuple[float, ...]:
    """p(y), one probability per label.

    Args:
        model: Says which: `uniform`; `empirical`, (n_k + 1) / (n + K) of the n observed labels; or `given`.
        labels: The classes.
        y: Labels of the training rows, `NO_LABEL` where missing.

    Raises:
        ConfigurationError: If the number of given probabilities is not that of the labels.
    """
    given = model.label_prior_probabilities
    if model.label_prior == "given" and given is not None:
        if len(given) != len(labels):
            raise ConfigurationError(
                f"model.label_prior_probabilities must be one number for each label ({labels}), not {list(given)}."
            )
        return tuple(given)
    if model.label_prior == "uniform":
        return (1.0 / len(labels),) * len(labels)
    counts = np.bincount(y[y != NO_LABEL], minlength=len(labels)) + 1
    return tuple(float(count) / float(counts.sum()) for count in counts)
