"""SIGTERM, sent to the process of a command: a fit is saved and goes on, and no other leaves a trace."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
from kills import SIZES, final, write_rows

from seqssvae.cli.main import main
from seqssvae.runs.checkpoints import has_checkpoint, latest_name

FIT = ["fit", "--recipe=ssvae", "--training.epochs=100000", "--training.patience=0", *(f"--{field}" for field in SIZES)]
FIT += ["--training.checkpoint_minutes=0", "--training.evaluation_interval=70", "--quiet"]


def terminated(arguments: list[str], is_time, rows=None) -> tuple[int, str, str]:
    """Run a command, send it SIGTERM when it is time to, and return its status and what it printed."""
    command = [sys.executable, "-m", "seqssvae", *arguments]
    process = subprocess.Popen(command, stdin=rows, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not is_time():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)
    return process.returncode, *output


@pytest.mark.parametrize(
    ("twin", "after"),
    [("torch", 0), ("torch", 70), ("jax", 0), pytest.param("jax", 70, marks=pytest.mark.thorough)],
)
def test_a_fit_is_saved_and_goes_on_to_the_same_bits(tmp_path, twin, after):
    """It is told to stop when its first checkpoint is there, before the first step, or its first evaluation is."""
    write_rows(tmp_path / "train.tsv")
    fit, run = [*FIT, f"--backend={twin}", f"--data.train={tmp_path / 'train.tsv'}"], tmp_path / "run"
    status, printed, messages = terminated(
        [*fit, f"--output={run}"], lambda: has_checkpoint(run) and latest_name(run) >= f"{after:08d}"
    )
    saved = int(latest_name(run).rstrip("b"))
    advice = f"go on from step {saved} by seqssvae fit --resume {run}"
    assert (status, printed, messages) == (143, "", f"seqssvae: interrupted; {advice}.\n")
    assert saved >= max(after, 1)
    steps = f"--training.max_steps={saved + 3}"
    assert main(["fit", f"--resume={run}", steps, "--quiet"]) == 0
    assert main([*fit, steps, f"--output={tmp_path / 'whole'}"]) == 0
    assert final(run) == final(tmp_path / "whole")


@pytest.mark.skipif(shutil.which("yes") is None, reason="rows without an end are those of yes")
def test_a_command_that_writes_leaves_nothing_behind(trained, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    command = ["predict", str(trained[0]), "--data=-", f"--output={place / 'labels.tsv'}", "--backend=torch"]
    with subprocess.Popen(["yes", "ab\tleft"], stdout=subprocess.PIPE) as rows:
        status, printed, messages = terminated(command, lambda: list(place.iterdir()), rows.stdout)
        rows.kill()
    assert (status, printed, messages) == (143, "", "seqssvae: interrupted.\n")
    assert list(place.iterdir()) == []
