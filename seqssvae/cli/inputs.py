"""What commands are given: values of options, a run, and the rows of a file."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from jsonargparse import Namespace

from seqssvae.cli.activity import activity
from seqssvae.cli.messages import warn_of_counts
from seqssvae.config import DataConfig, TooLong
from seqssvae.config.checks import check_integer
from seqssvae.data.batches import corpus_buckets
from seqssvae.data.blocks import Block, in_blocks
from seqssvae.data.builder import TableBuilder
from seqssvae.data.corpus import Corpus, CorpusCounts, encode_limited, encode_table, limit_lengths
from seqssvae.data.files import may_have_header, read_blocks, read_table
from seqssvae.data.lookalikes import warn_of_header
from seqssvae.data.opening import named, named_format
from seqssvae.data.prepared_rows import PreparedDirectory, is_prepared
from seqssvae.data.schema import Schema
from seqssvae.data.table import Table
from seqssvae.errors import ConfigurationError, DataError
from seqssvae.noise import batch_seed
from seqssvae.runs.run import Run, RunDirectory
from seqssvae.training.allocation import keep_freed_memory


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
    names = "format", "sequence_column", "label_column", "source_column", "id_column", "labels_id_column", "header"
    given = {name: arguments.get(name) for name in names if arguments.get(name) is not None}
    own = {"group_column": 0, "labels_file": arguments.get("labels_file")}
    if arguments.get("data") is not None and named_format(arguments.data) is not None:
        own["format"] = None  # the name of the file, rather than of that which was trained on, tells
    if "label_column" not in given and data.label_column in (given.get("sequence_column"), given.get("source_column")):
        given["label_column"] = 0
    if not targets:
        columns = {**vars(data), **given}
        numbers = [column for column in (columns["source_column"], columns["label_column"]) if isinstance(column, int)]
        given["sequence_column"] = 1 + max(numbers, default=0)
    return dataclasses.replace(data, **{**own, **given})


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


class RowBlock(NamedTuple):
    """Some rows of a file, of each of which a line is written.

    Args:
        number: The number of the block, from 0.
        texts: By what it is (sequence, source, id), the text of each row as it is in the file.
        corpus: The rows, encoded; those that are too long are cut.
    """

    number: int
    texts: Mapping[str, Sequence[str]]
    corpus: Corpus

    def seed(self, seed: int) -> int:
        """The seed of what is drawn for these rows."""
        return seed if self.number == 0 else batch_seed(seed, self.number)

    def columns(self, name: str = "sequence") -> list[Sequence[str]]:
        """The first columns of what is written: the identifier, if there is one, and the text."""
        return [self.texts[role] for role in ("id", name) if role in self.texts]


class RowsToWrite(NamedTuple):
    """The rows of a file, of each of which a line is written.

    Args:
        run: The run.
        blocks: The rows, some at a time.
        names: Names of the first columns of what is written.
    """

    run: Run
    blocks: Iterator[RowBlock]
    names: list[str]


def read_rows_to_write(arguments: Namespace, labelled: bool = False, name: str = "sequence") -> RowsToWrite:
    """Read the first rows of `--data`, and then open the run, which takes longer; the other rows are read later.

    What happened to the rows is said in warnings after the last one.

    Args:
        arguments: The command's arguments.
        labelled: Whether labels are read, and play a part.
        name: What is written of each row: `sequence`, or `source`, without which sequences need not be there.
    """
    directory = run_directory(arguments)
    targets = name == "sequence" or bool(arguments.get("score"))
    data = file_columns(directory.config.data, arguments, targets)
    blocks = in_blocks(read_blocks(arguments.data, data, labelled, targets))
    with activity(source=arguments.data) as show:
        show(f"reading {named(arguments.data)}")
        first = next(blocks)
        show(f"opening {directory.path}")
        run = directory.open(arguments.backend, arguments.device)
    names = [role for role in ("id", name) if role in first.columns]
    return RowsToWrite(run, _encoded(run, chain([first], blocks), data, arguments.data), names)


def _encoded(run: Run, blocks: Iterable[Block], data: DataConfig, path: str) -> Iterator[RowBlock]:
    counts, buckets = CorpusCounts(0, 0, 0, 0), None
    for number, block in enumerate(blocks):
        builder = TableBuilder(data, named(path))
        builder.add(block)
        table = builder.table()
        if number == 0 and may_have_header(path, data):
            warn_of_header(table)
        corpus = encode_table(table, run.schema, run.config.data, too_long="truncate")
        # the same few lengths for all blocks, so that no twin compiles anew for each
        buckets = buckets or corpus_buckets(corpus, run.config)
        counts = CorpusCounts(*(sum(pair) for pair in zip(counts, corpus.counts, strict=True)))
        yield RowBlock(number, block.columns, dataclasses.replace(corpus, buckets=buckets))
        summary = dataclasses.replace(corpus, counts=counts)
    warn_of_counts(summary, run.config.data.max_length)


def announced(blocks: Iterable[RowBlock], show: Callable[[str], None]) -> Iterator[RowBlock]:
    """The same rows; before they are used, it is shown which they are."""
    rows = 0
    for block in blocks:
        show(f"computing rows {rows + 1:,} to {rows + len(block.corpus):,}")
        rows += len(block.corpus)
        yield block


def _mapped(path: str, schema: Schema, data: DataConfig) -> Corpus | None:
    """The rows of a directory that was prepared, where they lie; None if this run would read them otherwise."""
    if not is_prepared(path) or not data.label_column or data.labels_file is not None:
        return None
    prepared = PreparedDirectory(path)
    encoded_by = prepared.vocabulary, prepared.labels, prepared.source_vocabulary
    fields = "separator", "source_separator", "max_length", "too_long"
    if encoded_by != (schema.vocabulary, schema.labels, schema.source_vocabulary) or any(
        prepared.data[name] != getattr(data, name) for name in fields
    ):
        return None
    corpus = prepared.corpus()
    return dataclasses.replace(corpus, counts=corpus.counts._replace(rows=len(corpus), skipped=0))


def read_corpus_and_run(
    arguments: Namespace, too_long: TooLong | None = None, texts: bool = False
) -> tuple[Corpus, Mapping[str, Sequence[str]], Run]:
    """Read the rows of `--data` with their labels, and then open the run, which takes longer.

    What reading took is returned before that: from then on memory that is freed is kept for what computes. Rows of a
    directory that was prepared with the run's symbols and labels are not read into memory, unless their texts are kept.

    Args:
        arguments: The command's arguments.
        too_long: What to do with rows that are too long, in place of what the run does.
        texts: Whether texts are kept as they were, and identifiers.

    Returns:
        The rows, encoded; by what it is (sequence, source, id), the text of each; and the run.
    """
    directory = run_directory(arguments)
    data = file_columns(directory.config.data, arguments)
    kept: Mapping[str, Sequence[str]] = {}
    with activity(source=arguments.data) as show:
        corpus = None if texts else _mapped(arguments.data, directory.schema, data)
        if corpus is None:
            table = read_table(arguments.data, data, labelled=True, texts=texts, report=show)
            limited = limit_lengths(table, directory.config.data, too_long)
            corpus, kept = encode_limited(limited, directory.schema), limited.table.texts
            del table, limited
        keep_freed_memory()
        show(f"opening {directory.path}")
        run = directory.open(arguments.backend, arguments.device)
    warn_of_counts(corpus, run.config.data.max_length)
    return corpus, kept, run
