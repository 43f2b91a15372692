"""The examples in docstrings show what the code does."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("seqssvae", "seqssvae_torch", "seqssvae_jax")
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_hold(name):
    module = importlib.import_module(name)
    names = {**vars(module), **{"sequences": ["ab", "ba"], "labels": ["left", "right"]}}
    failed, attempted = doctest.testmod(module, extraglobs=names)
    assert attempted
    assert not failed


def test_a_wrong_example_is_found(tmp_path, monkeypatch):
    (tmp_path / "wrong_example.py").write_text('"""A module.\n\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("wrong_example")
    assert doctest.testmod(module, report=False, verbose=False).failed == 1
