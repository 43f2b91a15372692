"""Where compiled programs are kept."""

import os
from pathlib import Path

import pytest
from commands import FIT

from seqssvae.cli.main import main
from seqssvae.runs.cache import compilation_cache


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/caches"}, Path("/caches/seqssvae/jax")),
        ({"XDG_CACHE_HOME": ""}, Path("/home/user/.cache/seqssvae/jax")),
        ({}, Path("/home/user/.cache/seqssvae/jax")),
        ({"SEQSSVAE_CACHE": "/elsewhere", "XDG_CACHE_HOME": "/caches"}, Path("/elsewhere")),
        ({"SEQSSVAE_CACHE": "", "XDG_CACHE_HOME": "/caches"}, None),
    ],
)
def test_the_directory_is_the_user_s_unless_the_environment_names_another_or_none(monkeypatch, environment, expected):
    for name in ("SEQSSVAE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/user", **environment}.items():
        monkeypatch.setenv(name, value)
    assert compilation_cache() == expected


def test_the_command_line_leaves_the_choice_to_the_twin(workplace, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("SEQSSVAE_CACHE", "")
    before = dict(os.environ)
    assert main(FIT) == 0
    assert dict(os.environ) == before
