"""The commands that use a run: what each prints and writes, and one line for each mistake."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from commands import FIT, assert_one_error, rows_of
from toy import toy_texts, write_toy

from seqssvae.cli.main import main
from seqssvae.runs.run import open_run


def test_evaluate_prints_tables_or_json(toy_run, capsys):
    write_toy(Path("test.tsv"), count=30, labelled=20, seed=1)
    assert main(["evaluate", "run", "--data", "test.tsv"]) == 0
    output = capsys.readouterr()
    assert "30 rows, 20 of them labelled" in output.out
    assert "left" in output.out
    assert output.err == ""
    assert main(["evaluate", "run", "--data", "test.tsv", "--json", "--backend", "other"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["backend"], report["labels"]) == ("other", ["left", "right"])
    assert report["metrics"]["rows"] == 30
    confusion = np.array(report["confusion"])
    assert confusion.sum() == 20
    assert report["metrics"]["accuracy"] == pytest.approx(np.trace(confusion) / 20)
    assert main(["evaluate", "run", "--data", "test.tsv", "--label-column", "0", "--json"]) == 0
    unlabelled = json.loads(capsys.readouterr().out)
    assert report["metrics"]["importance_bound"] is None
    assert main(["evaluate", "run", "--data", "test.tsv", "--importance-samples", "3"]) == 0
    assert "importance_bound" in capsys.readouterr().out
    assert unlabelled["metrics"]["accuracy"] is None
    assert unlabelled["metrics"]["elbo"] == pytest.approx(report["metrics"]["elbo"])


def test_predict_writes_a_line_for_each_row_in_order(toy_run, capsys):
    texts, labels = toy_texts(30, seed=1)
    texts[4] = "a" * 300  # longer than data.max_length
    texts[5] = "axyc"
    Path("new.tsv").write_text("".join(f"{text}\n" for text in texts))
    assert main(["predict", "run", "--data", "new.tsv", "--output", "out.tsv"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "seqssvae: warning: new.tsv: 1 of 30 sequences cut to 256 symbols.",
        "seqssvae: warning: new.tsv: 2 symbols are not in the vocabulary and were read as UNK.",
    ]
    header, *rows = rows_of(Path("out.tsv"))
    assert header == ["sequence", "label", "left", "right"]
    assert [row[0] for row in rows] == texts
    for _, label, *probabilities in rows:
        values = [float(value) for value in probabilities]
        assert sum(values) == pytest.approx(1, abs=1e-6)
        assert label == ("left", "right")[int(np.argmax(values))]
    assert np.mean([row[1] == label for row, label in zip(rows, labels, strict=True)]) > 0.7


def test_another_column_may_hold_the_sequences(toy_run):
    Path("new.tsv").write_text("name\tabab\nname\tcdcd\n")
    assert main(["predict", "run", "--data", "new.tsv", "--output", "out.tsv", "--sequence-column", "2"]) == 0
    assert [row[0] for row in rows_of(Path("out.tsv"))] == ["sequence", "abab", "cdcd"]
    Path("new.tsv").write_text("sequence\nabab\ncdcd\n")
    assert main(["predict", "run", "--data", "new.tsv", "--output", "out2.tsv", "--header", "true"]) == 0
    assert [row[0] for row in rows_of(Path("out2.tsv"))] == ["sequence", "abab", "cdcd"]


def test_encode_writes_the_embedding(toy_run):
    Path("new.tsv").write_text("abab\ncd\n")
    assert main(["encode", "run", "--data", "new.tsv", "--output", "out.tsv"]) == 0
    header, *rows = rows_of(Path("out.tsv"))
    assert header == ["sequence", "z0", "z1"]
    backend, vocabulary = open_run("run").backend, open_run("run").vocabulary
    expected = [backend.encode(vocabulary.encode(list(text))[None])[0] for text in ("abab", "cd")]
    np.testing.assert_allclose([[float(value) for value in row[1:]] for row in rows], expected, rtol=1e-6)


def test_an_output_file_is_replaced_only_if_asked(toy_run, capsys):
    Path("new.tsv").write_text("abab\n")
    Path("out.tsv").write_text("precious")
    command = ["predict", "run", "--data", "new.tsv", "--output", "out.tsv"]
    assert main(command) == 2
    assert "out.tsv exists already" in capsys.readouterr().err
    assert Path("out.tsv").read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0
    assert Path("out.tsv").read_text().startswith("sequence\tlabel")


def test_generate_prints_sequences_that_can_be_read_as_data(toy_run, capsys):
    command = ["generate", "run", "--label", "left", "--count", "12", "--seed", "3"]
    assert main(command) == 0
    first = capsys.readouterr().out
    rows = [line.split("\t") for line in first.splitlines()]
    assert len(rows) == 12
    assert all(label == "left" and float(log_p) < 0 for _, label, log_p in rows)
    assert main(command) == 0
    assert capsys.readouterr().out == first
    assert main([*command, "--seed=4"]) == 0
    assert capsys.readouterr().out != first
    assert main([*command, "--method=greedy", "--max-length=5"]) == 0
    output = capsys.readouterr()
    assert len({line.split("\t")[0] for line in output.out.splitlines()}) == 1
    assert output.err.splitlines() == [
        "seqssvae: warning: 12 of 12 sequences have no END within 5 symbols (--max-length)."
    ]


# Mistakes


NEW = ["--data", "new.tsv", "--output", "out.tsv"]
BAD_USES = {
    "no command": (["fti"], "There is no command 'fti'; did you mean fit?"),
    "unknown command": (
        ["zzz"],
        "There is no command 'zzz'; known are demo, fit, config, prepare, tune, compare, evaluate, diagnose, report, "
        "score, predict, encode, generate, neighbors, transduce, gradient-estimators, push, pull, import-yoyodyne, "
        "completion, verify.",
    ),
    "unknown top option": (["--vresion"], "There is no option --vresion here; did you mean --version?"),
    "no arguments": (["evaluate"], "seqssvae evaluate needs RUN and --data; see seqssvae evaluate --help."),
    "no output": (["fit", "--config=toy.yaml"], "seqssvae fit needs --output"),
    "no run": (["evaluate", "gone", "--data", "new.tsv"], "There is no run directory gone."),
    "no data": (["evaluate", "run", "--data", "gone.tsv"], "gone.tsv: there is no such file"),
    "unknown label": (["evaluate", "run", "--data", "new.tsv"], "new.tsv:2: the label 'up' was never seen in training"),
    "twin not installed": (
        ["evaluate", "run", "--data=train.tsv", "--backend=absent"],
        "pip install 'seqssvae[absent]'",
    ),
    "seed": (["evaluate", "run", "--data", "new.tsv", "--seed=-1"], "--seed must be a whole number of at least 0"),
    "column": (["predict", "run", *NEW, "--sequence-column=3"], "new.tsv:1: there is no column 3 among 2 columns"),
    "no column": (["predict", "run", *NEW, "--sequence-column=0"], "data.sequence_column must be a whole number of at"),
    "output is a directory": (["predict", "run", *NEW, "--output=run"], "The output file run is a directory"),
    "output nowhere": (["encode", "run", *NEW, "--output=a/b.tsv"], "cannot be made: there is no directory a"),
    "label to generate": (["generate", "run", "--label=up"], "There is no label 'up'; known are left, right."),
    "importance samples": (
        ["evaluate", "run", "--data", "new.tsv", "--importance-samples=1000000"],
        "--importance-samples must be a whole number of at least 0 and at most 1000, not 1000000.",
    ),
    "count": (
        ["generate", "run", "--label=left", "--count=0"],
        "--count must be a whole number of at least 1 and at most 100000000, not 0.",
    ),
    "beam": (
        ["generate", "run", "--label=left", "--beam-width=0"],
        "--beam-width must be a whole number of at least 1",
    ),
    "length": (
        ["generate", "run", "--label=left", "--max-length=0"],
        "--max-length must be a whole number of at least",
    ),
    "method": (["generate", "run", "--label=left", "--method=best"], "--method must be one of sample, greedy, beam"),
    "dataset": (["demo", "--dataset=birds"], "--dataset must be one of peptides, languages, not 'birds'."),
}


@pytest.mark.parametrize("case", BAD_USES)
def test_a_mistake_in_use_is_one_line_and_leaves_nothing(toy_run, workplace, capsys, case):
    arguments, message = BAD_USES[case]
    Path("new.tsv").write_text("abab\tleft\ncdcd\tup\n")
    before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
    assert main(arguments) == 2
    assert_one_error(capsys, message)
    assert {path: path.stat().st_mtime_ns for path in workplace.rglob("*")} == before


def test_a_failed_write_leaves_no_output(toy_run, capsys, monkeypatch):
    Path("new.tsv").write_text("abab\n")

    def fail(*_):
        raise OSError(28, "No space left on device", "out.tsv")

    monkeypatch.setattr(os, "replace", fail)
    assert main(["predict", "run", *NEW]) == 2
    assert_one_error(capsys, "out.tsv: cannot be written (No space left on device).")
    assert not [path for path in Path().iterdir() if "out.tsv" in path.name]


def test_scores_and_abstentions_are_written(toy_run, workplace):
    write_toy(Path("more.tsv"), count=20, labelled=20, seed=3)
    assert main(["score", "run", "--data", "more.tsv", "--output", "scores.tsv", "--importance-samples=3"]) == 0
    head, *lines = rows_of(Path("scores.tsv"))
    assert head == ["sequence", "log_p", "per_symbol", "standard_error", "effective_samples"]
    for text, *values in lines:
        log_p, per_symbol, *_ = map(float, values)
        assert per_symbol == pytest.approx(log_p / (len(text) + 1), rel=1e-6)
    assert main(["predict", "run", "--data", "more.tsv", "--output", "all.tsv"]) == 0
    assert main(["predict", "run", "--data", "more.tsv", "--output", "sure.tsv", "--abstain-below=0.6"]) == 0
    for (_, label, *p), (_, kept, *_) in zip(rows_of(Path("all.tsv"))[1:], rows_of(Path("sure.tsv"))[1:], strict=True):
        assert kept == (label if max(map(float, p)) >= 0.6 else "")
    assert main(["predict", "run", "--data", "more.tsv", "--output", "x.tsv", "--abstain-below=2"]) == 2
    assert not Path("x.tsv").exists()
    assert main(["encode", "run", "--data", "more.tsv", "--output", "features.tsv", "--features"]) == 0
    assert rows_of(Path("features.tsv"))[0][1] == "f0"


def test_a_diagnosis_is_printed_and_is_plain_json(toy_run, workplace, capsys):
    write_toy(Path("more.tsv"), count=40, labelled=40, seed=3)
    assert main(["diagnose", "run", "--data", "more.tsv"]) == 0
    shown = capsys.readouterr().out
    assert "labels of 40 rows" in shown
    assert "active units of z" in shown
    assert main(["diagnose", "run", "--data", "more.tsv", "--json"]) == 0
    diagnosis = json.loads(capsys.readouterr().out)
    assert diagnosis["rows"] == 40
    assert set(diagnosis["labels"]) == {"left", "right"}
    assert {finding["name"].upper() for finding in diagnosis["findings"] if finding["level"] == "warning"} <= set(
        re.findall(r"^([A-Za-z ]+):", shown, re.MULTILINE)
    )


@pytest.mark.parametrize(
    "command",
    [["predict", "--output"], ["encode", "--output"], ["score", "--output"], ["evaluate", "--confusion"]],
    ids=lambda command: command[0],
)
def test_rows_that_are_read_are_never_overwritten(command, toy_run, workplace, capsys):
    write_toy(Path("more.tsv"), count=8, labelled=8)
    before = Path("more.tsv").read_bytes()
    name, option = command
    assert main([name, "run", "--data", "more.tsv", option, "./more.tsv", "--overwrite"]) == 2
    assert_one_error(capsys, "is that of --data")
    assert Path("more.tsv").read_bytes() == before


def test_a_classifier_generates_nothing(workplace, capsys):
    assert main([*FIT, "--quiet", "--objective.name=classifier"]) == 0
    write_toy(Path("more.tsv"), count=8, labelled=8)
    capsys.readouterr()
    for arguments in (
        ["generate", "run", "--label=left"],
        ["encode", "run", "--data=more.tsv", "--output=z.tsv"],
        ["neighbors", "run", "--data=more.tsv", "--query=ab", "--count=2"],
        ["score", "run", "--data=more.tsv", "--output=z.tsv"],
    ):
        assert main(arguments) == 2
        assert_one_error(capsys, "classifier")
    assert main(["neighbors", "run", "--data=more.tsv", "--query=ab", "--count=2", "--features"]) == 0
    assert main(["diagnose", "run", "--data=more.tsv"]) == 0
