"""Twins that stand in for the real ones, found as those are: by entry point."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from commands import FIT
from fake_backend import FakeBackend
from toy import SETTINGS, toy_config, write_toy
from toy_runs import train, with_training

from seqssvae.cli.main import main
from seqssvae.data.prepare import Prepared
from seqssvae.training.state import FitResult


class OtherFake(FakeBackend):
    """The same under another name, as two twins are."""

    name = "other"


@pytest.fixture
def fake_twins(monkeypatch):
    """Register `fake` and `other`, and `absent`, whose framework is not installed."""

    def absent():
        raise ModuleNotFoundError("No module named 'framework'", name="framework")

    points = [
        SimpleNamespace(name="absent", load=absent),
        SimpleNamespace(name="fake", load=lambda: FakeBackend),
        SimpleNamespace(name="other", load=lambda: OtherFake),
    ]
    monkeypatch.setattr("seqssvae.backend.entry_points", lambda group: points)


@pytest.fixture
def workplace(tmp_path, monkeypatch, fake_twins) -> Path:
    """A working directory with a configuration and a training file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(SETTINGS))
    write_toy(tmp_path / "train.tsv")
    return tmp_path


@pytest.fixture
def toy_run(workplace, capsys) -> Path:
    """A run in the working directory."""
    assert main(FIT) == 0
    capsys.readouterr()
    return workplace / "run"


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory) -> tuple[Path, FitResult, FakeBackend, Prepared]:
    """A run with a learning rate at which the last weights are not the best; its result, its twin and its rows."""
    config = toy_config()
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=3.0))
    path = tmp_path_factory.mktemp("runs") / "not" / "yet" / "there"
    return path, *train(path, with_training(config, metric="elbo", epochs=6))


@pytest.fixture
def trained(trained_once, tmp_path, fake_twins) -> tuple[Path, FitResult, FakeBackend, Prepared]:
    """A copy of that run, which a test may change."""
    path, *rest = trained_once
    return shutil.copytree(path, tmp_path / "run"), *rest
