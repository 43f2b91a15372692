"""Directories that `seqssvae prepare` made: rows in an Arrow file, which is mapped into memory.

DIRECTORY/rows.arrow      the rows, as the schema below says
DIRECTORY/prepared.json   symbols, labels, and how the rows were read; it is written last
"""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seqssvae.config import DataConfig
from seqssvae.data.blocks import BLOCK_ROWS, Block, Column
from seqssvae.data.corpus import NO_GROUP, Corpus, CorpusCounts
from seqssvae.data.mapped import MappedFile, MappedRows
from seqssvae.data.opening import arrow
from seqssvae.data.ragged import RaggedArray, Rows
from seqssvae.data.schema import Schema
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import ConfigurationError, DataError

MANIFEST, ROWS = "prepared.json", "rows.arrow"
FORMAT = 2
"""Version of the directory's layout."""

SHARED = ("separator", "source_separator", "max_length", "too_long", "minimum_count", "labels")
"""Fields of the section `data` that say how rows were read, and are the directory's own."""

COLUMNS = {"sequence": "text", "label": "label", "source": "source", "group": "group", "id": "id"}
"""The column of the Arrow file that has the text, or the number, of each."""


def is_prepared(path: str) -> bool:
    """Whether a path is that of a directory that `seqssvae prepare` made."""
    return os.path.isfile(os.path.join(path, MANIFEST))


