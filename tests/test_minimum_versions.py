"""What `make minimum` installs is the lowest that is declared."""

import re
import tomllib
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MINIMUM = (ROOT / "constraints-minimum.txt").read_text(encoding="utf-8")

NOT_TRIED = {"bench", "dev", "docs", "mlflow", "wandb", "yoyodyne"}
"""Extras whose lowest versions are not installed: what develops the project, a host that brings what it needs itself,
and services that tests put a stand-in for."""


def versions(lines: list[str], sign: str) -> dict[str, Version]:
    """By name, the versions behind a sign."""
    matches = (re.match(rf"([\w-]+)(?:\[\w+\])?{sign}([\d.]+)", line) for line in lines)
    return {match[1]: Version(match[2]) for match in matches if match}


def test_the_versions_tried_are_the_lowest_declared():
    extras = PROJECT["optional-dependencies"]
    installed = re.search(r"constraints-minimum.txt \"seqssvae\[([\w,]+)\]", MAKEFILE)
    assert installed is not None
    assert set(extras) - set(installed[1].split(",")) == {"torch", "jax", *NOT_TRIED}
    tried_extras = (line for name in extras.keys() - NOT_TRIED for line in extras[name])
    declared = [line for line in (*PROJECT["dependencies"], *tried_extras) if not line.startswith("seqssvae[")]
    required = versions(declared, ">=")
    assert {re.split(r"[\[>]", line)[0] for line in declared} == required.keys()
    tried = versions(MINIMUM.splitlines(), "==")
    assert required.items() <= tried.items()
    development = versions(extras["dev"], ">=")
    assert all(development[name] == tried[name] for name in development.keys() & tried.keys())
