"""Rows in memory, with labels of any type, made into the same table as the rows of a file."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeGuard

import numpy as np

from seqssvae.config import DataConfig
from seqssvae.data.plain import as_list, is_missing
from seqssvae.data.table import SymbolColumn, Table, TextColumn
from seqssvae.errors import DataError

MISSING_INTEGER = -1
"""Marks a missing label unless another marker is given, as in scikit-learn's semi-supervised estimators."""


def read_sequences(X: Any, name: str = "X") -> list[Any]:
    """Convert sequences to a list by position, and check that they are all texts, or all lists of symbols.

    Args:
        X: The sequences, in any collection that `as_list` knows.
        name: What they are called in messages.

    Returns:
        The sequences: all texts, or all lists or tuples of texts.

    Raises:
        DataError: If they are neither, or a mixture, or if there are none, or one is empty or missing.
    """
    if isinstance(X, (str, bytes)) or not (isinstance(X, Iterable) or hasattr(X, "to_pylist")):
        raise DataError(f"{name} must be a list of sequences, each a text or a list of symbols.")
    sequences = as_list(X, name)
    if not sequences:
        raise DataError(f"{name} is empty; it must hold at least one sequence.")
    if _is_plain(sequences):
        return sequences
    return [_read_sequence(sequence, isinstance(sequences[0], str), name, i) for i, sequence in enumerate(sequences)]


def _is_plain(X: Collection[Any]) -> bool:
    """Whether the sequences are of Python's own types and all right, which takes little time to find out."""
    kinds = set(map(type, X))
    if kinds == {str}:
        return all(X)
    if not kinds <= {list, tuple} or not all(X):
        return False
    return set(map(type, chain.from_iterable(X))) == {str} and all(chain.from_iterable(X))


def _read_sequence(sequence: Any, text: bool, name: str, index: int) -> Any:
    if sequence is None:
        raise DataError(f"{name}[{index}] is missing; leave it out.")
    if isinstance(sequence, str) != text or isinstance(sequence, bytes) or not hasattr(sequence, "__len__"):
        kind = f"{'a text' if text else 'a list of symbols'}, as {name}[0] is"
        kind = kind if index else "a text or a list of symbols"
        raise DataError(f"{name}[{index}] must be {kind}, not {type(sequence).__name__}.")
    symbols = sequence if text else as_list(sequence, f"{name}[{index}]")
    if not symbols:
        raise DataError(f"{name}[{index}] is an empty sequence; leave it out.")
    if not all(isinstance(symbol, str) and symbol for symbol in symbols):
        raise DataError(f"{name}[{index}] must hold symbols that are texts and not empty.")
    return symbols


def make_table(
    X: Collection[Any],
    data: DataConfig,
    labels: Sequence[str | None] | None = None,
    groups: Any = None,
    source: Collection[Any] | None = None,
    origin: str = "X",
) -> Table:
    """Make a table of checked sequences; the line of a row is its index.

    Args:
        X: Sequences as `read_sequences` returns them.
        data: The separators of symbols in texts.
        labels: The label of each, None where it is missing; None: all are missing.
        groups: The group of each, in any collection that `as_list` knows; a row whose entry is missing has none; None:
            no row has one.
        source: The sequence that each is made from, read as well.
        origin: Where the rows are from, for messages.

    Raises:
        DataError: If there are not as many groups or sources as sequences, or a text has no symbol but separators.
    """
    if source is not None and len(source) != len(X):
        raise DataError(f"source must have an entry for each of the {len(X)} sequences, not {len(source)}.")
    names = None if groups is None else [None if group is None else str(group) for group in as_list(groups, "groups")]
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


def read_labels(y: Any, count: int, missing: Any) -> list[Any]:
    """Convert labels to a list by position, of plain Python values, None where they are missing.

    Args:
        y: Labels and markers, in any collection that `as_list` knows; None: all are missing.
        count: Number of sequences.
        missing: Marker of a missing label, or a list, tuple or set of markers, beside None, NaN, NaT, NA and masked
            entries, of which each may be a marker too; None: the integer -1.

    Raises:
        DataError: If there are not as many as sequences, an entry is a collection, or -1 and 1 are the only ones and
            -1 is the marker.
    """
    if y is None:
        return [None] * count
    values = as_list(y, "y")
    if len(values) != count:
        raise DataError(f"y must have an entry for each of the {count} sequences, not {len(values)}.")
    try:
        set(values)
    except TypeError:
        kind = next(type(value).__name__ for value in values if getattr(value, "__hash__", None) is None)
        raise DataError(f"y must have one label in each entry, a text or a number, not a {kind}.") from None
    given = MISSING_INTEGER if missing is None else missing
    markers = [one for one in (given if is_collection(given) else [given]) if not is_missing(one)]
    labels = [None if value in markers else value for value in values] if markers else values
    observed = [value for value in labels if value is not None]
    if missing is None and MISSING_INTEGER in values and observed and all(value == 1 for value in observed):
        raise DataError(
            "y has the labels -1 and 1, but -1 marks a missing label; rename the labels, or set missing=... to a "
            "marker that is no label."
        )
    return labels


def is_collection(missing: Any) -> TypeGuard[Collection[Any]]:
    """Whether there are several markers of a missing label, rather than one."""
    return isinstance(missing, (list, tuple, set, frozenset))


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
        raise DataError(
            f"y has {observed}; label sequences of at least two classes, or list the classes: "
            "config=Config(data=DataConfig(labels=[...]))."
        )
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


def as_names(values: Iterable[Any], names: Mapping[Any, str]) -> list[str | None]:
    """Return the text of each label, None where it is missing; of one that has no name, as Python writes it."""
    return [None if value is None else names.get(value, str(value)) for value in values]


def as_array(classes: Sequence[Any]) -> np.ndarray:
    """Make an array of one dimension of labels, of objects where NumPy has no type for them."""
    if all(isinstance(value, (str, bool, int, float)) for value in classes):
        return np.array(classes)
    array = np.empty(len(classes), object)
    array[:] = classes
    return array