class PreparedDirectory:
    """A directory that `seqssvae prepare` made.

    Args:
        path: The directory.

    Raises:
        DataError: If a file of it is missing or damaged, or of a later version.
        ConfigurationError: If pyarrow is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = self._read_manifest()
        self.rows: int = self.manifest["rows"]
        self.counts = CorpusCounts(**self.manifest["counts"])
        self.data: dict[str, Any] = {name: self.manifest["data"][name] for name in SHARED}
        self.labels = Labels.from_dict(self.manifest["labels"])
        self.vocabulary = Vocabulary.from_dict(self.manifest["vocabulary"])
        source = self.manifest["source_vocabulary"]
        self.source_vocabulary = None if source is None else Vocabulary.from_dict(source)
        if (actual := (self.path / ROWS).stat().st_size) != (size := self.manifest["bytes"]):
            raise DataError(f"{self.path / ROWS}: it has {actual} bytes in place of {size}; prepare the files again.")

    def _read_manifest(self) -> dict[str, Any]:
        """What `prepared.json` holds, which is as it was written."""
        try:
            (self.path / ROWS).stat()
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            known, checksum = manifest["format"], manifest.pop("checksum", None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{self.path}: damaged ({error}); prepare the files again.") from error
        if known != FORMAT:
            remedy = "prepare the files again, or update seqssvae"
            raise DataError(f"{self.path}: it is of format {known!r:.20}, and this version reads {FORMAT}; {remedy}.")
        if checksum != manifest_checksum(manifest):
            raise DataError(f"{self.path / MANIFEST}: it was changed or damaged; prepare the files again.")
        return manifest

    @property
    def schema(self) -> Schema:
        """Symbols and labels, the latter equally probable."""
        uniform = (1.0 / len(self.labels),) * len(self.labels)
        return Schema(self.vocabulary, self.labels, uniform, self.source_vocabulary)

    def check(self, data: DataConfig) -> None:
        """Check that rows are to be read as they were.

        Raises:
            ConfigurationError: If a field is another one.
        """
        self.check_fields({name: getattr(data, name) for name in SHARED})
        if bool(data.source_column) != (self.source_vocabulary is not None):
            has = "no sources; set data.source_column to 0" if data.source_column else "sources; set data.source_column"
            raise ConfigurationError(f"{self.path} has {has}.")

    def check_fields(self, given: Mapping[str, Any]) -> None:
        """Check fields of the section `data` by their names.

        Raises:
            ConfigurationError: If one is another one.
        """
        for name in SHARED:
            value = list(given[name]) if isinstance(given[name], (list, tuple)) else given[name]
            if value != self.data[name]:
                raise ConfigurationError(
                    f"data.{name} is {self.data[name]!r} in {self.path}, which was prepared so, and cannot be "
                    f"{value!r}; prepare the files again to change it."
                )

    @cached_property
    def _pa(self) -> Any:
        return arrow(f"{self.path}, which was prepared,")

    @cached_property
    def _file(self) -> MappedFile:
        with self._explained():
            return MappedFile(self.path / ROWS)

    @cached_property
    def _batches(self) -> list[Any]:
        with self._explained():
            reader = self._pa.ipc.open_file(self._pa.py_buffer(self._file.buffer))
            return [reader.get_batch(number) for number in range(reader.num_record_batches)]

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (self._pa.ArrowException, OSError, KeyError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"{self.path / ROWS}: damaged ({reason}); prepare the files again.") from error

    def _check(self, number: int, batch: Any, names: Sequence[str]) -> None:
        """Check that those of these columns of a batch that were written are as they were."""
        written = self.manifest["checksums"][number : number + 1]
        if [checksums(batch)] != [{name: value for name, value in one.items() if name in names} for one in written]:
            raise DataError(f"{self.path / ROWS}: it was changed or damaged; prepare the files again.")

    def _check_all(self, names: Sequence[str]) -> None:
        """Check these columns of all rows, which are read for it once, and in parts, rather than mapped."""
        with self._explained(), self._pa.OSFile(str(self.path / ROWS), "rb") as file:
            known = self._pa.ipc.open_file(file).schema.names
            fields = [place for place, name in enumerate(known) if name in names]
            options = self._pa.ipc.IpcReadOptions(included_fields=fields)
            reader = self._pa.ipc.open_file(file, options=options)
            rows = 0
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                self._check(number, batch, names)
                rows += batch.num_rows
                del batch
        self._pa.default_memory_pool().release_unused()
        if rows != self.rows:
            raise DataError(f"{self.path / ROWS}: it has {rows} rows in place of {self.rows}; prepare the files again.")

    def corpus(self) -> Corpus:
        """The rows, encoded, which stay in the file.

        Raises:
            DataError: If they are not as they were written.
        """
        self._check_all(("symbols", "label", "group", "source_symbols"))
        sequences = self._symbols("symbols")
        assert sequences is not None
        labels = [batch.column("label").to_numpy() for batch in self._batches]
        groups = np.broadcast_to(np.int32(NO_GROUP), len(sequences))
        if "group" in self._names:
            groups = np.concatenate([batch.column("group").to_numpy() for batch in self._batches])
        y = np.concatenate([np.zeros(0, np.int8), *labels])
        self._file.release()
        sources = self._symbols("source_symbols")
        return Corpus(sequences, y, groups, str(self.path), self.counts, sources)

    @property
    def _names(self) -> list[str]:
        return self._batches[0].schema.names if self._batches else []

    def _symbols(self, name: str) -> Rows | None:
        if name not in self._names:
            return None
        columns = [batch.column(name) for batch in self._batches]
        shards = [RaggedArray(column.values.to_numpy(), column.offsets.to_numpy()) for column in columns]
        return MappedRows(shards, self._file)

    def blocks(self, columns: Sequence[Column]) -> Iterator[Block]:
        """The texts and labels of the rows, some at a time.

        Raises:
            DataError: If there are no sources, and they are wanted, or if rows are not as they were written.
        """
        names = np.array([*self.labels.names, ""], object)  # a label that is missing has the number -1
        wanted, before = [COLUMNS[column.role] for column in columns], 0
        for index, batch in enumerate(self._batches):
            with self._explained():
                self._check(
                    index, batch.select([name for name in dict.fromkeys(wanted) if name in self._names]), wanted
                )
            for first in range(0, batch.num_rows, BLOCK_ROWS):
                part = batch.slice(first, BLOCK_ROWS)
                numbers = np.arange(before, before + part.num_rows, dtype=np.int32) + 1
                yield Block({column.role: self._texts(part, column, names) for column in columns}, numbers)
                before += part.num_rows
                self._file.release()

    def _texts(self, part: Any, column: Column, names: np.ndarray) -> list[str]:
        name = COLUMNS[column.role]
        if name not in self._names:
            if column.role in ("source", "sequence"):
                raise DataError(f"{self.path}: it has no {column.role}; set data.{column.field} to 0.")
            return [""] * part.num_rows
        if column.role == "label":
            return names[part.column(name).to_numpy()].tolist()
        if column.role == "group":
            return ["" if number < 0 else str(number) for number in part.column(name).to_pylist()]
        return part.column(name).to_pylist()


def manifest_checksum(manifest: Mapping[str, Any]) -> int:
    """A checksum (CRC-32) of what `prepared.json` holds beside it."""
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def checksums(batch: Any) -> dict[str, int]:
    """A checksum (CRC-32) of each column of a record batch as it is read from a file: its type, length and content."""
    sums = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        sums[name] = zlib.crc32(f"{column.type} {len(column)} {column.offset} {column.null_count}".encode())
        for buffer in column.buffers():
            sums[name] = zlib.crc32(b"none" if buffer is None else buffer, sums[name])
    return sums


def prepared_blocks(path: str, columns: Sequence[Column]) -> Iterator[Block]:
    """The rows of a directory, some at a time, as `PreparedDirectory.blocks` has them."""
    return PreparedDirectory(path).blocks(columns)


def prepared_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration with those of the directory that `data.train` names, if it names one.

    Args:
        settings: The fields that somebody gave, nested.

    Raises:
        ConfigurationError: If one of them is another one in the directory.
    """
    data = settings.get("data")
    train = data.get("train") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(train, str) or not is_prepared(train):
        return dict(settings)
    prepared = PreparedDirectory(train)
    filled = {**prepared.data, "source_column": int(prepared.source_vocabulary is not None) * 3, **data}
    prepared.check_fields(filled)
    return {**settings, "data": filled}
