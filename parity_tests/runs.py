"""Small real runs, trained through the command line, for the tests of what users do with them."""

from pathlib import Path

import numpy as np

from seqssvae.cli.main import main

SETTINGS = """
data: {validation_fraction: 0.2}
model:
  latent_size: 2
  dropout: 0.2
  word_dropout: 0.2
  encoder: {embedding_size: 3, hidden_size: 4}
  decoder: {embedding_size: 3, hidden_size: 4, conditioning: every_step}
optimizer: {learning_rate: 0.02}
training: {epochs: 2, batch_size: 8, labelled_batch_size: 8, buckets: 1}
"""


def write_rows(path: Path) -> Path:
    """Sixty rows of two classes with letters of their own, of which 24 are labelled."""
    generator = np.random.default_rng(0)
    lines = []
    for row in range(60):
        letters = "ab" if row % 2 else "cd"
        text = "".join(generator.choice(list(letters), generator.integers(1, 7)))
        label = ("left" if row % 2 else "right") if row < 24 else ""
        lines.append(f"{text}\t{label}\n")
    path.write_text("".join(lines))
    return path


def fit(folder: Path, twin: str, *options: str) -> tuple[Path, Path]:
    """Train a twin; returns the run and the file of rows."""
    rows, settings, run = write_rows(folder / "rows.tsv"), folder / "config.yaml", folder / f"run-{twin}"
    settings.write_text(SETTINGS)
    arguments = ["--config", str(settings), "--data.train", str(rows), "--backend", twin, "--output", str(run)]
    assert main(["fit", "--recipe=ssvae", *arguments, *options]) == 0
    return run, rows
