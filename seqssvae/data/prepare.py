"""From rows to what training needs: vocabulary, labels, and the rows to learn from and to hold out."""

from collections.abc import Sequence
from typing import NamedTuple

from seqssvae.config import Config
from seqssvae.data.corpus import Corpus, build_schema, build_source_vocabulary, encode_rows, label_prior
from seqssvae.data.schema import Schema
from seqssvae.data.splits import split
from seqssvae.data.tsv import Row, read_rows
from seqssvae.errors import ConfigurationError, DataError


class Prepared(NamedTuple):
    """What training needs of the data.

    Args:
        training: Rows to learn from.
        validation: Rows that decide what is best and when to stop; it may be empty.
        schema: Symbols of the rows given for training, the classes, and p(y).
    """

    training: Corpus
    validation: Corpus
    schema: Schema


def prepare_files(config: Config) -> Prepared:
    """Read and prepare the files named by `data.train` and `data.validation`.

    Raises:
        ConfigurationError: If no training file is named.
        DataError: If a file or a row of it cannot be used.
    """
    data = config.data
    if data.train is None:
        raise ConfigurationError("data.train is missing: name a TSV file to learn from (--data.train FILE).")
    rows = read_rows(data.train, data)
    validation = None if data.validation is None else read_rows(data.validation, data)
    return prepare_rows(rows, config, data.train, validation, data.validation or "")


def prepare_rows(
    rows: Sequence[Row],
    config: Config,
    origin: str,
    validation_rows: Sequence[Row] | None = None,
    validation_origin: str = "memory",
) -> Prepared:
    """Build vocabulary and labels from the rows, and hold some out for validation.

    Args:
        rows: Rows given for training.
        config: The run's configuration; `training.seed` decides every split.
        origin: Where the rows are from, named in messages.
        validation_rows: Rows for validation; None: `data.validation_fraction` of `rows` is held out.
        validation_origin: Where those are from.
    """
    data, seed = config.data, config.training.seed
    vocabulary, labels = build_schema(rows, data, origin)
    sources = build_source_vocabulary(rows, data, origin)
    training = encode_rows(rows, vocabulary, labels, data, origin, source_vocabulary=sources)
    if not len(training):
        raise DataError(f"{origin}: no row is left to learn from; raise data.max_length (now {data.max_length}).")
    if validation_rows is None:
        first, second = split(training.y, training.groups, data.validation_fraction, seed)
        training, validation = training.take(first), training.take(second)
    else:
        validation = encode_rows(
            validation_rows, vocabulary, labels, data, validation_origin, source_vocabulary=sources
        )
    prior = label_prior(config.model, labels, training.y)
    return Prepared(training, validation, Schema(vocabulary, labels, prior, sources))
