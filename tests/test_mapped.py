"""Rows of a prepared directory, which stay in its file: what is taken of them, in which order, what is left of it."""

import copy
import itertools
import mmap
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.cli.main import main
from seqssvae.config import DataConfig
from seqssvae.data.batches import BatchStream, evaluation_batches
from seqssvae.data.blocks import wanted_columns
from seqssvae.data.mapped import MappedFile, MappedRows
from seqssvae.data.padding import BATCHES_AT_ONCE
from seqssvae.data.prepared_rows import PreparedDirectory
from seqssvae.data.ragged import RaggedArray

pytest.importorskip("pyarrow")

SHARDS = st.lists(st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=4), max_size=4), max_size=4)


@given(SHARDS, st.data())
def test_rows_of_a_mapped_file_are_taken_as_those_in_memory(shards, data):
    rows = [row for shard in shards for row in shard]
    parts = (RaggedArray.from_rows(shard) for shard in shards)
    stored = [RaggedArray(part.values.astype(np.int8), part.offsets.astype(np.int32)) for part in parts]
    mapped = MappedRows(stored, MappedFile(Path(__file__)))
    assert len(mapped) == len(rows)
    assert [row.tolist() for row in mapped] == rows
    for _ in range(2):
        places = st.lists(st.integers(0, len(rows) - 1), max_size=6) if rows else st.just([])
        indices = np.array(data.draw(places), np.int64)
        rows = [rows[index] for index in indices]
        taken, mapped = mapped.take(indices), mapped.select(indices)
        assert [row.tolist() for row in taken] == [row.tolist() for row in mapped] == rows
        assert mapped.lengths.tolist() == [len(row) for row in rows]
        values = [symbol for row in rows for symbol in row]
        assert mapped.counts(101).tolist() == [values.count(symbol) for symbol in range(101)]
        assert mapped.loaded().values.tolist() == values


@pytest.fixture
def in_parts(tmp_path, monkeypatch):
    """A directory with 10,000 rows in ten parts."""
    monkeypatch.setattr("seqssvae.data.prepare_directory.BATCH_ROWS", 1000)
    rows = [f"{letter * (number % 90 + 1)}\t{'xy'[number % 2]}" for number in range(5000) for letter in "ab"]
    (tmp_path / "rows.tsv").write_text("\n".join(rows) + "\n")
    assert main(["prepare", str(tmp_path / "rows.tsv"), "--output", str(tmp_path / "rows")]) == 0
    return PreparedDirectory(tmp_path / "rows")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells which pages of a file a process holds.")
def test_no_page_of_the_file_stays_in_the_process(in_parts, monkeypatch):
    file, held, release = in_parts.path / "rows.arrow", [], MappedFile.release
    corpus = in_parts.corpus()
    assert resident(file) == 0
    with monkeypatch.context() as patch:
        patch.setattr(MappedFile, "release", lambda self: (held.append(resident(file)), release(self)))
        taken = corpus.sequences.take(np.random.default_rng(0).permutation(10_000))
    assert sorted(taken.lengths.tolist()) == sorted(corpus.lengths.tolist())
    assert len(held) == 10
    assert max(held) < file.stat().st_size / 1024 / 2  # of one part, and what the system reads around it
    assert resident(file) == 0
    assert len(list(evaluation_batches(corpus, 100, (91,)))) == 100
    columns = wanted_columns(DataConfig(), ("sequence", "label"))
    assert sum(len(block.lines) for block in in_parts.blocks(columns)) == 10_000
    assert resident(file) == 0
    assert in_parts._file.buffer[:6] == b"ARROW1"
    assert resident(file) > 0  # what was read now is held


def test_rows_that_are_taken_together_are_read_in_the_order_of_the_file(in_parts, monkeypatch):
    corpus, places, take = in_parts.corpus(), [], RaggedArray.take
    parts = list(corpus.sequences._shards)

    def noted(self, indices):
        number = next((number for number, part in enumerate(parts) if part is self), None)
        if number is not None:
            places.extend((number, place) for place in indices.tolist())
        return take(self, indices)

    monkeypatch.setattr(RaggedArray, "take", noted)
    batches = list(BatchStream(corpus, np.arange(10_000), 8, (5, 91), seed=3).epoch(0))
    assert len(batches) == 1250
    assert len(places) == len(set(places)) == 10_000
    passes = sum(later < earlier for earlier, later in itertools.pairwise(places)) + 1
    assert passes <= len(batches) / BATCHES_AT_ONCE + 7  # the first of which are for 1, 2, 4, 8, 16 and 32 batches


def test_rows_of_a_mapped_file_are_copied_and_pickled(in_parts):
    corpus = in_parts.corpus()
    for other in (pickle.loads(pickle.dumps(corpus)), copy.deepcopy(corpus.take(np.arange(10_000)))):
        assert other.sequences.loaded().values.tolist() == corpus.sequences.loaded().values.tolist()


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="nothing is advised here")
def test_pages_that_cannot_be_released_are_no_error(in_parts, monkeypatch):
    class Locked:
        def madvise(self, _):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(in_parts._file, "buffer", Locked())
    in_parts._file.release()


def resident(path: Path) -> int:
    """How many kB of a file that it maps this process holds."""
    mappings, name, found = Path("/proc/self/smaps").read_text().splitlines(), str(path.resolve()), 0
    places = [number for number, line in enumerate(mappings) if line.endswith(name)]
    assert places
    for place in places:
        found += next(int(line.split()[1]) for line in mappings[place:] if line.startswith("Rss:"))
    return found
