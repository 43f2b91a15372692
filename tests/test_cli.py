"""The command line: what each command prints and writes, and one line for each mistake, with nothing half-written."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from toy import SETTINGS, toy_texts, write_toy

from seqssvae.cli.main import main
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import open_run


@pytest.fixture
def place(tmp_path, monkeypatch, fake_twins) -> Path:
    """A working directory with a configuration and a training file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "unused")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    write_toy(tmp_path / "train.tsv")
    return tmp_path


FIT = ["fit", "--config", "toy.yaml", "--backend", "fake", "--output", "run", "--data.train", "train.tsv"]


@pytest.fixture
def run(place, capsys) -> Path:
    assert main(FIT) == 0
    capsys.readouterr()
    return place / "run"


def lines(text: str) -> list[str]:
    return text.splitlines()


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


# What works


def test_fit_writes_a_run_and_says_where_it_is(place, capsys):
    assert main(FIT) == 0
    output = capsys.readouterr()
    assert "accuracy" in output.out
    assert lines(output.out)[-1] == "The run is in run."
    assert output.err == ""
    assert open_run("run").config.data.train == "train.tsv"


def test_fields_on_the_command_line_override_the_file(place):
    arguments = ["--model.encoder.layers", "2", "--data.labels", "[right, left]", "--optimizer.learning_rate=1e-3"]
    assert main([*FIT, *arguments]) == 0
    config = open_run("run").config
    assert (config.model.encoder.layers, config.model.encoder.hidden_size) == (2, 2)
    assert config.data.labels == ("right", "left")
    assert config.optimizer.learning_rate == 0.001


def test_precision_is_short_for_the_field(place, capsys):
    assert main([*FIT, "--precision", "bf16"]) == 0
    assert open_run("run").config.training.precision == "bf16"
    assert main([*FIT, "--output=other", "--precision", "bf16", "--training.precision=float64"]) == 2
    assert "--precision bf16 and --training.precision float64 differ" in capsys.readouterr().err
    assert main([*FIT, "--output=other", "--precision", "short"]) == 2
    assert "--precision must be one of float32, float64, bf16, not 'short'." in capsys.readouterr().err


def test_fit_resumes_a_run_into_another_directory(place, capsys):
    assert main([*FIT, "--training.patience=0"]) == 0
    whole = [*FIT, "--training.patience=0", "--training.epochs=6", "--output=whole"]
    assert main(whole) == 0
    before = {file.name: file.read_bytes() for file in Path("run").iterdir()}
    assert main(["fit", "--resume", "run", "--output", "longer", "--training.epochs=6"]) == 0
    assert {file.name: file.read_bytes() for file in Path("run").iterdir()} == before
    for name in ("weights", "last", "optimizer"):
        assert Path(f"longer/{name}.safetensors").read_bytes() == Path(f"whole/{name}.safetensors").read_bytes()
    assert [record["step"] for record in read_metrics("longer")] == [record["step"] for record in read_metrics("whole")]


def test_a_resumed_run_keeps_its_configuration(run, capsys):
    assert main(["fit", "--resume", "run", "--output", "on", "--model.latent_size=3"]) == 2
    assert "model.latent_size is 2 in run and cannot be 3" in capsys.readouterr().err
    assert not Path("on").exists()
    write_toy(Path("train.tsv"), seed=1)
    assert main(["fit", "--resume", "run", "--output", "on"]) == 2
    assert "run was trained on other rows than train.tsv" in capsys.readouterr().err
    assert not Path("on").exists()


def test_evaluate_prints_tables_or_json(run, capsys):
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


