"""What is given to an estimator to learn from, as training needs it."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from seqssvae.backend import Backend, Weights
from seqssvae.config import Config
from seqssvae.config.settings import from_dict, merge, to_dict
from seqssvae.data.carried import carry_optimizer, carry_weights
from seqssvae.data.in_memory import as_names, label_names, make_table, read_labels, read_sequences, sort_classes
from seqssvae.data.prepare import Prepared, prepare_table
from seqssvae.data.schema import Schema
from seqssvae.data.table import Table
from seqssvae.errors import DataError
from seqssvae.estimator.fields import source_column
from seqssvae.estimator.fitted import Sequences
from seqssvae.training.state import TrainingState

Validation = tuple[Sequences, Iterable[Any]] | tuple[Sequences, Iterable[Any], Sequences]
"""Sequences, their labels and, if there are sources, these."""


class Start(NamedTuple):
    """What training starts from, if not from nothing.

    Args:
        schema: The symbols and labels of the trained model.
        weights: Its weights.
        classes: Its labels, as they were given.
        state: How far its training had come, whose optimiser goes on; None for a new optimiser.
    """

    schema: Schema
    weights: Weights
    classes: Sequence[Any] = ()
    state: TrainingState | None = None

    def given_to(self, twin: Backend, config: Config, schema: Schema) -> Backend:
        """Give a new twin, of these symbols and labels, what it can take of the trained model."""
        twin.set_weights(carry_weights(self.weights, self.schema, schema, config.model, twin.get_weights()))
        if self.state is not None:
            first = twin.get_optimizer_state()
            twin.set_optimizer_state(carry_optimizer(self.state.optimizer, self.schema, schema, config.model, first))
        return twin


class GivenRows(NamedTuple):
    """Rows that were given, with the configuration that they are learned with.

    Args:
        config: The configuration; `data.labels` lists the labels.
        classes: The labels, as they were given.
        texts: Whether the rows are texts.
        table: The rows.
        validation: The rows for validation; None to hold some out.
        start: What training starts from.
    """

    config: Config
    classes: list[Any]
    texts: bool
    table: Table
    validation: Table | None = None
    start: Start | None = None

    def prepare(self, config: Config) -> Prepared:
        """Encode and split the rows.

        Raises:
            DataError: If they cannot be used.
        """
        known = None if self.start is None else self.start.schema
        return prepare_table(self.table, config, self.validation, known)


def read_rows(
    config: Config,
    missing: Any,
    X: Sequences,
    y: Iterable[Any] | None,
    groups: Iterable[Any] | None = None,
    source: Sequences | None = None,
    validation: Validation | None = None,
    start: Start | None = None,
    classes: Iterable[Any] = (),
) -> GivenRows:
    """Read what is given in memory.

    Args:
        config: The configuration.
        missing: The marker of a missing label.
        X: Sequences.
        y: Label of each, or the marker.
        groups: Group of each.
        source: The sequence that each is made from.
        validation: Rows for validation.
        start: What training starts from.
        classes: Labels that there are beside those observed.

    Raises:
        DataError: If they are no such things, or there are fewer than two labels.
    """
    sequences, sources = read_sequences(X), None if source is None else read_sequences(source, "source")
    values = read_labels(y, len(sequences), missing)
    known = [] if start is None else list(start.classes)
    occurring = [*values, *known, *classes]
    listed = config.data.labels
    kept = sort_classes(occurring) if listed is None else list(listed)
    names = label_names(kept)
    settings = {"labels": list(names.values()), "source_column": source_column(config, source)}
    config = from_dict(merge(to_dict(config), {"data": settings}))
    table = make_table(sequences, config.data, as_names(values, names), groups, sources)
    held_out = None if validation is None else _read_validation(validation, config, missing, names, source is not None)
    if start is not None:
        start = start._replace(schema=_renamed(start, names))
    return GivenRows(config, kept, isinstance(sequences[0], str), table, held_out, start)


def _read_validation(validation: Any, config: Config, missing: Hashable, names: dict[Any, str], sourced: bool) -> Table:
    parts = 3 if sourced else 2
    if not isinstance(validation, (tuple, list)) or len(validation) != parts:
        raise DataError(f"validation must be a tuple {'(X, y, source)' if sourced else '(X, y)'}.")
    X = read_sequences(validation[0], "validation[0]")
    values = read_labels(validation[1], len(X), missing)
    for value in values:
        if value is not None and value not in names and str(value) not in names.values():
            raise DataError(f"validation[1] has the label {value!r}, which y has not.")
    source = read_sequences(validation[2], "validation[2]") if sourced else None
    return make_table(X, config.data, as_names(values, names), None, source, origin="validation")


def _renamed(start: Start, names: dict[Any, str]) -> Schema:
    """The schema with the names that labels have here, which may be other where texts of two labels are the same."""
    schema, classes = start.schema, list(start.classes)
    if not classes:
        return schema
    return replace(
        schema, labels=replace(schema.labels, names=tuple(names.get(value, str(value)) for value in classes))
    )
