"""Processes that train together: who speaks, what they must agree on, and what is left when one is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kills import SIZES, write_rows
from safetensors.numpy import load_file
from toy import NAMES, TEXTS, make_estimator

from seqssvae.cli.main import main
from seqssvae.errors import ConfigurationError
from seqssvae.runs.checkpoints import CheckpointFiles, has_checkpoint, latest_name
from seqssvae.training.processes import ALONE, Processes, devices_of, is_first, launched_for, twin_module

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
FIT = ["fit", "--recipe=ssvae", "--backend=torch", "--training.precision=float64", "--training.epochs=100000"]
FIT += ["--training.patience=0", "--training.evaluation_interval=2", *(f"--{field}" for field in SIZES), "--quiet"]


class Second(Processes):
    """The second of two, of which the first has other content."""

    rank, count, devices, backend = 1, 2, 2, "torch"

    def of_first(self, content: bytes) -> bytes:
        return b"other"


def test_what_a_launcher_says_is_understood(monkeypatch):
    assert launched_for() is None
    assert is_first()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert launched_for() == "torch"
    assert not is_first()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched_for() is None
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    assert launched_for() == "jax"
    assert is_first()
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    assert not is_first()


def test_the_number_of_devices_is_that_of_the_processes():
    assert devices_of(ALONE, "torch") == 1
    assert devices_of(ALONE, "jax", 4) == 4
    assert devices_of(Second(), "torch") == 2
    with pytest.raises(ConfigurationError, match="must be 2, as many as the processes have, not 3"):
        devices_of(Second(), "torch", 3)
    with pytest.raises(ConfigurationError, match="must be at least 1, not 0"):
        devices_of(ALONE, "torch", 0)
    with pytest.raises(ConfigurationError, match=r"RANK among them.* are of a launcher for torch"):
        devices_of(Second(), "jax")


def test_processes_that_would_train_otherwise_are_refused():
    ALONE.check_same({"rows": b"any"})
    with pytest.raises(ConfigurationError, match="do not have the same rows"):
        Second().check_same({"rows": b"own"})


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_estimators_that_would_train_otherwise_are_refused(method, fake_twins, monkeypatch):
    class Third(Second):
        def of_first(self, content: bytes) -> bytes:
            return b"0" if content.isdigit() else b"other"

    monkeypatch.setattr("seqssvae.estimator.fitting.join_for", lambda *given: Third())
    with pytest.raises(ConfigurationError, match="do not have the same configuration"):
        getattr(make_estimator(), method)(TEXTS, NAMES)


def test_a_twin_of_one_device_says_so(fake_twins):
    with pytest.raises(ConfigurationError, match="'fake' computes on one device alone: leave out --devices"):
        twin_module("fake")


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_more_devices_than_there_are_are_refused(twin):
    with pytest.raises(ConfigurationError, match="64"):
        twin_module(twin).sharing_of(64)


def workers_of(process: subprocess.Popen) -> list[int]:
    """The processes that it has started to train, in their order."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return sorted(pid for pid, command in commands.items() if "spawn_main" in command)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
@pytest.mark.parametrize(
    "victim", [pytest.param(0, id="the writer"), pytest.param(1, id="another", marks=pytest.mark.thorough)]
)
def test_a_killed_process_ends_all_with_a_line_and_one_goes_on(tmp_path, victim):
    """What is left is a run, which one process resumes to the weights of one that was never shared."""
    write_rows(tmp_path / "train.tsv")
    fit, run = [*FIT, f"--data.train={tmp_path / 'train.tsv'}"], tmp_path / "run"
    command = [sys.executable, "-m", "seqssvae", *fit, "--devices=2", f"--output={run}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    training = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not has_checkpoint(run) or latest_name(run) < "00000002":
        assert training.poll() is None, training.communicate()
        time.sleep(0.05)
    os.kill(workers_of(training)[victim], signal.SIGKILL)
    output = training.communicate(timeout=60)
    assert training.returncode == 2
    assert output == (
        "",
        f"seqssvae: error: process {victim + 1} of the 2 that train together was ended by SIGKILL; "
        f"go on by seqssvae fit --resume {run}.\n",
    )
    steps = int(latest_name(run).rstrip("b")) + 2
    assert main(["fit", f"--resume={run}", f"--training.max_steps={steps}", "--quiet"]) == 0
    assert main([*fit, f"--training.max_steps={steps}", f"--output={tmp_path / 'alone'}"]) == 0
    shared, alone = (load_file(CheckpointFiles(path).folder / "last.safetensors") for path in (run, tmp_path / "alone"))
    for name, weight in alone.items():
        np.testing.assert_allclose(shared[name], weight, rtol=1e-9, atol=1e-12, err_msg=name)
