"""The command `fit`: what it prints and writes, and one line for each mistake, with nothing half-written."""

from pathlib import Path

import pytest
from commands import FIT, assert_one_error
from fake_backend import FakeBackend
from toy import NAMES, TEXTS, make_estimator, write_toy
from toy_runs import latest

from seqssvae.cli.main import main
from seqssvae.errors import BackendError
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import open_run


def test_fit_writes_a_run_and_says_where_it_is(workplace, capsys):
    assert main(FIT) == 0
    output = capsys.readouterr()
    assert "accuracy" in output.out
    assert output.out.splitlines()[-1] == "The run is in run."
    announcement, *others = output.err.splitlines()
    assert announcement.startswith(
        "seqssvae: 36 training rows, 18 of them labelled (left 9, right 9), and 12 validation rows;"
    )
    assert not others
    assert open_run("run").config.data.train == "train.tsv"


def test_fields_on_the_command_line_override_the_file(workplace):
    arguments = ["--model.encoder.layers", "2", "--data.labels", "[right, left]", "--optimizer.learning_rate=1e-3"]
    assert main([*FIT, *arguments]) == 0
    config = open_run("run").config
    assert (config.model.encoder.layers, config.model.encoder.hidden_size) == (2, 2)
    assert config.data.labels == ("right", "left")
    assert config.optimizer.learning_rate == 0.001


def test_precision_is_short_for_the_field(workplace, capsys):
    assert main([*FIT, "--precision", "bf16"]) == 0
    assert open_run("run").config.training.precision == "bf16"
    assert main([*FIT, "--output=other", "--precision", "bf16", "--training.precision=float64"]) == 2
    assert "--precision bf16 and --training.precision float64 differ" in capsys.readouterr().err
    assert main([*FIT, "--output=other", "--precision", "short"]) == 2
    assert "--precision must be one of float32, float64, bf16, not 'short'." in capsys.readouterr().err


def test_fit_resumes_a_run_into_another_directory(workplace, capsys):
    assert main([*FIT, "--training.patience=0"]) == 0
    whole = [*FIT, "--training.patience=0", "--training.epochs=6", "--output=whole"]
    assert main(whole) == 0
    before = {file: file.read_bytes() for file in Path("run").rglob("*.*") if file.is_file()}
    assert main(["fit", "--resume", "run", "--output", "longer", "--training.epochs=6"]) == 0
    assert {file: file.read_bytes() for file in Path("run").rglob("*.*") if file.is_file()} == before
    for name in ("weights", "last", "optimizer"):
        longer, whole = (latest(run) / f"{name}.safetensors" for run in ("longer", "whole"))
        assert longer.read_bytes() == whole.read_bytes()
    assert [record["step"] for record in read_metrics("longer")] == [record["step"] for record in read_metrics("whole")]


def test_a_resumed_run_keeps_its_configuration(toy_run, capsys):
    assert main(["fit", "--resume", "run", "--output", "on", "--model.latent_size=3"]) == 2
    assert "model.latent_size is 2 in run and cannot be 3" in capsys.readouterr().err
    assert not Path("on").exists()
    write_toy(Path("train.tsv"), seed=1)
    assert main(["fit", "--resume", "run", "--output", "on"]) == 2
    assert "run was trained on other rows than train.tsv" in capsys.readouterr().err
    assert not Path("on").exists()


def test_rows_without_any_label_train_with_a_warning_where_classes_are_listed(workplace, capsys):
    write_toy(Path("train.tsv"), labelled=0)
    assert main([*FIT, "--data.labels=[left, right]", "--training.metric=elbo"]) == 0
    warning, _ = capsys.readouterr().err.splitlines()
    assert warning.startswith("seqssvae: warning: train.tsv: no row has a label, so which class")


def test_long_sequences_and_rare_symbols_are_counted(workplace, capsys):
    with Path("train.tsv").open("a") as file:
        file.write("abababababab\tleft\nq\tright\n")
    arguments = ["--data.max_length=10", "--data.minimum_count=2"]
    assert main([*FIT, *arguments]) == 0
    skipped = "seqssvae: warning: train.tsv: 1 of 50 rows left out: longer than 10 symbols."
    unknown = "seqssvae: warning: train.tsv: 1 symbols are not in the vocabulary and were read as UNK."
    assert capsys.readouterr().err.splitlines()[:-1] == [skipped, unknown]
    assert main([*FIT, *arguments, "--data.too_long=truncate", "--output=second"]) == 0
    cut = "seqssvae: warning: train.tsv: 1 of 50 sequences cut to 10 symbols."
    assert capsys.readouterr().err.splitlines()[:-1] == [cut, unknown]


def test_ctrl_c_leaves_the_last_checkpoint_and_says_how_to_go_on(workplace, capsys, monkeypatch):
    original = FakeBackend.train

    def train(self, steps):
        if steps[0].step > 0:
            raise KeyboardInterrupt
        return original(self, steps)

    monkeypatch.setattr(FakeBackend, "train", train)
    assert main(FIT) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(FakeBackend, "train", original)
    assert main(["fit", "--resume=run", "--output=on"]) == 0
    assert main([*FIT, "--output=whole"]) == 0
    assert (latest("on") / "last.safetensors").read_bytes() == (latest("whole") / "last.safetensors").read_bytes()


# Mistakes


def spoil(content: bytes):
    return lambda: Path("train.tsv").write_bytes(content)


