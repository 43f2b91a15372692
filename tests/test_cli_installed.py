"""The installed command, in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import FIT
from toy import SETTINGS, write_toy


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
    known = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return os.pathsep.join([str(packages), str(Path(__file__).parent), *known])


def test_the_command_works_with_a_twin_of_another_package(tmp_path, third_twin):
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    write_toy(tmp_path / "train.tsv")
    done = command(*FIT, "--quiet", cwd=tmp_path, PYTHONPATH=third_twin)
    assert done.returncode == 0
    assert all(line.startswith("seqssvae: warning: ") for line in done.stderr.splitlines())
    done = command("generate", "run", "--label=left", "--count=2", cwd=tmp_path, PYTHONPATH=third_twin)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 2)


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
    (error,) = done.stderr.splitlines()
    assert error.startswith("seqssvae: error: ")
    assert message in error
    assert os.listdir(tmp_path) == []


def test_help_tells_a_newcomer_every_command_and_field(tmp_path):
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("demo", "fit", "evaluate", "predict", "encode", "generate"):
        assert f"\n    {name} " in done.stdout
        assert command(name, "--help", cwd=tmp_path).stdout.startswith(f"usage: seqssvae {name} ")
    shown = command("fit", "--help", cwd=tmp_path).stdout
    assert "\n    seqssvae fit --data.train rows.tsv --output RUN\n" in shown[: shown.index("options:")]
    text = " ".join(shown.split())
    assert "--model.encoder.hidden_size HIDDEN_SIZE H, size of the state, for each direction;" in text
    assert "--model CONFIG" not in text
    assert command("--version", cwd=tmp_path).stdout.startswith("seqssvae ")


def test_the_package_run_as_a_module_is_the_command(tmp_path):
    call = [sys.executable, "-m", "seqssvae"]
    for arguments in (["--version"], ["fti"]):
        done = subprocess.run([*call, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        installed = command(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (
            installed.returncode,
            installed.stdout,
            installed.stderr,
        )


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
