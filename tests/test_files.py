"""Files in the formats that people have them in hold the same rows, whatever they are called, compressed or not."""

import csv
import gzip
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import DataConfig
from seqssvae.data.blocks import Block, in_blocks
from seqssvae.data.files import read_blocks, read_table
from seqssvae.data.opening import named_format
from seqssvae.errors import ConfigurationError, DataError

ROWS = [("r1", "ab", "A"), ("r 2", "b,\"c'", ""), ("r3", "é語\U0001f600", "N A"), ("", " d", "A")]
"""Identifier, sequence and label of each row."""

NAMED = {"sequence_column": "seq", "label_column": "label", "id_column": "name"}
HEADER = ["name", "seq", "label"]


def rows_of(path, **fields):
    data = DataConfig(**fields)
    table = read_table(path, data, texts=True)
    whole = list(zip(table.texts["id"], table.texts["sequence"], [label or "" for label in table.labels], strict=True))
    blocks = list(read_blocks(path, data))
    assert [text for block in blocks for text in block.columns["sequence"]] == list(table.texts["sequence"])
    assert list(table.sequences.joined(data.separator)) == list(table.texts["sequence"])
    return whole


def as_csv(rows, header=True):
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([*[HEADER] * header, *rows])
    return file.getvalue().encode()


def as_json(rows):
    objects = [dict(zip(HEADER, row, strict=True)) for row in rows]
    objects[1]["label"] = None
    return "".join(json.dumps(row) + "\n" for row in objects).encode()


def as_tsv(rows):
    return "".join("\t".join(row) + "\n" for row in [HEADER, *rows]).encode()


def as_parquet(rows):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names, texts, labels = map(list, zip(*rows, strict=True))
    file = io.BytesIO()
    pq.write_table(pa.table({"label": [label or None for label in labels], "seq": texts, "name": names}), file)
    return file.getvalue()


def as_zstandard(content):
    pa = pytest.importorskip("pyarrow")
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


WRITERS = {"csv": as_csv, "jsonl": as_json, "tsv": as_tsv, "parquet": as_parquet}
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".zst": as_zstandard}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", WRITERS)
def test_columns_by_name_in_every_format(tmp_path, monkeypatch, kind, compression):
    content = COMPRESSIONS[compression](WRITERS[kind](ROWS))
    path = tmp_path / f"rows.{kind}{compression}"
    path.write_bytes(content)
    assert rows_of(path, **NAMED) == ROWS
    other = tmp_path / "rows"  # which says nothing of the format, nor of the compression
    other.write_bytes(content)
    assert rows_of(other, **NAMED, format=kind) == ROWS
    stream = SimpleNamespace(buffer=io.BytesIO(content))
    monkeypatch.setattr(sys, "stdin", stream)
    table = read_table("-", DataConfig(**NAMED, format=kind), texts=True)
    assert list(table.texts["sequence"]) == [row[1] for row in ROWS]
    assert table.origin == "standard input"


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=6)


