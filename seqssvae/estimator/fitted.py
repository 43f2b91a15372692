"""What training leaves in an estimator, and how sequences are encoded for it."""

import sys
import warnings
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Backend
from seqssvae.config import Config
from seqssvae.data.corpus import Corpus, encode_column, encode_table
from seqssvae.data.counts import describe_counts
from seqssvae.data.in_memory import make_table, read_labels, read_sequences
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.schema import Schema
from seqssvae.errors import DataError, RunError
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.pool import Pool
from seqssvae.recipes.trained_on import TrainedOn
from seqssvae.runs.files import Checkpoint

Sequences = Iterable[str] | Iterable[Sequence[str]]
"""Texts, or lists of symbols, in any collection that `seqssvae.data.plain.as_list` knows."""


class FittedModel(NamedTuple):
    """All that training leaves in an estimator.

    Args:
        backend: The twin with its best weights.
        config: The whole configuration.
        schema: Symbols, labels and p(y).
        texts: Whether sequences were given as texts, rather than as lists of symbols.
        checkpoint: How training went, to be saved.
        ensemble: What predicts labels; None where the network alone does.
        baselines: Simple models of the training rows' symbols; None of a run of an earlier version.
        trained_on: Which labelled rows were learned from; None of a run of an earlier version.
        network_pool: How the network's own predictions are calibrated; None without labelled validation rows.
    """

    backend: Backend
    config: Config
    schema: Schema
    texts: bool
    checkpoint: Checkpoint
    ensemble: Ensemble | None = None
    baselines: Baselines | None = None
    trained_on: TrainedOn | None = None
    network_pool: Pool | None = None

    def encode(self, X: Sequences, source: Sequences | None) -> Corpus:
        """Encode sequences and their sources; those that are too long are cut.

        Args:
            X: The sequences.
            source: The source of each, if and only if the model was fitted with sources.

        Raises:
            DataError: If there is a source and should be none, or the other way round, or a sequence is wrong.
        """
        data = self.config.data
        self.check_source(source)
        sequences, sources = read_sequences(X), None if source is None else read_sequences(source, "source")
        corpus = encode_table(make_table(sequences, data, source=sources), self.schema, data, "truncate")
        warn_of_counts(corpus, self.config)
        return corpus

    def encode_sources(self, source: Sequences) -> RaggedArray:
        """Return the ids of sources; those that are too long are cut.

        Raises:
            DataError: If the model was fitted without sources, or a source is wrong.
        """
        vocabulary, data = self.schema.source_vocabulary, self.config.data
        if vocabulary is None:
            raise DataError("This SequenceSSVAE was fitted without sources.")
        table = make_table(read_sequences(source, "source"), replace(data, separator=data.source_separator))
        return encode_column(table.sequences.cut(data.max_length), vocabulary)

    def check_source(self, source: object | None) -> None:
        """Check that there is a source if and only if the model was fitted with sources.

        Raises:
            DataError: If that is not so.
        """
        if (source is None) != (self.schema.source_vocabulary is None):
            raise DataError("source must be given where, and only where, it was given to fit.")

    def decode(self, symbols: list[str]) -> str | list[str]:
        """Return a sequence in the form in which sequences were given to `fit`: a text, or a list of symbols."""
        return self.schema.vocabulary.join(symbols) if self.texts else symbols


def warn_of_counts(corpus: Corpus, config: Config) -> None:
    """Warn of rows that were left out or cut, and of unknown symbols."""
    for sentence in describe_counts(corpus, config.data.max_length):
        warnings.warn(sentence, stacklevel=3)


def _not_fitted(message: str) -> RunError:
    """The error; where scikit-learn is in use it is one of scikit-learn's as well, whose tools catch that."""
    exceptions = sys.modules.get("sklearn.exceptions")
    if exceptions is None:
        return RunError(message)
    return type("NotFittedError", (RunError, exceptions.NotFittedError), {})(message)


class FittedMixin:
    """What the mixins of an estimator need of it.

    Attributes:
        classes_: The labels, sorted, as they were given.
        fitted_: What training left.
    """

    classes_: np.ndarray
    fitted_: FittedModel
    missing: Hashable | Collection[Hashable]

    def _get_fitted(self) -> FittedModel:
        if not hasattr(self, "fitted_"):
            raise _not_fitted("This SequenceSSVAE is not fitted yet; call fit first, or load a run.")
        return self.fitted_

    def _label_index(self, label: Any) -> int:
        """The place of a label in `classes_`; DataError if there is no such label."""
        classes = self.classes_.tolist()
        if label not in classes:
            raise DataError(f"There is no label {label!r}; known are {', '.join(map(repr, classes))}.")
        return classes.index(label)

    def _label_indices(self, y: Iterable[Any] | None, count: int) -> Int[np.ndarray, " N"]:
        """The places of so many labels in `classes_`, `NO_LABEL` where they are missing."""
        values = read_labels(y, count, self.missing)
        return np.array([NO_LABEL if value is None else self._label_index(value) for value in values], np.int32)
