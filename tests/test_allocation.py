"""The C library's settings."""

import ctypes
import sys

import pytest

from seqssvae.allocation import keep_freed_memory


@pytest.fixture(autouse=True)
def linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")


def test_it_is_done_unless_the_environment_says_otherwise(monkeypatch):
    calls = []

    class Library:
        @staticmethod
        def mallopt(name, value):
            calls.append((name, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    monkeypatch.setenv("SEQSSVAE_MALLOC", "0")
    assert not keep_freed_memory()
    assert calls == []
    monkeypatch.delenv("SEQSSVAE_MALLOC")
    assert keep_freed_memory()
    assert calls == [(-3, 1 << 30), (-1, (1 << 31) - 1)]


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("SEQSSVAE_MALLOC", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()


def test_another_system_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("SEQSSVAE_MALLOC", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("the C library was asked for"))
    assert not keep_freed_memory()
