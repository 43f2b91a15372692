"""Directories that `prepare` made: the same rows, the same bits, and never half of one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import FIT, assert_one_error, rows_of
from hypothesis import given
from hypothesis import strategies as st
from kills import final
from toy import write_toy

from seqssvae.cli import inputs
from seqssvae.cli.main import main
from seqssvae.config import DataConfig
from seqssvae.config.settings import from_dict
from seqssvae.data.blocks import wanted_columns
from seqssvae.data.prepare import prepare_files
from seqssvae.data.prepare_directory import prepare_directory
from seqssvae.data.prepared_rows import PreparedDirectory
from seqssvae.errors import DataError
from seqssvae.recipes.auto import learning_rows, rows_trained_on, with_reference
from seqssvae.recipes.baselines import Baselines
from seqssvae.runs.files import corpus_digest

pytest.importorskip("pyarrow")

ROWS = [
    ("ab c\tleft\tg1\t r s \tid 1", True),
    ("c  c\t\tg2\ts\tid 2", True),
    (" ".join("abcd" * 3) + "\tright\tg1\ts\tid 3", False),
    ("a b\tright\t\tr\t", True),
]
"""Lines of sequence, label, group, source and identifier, and whether the sequence is short enough."""

DATA = {"separator": " ", "source_separator": " ", "group_column": 3, "source_column": 4, "id_column": 5}


@pytest.fixture
def written(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.tsv").write_text("".join(f"{line}\n" for line, _ in ROWS[:2]))
    Path("b.tsv").write_text("".join(f"{line}\n" for line, _ in ROWS[2:]))
    Path("all.tsv").write_text("".join(f"{line}\n" for line, _ in ROWS))
    return tmp_path


@pytest.mark.parametrize("too_long", ["skip", "truncate"])
@pytest.mark.parametrize("at_once", [1, 3, 1 << 20])
def test_what_is_prepared_is_what_would_be_read(written, monkeypatch, too_long, at_once):
    monkeypatch.setattr("seqssvae.data.prepare_directory.BATCH_ROWS", at_once)
    data = {**DATA, "max_length": 8, "too_long": too_long, "minimum_count": 2, "validation_fraction": 0.4}
    counts = prepare_directory(["a.tsv", "b.tsv"], "rows", DataConfig(**data))
    whole = prepare_files(from_dict({"data": {**data, "train": "all.tsv"}}))
    mapped = prepare_files(from_dict({"data": {**data, "train": "rows"}}))
    assert counts == whole.training.counts
    assert mapped.schema == whole.schema
    for prepared, expected in zip(mapped[:2], whole[:2], strict=True):
        assert prepared.y.tolist() == expected.y.tolist()
        assert prepared.lengths.tolist() == expected.lengths.tolist()
        assert [row.tolist() for row in prepared.sequences] == [row.tolist() for row in expected.sequences]
        assert [row.tolist() for row in prepared.sources] == [row.tolist() for row in expected.sources]
        assert prepared.groups.tolist() == expected.groups.tolist()
        assert corpus_digest(prepared) == corpus_digest(expected)
    directory = PreparedDirectory("rows")
    columns = wanted_columns(DataConfig(**data), ("sequence", "label", "source", "id"))
    (block,) = directory.blocks(columns) if at_once > 3 else [None]
    if block is not None:
        kept = [line.split("\t") for line, short in ROWS if short or too_long == "truncate"]
        assert block.columns["sequence"] == [row[0] for row in kept]
        assert block.columns["label"] == [row[1] for row in kept]
        assert block.columns["source"] == [row[3] for row in kept]
        assert block.columns["id"] == [row[4] for row in kept]


def test_a_run_trained_on_a_directory_has_the_bits_of_one_trained_on_its_file(workplace, capsys):
    assert main(["prepare", "train.tsv", "--output", "rows"]) == 0
    assert "48 rows are in rows." in capsys.readouterr().out
    assert main(FIT) == 0
    assert main([{"run": "other", "train.tsv": "rows"}.get(word, word) for word in FIT]) == 0
    assert final(Path("run")) == final(Path("other"))
    assert main(["fit", "--resume", "run", "--data.train", "rows", "--training.epochs", "6"]) == 0
    assert main(["fit", "--resume", "other", "--data.train", "train.tsv", "--training.epochs", "6"]) == 0
    assert final(Path("run")) == final(Path("other"))


def test_the_recipe_auto_learns_from_a_directory_what_it_learns_from_its_file(workplace):
    prepare_directory(["train.tsv"], "rows", DataConfig())
    learned = []
    for train in ("train.tsv", "rows"):
        config = from_dict({"data": {"train": train}})
        prepared = prepare_files(config)
        rows, baselines = learning_rows(config, prepared), Baselines.learn(prepared.training.sequences, 8)
        arrays = {
            **with_reference(rows_trained_on(prepared, None), config, prepared, None).to_arrays(),
            **baselines.to_arrays(),
        }
        learned.append(
            [array.tolist() for array in arrays.values()]
            + [part.tolist() for part in (rows.labelled.values, rows.unlabelled.values, rows.y, rows.folds)]
        )
    assert learned[0] == learned[1]


def test_a_directory_is_read_as_a_file_by_all_commands(toy_run, capsys):
    write_toy(Path("more.tsv"), count=12, labelled=8, seed=2)
    assert main(["prepare", "more.tsv", "--output", "rows"]) == 0
    capsys.readouterr()
    for name, *options in (["predict"], ["encode"], ["score", "--importance-samples=2"]):
        for data in ("more.tsv", "rows"):
            assert main([name, "run", "--data", data, "--output", f"{name}-{data}", *options]) == 0
        assert Path(f"{name}-more.tsv").read_bytes() == Path(f"{name}-rows").read_bytes()
    reports = [report_of("evaluate", data, capsys) for data in ("more.tsv", "rows")]
    assert reports[0] == reports[1]


def report_of(command: str, data: str, capsys) -> dict:
    """What a command says of the rows, as JSON."""
    assert main([command, "run", "--data", data, "--json"]) == 0
    return {**json.loads(capsys.readouterr().out), "data": None}


@pytest.mark.parametrize("command", ["evaluate", "diagnose"])
def test_rows_with_the_symbols_of_the_run_stay_in_their_directory(toy_run, capsys, monkeypatch, command):
    """Whatever the rows' number, they are mapped; what was prepared otherwise is read as its texts are."""
    assert main(["prepare", "train.tsv", "--output", "same"]) == 0
    Path("odd.tsv").write_text("abz\tleft\nba\tright\nab\t\n" * 4)
    assert main(["prepare", "odd.tsv", "--output", "odd"]) == 0
    capsys.readouterr()
    expected = {data: report_of(command, f"{data}.tsv", capsys) for data in ("train", "odd")}
    read, original = [], inputs.read_table
    monkeypatch.setattr(
        inputs, "read_table", lambda path, *given, **named: read.append(path) or original(path, *given, **named)
    )
    assert report_of(command, "same", capsys) == expected["train"]
    assert read == []
    assert report_of(command, "odd", capsys) == expected["odd"]
    assert read == ["odd"]


