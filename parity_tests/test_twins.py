"""The twins against each other on every problem, and a run of one in the hands of the other."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity_tests.conftest import problem_at, solution_of, twin_of
from parity_tests.ladder import check_outputs_with_oracle, check_twins, evaluation_inputs, failures
from seqssvae.cli import main

SETTINGS = """
data: {validation_fraction: 0.2}
model:
  latent_size: 2
  encoder: {embedding_size: 3, hidden_size: 4}
  decoder: {embedding_size: 3, hidden_size: 4, conditioning: every_step}
optimizer: {learning_rate: 0.02}
training: {epochs: 2, batch_size: 8, labelled_batch_size: 8, buckets: 1}
"""


def test_values_and_gradients(index: int) -> None:
    found = check_twins(problem_at(index), solution_of(index, "torch"), solution_of(index, "jax"), "float64")
    assert not failures(found)


@pytest.mark.parametrize("index", [1, 2, 13])
def test_network_outputs(index: int, name: str) -> None:
    problem, twin = problem_at(index), twin_of(index, name)
    assert not failures(check_outputs_with_oracle(problem, twin, twin.outputs(*evaluation_inputs(problem))))


def _rows(path: Path) -> Path:
    generator = np.random.default_rng(0)
    lines = []
    for row in range(60):
        letters = "ab" if row % 2 else "cd"
        text = "".join(generator.choice(list(letters), generator.integers(1, 7)))
        label = ("left" if row % 2 else "right") if row < 24 else ""
        lines.append(f"{text}\t{label}\n")
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(("trained_by", "other"), [("torch", "jax"), ("jax", "torch")])
def test_a_run_opens_in_the_other_twin(tmp_path: Path, trained_by: str, other: str) -> None:
    rows = str(_rows(tmp_path / "rows.tsv"))
    settings, run = tmp_path / "config.yaml", str(tmp_path / "run")
    settings.write_text(SETTINGS)
    arguments = ["--config", str(settings), "--data.train", rows, "--backend", trained_by, "--output", run]
    assert main(["fit", *arguments]) == 0
    tables = []
    for twin in (trained_by, other):
        output = tmp_path / f"{twin}.tsv"
        assert main(["predict", run, "--data", rows, "--backend", twin, "--output", str(output)]) == 0
        tables.append([line.split("\t") for line in output.read_text().splitlines()])
    ours, theirs = tables
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    probabilities = [np.array([row[2:] for row in table[1:]], float) for table in tables]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)


@pytest.mark.parametrize(
    ("package", "foreign"),
    [("seqssvae", "torch jax"), ("seqssvae_torch.backend", "jax"), ("seqssvae_jax.backend", "torch")],
)
def test_no_twin_brings_the_other_s_framework(package: str, foreign: str) -> None:
    code = f"import sys, {package}; print([name for name in {foreign.split()!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
