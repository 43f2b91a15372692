"""What launchers start: `torchrun`, and JAX's processes by their environment, train as one process does."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kills import SIZES, write_rows
from safetensors.numpy import load_file

from seqssvae.cli.main import main
from seqssvae.runs.checkpoints import CheckpointFiles, has_checkpoint, latest_name

FIT = ["fit", "--recipe=ssvae", "--training.precision=float64", "--training.patience=0", "--quiet"]
FIT += ["--training.evaluation_interval=2", *(f"--{field}" for field in SIZES)]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def launched(twin: str, words: list[str]) -> list[subprocess.Popen]:
    """What trains in two processes: the launcher of PyTorch's, or JAX's two."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if twin == "torch":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "seqssvae"]
        return [subprocess.Popen([sys.executable, *launcher, *words], env=environment, **streams)]
    environment |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "seqssvae", *words, "--device=cpu"],
            env={**environment, "JAX_PROCESS_ID": str(rank)},
            **streams,
        )
        for rank in (0, 1)
    ]


def last_weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(CheckpointFiles(run).folder / "last.safetensors")


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_two_processes_train_what_one_does(tmp_path, twin):
    """With an odd number of labelled rows, so that one process has more of them."""
    write_rows(tmp_path / "train.tsv")
    words = [*FIT, f"--backend={twin}", f"--data.train={tmp_path / 'train.tsv'}", "--training.max_steps=4"]
    words += ["--training.labelled_batch_size=3"]
    processes = launched(twin, [*words, f"--output={tmp_path / 'two'}"])
    for process in processes:
        _, said = process.communicate(timeout=400)
        assert process.returncode == 0, said
    assert main([*words, f"--output={tmp_path / 'one'}"]) == 0
    two, one = last_weights(tmp_path / "two"), last_weights(tmp_path / "one")
    assert two.keys() == one.keys()
    for name, weight in one.items():
        np.testing.assert_allclose(two[name], weight, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.thorough
def test_a_process_of_jax_that_is_killed_ends_the_other_with_a_line(tmp_path):
    write_rows(tmp_path / "train.tsv")
    words = [*FIT, "--backend=jax", f"--data.train={tmp_path / 'train.tsv'}", "--training.epochs=100000"]
    first, second = launched("jax", [*words, f"--output={tmp_path / 'run'}"])
    while not has_checkpoint(tmp_path / "run"):
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    second.send_signal(signal.SIGKILL)
    _, said = first.communicate(timeout=400)
    assert first.returncode == 2
    assert said.splitlines()[-1].startswith(
        "seqssvae: error: another of the processes that train together ended; go on by"
    )
    steps = int(latest_name(tmp_path / "run").rstrip("b")) + 2
    assert main(["fit", f"--resume={tmp_path / 'run'}", f"--training.max_steps={steps}", "--quiet"]) == 0