def test_mistakes_are_one_line_and_leave_nothing(workplace, capsys):
    Path("bad.tsv").write_text("ab\tleft\n\tright\n")
    before = set(Path().iterdir())
    assert main(["prepare", "train.tsv", "bad.tsv", "--output", "rows"]) == 2
    assert_one_error(capsys, "bad.tsv:2: the sequence is empty")
    assert main(["prepare", "train.tsv", "--output", "rows", "--data.labels", '["left", "up"]']) == 2
    assert_one_error(capsys, "train.tsv:2: the label 'right' was never seen")
    assert main(["prepare", "train.tsv", "--output", "train.tsv"]) == 2
    assert_one_error(capsys, "train.tsv exists already")
    assert main(["prepare", "train.tsv", "--output", "gone/rows"]) == 2
    assert_one_error(capsys, "gone/rows: cannot be written")
    assert set(Path().iterdir()) == before
    assert main(["prepare", "train.tsv", "--output", "rows"]) == 0
    capsys.readouterr()
    other = [{"train.tsv": "rows"}.get(word, word) for word in FIT]
    assert main([*other, "--data.max_length=5"]) == 2
    assert_one_error(capsys, "data.max_length is 256 in rows, which was prepared so, and cannot be 5")
    with Path("rows/rows.arrow").open("ab") as file:
        file.write(b"x")
    assert main(other) == 2
    assert_one_error(capsys, "prepare the files again")
    Path("rows/prepared.json").write_text("{")
    assert main(other) == 2
    assert_one_error(capsys, "rows: damaged")


