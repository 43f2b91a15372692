"""Runs of the toy task, for the tests of run directories."""

import dataclasses
import shutil
from pathlib import Path

from fake_backend import FakeBackend
from toy import toy_table

from seqssvae.config import Config
from seqssvae.data.prepare import prepare_table
from seqssvae.runs.checkpoints import MANIFEST, CheckpointFiles
from seqssvae.runs.run import RunDirectory
from seqssvae.runs.writer import RunWriter
from seqssvae.training.fit import fit


def latest(run: Path | str) -> Path:
    """The folder of a run's latest checkpoint."""
    return CheckpointFiles(run).folder


def without_manifest(run: Path, path: Path) -> Path:
    """A copy of a run as earlier versions wrote it: one checkpoint, no manifest."""
    shutil.copytree(latest(run), path)
    (path / MANIFEST).unlink()
    return path


def with_training(config: Config, **fields: object) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **fields))


def train(path: Path, config: Config, twin: type = FakeBackend, resume: Path | None = None) -> tuple:
    prepared = prepare_table(toy_table(), config)
    backend = twin(config, prepared.schema.dimensions)
    checkpoint = RunDirectory(resume).resume(prepared.schema, prepared.training) if resume else None
    in_place = path == resume
    writer = RunWriter(path, config, prepared.schema, backend.name, checkpoint or prepared.training, in_place=in_place)
    state = checkpoint.state if checkpoint else None
    return fit(config, prepared.training, prepared.validation, backend, [writer], state), backend, prepared
