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
        names, before = file.schema_arrow.names, 0
        read = sorted(set(places.values()))
        if len(set(names)) < len(names):  # pyarrow takes columns by name
            read = list(range(len(names)))
        for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=[names[place] for place in read]):
            arrays = {role: batch.column(read.index(place)) for role, place in places.items()}
            texts = {role: _texts(pa, column, names[places[role]], origin) for role, column in arrays.items()}
            yield Block(texts, np.arange(before, before + batch.num_rows, dtype=np.int32) + 1)
            before += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Arrow's
            raise
        reason = str(error).partition("\n")[0]
        raise DataError(f"{origin}: not a Parquet file that can be read ({reason}).") from error


def _texts(pa: Any, column: Any, name: str, origin: str) -> list[str]:
    """The entries of a column as texts, empty where they are null."""
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        raise DataError(f"{origin}: the column {name!r} must hold texts, not {column.type}.")
    return column.cast(pa.string()).fill_null("").to_pylist()
