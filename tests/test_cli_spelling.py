"""One option has one meaning, however another command spells it; and standard output is no directory."""

import pytest
from commands import assert_one_error

from seqssvae.cli.arguments import parse_arguments
from seqssvae.cli.main import main

FIT = ["fit", "--output", "run"]
PREDICT = ["predict", "run", "--output", "-"]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ([*FIT, "--data", "rows.tsv"], "data.train", "rows.tsv"),
        ([*FIT, "--data=rows.tsv"], "data.train", "rows.tsv"),
        ([*FIT, "--data.train", "a", "--label-column", "3"], "data.label_column", 3),
        ([*FIT, "--data.train", "a", "--data.label-column=3"], "data.label_column", 3),
        ([*FIT, "--data.train", "a", "--training.batch-size", "7"], "training.batch_size", 7),
        ([*PREDICT, "--data.train", "a"], "data", "a"),
        ([*PREDICT, "--data", "a", "--data.sequence_column", "2"], "sequence_column", 2),
        ([*PREDICT, "--data", "a", "--abstain_below=0.5"], "abstain_below", 0.5),
        (["evaluate", "run", "--data", "a", "--importance_samples", "5"], "importance_samples", 5),
    ],
)
def test_options_of_other_commands_are_understood(words, name, value):
    assert parse_arguments(words)[1][name] == value


def test_a_misspelled_option_is_still_an_error(capsys):
    assert main([*PREDICT, "--data", "a", "--data.sequnce_column", "2"]) == 2
    assert_one_error(capsys, "There is no option --data.sequnce_column here; did you mean --sequence-column?")


@pytest.mark.parametrize("command", ["fit", "tune", "demo", "prepare"])
def test_a_directory_cannot_go_to_standard_output(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, *(["rows.tsv"] if command == "prepare" else []), "--output", "-"]) == 2
    assert_one_error(capsys, f"seqssvae {command} makes a directory, which standard output is not; name one.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--data.output", "--data.resume"])
def test_what_is_no_field_of_data_is_no_option(option, capsys):
    assert main(["fit", "--data.train", "rows.tsv", option, "RUN"]) == 2
    assert f"There is no option {option} here" in capsys.readouterr().err
