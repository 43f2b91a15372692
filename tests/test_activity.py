"""What a terminal shows while rows are read, split and computed, and that a log shows nothing of it."""

import io
import sys
from contextlib import contextmanager
from functools import partial

import pytest
from commands import FIT
from rich.console import Console

import seqssvae.cli.fit
import seqssvae.cli.inputs
import seqssvae.cli.main
from seqssvae.cli.activity import activity
from seqssvae.cli.main import main
from seqssvae.data import files


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Makes stderr a terminal, which pytest would replace after a fixture; what was shown on it is returned."""

    def make() -> list[str]:
        texts, open_ = [], []

        class Status:
            def update(self, text):
                assert open_
                texts.append(str(text))

        @contextmanager
        def status(self, text):
            open_.append(True)
            yield Status()
            open_.clear()

        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(Console, "status", status)
        return texts

    return make


def test_fit_shows_what_it_reads_and_holds_out(workplace, terminal):
    shown = terminal()
    assert main([*FIT, "--training.max_steps=1"]) == 0
    assert shown == [
        "reading train.tsv",
        "reading train.tsv: 48 rows",
        "counting the symbols and labels of 48 rows",
        "holding some of 48 rows out for validation",
        "counting the symbols of 36 training rows",
        "loading fake",
    ]
    shown.clear()
    assert main([*FIT, "--training.max_steps=1", "--output=quiet", "--quiet"]) == 0
    assert shown == []


def test_freed_memory_is_kept_once_all_rows_are_read_and_before_a_framework_is_loaded(
    workplace, toy_run, terminal, monkeypatch
):
    shown = terminal()
    for module in (seqssvae.cli.main, seqssvae.cli.fit, seqssvae.cli.inputs):
        monkeypatch.setattr(module, "keep_freed_memory", partial(shown.append, f"kept by {module.__name__}"))
    assert main([*FIT, "--training.max_steps=1", "--output=other"]) == 0
    assert shown[-3:] == ["counting the symbols of 36 training rows", "loading fake", "kept by seqssvae.cli.fit"]
    assert sum("kept" in line for line in shown) == 1
    for command in ("evaluate", "diagnose"):
        shown.clear()
        assert main([command, "run", "--data=train.tsv"]) == 0
        kept = shown.index("kept by seqssvae.cli.inputs")
        assert shown[kept - 1 : kept + 2] == ["reading train.tsv: 48 rows", shown[kept], "opening run"]
        assert sum("kept" in line for line in shown) == 1
    shown.clear()
    assert main(["predict", "run", "--data=train.tsv", "--output=out.tsv"]) == 0
    assert shown[0] == "kept by seqssvae.cli.main"


def test_rows_are_counted_as_they_are_read(workplace, terminal, monkeypatch):
    shown = terminal()
    monkeypatch.setattr(files, "read_blocks", in_parts(files.read_blocks, 20))
    assert main([*FIT, "--training.max_steps=1", "--data.validation=train.tsv"]) == 0
    read = ["reading train.tsv", *(f"reading train.tsv: {rows} rows" for rows in (20, 40, 48))]
    assert shown[:8] == [*read, *read]


def in_parts(read, count):
    def reading(*arguments, **keywords):
        for block in read(*arguments, **keywords):
            for first in range(0, len(block), count):
                yield block.part(slice(first, first + count))

    return reading


def test_commands_that_use_a_run_show_what_they_do(toy_run, terminal):
    shown = terminal()
    opened = ["opening run"]
    assert main(["evaluate", "run", "--data=train.tsv"]) == 0
    assert shown == ["reading train.tsv", "reading train.tsv: 48 rows", *opened, "evaluating 48 rows"]
    for command in ("predict", "encode", "score"):
        shown.clear()
        assert main([command, "run", "--data=train.tsv", f"--output={command}.tsv"]) == 0
        assert shown == ["reading train.tsv", *opened, "computing rows 1 to 48"]


def test_prepare_shows_what_it_reads_and_writes(workplace, terminal):
    pytest.importorskip("pyarrow")
    shown = terminal()
    assert main(["prepare", "train.tsv", "train.tsv", "--output=rows"]) == 0
    read = [f"reading train.tsv: {rows} rows" for rows in (48, 96)]
    assert shown == [*read, "writing 96 rows"]


def test_a_log_and_a_terminal_that_is_used_otherwise_are_left_alone(terminal, monkeypatch):
    shown = terminal()

    def shows(**arguments: object) -> bool:
        before = len(shown)
        with activity(**arguments) as show:
            show("a\x1b[2J[b]")
        return len(shown) > before

    assert shows(source="-", output="-")  # a pipe each
    assert shown == ["a\\x1b[2J[b]"]
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert not shows(source="-")
    assert shows(source="rows.tsv")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert not shows(output="-")
    assert shows(output="rows.tsv")
    for stderr in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stderr)
        assert not shows()