def nothing() -> None:
    pass


def give_validation(content: str):
    return lambda: Path("validation.tsv").write_text(content)


GOOD = b"abab\tleft\ncdcd\tright\nabba\tleft\ncddc\tright\n"
VALIDATION = ["--data.validation=validation.tsv"]
BAD_FITS = {
    "missing file": (lambda: Path("train.tsv").unlink(), [], "train.tsv: there is no such file; check the path."),
    "directory": (nothing, ["--data.train=."], ".: this is a directory; give a TSV file."),
    "wrong sequence column": (
        nothing,
        ["--data.sequence_column=3"],
        "train.tsv:1: there is no column 3 among 2 columns",
    ),
    "wrong label column": (nothing, ["--data.label_column=5"], "train.tsv:1: there is no column 5 among 2 columns"),
    "not UTF-8": (spoil(GOOD + b"\xffab\tleft\n"), [], "train.tsv:5: byte 0xff is not UTF-8; save the file in UTF-8"),
    "empty file": (spoil(b""), [], "train.tsv: the file is empty; it must have a row per line"),
    "empty sequence": (spoil(GOOD + b"\tleft\n"), [], "train.tsv:5: the sequence is empty; remove the line"),
    "no label": (spoil(b"abab\t\ncdcd\t\n"), [], "train.tsv: no row has a label in column 2; label some rows, or list"),
    "one class": (spoil(b"abab\tleft\ncdcd\tleft\n"), [], "train.tsv: all labelled rows have the same label, 'left'"),
    "all too long": (nothing, ["--data.max_length=1"], "train.tsv: every sequence is longer than 1 symbols; raise"),
    "label that is not listed": (
        spoil(GOOD + b"abcd\tup\n"),
        ["--data.labels=[left, right]"],
        "train.tsv:5: the label 'up' was never seen in training (known are left, right)",
    ),
    "unknown label in validation": (
        give_validation("abab\tleft\ncdcd\tup\n"),
        VALIDATION,
        "validation.tsv:2: the label 'up' was never seen in training (known are left, right); correct it",
    ),
    "missing validation": (nothing, VALIDATION, "validation.tsv: there is no such file"),
    "unlabelled validation": (give_validation("abab\t\n"), VALIDATION, "training.metric: accuracy needs labelled"),
    "no training file": (nothing, ["--data.train=null"], "data.train is missing: name a file"),
    "missing configuration": (nothing, ["--config=no.yaml"], "There is no configuration file no.yaml"),
    "unknown field": (
        lambda: Path("toy.yaml").write_text("model: {encoder: {hiden_size: 3}}"),
        [],
        "toy.yaml: model.encoder.hiden_size is not a field of the configuration; did you mean "
        "model.encoder.hidden_size?",
    ),
    "wrong value in the file": (
        lambda: Path("toy.yaml").write_text("model: {cell: rnn}"),
        [],
        "toy.yaml: model.cell must be one of gru, lstm, not 'rnn'.",
    ),
    "unknown option": (
        nothing,
        ["--model.encoder.hiden_size", "3"],
        "There is no option --model.encoder.hiden_size here; did you mean --model.encoder.hidden_size?",
    ),
    "wrong kind": (nothing, ["--model.latent_size=x"], "--model.latent_size must be a whole number, not 'x'."),
    "wrong value": (nothing, ["--objective.beta.floor=0"], "objective.beta.floor must be a number above 0, not 0.0."),
    "no value": (nothing, ["--training.seed"], "--training.seed needs a value."),
    "extra argument": (nothing, ["surplus"], "seqssvae fit has no use for 'surplus'; see its --help."),
    "unknown twin": (nothing, ["--backend=keras"], "There is no backend 'keras'; known are absent, fake, other."),
    "twin not installed": (
        nothing,
        ["--backend=absent"],
        "The backend 'absent' needs framework, which is not installed: pip install 'seqssvae[absent]'.",
    ),
    "output exists": (
        lambda: (
            Path("run").mkdir(),
            Path("run/x").touch(),
            Path("train.tsv").unlink(),
        ),  # this is said before any file is read
        [],
        "The output directory run exists already and was left as it is; name another one.",
    ),
    "output in a file": (nothing, ["--output=train.tsv/run"], "The output directory train.tsv/run cannot be made"),
    "run to resume missing": (nothing, ["--resume=gone"], "There is no run directory gone."),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_a_mistake_in_training_is_one_line_and_leaves_nothing(workplace, capsys, case):
    prepare, arguments, message = BAD_FITS[case]
    prepare()
    before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
    assert main([*FIT, *arguments]) == 2
    assert_one_error(capsys, message)
    assert {path: path.stat().st_mtime_ns for path in workplace.rglob("*")} == before


def test_without_a_name_the_first_twin_that_is_installed_trains(workplace, monkeypatch):
    without = [argument for argument in FIT if argument not in ("--backend", "fake")]
    assert main(without) == 0
    assert open_run("run").trained_by == "fake"  # `absent` comes before it, and is not
    assert make_estimator(backend=None).fit(TEXTS, NAMES).fitted_.backend.name == "fake"
    monkeypatch.setattr("seqssvae.runs.usable.installed_backends", lambda: ["absent"])
    with pytest.raises(BackendError, match=r"pip install 'seqssvae\[jax\]'"):
        make_estimator(backend=None).fit(TEXTS, NAMES)