def test_predict_writes_a_line_for_each_row_in_order(run, capsys):
    texts, labels = toy_texts(30, seed=1)
    texts[4] = "a" * 300  # longer than data.max_length
    texts[5] = "axyc"
    Path("new.tsv").write_text("".join(f"{text}\n" for text in texts))
    assert main(["predict", "run", "--data", "new.tsv", "--output", "out.tsv"]) == 0
    assert lines(capsys.readouterr().err) == [
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


def test_another_column_may_hold_the_sequences(run):
    Path("new.tsv").write_text("name\tabab\nname\tcdcd\n")
    assert main(["predict", "run", "--data", "new.tsv", "--output", "out.tsv", "--sequence-column", "2"]) == 0
    assert [row[0] for row in rows_of(Path("out.tsv"))] == ["sequence", "abab", "cdcd"]
    Path("new.tsv").write_text("sequence\nabab\ncdcd\n")
    assert main(["predict", "run", "--data", "new.tsv", "--output", "out2.tsv", "--header", "true"]) == 0
    assert [row[0] for row in rows_of(Path("out2.tsv"))] == ["sequence", "abab", "cdcd"]


def test_encode_writes_the_embedding(run):
    Path("new.tsv").write_text("abab\ncd\n")
    assert main(["encode", "run", "--data", "new.tsv", "--output", "out.tsv"]) == 0
    header, *rows = rows_of(Path("out.tsv"))
    assert header == ["sequence", "z0", "z1"]
    backend, vocabulary = open_run("run").backend, open_run("run").vocabulary
    expected = [backend.encode(vocabulary.encode(list(text))[None])[0] for text in ("abab", "cd")]
    np.testing.assert_allclose([[float(value) for value in row[1:]] for row in rows], expected, rtol=1e-6)


def test_an_output_file_is_replaced_only_if_asked(run, capsys):
    Path("new.tsv").write_text("abab\n")
    Path("out.tsv").write_text("precious")
    command = ["predict", "run", "--data", "new.tsv", "--output", "out.tsv"]
    assert main(command) == 2
    assert "out.tsv exists already" in capsys.readouterr().err
    assert Path("out.tsv").read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0
    assert Path("out.tsv").read_text().startswith("sequence\tlabel")


def test_generate_prints_sequences_that_can_be_read_as_data(run, capsys):
    command = ["generate", "run", "--label", "left", "--count", "12", "--seed", "3"]
    assert main(command) == 0
    first = capsys.readouterr().out
    rows = [line.split("\t") for line in lines(first)]
    assert len(rows) == 12
    assert all(label == "left" and float(log_p) < 0 for _, label, log_p in rows)
    assert main(command) == 0
    assert capsys.readouterr().out == first
    assert main([*command, "--seed=4"]) == 0
    assert capsys.readouterr().out != first
    assert main([*command, "--method=greedy", "--max-length=5"]) == 0
    output = capsys.readouterr()
    assert len({line.split("\t")[0] for line in lines(output.out)}) == 1
    assert lines(output.err) == ["seqssvae: warning: 12 of 12 sequences have no END within 5 symbols (--max-length)."]


def test_rows_without_any_label_train_with_a_warning_where_classes_are_listed(place, capsys):
    write_toy(Path("train.tsv"), labelled=0)
    assert main([*FIT, "--data.labels=[left, right]", "--training.metric=elbo"]) == 0
    (warning,) = lines(capsys.readouterr().err)
    assert warning.startswith("seqssvae: warning: train.tsv: no row has a label, so which class")


def test_long_sequences_and_rare_symbols_are_counted(place, capsys):
    with Path("train.tsv").open("a") as file:
        file.write("abababababab\tleft\nq\tright\n")
    arguments = ["--data.max_length=10", "--data.minimum_count=2"]
    assert main([*FIT, *arguments]) == 0
    skipped = "seqssvae: warning: train.tsv: 1 of 50 rows left out: longer than 10 symbols."
    unknown = "seqssvae: warning: train.tsv: 1 symbols are not in the vocabulary and were read as UNK."
    assert lines(capsys.readouterr().err) == [skipped, unknown]
    assert main([*FIT, *arguments, "--data.too_long=truncate", "--output=second"]) == 0
    cut = "seqssvae: warning: train.tsv: 1 of 50 sequences cut to 10 symbols."
    assert lines(capsys.readouterr().err) == [cut, unknown]


# What does not work


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
    "too few labels": (nothing, ["--data.labels_per_class=50"], "data.labels_per_class must be at most"),
    "no training file": (nothing, ["--data.train=null"], "data.train is missing: name a TSV file"),
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
        lambda: (Path("run").mkdir(), Path("train.tsv").unlink()),  # this is said before any file is read
        [],
        "The output directory run exists already and was left as it is; name another one.",
    ),
    "output in a file": (nothing, ["--output=train.tsv/run"], "The output directory train.tsv/run cannot be made"),
    "run to resume missing": (nothing, ["--resume=gone"], "There is no run directory gone."),
}


def assert_one_error(capsys, message: str) -> None:
    output = capsys.readouterr()
    (error,) = lines(output.err)
    assert error.startswith("seqssvae: error: ")
    assert message in error
    assert output.out == ""


@pytest.mark.parametrize("case", BAD_FITS)
def test_a_mistake_in_training_is_one_line_and_leaves_nothing(place, capsys, case):
    prepare, arguments, message = BAD_FITS[case]
    prepare()
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert main([*FIT, *arguments]) == 2
    assert_one_error(capsys, message)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


