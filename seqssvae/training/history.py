"""The evaluations of a training: as records, and as a table."""

import json
import math
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from seqssvae.errors import MissingPackageError, RunError
from seqssvae.inference.metrics import Metrics
from seqssvae.training.state import Record


class History(list[Record]):
    """The records of all evaluations, in order."""

    @classmethod
    def from_lines(cls, lines: Iterable[str], origin: object) -> "History":
        """Return the records of which `metrics.jsonl` has the lines.

        Args:
            lines: JSON objects; a value that is missing or null is None, or NaN where there must be a number.
            origin: The run directory, which an error names.

        Raises:
            RunError: If a line is not of a record.
        """
        records = cls()
        for number, line in enumerate(lines, start=1):
            try:
                records.append(_record(json.loads(line)))
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
                text = f"{origin}: line {number} of metrics.jsonl is not the record of an evaluation ({error})."
                raise RunError(text) from error
        return records

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a row for each evaluation, whose step is the index.

        The columns are the other fields of `Record`, and those of `Metrics` with the rows' name before it, such as
        `training.elbo` and `validation.accuracy`. What there is not is NaN.

        Raises:
            MissingPackageError: If pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError as error:
            raise MissingPackageError("to_frame needs pandas, which is not installed: pip install pandas.") from error
        columns: dict[str, list[Any]] = {name: [] for name in _columns()}
        for record in self:
            flat = flatten(record, ".")
            for name, column in columns.items():
                value = flat.get(name)
                column.append(math.nan if value is None else value)
        return pandas.DataFrame(columns).set_index("step")


def flatten(record: Record, separator: str) -> dict[str, float | None]:
    """Return the values of a record by name; those of `Metrics` have `training` or `validation` before theirs."""
    flat: dict[str, float | None] = {}
    for name, value in record._asdict().items():
        if isinstance(value, Metrics):
            flat.update({f"{name}{separator}{field}": one for field, one in value._asdict().items()})
        elif name not in ("training", "validation"):
            flat[name] = value
    return flat


def _columns() -> list[str]:
    own = [name for name in Record._fields if name not in ("training", "validation")]
    return [*own, *(f"{rows}.{name}" for rows in ("training", "validation") for name in Metrics._fields)]


def _record(stored: dict[str, Any]) -> Record:
    """The record of these values; earlier versions wrote fewer, and later ones may write more."""
    numbers = {name: _number(stored.get(name)) for name in ("seconds", "beta", "learning_rate", "gradient_norm")}
    validation = stored.get("validation")
    return Record(
        step=_count(stored["step"]),
        epoch=_count(stored["epoch"]),
        **{name: math.nan if value is None else value for name, value in numbers.items()},
        training=_metrics(stored["training"]),
        validation=None if validation is None else _metrics(validation),
        standard_error=_number(stored.get("standard_error")),
    )


def _metrics(stored: dict[str, Any]) -> Metrics:
    counts = ("rows", "labelled_rows", "symbols")
    others = {name: _number(stored.get(name)) for name in Metrics._fields if name not in counts}
    rows, labelled_rows, symbols = (_count(stored[name]) for name in counts)
    return Metrics(rows, labelled_rows, symbols, **others)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{str(value)[:20]!r} is no whole number")
    return value


def _number(value: object) -> float | None:
    if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
        raise ValueError(f"{str(value)[:20]!r} is no number")
    return None if value is None else float(value)
