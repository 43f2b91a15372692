"""What may import what, what `import seqssvae` does not load, and how large files and the root may be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import Graph, cycles, import_graph

import seqssvae

ROOT = Path(__file__).parents[1]
PACKAGES = ("seqssvae", "seqssvae_torch", "seqssvae_jax")

ORDER = (
    "errors",
    "config",
    "parameters noise backend top_k",
    "data",
    "inference",
    "training",
    "loggers",
    "recipes",
    "runs",
    "diagnosis",
    "datasets",
    "checks",
    "report",
    "hub",
    "tuning",
    "estimator",
    "demo",
    "cli",
    "__main__",
)
"""The parts of `seqssvae`, from left to right: each imports itself and what is left of it; those on a line are one."""
RANKS = {name: rank for rank, names in enumerate(ORDER) for name in names.split()}

FRAMEWORKS = {
    "seqssvae": {"torch", "pyro", "jax", "numpyro", "flax", "optax", "funsor", "lightning", "yoyodyne"},
    "seqssvae_torch": {"jax", "numpyro", "flax", "optax", "seqssvae_jax"},
    "seqssvae_jax": {"torch", "pyro", "lightning", "yoyodyne", "seqssvae_torch"},
}
"""What each package must not import; `seqssvae` finds the twins by entry point."""


def rank(module: str) -> int:
    """The place of a module of `seqssvae` in the order; the package itself, whose names are lazy, comes last."""
    part = module.split(".")[1:2]
    return RANKS[part[0]] if part else len(ORDER)


def out_of_order(graph: Graph) -> list[str]:
    """The imports of `seqssvae` that go from left to right."""
    return [
        f"{module} imports {imported}"
        for module, imports in graph.items()
        for imported in sorted(imports)
        if imported.split(".")[0] == "seqssvae" and rank(imported) > rank(module)
    ]


def foreign(graph: Graph, frameworks: set[str]) -> list[str]:
    """The imports of frameworks."""
    return [
        f"{module} imports {imported}"
        for module, imports in graph.items()
        for imported in sorted(imports)
        if imported.split(".")[0] in frameworks
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package):
    assert cycles(import_graph(ROOT, package)) == []


def test_parts_of_the_shared_package_import_from_the_left():
    assert out_of_order(import_graph(ROOT, "seqssvae")) == []


def test_the_architecture_page_and_its_picture_show_this_order():
    page, picture = ((ROOT / "docs" / f"architecture.{end}").read_text(encoding="utf-8") for end in ("md", "svg"))
    parts = [", ".join(names.split()) for names in ORDER[:-1]]  # `__main__` only starts the command line
    assert f"\n    {'   '.join(parts)}\n" in page
    assert re.findall(r">([^<>]+)</text>", picture)[-len(parts) :] == parts


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_what_it_must_not(package):
    assert foreign(import_graph(ROOT, package), FRAMEWORKS[package]) == []


@pytest.fixture
def plant(tmp_path):
    """Write modules of a package called `seqssvae`, and read their imports."""

    def write(**sources: str) -> Graph:
        for name, source in sources.items():
            path = tmp_path / "seqssvae" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return import_graph(tmp_path, "seqssvae")

    return write


@pytest.mark.parametrize(
    "source",
    [
        "from seqssvae.cli import tables",
        "from seqssvae.cli.tables import warn",
        "import seqssvae.cli.tables",
        "from ..cli import tables",
        "def later():\n    from seqssvae.cli.tables import warn",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from seqssvae.cli.tables import warn",
    ],
)
def test_an_import_from_the_right_is_found_wherever_it_stands(plant, source):
    graph = plant(cli__tables="def warn(): ...", data__rows=source)
    assert out_of_order(graph) == ["seqssvae.data.rows imports seqssvae.cli.tables"]


def test_a_circle_is_found_however_long_it_is(plant):
    graph = plant(
        data__a="from seqssvae.data import b",
        data__b="def later():\n    import seqssvae.data.c",
        data__c="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from seqssvae.data.a import name",
        data__d="from seqssvae.data import a",
    )
    assert cycles(graph) == [["seqssvae.data.a", "seqssvae.data.b", "seqssvae.data.c"]]
    assert out_of_order(graph) == []


def test_a_framework_is_found(plant):
    graph = plant(data__rows="def later():\n    import torch.nn as nn\n    from jax import numpy")
    assert foreign(graph, FRAMEWORKS["seqssvae"]) == [
        "seqssvae.data.rows imports jax",
        "seqssvae.data.rows imports torch.nn",
    ]


def loaded(code: str) -> set[str]:
    """The modules that are loaded after some code has run in a process of its own."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


