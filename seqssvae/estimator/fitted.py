"""What training leaves in an estimator, and how sequences are encoded for it."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from seqssvae.backend import Backend
from seqssvae.config import Config
from seqssvae.data.corpus import Corpus, encode_column, encode_table
from seqssvae.data.counts import describe_counts
from seqssvae.data.in_memory import make_table, read_sequences
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.schema import Schema
from seqssvae.errors import DataError
from seqssvae.recipes.ensemble import Ensemble
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
    """

    backend: Backend
    config: Config
    schema: Schema
    texts: bool
    checkpoint: Checkpoint
    ensemble: Ensemble | None = None

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