NEW = ["--data", "new.tsv", "--output", "out.tsv"]
BAD_USES = {
    "no command": (["fti"], "There is no command 'fti'; did you mean fit?"),
    "unknown command": (
        ["zzz"],
        "There is no command 'zzz'; known are demo, fit, evaluate, predict, encode, generate, transduce, estimators, "
        "import-yoyodyne, verify.",
    ),
    "unknown top option": (["--vresion"], "There is no option --vresion here; did you mean --version?"),
    "no arguments": (["evaluate"], "seqssvae evaluate needs RUN and --data; see seqssvae evaluate --help."),
    "no output": (["fit", "--config=toy.yaml"], "seqssvae fit needs --output"),
    "no twin": (
        ["fit", "--output=x", "--data.train=train.tsv"],
        "seqssvae fit needs --backend: absent or fake or other.",
    ),
    "no run": (["evaluate", "gone", "--data", "new.tsv"], "There is no run directory gone."),
    "no data": (["evaluate", "run", "--data", "gone.tsv"], "gone.tsv: there is no such file"),
    "unknown label": (["evaluate", "run", "--data", "new.tsv"], "new.tsv:2: the label 'up' was never seen in training"),
    "twin not installed": (["evaluate", "run", "--data=new.tsv", "--backend=absent"], "pip install 'seqssvae[absent]'"),
    "seed": (["evaluate", "run", "--data", "new.tsv", "--seed=-1"], "--seed must be a whole number of at least 0"),
    "column": (["predict", "run", *NEW, "--sequence-column=3"], "new.tsv:1: there is no column 3 among 2 columns"),
    "no column": (["predict", "run", *NEW, "--sequence-column=0"], "data.sequence_column must be a whole number of at"),
    "output is a directory": (["predict", "run", *NEW, "--output=run"], "The output file run is a directory"),
    "output nowhere": (["encode", "run", *NEW, "--output=a/b.tsv"], "cannot be made: there is no directory a"),
    "label to generate": (["generate", "run", "--label=up"], "There is no label 'up'; known are left, right."),
    "count": (["generate", "run", "--label=left", "--count=0"], "--count must be a whole number of at least 1, not 0."),
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
def test_a_mistake_in_use_is_one_line_and_leaves_nothing(run, place, capsys, case):
    arguments, message = BAD_USES[case]
    Path("new.tsv").write_text("abab\tleft\ncdcd\tup\n")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert main(arguments) == 2
    assert_one_error(capsys, message)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_a_failed_write_leaves_no_output(run, capsys, monkeypatch):
    Path("new.tsv").write_text("abab\n")

    def fail(*_):
        raise OSError(28, "No space left on device", "out.tsv")

    monkeypatch.setattr(os, "replace", fail)
    assert main(["predict", "run", *NEW]) == 2
    assert_one_error(capsys, "out.tsv: cannot be written (No space left on device).")
    assert not [path for path in Path().iterdir() if "out.tsv" in path.name]


def test_ctrl_c_leaves_the_last_checkpoint_and_says_how_to_go_on(place, capsys, monkeypatch):
    from fake_backend import FakeBackend

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
    assert Path("on/last.safetensors").read_bytes() == Path("whole/last.safetensors").read_bytes()


# The installed command


def command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    executable = Path(sys.executable).parent / "seqssvae"
    environment = {**os.environ, **environment}
    return subprocess.run(
        [executable, *arguments], cwd=cwd, capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture(scope="module")
def third_twin(tmp_path_factory) -> str:
    """A directory that, on PYTHONPATH, registers the fake twin as any package would register its own."""
    packages = tmp_path_factory.mktemp("packages")
    information = packages / "faketwin-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: faketwin\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[seqssvae.backends]\nfake = fake_backend:FakeBackend\n")
    return os.pathsep.join([str(packages), str(Path(__file__).parent)])


def test_the_command_works_with_a_twin_of_another_package(tmp_path, third_twin):
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    write_toy(tmp_path / "train.tsv")
    done = command(*FIT, cwd=tmp_path, PYTHONPATH=third_twin)
    assert (done.returncode, done.stderr) == (0, "")
    done = command("generate", "run", "--label=left", "--count=2", cwd=tmp_path, PYTHONPATH=third_twin)
    assert (done.returncode, done.stderr, len(lines(done.stdout))) == (0, "", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--backend=torch", "--output=run", "--data.train=no.tsv"], "no.tsv: there is no such file"),
        (["fit", "--backend=torch", "--output=run", "--data.tran=no.tsv"], "did you mean --data.train?"),
        (["predict", "run", "--data=no.tsv", "--output=out"], "There is no run directory run."),
        (["fti"], "did you mean fit?"),
    ],
)
def test_the_command_leaves_with_status_2_and_one_line(tmp_path, arguments, message):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (error,) = lines(done.stderr)
    assert error.startswith("seqssvae: error: ")
    assert message in error
    assert os.listdir(tmp_path) == []


def test_help_tells_a_newcomer_every_command_and_field(tmp_path):
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("demo", "fit", "evaluate", "predict", "encode", "generate"):
        assert f"\n    {name} " in done.stdout
        assert command(name, "--help", cwd=tmp_path).stdout.startswith(f"usage: seqssvae {name} ")
    text = " ".join(command("fit", "--help", cwd=tmp_path).stdout.split())
    assert "--model.encoder.hidden_size HIDDEN_SIZE H, size of the state, for each direction." in text
    assert "--model CONFIG" not in text
    assert command("--version", cwd=tmp_path).stdout.startswith("seqssvae ")


def test_a_reader_that_leaves_early_is_no_error(tmp_path, third_twin):
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    write_toy(tmp_path / "train.tsv")
    environment = {**os.environ, "PYTHONPATH": third_twin}
    assert command(*FIT, cwd=tmp_path, PYTHONPATH=third_twin).returncode == 0
    executable = Path(sys.executable).parent / "seqssvae"
    generate = [executable, "generate", "run", "--label=left", "--count=5000", "--max-length=20"]
    with subprocess.Popen(
        generate, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0


def test_the_command_line_imports_no_framework():
    code = (
        "import sys, seqssvae.cli.main, seqssvae.estimator.sequence_ssvae; "
        "print(sorted({'torch', 'jax', 'pyro', 'numpyro'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