@given(rows=st.lists(st.tuples(TEXTS, TEXTS.filter(bool), TEXTS), min_size=1, max_size=8), at_once=st.integers(1, 5))
def test_what_is_written_as_csv_or_json_is_read(tmp_path_factory, rows, at_once):
    folder = tmp_path_factory.mktemp("files")
    (folder / "rows.csv").write_bytes(as_csv(rows, header=False))
    (folder / "rows.jsonl").write_text("".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in rows))
    numbers = {"id_column": 1, "sequence_column": 2, "label_column": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqssvae.data.text_formats.BLOCK_ROWS", at_once)
        assert rows_of(folder / "rows.csv", **numbers) == rows
        assert rows_of(folder / "rows.jsonl", **numbers) == rows


def test_a_quoted_field_may_have_line_breaks_and_lines_are_counted_by_the_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('"a\nb","x, ""y"""\n\nc\n')
    with pytest.raises(DataError, match=r"rows\.csv:4: there is no column 2 among 1 column"):
        read_table(path, DataConfig())
    path.write_text('"a\nb","x, ""y"""\n\nc,\n')
    table = read_table(path, DataConfig(), texts=True)
    assert list(table.texts["sequence"]) == ["a\nb", "c"]
    assert list(table.labels) == ['x, "y"', None]
    assert table.lines.tolist() == [1, 4]


def test_fasta_with_labels_of_another_file(tmp_path):
    fasta, labels = tmp_path / "rows.fa", tmp_path / "labels.csv"
    fasta.write_bytes(b"; a comment\n>p1 some protein\r\nMK\r\nLV \r\n\r\n>p2\nMA\n>p3|x\nGG\n")
    labels.write_text("class,accession\nAMP,p2\nother,p1\nAMP,p9\n")
    data = {"labels_file": str(labels), "labels_id_column": "accession", "label_column": "class"}
    assert rows_of(fasta, **data) == [("p1", "MKLV", "other"), ("p2", "MA", "AMP"), ("p3|x", "GG", "")]
    assert rows_of(fasta) == [("p1", "MKLV", ""), ("p2", "MA", ""), ("p3|x", "GG", "")]
    table = tmp_path / "rows.tsv"
    table.write_text("p1\tMK\np2\tMA\n")
    both = {**data, "id_column": 1, "sequence_column": 2}
    assert rows_of(table, **both) == [("p1", "MK", "other"), ("p2", "MA", "AMP")]
    labels.write_text("class,accession\nAMP,p2\nother,p2\n")
    with pytest.raises(DataError, match=r"labels\.csv:3: 'p2' has the label 'other' here and another one above"):
        rows_of(fasta, **data)
    labels.write_text("class,accession\nAMP,P2\n")
    with pytest.raises(DataError, match=r"labels\.csv: it has no identifier of .*rows\.fa"):
        rows_of(fasta, **data)
    with pytest.raises(ConfigurationError, match=r"labels_file needs the identifiers of rows: set data\.id_column"):
        read_table(table, DataConfig(sequence_column=2, **data))


WRONG = {
    "rows.fa": [
        (b"MK\n>p\nA\n", {}, ":1: FASTA begins with >"),
        (b">p\nA\n>q\n\n>r\nC\n", {}, ":3: the sequence is empty"),
        (b">p\nA\n", {"source_column": 3}, ": FASTA has no source; set data.source_column to 0"),
    ],
    "rows.jsonl": [
        (b'{"a": "x", "b": "A"}\n{"a": \n', {}, ":2: not valid JSON"),
        (b'[{"a": "x"}]\n', {}, ":1: there must be an object a line"),
        (b'{"a": "x", "b": "A"}\n{"a": ["y"]}\n', {}, ":2: 'a' must be a text, not a list"),
        (b'{"a": "x"}\n', {}, ":1: there is no column 2 among 'a'; "),
        (b'{"a": "x"}\n{"b": "A"}\n', {"label_column": "b"}, ":2: the sequence is empty"),
        (b'{"a": "x", "b": ""}\n', {"label_column": "lable"}, ": no object has the key 'lable'; set data.label_column"),
        (b'{"a": "\\ud800", "b": "A"}\n', {}, ":1: half a surrogate pair"),
    ],
    "rows.csv": [
        (b'a,A\n"b"x,B\n', {}, ":2: not valid CSV"),
        (b"a,A\n\xff,B\n", {}, ":2: byte 0xff is not UTF-8"),
        (b"seq,label\nab,A\n", {"sequence_column": "text"}, ":1: there is no column 'text' among 'seq', 'label'; set"),
        (b"seq,seq\nab,A\n", {"sequence_column": "seq"}, ":1: there is more than one column 'seq'"),
        (b"a,seq\nA,ab\n", {"sequence_column": "seq"}, ":1: data.sequence_column and data.label_column name the same"),
        (b"seq,label\n", {"sequence_column": "seq"}, ": there is nothing"),
        (b"seq\nab\n", {"sequence_column": "seq"}, ":2: there is no column 2 among 1 column"),
    ],
    "rows.tsv": [
        (b"seq\tlabel\nab\n", {"sequence_column": "seq", "label_column": "label"}, ":2: there is no column 2 among 1"),
        (gzip.compress(b"ab\tA\n" * 99)[:-9], {}, ": the compressed file is damaged or not whole"),
        (b"\x1f\x8b nothing", {}, ": the compressed file is damaged or not whole"),
    ],
    "rows.parquet": [(b"PAR1", {}, ": not a Parquet file that can be read"), (b"", {}, ": not a Parquet file")],
}


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in WRONG for number in range(len(WRONG[name]))])
def test_a_mistake_names_file_line_and_remedy(tmp_path, name, number):
    content, fields, message = WRONG[name][number]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path) + message)}") as caught:
        read_table(path, DataConfig(**fields))
    assert "\n" not in str(caught.value)