@given(data=st.data())
def test_a_directory_that_was_changed_is_never_another_result_without_a_word(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "changed"
    if not folder.exists():
        folder.mkdir()
        (folder / "rows.tsv").write_text("".join(f"{line}\n" for line, _ in ROWS))
        prepare_directory([str(folder / "rows.tsv")], str(folder / "rows"), DataConfig(**DATA))
    path = folder / "rows"
    whole = all_of(path)
    file = path / data.draw(st.sampled_from(["rows.arrow", "prepared.json"]))
    content = file.read_bytes()
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        file.write_bytes(bytes(changed))
        rows, message = all_of(path), ""
    except DataError as error:
        rows, message = whole, str(error)
    finally:
        file.write_bytes(content)
    assert rows == whole
    assert message == "" or ("again" in message and "\n" not in message)


def test_a_column_that_lost_its_name_is_missed(written):
    prepare_directory(["all.tsv"], "rows", DataConfig(**DATA))
    content = Path("rows/rows.arrow").read_bytes()
    for name in (b"label", b"group", b"source_symbols", b"symbols"):
        for last in (b"x", b"\x8b"):  # the latter is no UTF-8
            Path("rows/rows.arrow").write_bytes(content.replace(name + b"\0", name[:-1] + last + b"\0"))
            with pytest.raises(DataError, match=r"damaged.*; prepare the files again"):
                PreparedDirectory("rows").corpus()


def all_of(path: Path) -> list[object]:
    """All that a directory holds."""
    directory = PreparedDirectory(path)
    corpus, columns = directory.corpus(), wanted_columns(DataConfig(**DATA), ("sequence", "label", "source", "id"))
    assert corpus.sources is not None
    numbers = [corpus.sequences.loaded(), corpus.sources.loaded()]
    blocks = [block.columns for block in directory.blocks(columns)]
    return [directory.schema, corpus.y.tolist(), *(rows.values.tolist() for rows in numbers), blocks]


def test_a_directory_of_another_version_is_to_be_made_again(written):
    prepare_directory(["all.tsv"], "rows", DataConfig(**DATA))
    stored = json.loads(Path("rows/prepared.json").read_text())
    Path("rows/prepared.json").write_text(json.dumps({**stored, "format": 1}))
    with pytest.raises(DataError, match="rows: it is of format 1, and this version reads 2; prepare the files again"):
        PreparedDirectory("rows")


def test_a_prepare_that_is_killed_leaves_nothing_that_looks_whole(workplace):
    slow = (
        "import sys, time; from seqssvae.data import prepare_directory as p; whole = p._large_batches\n"
        "def wait(*a):\n    print('between', flush=True); time.sleep(60); yield from whole(*a)\n"
        "p._large_batches = wait\n"
        "from seqssvae.config import DataConfig; p.prepare_directory(['train.tsv'], 'rows', DataConfig())"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"between\n"
    (place,) = Path().glob(".seqssvae-rows-*")
    with pytest.raises(DataError, match="this is a directory"):
        prepare_files(from_dict({"data": {"train": str(place)}}))
    prepare_directory(["train.tsv"], "others", DataConfig())  # what another process writes is left alone
    assert place.exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("rows").exists()
    prepare_directory(["train.tsv"], "rows", DataConfig())
    assert not place.exists()
    assert PreparedDirectory("rows").rows == 48


def test_long_files_are_predicted_some_rows_at_a_time(toy_run, monkeypatch, capsys):
    write_toy(Path("more.tsv"), count=30, labelled=0, seed=2)
    assert main(["predict", "run", "--data", "more.tsv", "--output", "whole.tsv"]) == 0
    monkeypatch.setattr("seqssvae.cli.inputs.in_blocks", lambda blocks: in_blocks(blocks, 7))
    from seqssvae.data.blocks import in_blocks

    assert main(["predict", "run", "--data", "more.tsv", "--output", "parts.tsv"]) == 0
    whole, parts = rows_of(Path("whole.tsv")), rows_of(Path("parts.tsv"))
    assert [row[:2] for row in whole] == [row[:2] for row in parts]
    values = [np.array([row[2:] for row in rows[1:]], float) for rows in (whole, parts)]
    np.testing.assert_allclose(*values, rtol=1e-5)
