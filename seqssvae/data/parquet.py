"""Parquet files, by pyarrow."""

import io
from collections.abc import Iterator, Sequence
from io import BufferedReader
from typing import Any

import numpy as np

from seqssvae.data.blocks import BLOCK_ROWS, Block, Column, resolve
from seqssvae.data.opening import arrow
from seqssvae.errors import DataError


def parquet_blocks(stream: BufferedReader, origin: str, columns: Sequence[Column]) -> Iterator[Block]:
    """Read rows of a Parquet file, some at a time; a number or a date becomes its text, and null is missing.

    Args:
        stream: The file; one that cannot be read at any place (a pipe, a compressed file) is read whole.
        origin: What messages call it.
        columns: The columns to read.

    Raises:
        DataError: If it is no Parquet file, or lacks a column.
        ConfigurationError: If pyarrow is not installed.
    """
    pa = arrow(f"{origin}, a Parquet file,")
    import pyarrow.parquet as pq

    is_file = isinstance(stream.raw, io.FileIO) and stream.seekable()  # a compressed one has another raw stream
    try:
        file = pq.ParquetFile(stream if is_file else io.BytesIO(stream.read()))
        places = resolve(columns, file.schema_arrow.names, origin)
        names = {role: file.schema_arrow.names[place] for role, place in places.items()}
        before = 0
        for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=list(dict.fromkeys(names.values()))):
            texts = {role: _texts(pa, batch.column(name), name, origin) for role, name in names.items()}
            yield Block(texts, np.arange(before, before + batch.num_rows, dtype=np.int32) + 1)
            before += batch.num_rows
    except pa.ArrowException as error:
        raise DataError(f"{origin}: not a Parquet file that can be read ({str(error).splitlines()[0]}).") from error


def _texts(pa: Any, column: Any, name: str, origin: str) -> list[str]:
    """The entries of a column as texts, empty where they are null."""
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise DataError(f"{origin}: the column {name!r} must hold texts, not {column.type}.")
    return column.cast(pa.string()).fill_null("").to_pylist()