BARE = loaded("import importlib, typing")
"""What this interpreter loads in any case."""


def test_the_package_by_itself_loads_nothing():
    modules = loaded("import seqssvae") - BARE
    assert {name for name in modules if name.startswith("seqssvae")} == {"seqssvae"}
    assert not modules & {"numpy", "jaxtyping", "yaml", "rich", "jsonargparse", "multiprocessing", "safetensors"}


def test_what_the_help_of_the_command_line_shows_loads_no_numpy():
    parts = "config", "config.fields", "loggers.named", "recipes.names", "cli.messages"
    assert not (loaded(f"import {', '.join(f'seqssvae.{part}' for part in parts)}") - BARE) & {"numpy", "jaxtyping"}


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("from seqssvae import get_backend", {"rich", "yaml", "safetensors", "multiprocessing", "seqssvae.estimator"}),
        ("from seqssvae import SequenceSSVAE", {"rich", "multiprocessing", "seqssvae.checks", "seqssvae.cli"}),
        (
            "import seqssvae.cli.main",
            {"numpy", "jaxtyping", "rich", "scipy", "multiprocessing", "seqssvae.checks", "seqssvae.estimator"},
        ),
        ("import seqssvae.cli.generate", {"rich", "multiprocessing", "seqssvae.checks", "seqssvae.estimator"}),
        ("import seqssvae.cli.fit", {"multiprocessing", "seqssvae.checks.verify", "seqssvae.estimator"}),
    ],
)
def test_what_is_not_needed_is_not_loaded(code, unwanted):
    frameworks = {"torch", "pyro", "jax", "numpyro", "flax", "optax", "sklearn", "matplotlib", "pandas"}
    needless = unwanted if code.startswith("import") else unwanted | {"jsonargparse"}
    assert not (loaded(code) - BARE) & (needless | frameworks)


def test_a_pytorch_model_that_is_only_used_loads_no_compiler():
    code = """
import numpy
from seqssvae.backend import Dimensions, get_backend
from seqssvae.config import Config
twin = get_backend("torch")(Config(), Dimensions(6, (0.5, 0.5)))
twin.set_weights(twin.get_weights())
twin.classify(numpy.array([[4, 3]], numpy.int32))
"""
    assert "torch._dynamo" not in loaded(code)
    assert "torch._dynamo" in loaded(f"{code}twin.get_optimizer_state()")


def test_exported_names_are_all_there():
    from seqssvae.backend import get_backend
    from seqssvae.config import Config
    from seqssvae.estimator.sequence_ssvae import SequenceSSVAE

    assert seqssvae.SequenceSSVAE is SequenceSSVAE
    assert seqssvae.get_backend is get_backend
    assert seqssvae.config.Config is Config
    assert seqssvae.__version__[0].isdigit()
    assert set(seqssvae.__all__) <= set(dir(seqssvae))
    with pytest.raises(AttributeError, match="module 'seqssvae' has no attribute 'nothing'"):
        _ = seqssvae.nothing


def test_the_root_of_the_package_holds_few_files():
    assert len([path for path in (ROOT / "seqssvae").iterdir() if path.is_file()]) <= 8


def too_long(folder: Path, most: int = 350) -> list[str]:
    """The Python files below a directory that have more lines than `most`; those of hidden directories do not count."""
    return [
        f"{path.relative_to(folder)}: {lines} lines"
        for path in sorted(folder.rglob("*.py"))
        if not any(part.startswith(".") or part == "build" for part in path.relative_to(folder).parts)
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > most
    ]


def test_no_file_is_too_long_to_be_read():
    assert too_long(ROOT) == []


def test_a_file_that_is_too_long_is_named(tmp_path):
    for name, lines in {"a.py": 350, "b/c.py": 351, ".venv/d.py": 400}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("pass\n" * lines)
    assert too_long(tmp_path) == ["b/c.py: 351 lines"]
