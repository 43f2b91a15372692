"""`generate` beyond its defaults, and `neighbors`: what they print, and one line for each mistake."""

from pathlib import Path

import numpy as np
import pytest
from commands import assert_one_error
from toy import write_toy

from seqssvae.cli.main import main
from seqssvae.runs.run import open_run

LEFT = ["generate", "run", "--label", "left"]


def printed(capsys, *arguments):
    """The columns of each line that a command printed, and what it said beside."""
    assert main(list(arguments)) == 0
    output = capsys.readouterr()
    return [line.split("\t") for line in output.out.splitlines()], output.err


def test_temperature_and_top_p_steer_samples(toy_run, capsys):
    search = ["--count", "30", "--max-length", "6"]
    plain, _ = printed(capsys, *LEFT, *search)
    assert printed(capsys, *LEFT, *search, "--temperature", "1", "--top-p", "1.0")[0] == plain
    hot, cold = (printed(capsys, *LEFT, *search, "--temperature", value)[0] for value in ("30", "0.001"))
    assert len({text for text, *_ in hot}) > 20
    assert len({text for text, *_ in cold}) == 1
    assert printed(capsys, *LEFT, *search, "--top-p", "1e-9")[0] == cold
    scores = [np.mean([float(log_p) / (1 + len(text)) for text, _, log_p in rows]) for rows in (hot, plain, cold)]
    assert scores[0] < scores[1] < scores[2]  # by the model's own probabilities


def test_a_row_with_another_label_and_what_is_between_two(toy_run, capsys):
    (row,), _ = printed(capsys, *LEFT, "--like", "cdcd", "--max-length", "5")
    assert row[1] == "left"
    rows, _ = printed(capsys, *LEFT, "--like", "cdcd", "--from-label=right", "--count=3", "--max-length", "5")
    assert [of_row[:2] for of_row in rows] == [row[:2]] * 3
    assert len(printed(capsys, *LEFT, "--interpolate", "abab", "cdcd", "--max-length", "5")[0]) == 7
    assert len(printed(capsys, *LEFT, "--interpolate", "ab", "cd", "--count", "2", "--method", "sample")[0]) == 2
    assert "1 symbols are not in the vocabulary" in printed(capsys, *LEFT, "--like", "abx")[1]


def test_check_says_how_many_are_new_and_of_the_label(toy_run, capsys):
    write_toy(Path("rows.tsv"), count=60, labelled=40, seed=1)
    plain, _ = printed(capsys, *LEFT, "--count", "20", "--max-length", "6")
    rows, messages = printed(capsys, *LEFT, "--count", "20", "--max-length", "6", "--check", "rows.tsv")
    assert rows == plain
    texts, known = [text for text, *_ in rows], Path("rows.tsv").read_text()
    unique = len(set(texts)) / 20
    new = np.mean([f"{text}\t" not in {line.split("\t")[0] + "\t" for line in known.splitlines()} for text in texts])
    assert f"of 20 sequences {unique:.1%} are different ones, {new:.1%} are not in rows.tsv, and " in messages
    assert "are of left by a classifier that learned from its 40 labelled rows (right about " in messages


def test_neighbors_prints_the_nearest_rows_with_their_labels(toy_run, capsys):
    Path("rows.tsv").write_text("abab\tup\ncdcd\t\nabbb\tleft\naaac\tright\n" + "c" * 300 + "\tlong\n")
    rows, messages = printed(capsys, "neighbors", "run", "--data", "rows.tsv", "--query", "aabb", "--count", "5")
    assert messages.splitlines() == ["seqssvae: warning: rows.tsv: 1 of 5 sequences cut to 256 symbols."]
    run = open_run("run")
    embedded = {
        text: run.backend.encode(run.vocabulary.encode(text[:256])[None])[0]
        for text in ("abab", "cdcd", "abbb", "aaac", "aabb", "c" * 300)
    }
    query = embedded.pop("aabb")
    distances = {text: np.linalg.norm(z - query) for text, z in embedded.items()}
    np.testing.assert_allclose([float(row[2]) for row in rows], [distances[row[0]] for row in rows], atol=1e-5)
    assert sorted(distances.values()) == pytest.approx([float(row[2]) for row in rows], abs=1e-5)
    labels = {"abab": "up", "cdcd": "", "abbb": "left", "aaac": "right", "c" * 300: "long"}
    assert {text: label for text, label, _ in rows} == labels
    near, _ = printed(capsys, "neighbors", "run", "--data", "rows.tsv", "--query", "aabb", "--count", "2")
    assert near == rows[:2]


NEIGHBORS = ["neighbors", "run", "--data", "new.tsv"]
BAD_USES = {
    "temperature": ([*LEFT, "--temperature", "0"], "--temperature must be a number above 0, not 0.0."),
    "infinite": ([*LEFT, "--temperature", ".inf"], "--temperature must be a number above 0, not inf."),
    "no number": ([*LEFT, "--temperature", "hot"], "--temperature must be a number above 0, not 'hot'."),
    "share": ([*LEFT, "--top-p", "1.5"], "--top-p must be a number above 0 and at most 1, not 1.5."),
    "greedy": (
        [*LEFT, "--method", "greedy", "--top-p", "0.5"],
        "--top-p is for the method sample alone; leave it out with greedy.",
    ),
    "greedy by default": (
        [*LEFT, "--like", "ab", "--temperature", "0.5"],
        "--temperature is for the method sample alone; leave it out with greedy.",
    ),
    "two things": ([*LEFT, "--like", "ab", "--interpolate", "ab", "cd"], "--like and --interpolate are two things"),
    "from no row": ([*LEFT, "--from-label", "left"], "--from-label is the label of the row --like; give that as well."),
    "from no label": ([*LEFT, "--like", "ab", "--from-label", "up"], "There is no label 'up'; known are left, right."),
    "no symbol": ([*LEFT, "--like", ""], "the text '' has no symbol"),
    "one end": ([*LEFT, "--interpolate", "ab"], "--interpolate"),
    "one point": (
        [*LEFT, "--interpolate", "ab", "cd", "--count=1"],
        "--count must be a whole number of at least 2, not 1.",
    ),
    "source": ([*LEFT, "--like", "ab", "--source", "ab"], "The run run has no sources; leave --source out."),
    "nothing to check by": ([*LEFT, "--check", "gone.tsv"], "gone.tsv: there is no such file"),
    "labels to check by": ([*LEFT, "--check", "new.tsv"], "new.tsv: a classifier needs at least two rows of the label"),
    "neighbours": ([*NEIGHBORS, "--query=ab", "--count=0"], "--count must be a whole number of at least 1, not 0."),
    "too many": (
        [*NEIGHBORS, "--query=ab", "--count=9"],
        "the number of neighbours must be a whole number of at least 1",
    ),
    "no query": (NEIGHBORS, "seqssvae neighbors needs --query; see seqssvae neighbors --help."),
}


@pytest.mark.parametrize("case", BAD_USES)
def test_a_mistake_is_one_line(toy_run, capsys, case):
    arguments, message = BAD_USES[case]
    Path("new.tsv").write_text("abab\tleft\ncdcd\tup\n")
    assert main(arguments) == 2
    assert_one_error(capsys, message)
