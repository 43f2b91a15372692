"""Problems, twins and what they make of them: computed once, and shared by all tests of a process."""

from functools import cache

import pytest

from parity_tests.fixtures import load_problem, problem_files
from parity_tests.problems import Problem
from parity_tests.twins import TWINS, JaxTwin, Solution, TorchTwin
from seqssvae.config import Precision

FILES = problem_files()


@cache
def problem_at(index: int) -> Problem:
    """A problem of the cover, by its number."""
    return load_problem(FILES[index])


@cache
def twin_of(index: int, name: str, precision: Precision = "float64") -> TorchTwin | JaxTwin:
    """A twin of a problem, compiled at most once."""
    return TWINS[name](problem_at(index), precision)


@cache
def solution_of(index: int, name: str, precision: Precision = "float64") -> Solution:
    """What that twin makes of it."""
    return twin_of(index, name, precision).solve()


@pytest.fixture(params=range(len(FILES)), ids=[path.stem for path in FILES])
def index(request: pytest.FixtureRequest) -> int:
    """Number of a problem of the cover."""
    return request.param


@pytest.fixture(params=["torch", "jax"])
def name(request: pytest.FixtureRequest) -> str:
    """Name of a twin."""
    return request.param