def test_a_compressed_file_that_is_cut_is_no_shorter_file(tmp_path):
    content = as_zstandard(bytes(f"{'ab' * 50}\tA\n" * 5000, "ascii"))
    path = tmp_path / "rows.tsv.zst"
    for size in (len(content) - 1, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="the compressed file is damaged or not whole"):
            read_table(path, DataConfig())
    path.write_bytes(content + content)
    assert len(read_table(path, DataConfig())) == 10_000


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigurationError, match=r"needs pyarrow, which is not installed: pip install 'seqssvae\[arrow\]'"
    ):
        read_table(path, DataConfig())


def test_numbers_and_categories_of_parquet_are_texts(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"seq": pandas.Categorical(["ab", "cd", "ab"]), "y": [1, 2, None]}, index=[5, 5, 7])
    frame["y"] = frame["y"].astype("Int64")
    frame.to_parquet(tmp_path / "rows.parquet")
    table = read_table(tmp_path / "rows.parquet", DataConfig(sequence_column="seq", label_column="y"))
    assert list(table.labels) == ["1", "2", None]
    assert list(table.sequences.joined("")) == ["ab", "cd", "ab"]


def test_parquet_may_have_several_columns_of_one_name(tmp_path):
    pa, pq = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    columns = [["ab", "cd"], ["x", "y"], ["A", "B"]]
    pq.write_table(pa.table([pa.array(column) for column in columns], ["s", "s", "l"]), tmp_path / "rows.parquet")
    for sequence, label in ((1, 2), (2, 1), (3, 1), (1, 3), (1, "l")):
        table = read_table(tmp_path / "rows.parquet", DataConfig(sequence_column=sequence, label_column=label))
        assert list(table.sequences.joined("")) == columns[sequence - 1]
        assert list(table.labels) == columns[(3 if label == "l" else label) - 1]
    with pytest.raises(DataError, match=r"more than one column 's' among 's', 's', 'l'; give its number"):
        read_table(tmp_path / "rows.parquet", DataConfig(sequence_column="s"))


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    pa, pq = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"s": ["abcdefgh"] * 9, "l": ["A"] * 9}), path, compression="none")
    content = path.read_bytes()
    damaged = [content.replace(b"abcd", b"ab\xff\xff"), content[:-40] + b"\xee" * 32 + content[-8:], b"PAR1" * 9]
    for one in damaged:
        path.write_bytes(one)
        with pytest.raises(DataError, match=r"rows\.parquet: not a Parquet file that can be read \(.*\)\.$"):
            read_table(path, DataConfig())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.TSV", "tsv"),
        ("b.csv.gz", "csv"),
        ("c.v2.faa", "fasta"),
        ("d.parquet", "parquet"),
        ("e", None),
        ("f.gz", None),
    ],
)
def test_names_tell_the_format(name, expected):
    assert named_format(name) == expected
    assert Path(name).name == name


@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 5))
def test_blocks_are_of_one_size_but_the_last(sizes, rows):
    import numpy as np

    ends = np.cumsum([0, *sizes])
    blocks = [
        Block({"sequence": [str(n) for n in range(start, end)]}, np.arange(start, end, dtype=np.int32))
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]
    cut = list(in_blocks(blocks, rows))
    assert [len(block) for block in cut[:-1]] == [rows] * (len(cut) - 1)
    assert all(0 < len(block) <= rows for block in cut)
    assert [number for block in cut for number in block.lines.tolist()] == list(range(ends[-1]))
    assert [text for block in cut for text in block.columns["sequence"]] == [str(n) for n in range(ends[-1])]
