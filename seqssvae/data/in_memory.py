"""Rows that are in memory, with labels of any type, as the rows that files give."""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from seqssvae.data.tsv import Row
from seqssvae.data.vocabulary import split_symbols
from seqssvae.errors import DataError

MISSING_INTEGER = -1
"""Marks a missing label unless another marker is given, as in scikit-learn's semi-supervised estimators."""


def check_sequences(X: Sequence[Any], name: str = "X") -> bool:
    """Whether the sequences of that name are texts (or else lists of symbols).

    Raises:
        DataError: If they are neither, or a mixture, or if there are none, or an empty one.
    """
    if isinstance(X, (str, bytes)) or not hasattr(X, "__len__") or not hasattr(X, "__getitem__"):
        raise DataError(f"{name} must be a list of sequences, each a text or a list of symbols.")
    if not len(X):
        raise DataError(f"{name} is empty; it must hold at least one sequence.")
    texts = isinstance(X[0], str)
    for index, sequence in enumerate(X):
        if isinstance(sequence, str) != texts or isinstance(sequence, bytes) or not hasattr(sequence, "__len__"):
            kind = "a text" if texts else "a list of symbols"
            raise DataError(f"{name}[{index}] must be {kind}, as {name}[0] is, not {type(sequence).__name__}.")
        if not len(sequence):
            raise DataError(f"{name}[{index}] is an empty sequence; leave it out.")
        if not texts and not all(isinstance(symbol, str) and symbol for symbol in sequence):
            raise DataError(f"{name}[{index}] must hold symbols that are texts and not empty.")
    return texts


def make_rows(
    X: Sequence[Any],
    labels: Sequence[str | None] | None,
    groups: Iterable[Any] | None,
    separator: str,
    source: Sequence[Any] | None = None,
    source_separator: str = "",
) -> list[Row]:
    """Rows of checked sequences; the line of a row is its index.

    Raises:
        DataError: If there are not as many groups or sources as sequences, or a text has no symbol but separators.
    """
    if source is not None and len(source) != len(X):
        raise DataError(f"source must have an entry for each of the {len(X)} sequences, not {len(source)}.")
    names = [None] * len(X) if groups is None else [None if group is None else str(group) for group in groups]
    if len(names) != len(X):
        raise DataError(f"groups must have an entry for each of the {len(X)} sequences, not {len(names)}.")
    rows = []
    for index, sequence in enumerate(X):
        symbols = _symbols(sequence, separator, f"X[{index}]")
        made_from = None if source is None else _symbols(source[index], source_separator, f"source[{index}]")
        rows.append(Row(symbols, None if labels is None else labels[index], names[index], index, made_from))
    return rows


def _symbols(sequence: Any, separator: str, name: str) -> tuple[str, ...]:
    symbols = tuple(split_symbols(sequence, separator) if isinstance(sequence, str) else map(str, sequence))
    if not symbols:
        raise DataError(f"{name} has no symbol.")
    return symbols


def read_labels(y: Iterable[Any] | None, count: int, missing: Hashable) -> list[Any]:
    """Labels as plain Python values, None where missing.

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
    found = [None if is_missing else value for is_missing, value in zip(marked, values, strict=True)]
    labels = [value for value in found if value is not None]
    if missing is None and MISSING_INTEGER in values and labels and all(value == 1 for value in labels):
        raise DataError(
            "y has the labels -1 and 1, but -1 marks a missing label; rename the labels, or set missing=... to a "
            "marker that is no label."
        )
    return found


def sort_classes(values: Iterable[Any]) -> list[Any]:
    """The different labels, sorted.

    Raises:
        DataError: If there are fewer than two, or they cannot be sorted.
    """
    try:
        classes = sorted({value for value in values if value is not None})
    except TypeError as error:
        raise DataError("y must hold labels of one type that can be hashed and sorted.") from error
    if len(classes) < 2:
        found = f"only the label {classes[0]!r}" if classes else "no label"
        raise DataError(f"y has {found}; label sequences of at least two classes.")
    return classes


def label_names(classes: Sequence[Any]) -> dict[Any, str]:
    """A text for each label, different for different labels.

    Raises:
        DataError: If a label is an empty text.
    """
    if "" in classes:
        raise DataError("y has a label that is an empty text; a missing label is None.")
    names = {value: str(value) for value in classes}
    return names if len(set(names.values())) == len(names) else {value: repr(value) for value in classes}


def as_array(classes: Sequence[Any]) -> np.ndarray:
    """Labels as an array of one dimension, of objects where NumPy has no type for them."""
    if all(isinstance(value, (str, bool, int, float)) for value in classes):
        return np.array(classes)
    array = np.empty(len(classes), object)
    array[:] = classes
    return array
