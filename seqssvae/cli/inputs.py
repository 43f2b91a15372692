"""What commands are given: values of options, a run, and the rows of a file."""

import dataclasses
from collections.abc import Sequence

from jsonargparse import Namespace

from seqssvae.cli.messages import warn_of_counts
from seqssvae.config import DataConfig
from seqssvae.config.checks import check_integer
from seqssvae.data.corpus import Corpus, encode_table
from seqssvae.data.table import Table
from seqssvae.data.tsv import read_table
from seqssvae.errors import ConfigurationError, DataError
from seqssvae.runs.run import Run, RunDirectory


def check_options(arguments: Namespace, minimums: dict[str, int], maximums: dict[str, int] | None = None) -> None:
    """Check options that hold whole numbers; those that were not given are left out.

    Args:
        arguments: The command's arguments.
        minimums: The least value of each option, by its name among the arguments.
        maximums: The greatest value of those that have one.

    Raises:
        ConfigurationError: If a value is out of its bounds.
    """
    for name, minimum in minimums.items():
        if arguments[name] is not None:
            check_integer(f"--{name.replace('_', '-')}", arguments[name], minimum, (maximums or {}).get(name))


def file_columns(data: DataConfig, arguments: Namespace, targets: bool = True) -> DataConfig:
    """Return the section `data` of a run with the columns that the arguments give for this file.

    Groups play no part once a model is trained. Without targets the column of the sequences, which is not read, is
    another one than those that are.

    Args:
        data: The run's section.
        arguments: The command's arguments.
        targets: Whether the sequences are read.
    """
    names = ("sequence_column", "label_column", "source_column", "header")
    given = {name: arguments.get(name) for name in names if arguments.get(name) is not None}
    if "label_column" not in given and data.label_column in (given.get("sequence_column"), given.get("source_column")):
        given["label_column"] = 0
    if not targets:
        columns = {**vars(data), **given}
        given["sequence_column"] = 1 + max(columns["source_column"], columns["label_column"])
    return dataclasses.replace(data, **{"group_column": 0, **given})


def run_directory(arguments: Namespace) -> RunDirectory:
    """Return the directory of the run that a command is given, which is not read yet."""
    return RunDirectory(arguments.run, verify=not arguments.no_verify)


def check_source(run: Run, source: str | None) -> None:
    """Check that `--source` is given if and only if the run has sources.

    Raises:
        ConfigurationError: If that is not so.
    """
    if (source is None) != (run.schema.source_vocabulary is None):
        what = "has no sources; leave --source out" if source is not None else "has sources; give one by --source"
        raise ConfigurationError(f"The run {run.path} {what}.")


def row_corpus(run: Run, texts: Sequence[str], source: str | None) -> Corpus:
    """Encode rows that are given on the command line, each with the same source; those that are too long are cut.

    Args:
        run: The run.
        texts: The rows.
        source: Their source, for a run that has sources.

    Raises:
        ConfigurationError: If there is a source and should be none, or the other way round.
        DataError: If a row, or the source, has no symbol.
    """
    check_source(run, source)
    sources = run.schema.source_vocabulary
    rows = [run.vocabulary.split(text) for text in texts]
    of_rows = None if source is None or sources is None else [sources.split(source)] * len(rows)
    for text, symbols in zip((*texts, source), (*rows, *(of_rows or [])[:1]), strict=False):
        if not symbols:
            raise DataError(f"the text {text!r} has no symbol; give one that has.")
    table = Table.from_rows(rows, sources=of_rows, origin="the command line")
    corpus = encode_table(table, run.schema, run.config.data, "truncate")
    warn_of_counts(corpus, run.config.data.max_length)
    return corpus


def read_table_and_run(arguments: Namespace, labelled: bool) -> tuple[Table, Run]:
    """Read the rows of `--data`, and then open the run, which takes longer.

    Args:
        arguments: The command's arguments.
        labelled: Whether labels are read.
    """
    directory = run_directory(arguments)
    table = read_table(arguments.data, file_columns(directory.config.data, arguments), labelled=labelled)
    return table, directory.open(arguments.backend, arguments.device)
