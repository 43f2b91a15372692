"""What is written: whole or not at all, through links and into pipes, with the modes there were."""

import errno
import json
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_backend import FakeBackend
from toy import toy_config
from toy_runs import latest, train, with_training

from seqssvae.cli.main import main
from seqssvae.errors import RunError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.runs.run import RunDirectory
from seqssvae.runs.writing import write_atomically

PREDICT = ["predict", "run", "--data=new.tsv"]


@pytest.fixture
def place(toy_run, workplace) -> Path:
    Path("new.tsv").write_text("abab\ncdcd\n")
    return workplace


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_that_cannot_be_written_is_left_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, [b"new"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_link_is_followed_and_a_file_keeps_its_mode(place):
    Path("real.tsv").write_text("old")
    Path("real.tsv").chmod(0o600)
    Path("link.tsv").symlink_to("real.tsv")
    assert main([*PREDICT, "--output=link.tsv"]) == 2
    assert main([*PREDICT, "--output=link.tsv", "--overwrite"]) == 0
    assert Path("link.tsv").is_symlink()
    assert Path("real.tsv").read_text().startswith("sequence\tlabel")
    assert stat.S_IMODE(Path("real.tsv").stat().st_mode) == 0o600


def test_a_pipe_and_a_device_are_written_into(place):
    os.mkfifo("pipe")
    contents: list[str] = []
    reader = threading.Thread(target=lambda: contents.append(Path("pipe").read_text()))
    reader.start()
    assert main([*PREDICT, "--output=pipe"]) == 0
    reader.join(timeout=60)
    assert contents[0].startswith("sequence\tlabel")
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    Path("null").symlink_to(os.devnull)
    assert main([*PREDICT, "--output=null"]) == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert Path("null").is_symlink()


def test_stdout_by_its_name_is_written_into(place):
    program = (
        "import os; from pathlib import Path; from seqssvae.runs.writing import write_atomically as write; "
        "write(Path('/dev/stdout'), [b'more'])"
    )
    with Path("log").open("w") as log:
        log.write("before ")
        log.flush()
        subprocess.run([sys.executable, "-c", program], stdout=log, check=True)
    assert Path("log").read_text() == "before more"


@pytest.mark.parametrize("name", ["fsync", "rename", "replace"])
def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoint_before(tmp_path, fake_twins, monkeypatch, name):
    config = with_training(toy_config(), evaluation_interval=4, patience=0)
    path = tmp_path / "run"
    train(path, with_training(config, max_steps=4))
    before = {file: file.read_bytes() for file in latest(path).iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
            train(path, config, resume=path)
    assert {file: file.read_bytes() for file in latest(path).iterdir()} == before
    train(path, config, resume=path)
    assert RunDirectory(path).read_checkpoint().state.step > 4


@pytest.mark.parametrize("name", ["fsync", "rename", "replace", "mkdir"])
def test_a_save_that_fails_leaves_nothing_behind(tmp_path, fake_twins, monkeypatch, name):
    model = SequenceSSVAE(backend="fake", recipe="ssvae", config=toy_config(), epochs=1).fit(
        ["ab", "cd"] * 8, ["l", "r"] * 8
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(RunError, match="No space left on device"):
            model.save(tmp_path / "not" / "there" / "model")
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path / "not" / "there" / "model")


def test_a_directory_that_is_read_only_is_one_sentence(place, monkeypatch, capsys):
    read = Path.open

    def refuse(path, mode="r", *_, **__):
        if mode == "xb":
            raise OSError(errno.EROFS, "Read-only file system")
        return read(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    assert main([*PREDICT, "--output=out.tsv"]) == 2
    assert capsys.readouterr().err == "seqssvae: error: out.tsv: cannot be written (Read-only file system).\n"


@pytest.mark.parametrize(
    ("words", "where"),
    [(["--data.train=new.tsv", "--output=deep/er/new"], None), (["--resume=run"], "run/checkpoints")],
)
def test_a_run_that_cannot_be_written_is_refused_before_anything_is_trained(place, monkeypatch, capsys, words, where):
    def no_training(*_, **__):
        raise AssertionError("it learned something that it cannot keep")

    monkeypatch.setattr(FakeBackend, "train", no_training)
    monkeypatch.setattr("seqssvae.recipes.auto.learn", no_training)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main(["fit", *words, "--backend=fake"]) == 2
    assert capsys.readouterr().err.endswith(f"cannot be written: you may not write to {where or place}.\n")
    assert not Path("deep").exists()


LONG = "n" * 300
FIT = ["fit", "--data.train=new.tsv", "--backend=fake"]
OVERLONG = [
    ["predict", "run", "--data=new.tsv", f"--output={LONG}"],
    ["predict", "run", f"--data={LONG}", "--output=out.tsv"],
    ["predict", LONG, "--data=new.tsv", "--output=out.tsv"],
    ["encode", "run", "--data=new.tsv", f"--output={LONG}"],
    ["evaluate", "run", "--data=new.tsv", f"--confusion={LONG}"],
    ["prepare", LONG, "--output=rows"],
    ["prepare", "new.tsv", f"--output={LONG}"],
    ["report", "run", f"--output={LONG}"],
    ["pull", "me/run", LONG],
    [*FIT, "--recipe=labels", f"--output={LONG}"],
    [*FIT, f"--data.validation={LONG}", "--output=new"],
    [*FIT, f"--config={LONG}", "--output=new"],
    ["tune", "--data.train=new.tsv", "--space.model.latent_size=int 4 8", f"--output={LONG}"],
]


@pytest.mark.parametrize("words", OVERLONG, ids=lambda words: f"{words[0]} {words[-1][:12]}")
def test_a_name_that_is_too_long_is_the_one_that_is_named(place, capsys, words):
    Path("new.tsv").write_text("abab\tleft\ncdcd\tright\nab\t\n" * 8)
    before = set(place.iterdir())
    assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(rf"seqssvae: error: (The output directory )?{LONG}[/ :].*File name too long", error), error
    assert set(place.iterdir()) == before


@pytest.mark.parametrize(
    "words", [PREDICT, ["encode", "run", "--data=new.tsv"], ["evaluate", "run", "--data=new.tsv"], ["report", "run"]]
)
def test_a_file_that_cannot_be_written_is_refused_before_rows_are_read(place, monkeypatch, capsys, words):
    monkeypatch.setattr(os, "access", lambda *_: False)
    Path("new.tsv").unlink()
    assert main([*words, "--confusion=out" if words[0] == "evaluate" else "--output=out"]) == 2
    assert (
        capsys.readouterr().err
        == f"seqssvae: error: The output file out cannot be made: you may not write to {place}.\n"
    )


DEVICES = [path for path in ("/dev/full",) if Path(path).exists()]


@pytest.mark.skipif(not DEVICES, reason="there is no /dev/full")
@pytest.mark.parametrize("command", [["generate", "--label=left"], ["evaluate", "--data=new.tsv"]])
def test_output_to_a_full_disk_is_one_sentence(place, command):
    Path("new.tsv").write_text("abab\tleft\n")
    for target, status in (("/dev/full", 2), ("pipe", 0)):
        if target == "pipe":
            reading, writing = os.pipe()
            os.close(reading)
        else:
            writing = os.open(target, os.O_WRONLY)
        done = run_fake([command[0], "run", *command[1:]], stdout=writing)
        os.close(writing)
        assert done.returncode == status, done.stderr
        assert len(done.stderr.splitlines()) == (1 if status else 0), done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.thorough)])
