"""Arguments, files and checks that the tests of commands share."""

import csv
from pathlib import Path

import pytest

FIT = [
    "fit",
    "--recipe",
    "ssvae",
    "--config",
    "toy.yaml",
    "--backend",
    "fake",
    "--output",
    "run",
    "--data.train",
    "train.tsv",
]
"""A command that trains in the directory that the fixture `workplace` makes."""


def rows_of(path: Path) -> list[list[str]]:
    """The columns of each line of a TSV file."""
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


def assert_one_error(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """Check that a command printed one line on stderr, an error with this message, and nothing else."""
    output = capsys.readouterr()
    (error,) = output.err.splitlines()
    assert error.startswith("seqssvae: error: ")
    assert message in error
    assert output.out == ""
