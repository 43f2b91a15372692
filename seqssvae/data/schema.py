"""What a model must know of its data: symbols, labels, and how probable each label is."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Dimensions
from seqssvae.config import DataConfig, ModelConfig, ObjectiveConfig
from seqssvae.data.lookalikes import warn_of_lookalikes
from seqssvae.data.table import Table
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import ConfigurationError, DataError
from seqssvae.parameters import Shape, parameter_shapes

FORMAT = 1
"""Version of the run directory's layout."""


@dataclass(frozen=True)
class Schema:
    """What a run knows of its data.

    Args:
        vocabulary: The symbols of sequences.
        labels: The classes.
        label_prior: p(y), one probability per label.
        source_vocabulary: The symbols of sources; None where there are none.
    """

    vocabulary: Vocabulary
    labels: Labels
    label_prior: tuple[float, ...]
    source_vocabulary: Vocabulary | None = None

    @property
    def dimensions(self) -> Dimensions:
        """The sizes and p(y), which a backend is built with."""
        sources = 0 if self.source_vocabulary is None else len(self.source_vocabulary)
        return Dimensions(len(self.vocabulary), self.label_prior, sources)

    def parameter_shapes(self, model: ModelConfig) -> dict[str, Shape]:
        """Name and shape of every weight of a model of these data."""
        size, prior, sources = self.dimensions
        return parameter_shapes(model, size, len(prior), sources)

    def to_dict(self) -> dict[str, Any]:
        """The plain values that `vocabulary.json` holds."""
        stored = {
            "format": FORMAT,
            "vocabulary": self.vocabulary.to_dict(),
            "labels": self.labels.to_dict(),
            "label_prior": list(self.label_prior),
        }
        if self.source_vocabulary is not None:
            stored["source_vocabulary"] = self.source_vocabulary.to_dict()
        return stored


class Occurrences(NamedTuple):
    """How often symbols and labels occur in training rows.

    Args:
        symbols: Of sequences.
        sources: Symbols of sources.
        labels: Labels.
        origin: Where the rows are from.
    """

    symbols: Mapping[str, int]
    sources: Mapping[str, int]
    labels: Mapping[str, int]
    origin: str


def build_schema(table: Table, data: DataConfig, known: Schema | None = None) -> Schema:
    """Learn from training rows which symbols and which labels there are; see `schema_of`.

    Args:
        table: The training rows, none of which is too long: `seqssvae.data.corpus.limit_lengths` sees to it.
        data: The least count of a symbol, and the classes where they are listed.
        known: What a trained model knows, whose symbols are kept; None of a new model.
    """
    sources = {} if table.sources is None else table.sources.counts()
    occurrences = Occurrences(table.sequences.counts(), sources, table.labels.counts(), table.origin)
    return schema_of(occurrences, data, known)


def schema_of(occurrences: Occurrences, data: DataConfig, known: Schema | None = None) -> Schema:
    """Make symbols and labels of those that occur in training rows.

    Args:
        occurrences: How often each occurs.
        data: The least count of a symbol, and the classes where they are listed.
        known: What a trained model knows, whose symbols are kept; None of a new model.

    Returns:
        The schema with equally probable labels; `label_prior` computes other probabilities.

    Raises:
        DataError: If all symbols are too rare, or if the classes are not listed and no row, or only one class, is
            labelled.

    Warns:
        UserWarning: If no row has a label, or none has a certain label, of those listed; if labels look alike, or like
            a missing one.
    """
    vocabulary = Vocabulary.from_counts(occurrences.symbols, data.separator, data.minimum_count)
    if known is not None:
        vocabulary = known.vocabulary.with_symbols(vocabulary)
    if not vocabulary.symbols:
        raise DataError(f"{occurrences.origin}: no symbol occurs {data.minimum_count} times; lower data.minimum_count.")
    labels = _labels(occurrences, data, known)
    warn_of_lookalikes(occurrences.origin, occurrences.labels, labels.names)
    sources = _source_vocabulary(occurrences, data, None if known is None else known.source_vocabulary)
    return Schema(vocabulary, labels, _uniform(labels), sources)


def _labels(occurrences: Occurrences, data: DataConfig, known: Schema | None) -> Labels:
    observed = sorted(label for label, count in occurrences.labels.items() if count)
    if data.labels is not None:
        _warn_of_unobserved(
            data.labels, observed if known is None else [*observed, *known.labels.names], occurrences.origin
        )
        return Labels(tuple(data.labels))
    if not observed:
        where = f"in column {data.label_column}" if data.label_column else "because data.label_column is 0"
        raise DataError(
            f"{occurrences.origin}: no row has a label {where}; label some rows, or list the classes in data.labels."
        )
    if len(observed) == 1:
        raise DataError(
            f"{occurrences.origin}: all labelled rows have the same label, {observed[0]!r}; label rows of at least two "
            "classes, or list the classes in data.labels."
        )
    return Labels(tuple(observed))


def _warn_of_unobserved(listed: Sequence[str], observed: Sequence[str], origin: str) -> None:
    unobserved = [name for name in listed if name not in observed]
    if len(unobserved) == len(listed):
        warnings.warn(f"{origin}: no row has a label, so which class gets which label is arbitrary.", stacklevel=4)
    elif unobserved:
        names = ", ".join(unobserved)
        warnings.warn(f"{origin}: no row has the label {names}, so what it stands for is arbitrary.", stacklevel=4)


def _source_vocabulary(occurrences: Occurrences, data: DataConfig, known: Vocabulary | None) -> Vocabulary | None:
    if not data.source_column:
        return None
    vocabulary = Vocabulary.from_counts(occurrences.sources, data.source_separator, data.minimum_count)
    vocabulary = vocabulary if known is None else known.with_symbols(vocabulary)
    if not vocabulary.symbols:
        raise DataError(
            f"{occurrences.origin}: no symbol of sources occurs {data.minimum_count} times; lower data.minimum_count."
        )
    return vocabulary


def label_prior(model: ModelConfig, labels: Labels, y: Int[np.ndarray, " N"]) -> tuple[float, ...]:
    """Compute p(y), one probability per label.

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
        return _uniform(labels)
    counts = np.bincount(y[y != NO_LABEL], minlength=len(labels)) + 1
    return tuple(float(count) / float(counts.sum()) for count in counts)


def check_label_shift(objective: ObjectiveConfig, labels: Labels) -> None:
    """Check that `objective.consistency.label_shift`, if there is one, has a number for each label.

    Raises:
        ConfigurationError: If it has not.
    """
    shift = objective.consistency.label_shift
    if shift is not None and len(shift) != len(labels):
        raise ConfigurationError(
            f"objective.consistency.label_shift must be one number for each label ({labels}), not {list(shift)}."
        )


def _uniform(labels: Labels) -> tuple[float, ...]:
    return (1.0 / len(labels),) * len(labels)
