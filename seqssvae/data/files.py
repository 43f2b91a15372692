"""Files of rows in any of the formats that people have them in, read some rows at a time or whole."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from seqssvae.config import DataConfig, FileFormat
from seqssvae.data.blocks import Block, Column, are_named, wanted_columns
from seqssvae.data.builder import TableBuilder
from seqssvae.data.lookalikes import warn_of_header
from seqssvae.data.opening import STANDARD_INPUT, named, named_format, open_bytes
from seqssvae.data.parquet import parquet_blocks
from seqssvae.data.prepared_rows import is_prepared, prepared_blocks
from seqssvae.data.table import Table
from seqssvae.data.text_formats import csv_blocks, fasta_blocks, json_blocks
from seqssvae.data.tsv import tsv_blocks
from seqssvae.errors import ConfigurationError, DataError


def read_table(
    path: str | Path,
    data: DataConfig,
    labelled: bool = True,
    targets: bool = True,
    texts: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> Table:
    """Read all rows of a file.

    Args:
        path: The file, in any format; a directory that `seqssvae prepare` made; or `-` for standard input.
        data: Format, columns, separators, and whether there is a header.
        labelled: Whether to read labels and groups; without, their columns need not be there.
        targets: Whether to read the sequences; without, only the sources are read.
        texts: Whether to keep the texts of sequences and sources as they were, and the identifiers.
        report: Called with how many rows were read, in words, now and then.

    Returns:
        At least one row.

    Raises:
        DataError: If the file cannot be read, is empty, is not UTF-8, or if a line lacks a column or its sequence
            or source is empty. The message names file, line and remedy.
        ConfigurationError: If a package is missing that its format takes.

    Warns:
        UserWarning: If the first line seems to name the columns, and `data.header` is false.
    """
    builder, rows = TableBuilder(data, named(str(path)), texts), 0
    report(f"reading {builder.origin}")
    for block in read_blocks(path, data, labelled, targets, identified=texts):
        builder.add(block)
        rows += len(block)
        report(f"reading {builder.origin}: {rows:,} rows")
    table = builder.table()
    if may_have_header(path, data):
        warn_of_header(table)
    return table


def read_blocks(
    path: str | Path, data: DataConfig, labelled: bool = True, targets: bool = True, identified: bool = True
) -> Iterator[Block]:
    """Read the rows of a file, some at a time; arguments and errors are as of `read_table`.

    Args:
        path: The file.
        data: Format, columns, and whether there is a header.
        labelled: Whether to read labels and groups.
        targets: Whether to read the sequences.
        identified: Whether to read the identifiers, if there are any.
    """
    path = str(path)
    labels_file = data.labels_file if labelled else None
    roles = [*["sequence"] * targets, "source", *["label", "group"] * labelled, "id"]
    columns = wanted_columns(data, roles)
    file_format = "prepared" if is_prepared(path) else data.format or named_format(path) or "tsv"
    if file_format == "fasta" and not any(column.role == "id" for column in columns):
        columns.append(Column("id", "id_column", 1))
    if labels_file is not None:
        columns = [column for column in columns if column.role != "label"]
    if not identified and labels_file is None:
        columns = [column for column in columns if column.role != "id"]
    if file_format == "prepared":
        blocks = prepared_blocks(path, columns)
    else:
        blocks = _file_blocks(path, file_format, columns, data)
    if labels_file is None:
        return _not_empty(blocks, path, data)
    if file_format == "prepared":
        raise ConfigurationError(f"data.labels_file has no use with {path}, whose labels are prepared.")
    if not any(column.role == "id" for column in columns):
        raise ConfigurationError("data.labels_file needs the identifiers of rows: set data.id_column to their column.")
    return _not_empty(_with_labels(blocks, path, labels_file, data), path, data)


def may_have_header(path: str | Path, data: DataConfig) -> bool:
    """Whether the first row of a file may be names of columns that nobody said are there."""
    columns = wanted_columns(data, ("sequence", "source", "label", "group", "id"))
    table = (data.format or named_format(str(path)) or "tsv") in ("tsv", "csv") and not is_prepared(str(path))
    return table and not data.header and not are_named(columns)


def _file_blocks(path: str, file_format: FileFormat, columns: Sequence[Column], data: DataConfig) -> Iterator[Block]:
    origin, header = named(path), data.header or are_named(columns)
    with open_bytes(path) as stream:
        if file_format == "tsv":
            yield from tsv_blocks(stream, origin, columns, header)
        elif file_format == "csv":
            yield from csv_blocks(stream, origin, columns, header)
        elif file_format == "fasta":
            yield from fasta_blocks(stream, origin, columns, data.separator)
        elif file_format == "jsonl":
            yield from json_blocks(stream, origin, columns)
        else:
            yield from parquet_blocks(stream, origin, columns)


def _not_empty(blocks: Iterable[Block], path: str, data: DataConfig) -> Iterator[Block]:
    """The blocks that have rows; an error where none has."""
    rows = 0
    for block in blocks:
        rows += len(block)
        if len(block):
            yield block
    if not rows:
        header = data.header or are_named(wanted_columns(data, ("sequence", "source", "label", "group", "id")))
        what = "there is nothing after the header line" if header else "the file is empty"
        raise DataError(f"{named(path)}: {what}; it must have a row per line, with columns separated by tabs.")


def _with_labels(blocks: Iterable[Block], path: str, labels_file: str, data: DataConfig) -> Iterator[Block]:
    """The rows with the labels that another file has for their identifiers."""
    if labels_file == path == STANDARD_INPUT:
        raise ConfigurationError("rows and labels cannot both be read from standard input; name a file for one.")
    labels, any_labelled = _read_labels(labels_file, data), False
    for block in blocks:
        texts = [labels.get(name, "") for name in block.columns["id"]]
        any_labelled = any_labelled or any(name in labels for name in block.columns["id"])
        yield Block({**block.columns, "label": texts}, block.lines)
    if not any_labelled:
        raise DataError(f"{named(labels_file)}: it has no identifier of {named(path)}; see data.labels_id_column.")


def _read_labels(path: str, data: DataConfig) -> dict[str, str]:
    """The label of each identifier of a file."""
    columns = [
        Column("id", "labels_id_column", data.labels_id_column),
        Column("label", "label_column", data.label_column),
    ]
    if not data.label_column:
        raise ConfigurationError("data.labels_file needs data.label_column, its column of labels.")
    file_format, labels = named_format(path) or "tsv", dict[str, str]()
    if file_format == "fasta":
        raise ConfigurationError(f"data.labels_file must be a table of identifiers and labels, not FASTA: {path}.")
    for block in _file_blocks(path, file_format, columns, data):
        for name, label, line in zip(block.columns["id"], block.columns["label"], block.lines.tolist(), strict=True):
            if labels.setdefault(name, label) != label:
                raise DataError(f"{named(path)}:{line}: {name!r} has the label {label!r} here and another one above.")
    return labels
