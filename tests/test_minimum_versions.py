"""What `make minimum` installs is the lowest that is declared."""

import re
import tomllib
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MINIMUM = (ROOT / "constraints-minimum.txt").read_text(encoding="utf-8")


def versions(lines: list[str], sign: str) -> dict[str, Version]:
    """By name, the versions behind a sign."""
    matches = (re.match(rf"([\w-]+)(?:\[\w+\])?{sign}([\d.]+)", line) for line in lines)
    return {match[1]: Version(match[2]) for match in matches if match}


def test_the_versions_tried_are_the_lowest_declared():
    extras = PROJECT["optional-dependencies"]
    required = versions([*PROJECT["dependencies"], *extras["torch"], *extras["jax"]], ">=")
    tried = versions(MINIMUM.splitlines(), "==")
    assert required.items() <= tried.items()
    development = versions(extras["dev"], ">=")
    assert all(development[name] == tried[name] for name in development.keys() & tried.keys())
