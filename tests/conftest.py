"""Twins that stand in for the real ones, found as those are: by entry point."""

from types import SimpleNamespace

import pytest
from fake_backend import FakeBackend


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
