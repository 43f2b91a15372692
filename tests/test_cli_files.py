"""Commands read any file, and what they write of a row has its identifier and its text as it was."""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import FIT, assert_one_error, rows_of
from kills import final
from toy import toy_texts

from seqssvae.cli.main import main
from seqssvae.data.in_memory import make_table


@pytest.fixture
def as_csv(workplace) -> Path:
    """The training rows as CSV with names, identifiers and a column of no use."""
    rows = [line.split("\t") for line in Path("train.tsv").read_text().splitlines()]
    lines = [f"{number},p{number},{text},{label}" for number, (text, label) in enumerate(rows)]
    Path("train.csv").write_text("\n".join(["number,accession,peptide,class", *lines]) + "\n")
    return Path("train.csv")


NAMES = ["--data.sequence_column=peptide", "--data.label_column=class", "--data.id_column=accession"]


def test_a_run_by_names_is_that_by_numbers_and_its_names_serve_other_files(as_csv, capsys, monkeypatch):
    assert main(FIT) == 0
    by_names = [{"run": "named", "train.tsv": "train.csv"}.get(word, word) for word in FIT]
    assert main([*by_names, *NAMES]) == 0
    assert final(Path("run")) == final(Path("named"))
    Path("new.csv.gz").write_bytes(gzip.compress(b"peptide,accession\nabab,q 1\ncd,q2\n"))
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"accession,peptide\nq 1,abab\nq2,cd\n")))
    for name in ("predict", "encode", "score"):
        assert main([name, "named", "--data", "new.csv.gz", "--output", f"{name}.tsv"]) == 0
        assert [row[:2] for row in rows_of(Path(f"{name}.tsv"))] == [["id", "sequence"], ["q 1", "abab"], ["q2", "cd"]]
    assert main(["predict", "named", "--data", "-", "--format", "csv", "--output", "-"]) == 0
    assert capsys.readouterr().out == Path("predict.tsv").read_text()
    Path("new.fa").write_text(">q1 of somebody\nab\nab\n>q2\ncd\n")
    Path("labels.tsv").write_text("q2\tright\nq1\tleft\n")
    assert main(["predict", "run", "--data", "new.fa", "--output", "-"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["id", "sequence"], ["q1", "abab"], ["q2", "cd"]]
    assert main(["evaluate", "run", "--data", "new.fa", "--labels-file", "labels.tsv", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["metrics"]["labelled_rows"], report["data"]) == (2, "new.fa")
    assert main(["neighbors", "run", "--data", "new.fa", "--query", "abab", "--count", "1"]) == 0
    assert capsys.readouterr().out.split("\t")[:2] == ["q1", "abab"]


def test_each_row_of_an_evaluation_is_written(as_csv, capsys):
    by_names = [{"train.tsv": "train.csv"}.get(word, word) for word in FIT]
    assert main([*by_names, *NAMES]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--data", "train.csv", "--json", "--rows", "rows.tsv"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    header, *rows = rows_of(Path("rows.tsv"))
    assert header[:5] == ["id", "sequence", "label", "predicted", "probability"]
    assert [row[0] for row in rows] == [f"p{number}" for number in range(48)]
    labelled = [row for row in rows if row[2]]
    assert len(labelled) == metrics["labelled_rows"] == 24
    hits = sum(row[2] == row[3] for row in labelled)
    assert hits / 24 == pytest.approx(metrics["accuracy"])
    elbo = [float(row[header.index("elbo")]) for row in rows]
    assert sum(elbo) / 48 == pytest.approx(metrics["elbo"], rel=1e-6)
    assert main(["evaluate", "run", "--data", "train.csv", "--json", "--rows", "rows.tsv"]) == 2
    assert_one_error(capsys, "rows.tsv exists already")


def test_texts_are_repeated_byte_for_byte(workplace, capsys):
    texts, labels = toy_texts(48)
    Path("train.tsv").write_text(
        "".join(f"{' '.join(text)}\t{label}\n" for text, label in zip(texts, labels, strict=True))
    )
    assert main([*FIT, "--data.separator", " "]) == 0
    written = ["a  b", " c d ", "a b\u00a0", "\u00e9  \U0001f600"]
    Path("new.tsv").write_bytes("\r\n".join(written).encode())
    for command in ("predict", "encode", "score"):
        assert main([command, "run", "--data", "new.tsv", "--output", f"{command}.out"]) == 0
        lines = Path(f"{command}.out").read_bytes().decode().split("\n")
        assert [line.split("\t")[0] for line in lines[1:-1]] == written


def test_one_run_alone_reads_standard_input(toy_run, capsys):
    assert main(["report", "run", "run", "--data", "-", "--output", "x.html"]) == 2
    assert_one_error(capsys, "standard input can be read for one run only")


def test_a_closed_standard_output_is_named(toy_run, capsys, monkeypatch):
    command = ["predict", "run", "--data=train.tsv"]
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)
        assert main([*command, "--output=-"]) == 2
        assert main([*command, "--output=labels.tsv"]) == 0
    assert capsys.readouterr().err.splitlines() == ["seqssvae: error: standard output is closed; name a file."]


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "run", "--label=left"],
        ["evaluate", "run", "--data=train.tsv", "--json"],
        ["evaluate", "run", "--data=train.tsv"],
        ["config"],
    ],
    ids=" ".join,
)
def test_no_result_is_lost_without_a_word(toy_run, capsys, monkeypatch, command):
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)
        assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("seqssvae: error: standard output")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["fit", "--help"], ["config"]])
def test_what_cannot_be_printed_is_one_line(words):
    command = [sys.executable, "-m", "seqssvae", *words]
    with open("/dev/full", "w") as full:
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (2, "seqssvae: error: the output: No space left on device.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "run", "--label=left", "--count=99999999999999999999"], "--count must be a whole number of at"),
        (
            ["predict", "run", "--data=train.tsv", "--output=-", "--abstain-below=x"],
            "--abstain-below must be a number",
        ),
        (["gradient-estimators", "run", "--data=train.tsv", f"--draws={10**30}"], "--draws must be a whole number of"),
        (["gradient-estimators", "run", "--data=train.tsv", f"--rows={10**30}"], "--rows must be a whole number of"),
    ],
)
def test_numbers_that_nothing_can_be_made_of_are_one_line(toy_run, capsys, words, message):
    assert main(words) == 2
    assert_one_error(capsys, message)


def test_a_column_in_memory_keeps_its_rows():
    from seqssvae.config import DataConfig

    table = make_table(["a  b", "c"], DataConfig(separator=" "))
    assert list(table.sequences) == [("a", "b"), ("c",)]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3221225472 bytes."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 3.00 GiB."),
    ],
)
def test_a_lack_of_memory_is_one_line(toy_run, capsys, monkeypatch, error):
    def lack(*_):
        raise error

    monkeypatch.setattr("seqssvae.cli.evaluate.evaluate", lack)
    assert main(["evaluate", "run", "--data=train.tsv"]) == 2
    assert_one_error(capsys, "there is not enough memory.")
