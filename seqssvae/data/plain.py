"""What is given in memory (lists, arrays, columns of frames) as plain lists, by position."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from seqssvae.errors import DataError

PRESENT = {str, bytes, bool, int, tuple, list}
"""Types none of whose values is a missing one, and which are Python's own."""


def is_missing(value: Any) -> bool:
    """Whether a value says that there is none: None, NaN, NaT, pandas' NA, or a masked entry of NumPy's."""
    if type(value) in PRESENT:
        return False
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    try:
        return bool(value != value)
    except (TypeError, ValueError, RuntimeError):  # no single value, but a sequence
        return False


def as_list(values: Any, name: str) -> list[Any]:
    """Convert a collection to a list by position, whatever index it has, None where an entry is missing.

    Args:
        values: A list, tuple or other iterable, an array of NumPy or a framework, a column of a frame (pandas, Polars,
            Arrow), categorical or masked as it may be. A table of one column is that column; the rows of an array of
            several columns become lists.
        name: What it is called in messages.

    Raises:
        DataError: If it has no order, is a frame of several columns, or is no collection.

    Example:
        >>> as_list(np.ma.masked_array([1.5, 2.5, float("nan")], mask=[True, False, False]), "y")
        [None, 2.5, None]
    """
    if isinstance(values, (str, bytes, Mapping, set, frozenset)):
        raise DataError(f"{name} must be a list, an array or a column of a frame, not {type(values).__name__}.")
    if hasattr(values, "columns") and hasattr(values, "shape"):
        if values.shape[1] != 1:
            raise DataError(f"{name} is a frame of {values.shape[1]} columns; give one of them, such as frame['name'].")
        names = getattr(values, "column_names", values.columns)  # Arrow's columns are no names
        values = values.iloc[:, 0] if hasattr(values, "iloc") else values[names[0]]
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] == 1:
        values = values.reshape(-1)
    entries = list(_entries(values, name))
    if set(map(type, entries)) <= PRESENT:
        return entries
    return [None if is_missing(value) else _as_python(value) for value in entries]


def _entries(values: Any, name: str) -> Iterable[Any]:
    """The entries by position, as plain values where the collection can make them so."""
    if not isinstance(values, np.ndarray) or not _iterates_plainly(values):
        for convert in ("tolist", "to_list", "to_pylist"):
            if hasattr(values, convert):
                values = getattr(values, convert)()
                break
    if hasattr(values, "__array__") and not isinstance(values, Iterable):
        values = np.asarray(values).tolist()
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise DataError(f"{name} must be a list, an array or a column of a frame, not {type(values).__name__}.")
    return values


def _iterates_plainly(values: np.ndarray) -> bool:
    """Whether to iterate over an array: `tolist` would lose its mask, or the unit of its dates."""
    return values.ndim > 0 and (isinstance(values, np.ma.MaskedArray) or values.dtype.kind in "mM")


def _as_python(value: Any) -> Any:
    """A value of NumPy as Python's own, but for dates and durations, which would lose their unit."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mMV" else value
