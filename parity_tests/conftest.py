"""Problems and twins, computed once and shared by all tests of a process, and the summary of all that was compared."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from parity_tests.cover import representatives
from parity_tests.findings import Finding
from parity_tests.fixtures import load_problem, problem_files
from parity_tests.problems import Problem
from parity_tests.summary import Summary, describe, merge, print_controls, print_table, summarise
from seqssvae.config import Precision

if TYPE_CHECKING:  # the process that only hands tests out to workers does without the frameworks
    from parity_tests.twins import JaxTwin, Solution, TorchTwin

FILES = problem_files()
PROPERTY, CONTROL = "parity", "control"
"""Under which a test's report carries what was compared, or what was caught, from a worker to the one that prints."""

Check = Callable[[Iterable[Finding]], None]


@cache
def problem_at(index: int, precision: Precision) -> Problem:
    """A problem of the cover, by its number."""
    from parity_tests.ladder import in_precision

    return in_precision(load_problem(FILES[index]), precision)


@cache
def twin_of(index: int, name: str, precision: Precision) -> "TorchTwin | JaxTwin":
    """A twin of a problem, compiled at most once."""
    from parity_tests.twins import TWINS

    return TWINS[name](problem_at(index, precision), precision)


@cache
def solution_of(index: int, name: str, precision: Precision) -> "Solution":
    """What that twin makes of it."""
    return twin_of(index, name, precision).solve()


SOLVED_ENTRY_BY_ENTRY = (0, 7, 14)
"""The problems whose gradient the oracle takes entry by entry; along a direction it does so for all."""
OPTIONS = [asdict(load_problem(path).options) for path in FILES]
PROGRAMS = ("cell", "conditioning", "kind", "name", "source", "posterior", "encoder", "label_gradient")
"""The options that decide which programs run."""
COSTS = [2 if options["kind"] == "mixed" else 1 for options in OPTIONS]
QUICK = representatives(OPTIONS, COSTS, PROGRAMS, SOLVED_ENTRY_BY_ENTRY[:2])
"""The problems of every change: each value of each option, and of those that decide most each pair of values."""
FEW = representatives(OPTIONS, COSTS, ("cell", "conditioning"))
"""Each value of each option, and each cell with each conditioning."""


def problem_numbers(quick: Iterable[int], of: Iterable[int] = range(len(FILES))) -> list[Any]:
    """Numbers of problems as parameters of a test; those that are not quick are for a thorough run."""
    marks = [(number, () if number in quick else pytest.mark.thorough) for number in of]
    return [pytest.param(number, marks=mark, id=FILES[number].stem) for number, mark in marks]


@pytest.fixture(params=problem_numbers(QUICK))
def index(request: pytest.FixtureRequest) -> int:
    """Number of a problem of the cover."""
    return request.param


@pytest.fixture(params=["torch", "jax"])
def name(request: pytest.FixtureRequest) -> str:
    """Name of a twin."""
    return request.param


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Check:
    """Asserts that findings hold, and has them counted in the summary."""

    def hold(findings: Iterable[Finding]) -> None:
        collected = list(findings)
        assert collected
        request.node.user_properties.append((PROPERTY, [tuple(one) for one in summarise(collected)]))
        assert not describe(collected), describe(collected)

    return hold


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the worst difference of each rung."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    of_calls = [report for report in reports if getattr(report, "when", None) == "call"]
    properties = [(name, value) for report in of_calls for name, value in report.user_properties]
    if caught := [value for name, value in properties if name == CONTROL]:
        print_controls(caught)
    if summaries_of_tests := [value for name, value in properties if name == PROPERTY]:
        print_table(merge(Summary(*one) for summaries in summaries_of_tests for one in summaries))
