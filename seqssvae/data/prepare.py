"""From rows to what training needs: symbols and labels, and the rows to learn from and to hold out."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import NamedTuple

from seqssvae.config import Config
from seqssvae.data.corpus import Corpus, encode_limited, encode_table, limit_lengths
from seqssvae.data.files import read_table
from seqssvae.data.prepared_rows import PreparedDirectory, is_prepared
from seqssvae.data.schema import Schema, build_schema, check_label_shift, label_prior
from seqssvae.data.splits import split
from seqssvae.data.table import Table
from seqssvae.errors import ConfigurationError


class Prepared(NamedTuple):
    """What training needs of the data.

    Args:
        training: Rows to learn from.
        validation: Rows that decide what is best and when to stop; it may be empty.
        schema: Symbols of the rows given for training, the classes, and p(y).
        validation_given: Whether the validation rows were given as such, rather than held out from those for training.
    """

    training: Corpus
    validation: Corpus
    schema: Schema
    validation_given: bool = False


def prepare_files(config: Config, report: Callable[[str], None] = lambda text: None) -> Prepared:
    """Read and prepare the files named by `data.train` and `data.validation`.

    Args:
        config: The run's configuration.
        report: Called with what is being done, in words.

    Raises:
        ConfigurationError: If no training file is named.
        DataError: If a file or a row of it cannot be used.
    """
    data = config.data
    if data.train is None:
        raise ConfigurationError("data.train is missing: name a file to learn from (--data.train FILE).")
    if is_prepared(data.train):
        return _prepare_directory(PreparedDirectory(data.train), config, report)
    table = read_table(data.train, data, report=report)
    return prepare_table(table, config, _read_validation(config, report), report=report)


def _read_validation(config: Config, report: Callable[[str], None]) -> Table | None:
    data = config.data
    return None if data.validation is None else read_table(data.validation, data, report=report)


def _prepare_directory(directory: PreparedDirectory, config: Config, report: Callable[[str], None]) -> Prepared:
    """The rows of a directory that was prepared, which are not read into memory."""
    directory.check(config.data)
    validation = _read_validation(config, report)
    return _hold_out(directory.corpus(), directory.schema, config, validation, report)


def prepare_table(
    table: Table,
    config: Config,
    validation: Table | None = None,
    known: Schema | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Learn symbols and labels from rows, encode them, and hold some out for validation.

    Args:
        table: Rows given for training.
        config: The run's configuration; `training.seed` decides every split.
        validation: Rows for validation; None: `data.validation_fraction` of `table` is held out.
        known: What a trained model knows from which training starts; None of a new model.
        report: Called with what is being done, in words.

    Raises:
        ConfigurationError: If the given prior probabilities, or shifts of labels, are not as many as the labels.
        DataError: If the rows cannot be used.

    Warns:
        UserWarning: If no rows can be held out.
    """
    report(f"counting the symbols and labels of {len(table):,} rows")
    limited = limit_lengths(table, config.data)
    schema = build_schema(limited.table, config.data, known)
    return _hold_out(encode_limited(limited, schema), schema, config, validation, report)


def _hold_out(
    training: Corpus, schema: Schema, config: Config, validation: Table | None, report: Callable[[str], None]
) -> Prepared:
    """Hold rows out for validation, if none are given, and compute p(y)."""
    data, seed = config.data, config.training.seed
    check_label_shift(config.objective, schema.labels)
    if validation is None:
        report(f"holding some of {len(training):,} rows out for validation")
        kept, held_out = split(training.y, training.groups, data.validation_fraction, seed)
        if data.validation_fraction and not len(held_out):
            warnings.warn(
                f"{training.origin}: no row is held out for validation, since too few rows, or groups of rows, have "
                "each label: training stops after the last step, and the last weights are kept.",
                stacklevel=2,
            )
        training, validation_corpus = training.take(kept), training.take(held_out)
    else:
        validation_corpus = encode_table(validation, schema, data)
    prior = label_prior(config.model, schema.labels, training.y)
    schema = dataclasses.replace(schema, label_prior=prior)
    return Prepared(training, validation_corpus, schema, validation is not None)