def test_output_in_another_locale_is_no_traceback(place, encoding):
    text = "".join(f"{text}\t{label}\n" for text, label in (("äb", "söt"), ("ça", "øre")) for _ in range(8))
    Path("other.tsv").write_text(text, encoding="utf-8")
    fit = ["fit", "--recipe=ssvae", "--backend=fake", "--data.train=other.tsv", "--config=toy.yaml", "--output=other"]
    environment = {"PYTHONIOENCODING": encoding}
    assert run_fake(fit, environment=environment).returncode == 0
    evaluate = ["evaluate", "other", "--data=other.tsv"]
    for command in (evaluate, [*evaluate, "--json"], ["generate", "other", "--label=söt"]):
        done = run_fake(command, environment=environment)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        if "--json" in command:
            assert json.loads(done.stdout)["labels"] == ["söt", "øre"]


def run_fake(arguments: list[str], stdout=subprocess.PIPE, environment: dict[str, str] | None = None):
    """Run a command in a process of its own, with the fake twin."""
    program = (
        "import sys; from types import SimpleNamespace; import seqssvae.backend as backend; "
        "from fake_backend import FakeBackend; "
        "backend.entry_points = lambda group: [SimpleNamespace(name='fake', load=lambda: FakeBackend)]; "
        "from seqssvae.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding=(environment or {}).get("PYTHONIOENCODING", "utf-8"),
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
    )
