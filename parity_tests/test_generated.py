"""Generated problems: over a few architectures, whatever weights, rows, labels, masks and noise there are."""

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from parity_tests.conftest import Check
from parity_tests.defects import DEFECTS, plant
from parity_tests.fixtures import arrays_of, load_problem, save_problem
from parity_tests.generated import ARCHITECTURES, Draw, draws, problem_of
from parity_tests.ladder import Finding, check_terms, check_twins, failures
from parity_tests.problems import Problem
from parity_tests.twins import JaxTwin, TorchTwin

EXAMPLES = 26
"""Of each of the eight architectures: 208 in all."""


@cache
def twins_of(architecture: int) -> tuple[TorchTwin, JaxTwin]:
    """The twins of an architecture, compiled once."""
    problem = problem_of(Draw(architecture, 0, 1.0, 1.0, 1.0, ((),) * 3, (0,) * 3, ((),) * 4))
    return TorchTwin(problem), JaxTwin(problem)


def findings_of(problem: Problem, *twins: TorchTwin | JaxTwin) -> list[Finding]:
    """Loss and terms of each twin against the oracle, these and all gradients against each other."""
    solutions = []
    for twin in twins:
        twin.problem = problem
        twin.restart()
        solutions.append(twin.solve())
    torch, jax = solutions
    of_oracle = [f for twin, s in zip(twins, solutions, strict=True) for f in check_terms(problem, twin, s)]
    return of_oracle + check_twins(problem, torch, jax, "float64")


def test_there_are_few_architectures() -> None:
    assert len(set(ARCHITECTURES)) == len(ARCHITECTURES) <= 8
    assert EXAMPLES * len(ARCHITECTURES) >= 200


OF_EVERY_CHANGE = (0, 5, 7)
"""Both cells, all conditionings, both encoders, an exact posterior, a consistency term, a context."""


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(number, marks=() if number in OF_EVERY_CHANGE else pytest.mark.thorough)
        for number in range(len(ARCHITECTURES))
    ],
)
def test_twins_and_oracle_agree(architecture: int, check: Check) -> None:
    of_all_draws: list[Finding] = []

    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
    @given(draw=draws(architecture))
    def agree(draw: Draw) -> None:
        findings = findings_of(problem_of(draw), *twins_of(architecture))
        of_all_draws.extend(findings)
        assert not failures(findings)

    agree()
    check(of_all_draws)


@settings(max_examples=20)
@given(draw=st.integers(0, len(ARCHITECTURES) - 1).flatmap(draws))
def test_what_is_printed_makes_the_problem_again(draw: Draw, tmp_path_factory: pytest.TempPathFactory) -> None:
    problem, path = problem_of(draw), tmp_path_factory.mktemp("generated") / "problem.safetensors"
    save_problem(problem_of(eval(repr(draw))), path)
    again = load_problem(path)
    assert (again.config, again.dimensions, again.beta) == (problem.config, problem.dimensions, problem.beta)
    ours, theirs = arrays_of(problem), arrays_of(again)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.thorough  # it is Hypothesis that shrinks; what it is to shrink has a test above
def test_a_failure_shrinks_to_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """With END not scored in torch, the simplest of everything shows it: rows of END alone, and the first seed."""
    plant(next(defect for defect in DEFECTS if defect.name == "END not scored"), "torch", monkeypatch)
    torch = TorchTwin(twins_of(0)[0].problem)

    def fails(draw: Draw) -> bool:
        torch.problem = problem_of(draw)
        torch.restart()
        return bool(failures(check_terms(torch.problem, torch, torch.solve())))

    smallest = find(draws(0), fails, settings=settings(max_examples=20))
    assert set(smallest.labelled + smallest.unlabelled) <= {(), None}
    assert smallest.seed == 0
