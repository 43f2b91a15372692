"""The documents and the code say the same: programs, files, names, fields, commands and examples."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from seqssvae.cli.commands import COMMANDS
from seqssvae.config import Config
from seqssvae.config.settings import to_dict

ROOT = Path(__file__).parents[1]
DOCUMENTS = {path.name: path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]} | {
    f"tutorials/{path.name}": path for path in (ROOT / "docs" / "tutorials").glob("*.md")
}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in sorted(DOCUMENTS.items())}
CURRENT = {name: text for name, text in TEXTS.items() if name != "CHANGELOG.md"}
ARCHITECTURE = TEXTS["architecture.md"]
PLACES = ("", "seqssvae", "seqssvae_torch", "seqssvae_jax")
SOURCE = "\n".join(
    path.read_text(encoding="utf-8") for place in (*PLACES[1:], "parity_tests") for path in (ROOT / place).rglob("*.py")
)


def blocks(text: str) -> list[str]:
    """The blocks of Python."""
    return re.findall(r"```python[^\n]*\n(.*?)```", text, re.DOTALL)


def program(source: str, name: str) -> str:
    """A function's parameters and body, without annotations, docstring and layout."""
    (function,) = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == name
    )
    function.returns, function.decorator_list = None, []
    for argument in function.args.args:
        argument.annotation = None
    if ast.get_docstring(function):
        function.body = function.body[1:]
    return ast.unparse(function)


def quoted(text: str) -> set[str]:
    """What stands in backticks on one line."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def missing_names(text: str) -> list[str]:
    """The files, and the names of code, that stand in backticks and are not there."""
    missing = []
    for name in sorted(quoted(text)):
        if re.fullmatch(r"[\w/]+(\.py|/)|[a-z_]+/[\w/]+", name):
            if not any((ROOT / place / end).exists() for place in PLACES for end in (name, f"{name}.py")):
                missing.append(name)
        elif re.fullmatch(r"[A-Za-z_]+", name) and not re.search(rf"\b{name}\b", SOURCE):
            missing.append(name)
    return missing


def missing_paths(text: str) -> list[str]:
    """The files of the repository that are named by their path and are not there; `*` stands for any name."""
    path = re.compile(r"[a-z_.][\w.*-]*/[\w./*-]+\.(?:py|md|svg|toml|ya?ml|jinja)")
    paths = filter(path.fullmatch, quoted(text))
    return sorted(name for name in paths if not any(any((ROOT / place).glob(name)) for place in PLACES))


def missing_fields(text: str) -> list[str]:
    """The fields of the configuration that are named and are none."""
    settings = to_dict(Config())
    names = re.findall(
        rf"(?<![\w.])(?:{'|'.join(settings)})(?:\.[a-z_]+)+",
        re.sub(r"```(?:python|bash).*?```", "", text, flags=re.DOTALL),
    )
    return sorted({name for name in names if not _is_field(name, settings) and not name.endswith(ENDS)})


ENDS = (".py", ".md", ".svg", ".fit", ".transduce")
"""What reads like a field and is a file, or a method of a variable called `model`."""


def _is_field(name: str, settings: object) -> bool:
    for part in name.split("."):
        if not isinstance(settings, dict) or part not in settings:
            return False
        settings = settings[part]
    return True


def unknown_commands(text: str) -> list[str]:
    """The commands that are named and do not exist."""
    named = re.findall(r"(?:^    |`)seqssvae ([a-z][a-z-]*)", text, re.MULTILINE)
    return sorted(set(named) - set(COMMANDS))


@pytest.mark.parametrize(
    ("name", "package"), [(name, package) for name in ("model", "guide") for package in PLACES[2:]]
)
def test_the_programs_are_those_of_the_source(name, package):
    printed = [block for block in blocks(ARCHITECTURE) if f"def {name}(" in block]
    block = printed[PLACES[2:].index(package)]
    source = (ROOT / package / "model.py").read_text(encoding="utf-8")
    assert program(block, name) == program(source, name)
    assert program(block.replace("beta=1.0", "beta=2.0"), name) != program(source, name)


def test_what_the_architecture_names_is_there():
    assert missing_names(ARCHITECTURE) == []
    assert missing_names(TEXTS["CONTRIBUTING.md"]) == []
    wrong = "`data/rows`, `ops/fused.py`, `kernels/`, `Fused`, and `data/tsv`, `ops/cells.py`, `SSVAE`"
    assert missing_names(wrong) == ["Fused", "data/rows", "kernels/", "ops/fused.py"]


@pytest.mark.parametrize("name", sorted(CURRENT))
def test_paths_of_files_exist(name):
    assert missing_paths(CURRENT[name]) == []


def test_paths_of_files_that_do_not_exist_are_found():
    wrong = "`tests/test_none.py`, `ops/none_*.py`, `docs/none.md`"
    right = "`tests/test_documents.py`, `ops/recurrence_*.py`, `data/tsv.py`, `RUN/latest.json`, `a/b`"
    assert missing_paths(f"{wrong} {right}") == ["docs/none.md", "ops/none_*.py", "tests/test_none.py"]


def test_files_that_one_twin_alone_has_are_named():
    torch, jax = (
        {path.relative_to(ROOT / package).as_posix() for place in ("*.py", "ops/*.py") for path in folder.glob(place)}
        for package, folder in ((package, ROOT / package) for package in PLACES[2:])
    )
    assert torch ^ jax <= quoted(ARCHITECTURE)


@pytest.mark.parametrize(
    "name", sorted(set(CURRENT) - {"yoyodyne.md", "tutorials/yoyodyne.md"})
)  # that host has fields of its own
def test_fields_and_commands_exist(name):
    assert missing_fields(CURRENT[name]) == []
    assert unknown_commands(CURRENT[name]) == []


def test_fields_and_commands_that_do_not_exist_are_found():
    assert missing_fields("`objective.estimator`, `objective.gradient_estimator`") == ["objective.estimator"]
    assert unknown_commands("`seqssvae estimators RUN`\n    seqssvae fit\n    seqssvae train") == [
        "estimators",
        "train",
    ]


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXTS[name])
    folder = DOCUMENTS[name].parent
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "architecture.md" and blocks(TEXTS[name])])
def test_examples_are_python_and_import_what_exists(name):
    for block in blocks(TEXTS[name]):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("seqssvae"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
