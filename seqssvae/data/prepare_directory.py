"""Writes rows into a directory from which training reads them without holding them in memory.

Files are read once, some rows at a time, into an Arrow file whose symbols and labels are numbered as they come. When
all are known, a second file has the numbers that a model knows. The directory has another name until it is whole.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqssvae.config import DataConfig
from seqssvae.data.blocks import Block
from seqssvae.data.builder import TableBuilder
from seqssvae.data.corpus import CorpusCounts, LimitedTable, check_rows_left, label_ids, limit_part
from seqssvae.data.directories import lock, sync_directory
from seqssvae.data.files import may_have_header, read_blocks
from seqssvae.data.lookalikes import warn_of_header
from seqssvae.data.opening import arrow, named
from seqssvae.data.prepared_rows import FORMAT, MANIFEST, ROWS, SHARED, checksums, manifest_checksum
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.schema import Occurrences, Schema, schema_of
from seqssvae.data.vocabulary import END, UNK, Labels
from seqssvae.errors import DataError

NUMBERED = "numbered.arrow"
"""The file with the numbers of the first pass."""

BATCH_ROWS, BATCH_BYTES = 1 << 20, 1 << 27
"""Most rows, and about the most bytes, of one record batch of the file of rows."""


def prepare_directory(
    files: Sequence[str], output: str, data: DataConfig, report: Callable[[str], None] = lambda text: None
) -> CorpusCounts:
    """Read files, in bounded memory, and write a directory of their rows.

    Args:
        files: The files, in any format.
        output: The directory, which must not exist.
        data: How rows are read: columns, separators, lengths, classes.
        report: Called with what is being done, in words.

    Returns:
        What happened to the rows.

    Raises:
        DataError: If the directory exists, or a file or a row of it cannot be used. Then nothing is left.
        ConfigurationError: If pyarrow is not installed.
    """
    pa, path = arrow("seqssvae prepare"), Path(output)
    if os.path.lexists(path):
        raise DataError(f"The output directory {output} exists already and was left as it is; name another one.")
    try:
        with _unfinished(path) as place:
            first_pass = _FirstPass(pa, data)
            first_pass.write(files, place / NUMBERED, report)
            report(f"writing {first_pass.counts.rows - first_pass.counts.skipped:,} rows")
            return _write_numbers(pa, first_pass, place, files)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error}).") from error


@contextlib.contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A directory that gets its name when it is whole; one that a process left which was killed is removed."""
    prefix = f".seqssvae-{path.name}-"
    for other in path.parent.iterdir() if os.path.isdir(path.parent) else ():
        if other.name.startswith(prefix):
            with contextlib.suppress(OSError), _locked(other):
                shutil.rmtree(other)
    place = path.parent / f"{prefix}{secrets.token_hex(6)}"
    place.mkdir()
    try:
        with _locked(place):
            yield place
            for file in (*place.iterdir(), place):
                sync_directory(file)
            place.rename(path)
            sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """A lock on a directory, which ends with the process; OSError if another process has it."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


class _FirstPass:
    """Numbers symbols and labels as they come, and counts them.

    Args:
        pa: pyarrow.
        data: How rows are read.

    Attributes:
        symbols: By role (sequence, source), the symbols by number.
        labels: The labels by number.
        counts: What happened to the rows.
        has_ids: Whether a row has an identifier.
        schema: Symbols and labels of the rows.
    """

    def __init__(self, pa: Any, data: DataConfig) -> None:
        self._pa, self.data = pa, data
        self.symbols: dict[str, tuple[str, ...]] = {}
        self.labels: tuple[str, ...] = ()
        self.counts = CorpusCounts(0, 0, 0, 0)
        self.has_ids = False
        self.schema: Schema
        self._occurred = {role: Counter[str]() for role in ("sequence", "source", "label")}

    def write(self, files: Sequence[str], path: Path, report: Callable[[str], None]) -> None:
        """Write the rows with their numbers."""
        pa, builder = self._pa, TableBuilder(self.data, "", texts=True)
        writer = None
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(pa.OSFile(str(path), "wb"))
            for name in files:
                builder.origin = named(name)
                for number, block in enumerate(read_blocks(name, self.data)):
                    batch = self._batch(builder, block, number == 0 and may_have_header(name, self.data))
                    writer = writer or stack.enter_context(pa.ipc.new_file(file, batch.schema))
                    writer.write_batch(batch)
                    report(f"reading {builder.origin}: {self.counts.rows:,} rows")
        occurred, origin = self._occurred, named(files[0]) if len(files) == 1 else f"{len(files)} files"
        check_rows_left(self.counts.rows - self.counts.skipped, origin, self.data)
        self.schema = schema_of(
            Occurrences(occurred["sequence"], occurred["source"], occurred["label"], origin), self.data
        )

    def _batch(self, builder: TableBuilder, block: Block, may_have_header: bool) -> Any:
        """Some rows with their numbers, as a record batch; they are counted."""
        builder.add(block)
        whole = builder.table()
        if may_have_header:
            warn_of_header(whole)
        limited = limit_part(whole, self.data)
        table = limited.table
        if self.data.labels is not None:
            label_ids(table, Labels(tuple(self.data.labels)))  # an error that names the line
        self._count(limited)
        texts, empty = table.texts, [""] * len(table)
        self.has_ids = self.has_ids or any(texts.get("id", ()))
        columns: dict[str, Any] = {
            "text": self._pa.array(texts["sequence"], self._pa.string()),
            "symbols": self._lists(table.sequences.codes),
            "label": self._pa.array(table.labels.codes),
            "id": self._pa.array(texts.get("id", empty), self._pa.string()),
        }
        if self.data.group_column:
            columns["group"] = self._pa.array(table.groups.codes)
        if table.sources is not None:
            columns["source"] = self._pa.array(texts["source"], self._pa.string())
            columns["source_symbols"] = self._lists(table.sources.codes)
        return self._pa.record_batch(columns)

    def _count(self, limited: LimitedTable) -> None:
        table = limited.table
        rows = CorpusCounts(len(table) + limited.skipped, limited.skipped, limited.truncated, 0)
        self.counts = CorpusCounts(*(sum(pair) for pair in zip(self.counts, rows, strict=True)))
        self._occurred["sequence"].update(table.sequences.counts())
        self._occurred["label"].update(table.labels.counts())
        self.symbols["sequence"], self.labels = table.sequences.symbols, table.labels.texts
        if table.sources is not None:
            self._occurred["source"].update(table.sources.counts())
            self.symbols["source"] = table.sources.symbols

    def _lists(self, rows: RaggedArray) -> Any:
        return self._pa.ListArray.from_arrays(rows.offsets.astype(np.int32), self._pa.array(rows.values))


def _write_numbers(pa: Any, first_pass: _FirstPass, place: Path, files: Sequence[str]) -> CorpusCounts:
    """Write the rows with the numbers that a model knows, and what is known of them."""
    schema, unknown, rows = first_pass.schema, 0, 0
    vocabularies = {"symbols": ("sequence", schema.vocabulary)}
    if schema.source_vocabulary is not None:
        vocabularies["source_symbols"] = ("source", schema.source_vocabulary)
    ids = {name: vocabulary.lookup(first_pass.symbols[role]) for name, (role, vocabulary) in vocabularies.items()}
    # a label that none of the rows that are left has may be among the numbers, and the last is that of a missing one
    labels = [schema.labels.index(name) if name in schema.labels else -1 for name in first_pass.labels]
    y = np.array([*labels, -1], np.int32)
    writer = None
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(pa.OSFile(str(place / ROWS), "wb"))
        for batch in _large_batches(pa, place / NUMBERED):
            columns = {name: batch.column(name) for name in batch.schema.names if name != "id" or first_pass.has_ids}
            columns["label"] = pa.array(y[batch.column("label").to_numpy()].astype(_smallest(len(schema.labels))))
            for name, (_, vocabulary) in vocabularies.items():
                column = batch.column(name)
                values = ids[name][column.values.to_numpy()]
                encoded = RaggedArray(values, column.offsets.to_numpy().astype(np.int64)).insert_last(END)
                unknown += int(np.count_nonzero(encoded.values == UNK))
                values = encoded.values.astype(_smallest(len(vocabulary)))
                columns[name] = pa.ListArray.from_arrays(encoded.offsets.astype(np.int32), pa.array(values))
            made = pa.record_batch(columns)
            writer = writer or stack.enter_context(pa.ipc.new_file(file, made.schema))
            writer.write_batch(made)
            rows += made.num_rows
    (place / NUMBERED).unlink()
    counts = first_pass.counts._replace(unknown_symbols=unknown)
    source = schema.source_vocabulary
    manifest = {
        "format": FORMAT,
        "rows": rows,
        "bytes": (place / ROWS).stat().st_size,
        "files": [named(name) for name in files],
        "counts": counts._asdict(),
        "data": {name: _plain(getattr(first_pass.data, name)) for name in SHARED},
        "labels": schema.labels.to_dict(),
        "vocabulary": schema.vocabulary.to_dict(),
        "source_vocabulary": None if source is None else source.to_dict(),
        "checksums": _checksums(pa, place / ROWS),
    }
    manifest["checksum"] = manifest_checksum(manifest)
    (place / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    return counts


def _checksums(pa: Any, path: Path) -> list[dict[str, int]]:
    """The checksums of each record batch of a file as it is read."""
    with pa.OSFile(str(path), "rb") as file:
        reader = pa.ipc.open_file(file)
        return [checksums(reader.get_batch(number)) for number in range(reader.num_record_batches)]


def _large_batches(pa: Any, path: Path) -> Iterator[Any]:
    """The record batches of a file, several of them joined."""
    with pa.OSFile(str(path), "rb") as file:
        reader, waiting = pa.ipc.open_file(file), list[Any]()
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            for first in range(0, batch.num_rows, BATCH_ROWS):
                waiting.append(batch.slice(first, BATCH_ROWS))
                if _is_large(waiting):
                    yield _joined(pa, waiting)
                    waiting = []
        if waiting:
            yield _joined(pa, waiting)


def _is_large(batches: Sequence[Any]) -> bool:
    rows = sum(batch.num_rows for batch in batches)
    return rows >= BATCH_ROWS or sum(batch.nbytes for batch in batches) >= BATCH_BYTES


def _joined(pa: Any, batches: Sequence[Any]) -> Any:
    names = batches[0].schema.names
    columns = {name: pa.concat_arrays([batch.column(name) for batch in batches]) for name in names}
    return pa.record_batch(columns)


def _smallest(count: int) -> type[np.signedinteger]:
    """The smallest type that so many numbers, from 0, fit into, and one more."""
    return next(kind for kind in (np.int8, np.int16, np.int32) if count <= np.iinfo(kind).max)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
