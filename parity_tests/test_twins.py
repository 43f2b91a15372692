"""A run of one twin in the hands of the other, and no framework where it is not asked for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity_tests.runs import fit
from seqssvae.cli.main import main


@pytest.mark.parametrize(("trained_by", "other"), [("torch", "jax"), ("jax", "torch")])
def test_a_run_opens_in_the_other_twin(tmp_path: Path, trained_by: str, other: str) -> None:
    run, rows = fit(tmp_path, trained_by)
    tables = []
    for twin in (trained_by, other):
        output = tmp_path / f"{twin}.tsv"
        arguments = ["--data", str(rows), "--backend", twin, "--output", str(output)]
        assert main(["predict", str(run), *arguments]) == 0
        tables.append([line.split("\t") for line in output.read_text().splitlines()])
    ours, theirs = tables
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    probabilities = np.array([[row[2:] for row in table[1:]] for table in tables], float)
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)
    best = np.sort(probabilities[0], axis=1)[:, -2:]
    clear = best[:, 1] - best[:, 0] >= 1e-5
    labels = np.array([[row[1] for row in table[1:]] for table in tables])
    assert np.array_equal(labels[0][clear], labels[1][clear])


@pytest.mark.parametrize(
    ("package", "foreign"),
    [("seqssvae", "torch jax"), ("seqssvae_torch.backend", "jax"), ("seqssvae_jax.backend", "torch")],
)
def test_no_twin_brings_the_other_s_framework(package: str, foreign: str) -> None:
    code = f"import sys, {package}; print([name for name in {foreign.split()!r} if name in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
