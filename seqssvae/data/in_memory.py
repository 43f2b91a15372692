"""Rows in memory, with labels of any type, made into the same table as the rows of a file."""

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from seqssvae.config import DataConfig
from seqssvae.data.table import SymbolColumn, Table, TextColumn
from seqssvae.errors import DataError

MISSING_INTEGER = -1
"""Marks a missing label unless another marker is given, as in scikit-learn's semi-supervised estimators."""


def check_sequences(X: Any, name: str = "X") -> bool:
    """Check that sequences are all texts, or all lists of symbols.

    Args:
        X: The sequences.
        name: What they are called in messages.

    Returns:
        Whether they are texts.

    Raises:
        DataError: If they are neither, or a mixture, or if there are none, or an empty one.
    """
    if isinstance(X, (str, bytes)) or not hasattr(X, "__len__") or not hasattr(X, "__getitem__"):
        raise DataError(f"{name} must be a list of sequences, each a text or a list of symbols.")
    if not len(X):
        raise DataError(f"{name} is empty; it must hold at least one sequence.")
    texts = isinstance(next(iter(X)), str)
    if not _is_plain(X, texts):
        for index, sequence in enumerate(X):
            _check_sequence(sequence, texts, name, index)
    return texts


def _is_plain(X: Collection[Any], texts: bool) -> bool:
    """Whether the sequences are of Python's own types and all right, which takes little time to find out."""
    kinds = set(map(type, X))
    if texts:
        return kinds == {str} and all(X)
    if not kinds <= {list, tuple} or not all(X):
        return False
    return set(map(type, chain.from_iterable(X))) == {str} and all(chain.from_iterable(X))


def _check_sequence(sequence: Any, texts: bool, name: str, index: int) -> None:
    if isinstance(sequence, str) != texts or isinstance(sequence, bytes) or not hasattr(sequence, "__len__"):
        kind = "a text" if texts else "a list of symbols"
        raise DataError(f"{name}[{index}] must be {kind}, as {name}[0] is, not {type(sequence).__name__}.")
    if not len(sequence):
        raise DataError(f"{name}[{index}] is an empty sequence; leave it out.")
    if not texts and not all(isinstance(symbol, str) and symbol for symbol in sequence):
        raise DataError(f"{name}[{index}] must hold symbols that are texts and not empty.")


def make_table(
    X: Collection[Any],
    data: DataConfig,
    labels: Sequence[str | None] | None = None,
    groups: Iterable[Any] | None = None,
    source: Collection[Any] | None = None,
    origin: str = "X",
) -> Table:
    """Make a table of checked sequences; the line of a row is its index.

    Args:
        X: Sequences that `check_sequences` has checked.
        data: The separators of symbols in texts.
        labels: The label of each, None where it is missing; None: all are missing.
        groups: The group of each, None where it has none; None: no row has one.
        source: The sequence that each is made from, checked as well.
        origin: Where the rows are from, for messages.

    Raises:
        DataError: If there are not as many groups or sources as sequences, or a text has no symbol but separators.
    """
    if source is not None and len(source) != len(X):
        raise DataError(f"source must have an entry for each of the {len(X)} sequences, not {len(source)}.")
    names = None if groups is None else [None if group is None else str(group) for group in groups]
    if names is not None and len(names) != len(X):
        raise DataError(f"groups must have an entry for each of the {len(X)} sequences, not {len(names)}.")
    table = Table(
        _column(X, data.separator),
        TextColumn.missing(len(X)) if labels is None else TextColumn.from_texts(labels, len(X)),
        TextColumn.missing(len(X)) if names is None else TextColumn.from_texts(names, len(X)),
        None if source is None else _column(source, data.source_separator),
        np.arange(len(X), dtype=np.int32),
        origin,
    )
    _check_not_empty(table)
    return table


def _column(X: Collection[Any], separator: str) -> SymbolColumn:
    if isinstance(next(iter(X)), str):
        return SymbolColumn.from_texts(X, separator)
    return SymbolColumn.from_symbols(X)


def _check_not_empty(table: Table) -> None:
    """Raise an error for the first row whose sequence or source has no symbol."""
    columns = {"X": table.sequences, "source": table.sources}
    empty = {
        name: int((column.codes.lengths == 0).argmax())
        for name, column in columns.items()
        if column is not None and not column.codes.lengths.all()
    }
    if empty:
        name = min(empty, key=lambda name: empty[name])
        raise DataError(f"{name}[{empty[name]}] has no symbol.")


def read_labels(y: Iterable[Any] | None, count: int, missing: Hashable) -> list[Any]:
    """Convert labels to plain Python values, None where they are missing.

    Args:
        y: Labels and markers; None: all are missing.
        count: Number of sequences.
        missing: Marker of a missing label, beside None; None: the integer -1.

    Raises:
        DataError: If there are not as many as sequences, or one is NaN, or -1 and 1 are the only ones and -1 is the
            marker.
    """
    if y is None:
        return [None] * count
    values = [value.item() if isinstance(value, np.generic) else value for value in y]
    if len(values) != count:
        raise DataError(f"y must have an entry for each of the {count} sequences, not {len(values)}.")
    for index, value in enumerate(values):
        if isinstance(value, float) and math.isnan(value):
            raise DataError(f"y[{index}] is NaN; a missing label is None (or set missing=... to a marker).")
    marker = MISSING_INTEGER if missing is None else missing
    marked = [value is None or (value == marker) for value in values]
    labels = [None if is_missing else value for is_missing, value in zip(marked, values, strict=True)]
    observed = [value for value in labels if value is not None]
    if missing is None and MISSING_INTEGER in values and observed and all(value == 1 for value in observed):
        raise DataError(
            "y has the labels -1 and 1, but -1 marks a missing label; rename the labels, or set missing=... to a "
            "marker that is no label."
        )
    return labels


def sort_classes(values: Iterable[Any]) -> list[Any]:
    """Sort the different labels.

    Args:
        values: Labels, None where they are missing.

    Raises:
        DataError: If there are fewer than two, or they cannot be sorted.
    """
    try:
        classes = sorted({value for value in values if value is not None})
    except TypeError as error:
        raise DataError("y must hold labels of one type that can be hashed and sorted.") from error
    if len(classes) < 2:
        observed = f"only the label {classes[0]!r}" if classes else "no label"
        raise DataError(f"y has {observed}; label sequences of at least two classes.")
    return classes


def label_names(classes: Sequence[Any]) -> dict[Any, str]:
    """Find a text for each label, different for different labels.

    Args:
        classes: The different labels.

    Raises:
        DataError: If a label is an empty text.
    """
    if "" in classes:
        raise DataError("y has a label that is an empty text; a missing label is None.")
    names = {value: str(value) for value in classes}
    return names if len(set(names.values())) == len(names) else {value: repr(value) for value in classes}


def as_array(classes: Sequence[Any]) -> np.ndarray:
    """Make an array of one dimension of labels, of objects where NumPy has no type for them."""
    if all(isinstance(value, (str, bool, int, float)) for value in classes):
        return np.array(classes)
    array = np.empty(len(classes), object)
    array[:] = classes
    return array
