"""Which labels are confused: a table that can be read whatever the number of labels, and the whole as a file."""

from io import StringIO

import numpy as np
import pytest
from commands import rows_of
from rich.console import Console

from seqssvae.cli.main import main
from seqssvae.cli.tables import confusion_table

SINK = StringIO()


def shown(confusion: np.ndarray, names: list[str], width: int = 110) -> str:
    console = Console(width=width, record=True, quiet=False, file=SINK)
    console.print(confusion_table(confusion, names, width))
    return console.export_text()


@pytest.mark.parametrize("count", [2, 10, 17, 18, 40, 300])
def test_numbers_are_shown_whatever_the_number_of_labels(count):
    generator = np.random.default_rng(count)
    confusion = generator.integers(0, 50, (count, count))
    confusion[1, 0] = 98765
    text = shown(confusion, [f"label-{index}" for index in range(count)])
    assert "98765" in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_most_confused_pairs_come_first():
    confusion = np.diag(np.full(30, 1000))
    confusion[4, 7], confusion[29, 0], confusion[0, 29] = 12, 30, 5
    lines = [
        line.replace("│", " ").split() for line in shown(confusion, [f"n{index}" for index in range(30)]).splitlines()
    ]
    assert [line for line in lines if line and line[0].startswith("n")] == [
        ["n29", "n0", "30", "2.9%"],
        ["n4", "n7", "12", "1.2%"],
        ["n0", "n29", "5", "0.5%"],
    ]


def test_the_whole_table_is_written_to_a_file(toy_run, workplace, capsys):
    (workplace / "new.tsv").write_text("abab\tleft\ncdcd\tright\nabba\tleft\n")
    command = ["evaluate", "run", "--data=new.tsv", "--confusion=table.tsv"]
    assert main(command) == 0
    header, *rows = rows_of(workplace / "table.tsv")
    assert header == ["label", "left", "right"]
    assert [row[0] for row in rows] == ["left", "right"]
    assert [sum(map(int, row[1:])) for row in rows] == [2, 1]
    assert main(command) == 2
    assert "table.tsv exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
