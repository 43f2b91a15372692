"""Run directories of strangers: whatever their files are, one sentence, and neither a hang nor a full memory."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import without_manifest

from seqssvae.cli.main import main
from seqssvae.config.settings import parse_yaml
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import DataError, UserError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import RunDirectory, open_run
from seqssvae.runs.storage import parse_json, parse_safetensors

NAMES = ["config.yaml", "vocabulary.json", "state.json", "metrics.jsonl"] + [
    f"{name}.safetensors" for name in ("weights", "last", "optimizer")
]


def read_all(path: Path) -> None:
    directory = RunDirectory(path)
    directory.open()
    directory.read_checkpoint()


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


REPLACED = {
    "a pipe": lambda path: os.mkfifo(path),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a directory": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a sparse file": sparse,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", REPLACED)
def test_what_is_no_regular_file_of_bounded_size_is_refused_unread(trained, name, kind):
    path = without_manifest(trained[0], trained[0].with_name("old"))
    (path / name).unlink()
    REPLACED[kind](path / name)
    with pytest.raises(UserError) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["latest.json", "checkpoints"])
@pytest.mark.parametrize("kind", REPLACED)
def test_the_layout_is_checked_as_well(trained, name, kind):
    path = trained[0]
    if name == "checkpoints":
        shutil.rmtree(path / name)
    else:
        (path / name).unlink()
    REPLACED[kind](path / name)
    with pytest.raises(UserError):
        read_all(path)


def test_large_and_deep_json_is_refused(trained):
    path = without_manifest(trained[0], trained[0].with_name("old"))
    (path / "vocabulary.json").write_bytes(b"[" + b"[]," * (70 << 20) + b"[]]")
    with pytest.raises(UserError, match="is larger than such a file can be"):
        read_all(path)


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "Infinity", "-Infinity", "1e400", "-1e999", "1" * 5000, "1" * 60),
        '"\\ud800"',
        "[" * 2000,
        '{"a": "\\udfff"}',
    ],
)
def test_numbers_and_texts_that_are_none_are_refused_in_json(text):
    with pytest.raises(UserError, match="not valid JSON"):
        parse_json(f'{{"a": {text}}}'.encode(), "file")


@pytest.mark.parametrize(
    "text",
    ["!!int 3", "!!timestamp 2001-01-01", "!!binary aGk=", "!!set {a}", "!x y", "1" * 5000, "\x07", "!!python/none"],
)
def test_tags_and_numbers_that_are_none_are_refused_in_yaml(trained, text):
    with pytest.raises(UserError, match="not valid YAML"):
        parse_yaml(f"model: {{latent_size: {text}}}", "file")
    path = without_manifest(trained[0], trained[0].with_name("old"))
    (path / "config.yaml").write_text(f"model: {{latent_size: {text}}}")
    with pytest.raises(UserError):
        open_run(path)


@pytest.mark.parametrize("value", ["9" * 400, "1e400", "-1e400", "9" * 19, ".nan", ".inf"])
@pytest.mark.parametrize("field", ["latent_size", "encoder: {dropout", "training"])
def test_numbers_out_of_range_are_refused_in_a_configuration(trained, value, field):
    path = without_manifest(trained[0], trained[0].with_name("old"))
    texts = {"latent_size": f"model: {{latent_size: {value}}}", "training": f"training: {{standard_errors: {value}}}"}
    (path / "config.yaml").write_text(texts.get(field, f"model: {{{field}: {value}}}}}"))
    with pytest.raises(UserError):
        open_run(path)


def test_half_a_surrogate_pair_is_no_name():
    with pytest.raises(DataError, match="must be Unicode"):
        Vocabulary(("a", "\ud800"), "")
    with pytest.raises(DataError, match="must be Unicode"):
        Labels(("a\udfff",))


@pytest.mark.parametrize("path", ["x" * 300, "x/" * 3000, "a\0b"])
def test_a_name_that_cannot_be_is_one_sentence(path):
    with pytest.raises(UserError) as caught:
        open_run(path)
    assert "\n" not in str(caught.value)


def test_a_directory_that_may_not_be_searched_is_one_sentence(trained, monkeypatch):
    stat = os.stat

    def refuse(path, **keywords):
        if str(path).endswith("config.yaml"):
            raise PermissionError(13, "Permission denied")
        return stat(path, **keywords)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(UserError, match=r"config.yaml: cannot be read \(Permission denied\)"):
        open_run(trained[0])


def test_what_a_terminal_would_obey_is_printed_as_an_escape(workplace, capsys):
    texts = ["\x1b[2J" + letter for letter in "abcd"] * 6
    model = SequenceSSVAE(backend="fake", recipe="ssvae", config=None, epochs=1, conditioning="output")
    labels = ["\x1b]0;title\x07", "\x9b31m"] * 12
    model.fit(texts, labels).save("run")
    Path("new.tsv").write_text("a\t\x1b]0;title\x07\n")
    for command in (
        ["generate", "run", "--label=\x9b31m"],
        ["evaluate", "run", "--data=new.tsv"],
        ["evaluate", "run", "--data=new.tsv", "--json"],
        ["generate", "run", "--label=\x1b[2J"],
    ):
        main(command)
        output = capsys.readouterr()
        assert not set(output.out + output.err) & {"\x1b", "\x9b", "\x07"}
        assert output.out + output.err


def test_a_crash_of_verify_is_not_status_1(toy_run, monkeypatch, capsys):
    def crash(*_):
        raise KeyError("inside")

    monkeypatch.setattr("seqssvae.cli.checks.verify", crash)
    assert main(["verify", "run"]) == 3
    assert "this is a fault of seqssvae (KeyError)" in capsys.readouterr().err


# Any bytes

BYTES = st.one_of(
    st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)


@given(content=BYTES, name=st.sampled_from(NAMES))
def test_any_bytes_in_a_file_raise_only_errors_of_the_project(old_run, content, name):
    check(old_run, name, content)


@given(data=st.data(), name=st.sampled_from(NAMES))
def test_changed_bytes_in_a_file_raise_only_errors_of_the_project(old_run, data, name):
    content = bytearray((old_run / name).read_bytes())
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 20)))
    content[start:end] = data.draw(st.binary(max_size=20))
    check(old_run, name, bytes(content))


@given(data=st.data(), value=VALUES)
def test_changed_values_in_json_raise_only_errors_of_the_project(old_run, data, value):
    name = data.draw(st.sampled_from(["vocabulary.json", "state.json"]))
    stored = json.loads((old_run / name).read_text())
    stored[data.draw(st.sampled_from(sorted(stored)))] = value
    check(old_run, name, json.dumps(stored).encode())


@given(header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), VALUES), data=st.binary(max_size=64))
def test_any_header_of_safetensors_raises_only_errors_of_the_project(header, data):
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    try:
        parse_safetensors(content, Path("file"), {"a": (2,)}, {"a": "float32"})
    except UserError as error:
        check_sentence(error)


@pytest.fixture(scope="module")
def old_run(trained_once, tmp_path_factory):
    return without_manifest(trained_once[0], tmp_path_factory.mktemp("old") / "run")


def check_sentence(error: UserError) -> None:
    assert "\n" not in str(error)


def check(path: Path, name: str, content: bytes) -> None:
    """Read a run in which a file is changed."""
    before = (path / name).read_bytes()
    (path / name).write_bytes(content)
    try:
        directory = RunDirectory(path)
        assert directory.trained_by is not None
        assert directory.weights
        directory.read_checkpoint()
        read_metrics(path)
    except UserError as error:
        check_sentence(error)
    finally:
        (path / name).write_bytes(before)
