"""The ladder in float64: every problem of the cover, from the weights to the gradients, and these by the oracle too."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from parity_tests.conftest import (
    FEW,
    FILES,
    OPTIONS,
    PROGRAMS,
    QUICK,
    SOLVED_ENTRY_BY_ENTRY,
    Check,
    problem_at,
    problem_numbers,
    solution_of,
    twin_of,
)
from parity_tests.derivatives import central_difference_derivative, complex_step_derivative
from parity_tests.ladder import EVERY_PROBLEM, check_gradients_with_oracle, climb
from parity_tests.twins import JaxTwin, TorchTwin

LABELS = {options["label_count"] for options in OPTIONS}


def test_problems_cover_labels_cells_and_conditionings() -> None:
    options = [problem_at(index, "float64").options for index in range(len(FILES))]
    assert {2, 3, 4, 5} <= LABELS
    pairs = {(option.cell, option.conditioning) for option in options}
    assert pairs == {(cell, way) for cell in ("gru", "lstm") for way in ("init", "every_step", "output")}


def test_the_problems_of_every_change_have_all_values_of_all_options() -> None:
    for chosen in (QUICK, FEW):
        for name in OPTIONS[0]:
            assert {options[name] for options in OPTIONS} == {OPTIONS[number][name] for number in chosen}, name
    assert len(FEW) < len(QUICK) < len(FILES) / 2

    def pairs(numbers: Iterable[int]) -> set[Any]:
        programs = [[(name, OPTIONS[number][name]) for name in PROGRAMS] for number in numbers]
        return {pair for settings in programs for pair in combinations(settings, 2)}

    assert pairs(QUICK) == pairs(range(len(FILES)))


def test_every_rung_holds(index: int, check: Check) -> None:
    torch, jax = (twin_of(index, name, "float64") for name in ("torch", "jax"))
    assert isinstance(torch, TorchTwin)
    assert isinstance(jax, JaxTwin)
    check(climb(problem_at(index, "float64"), torch, jax, EVERY_PROBLEM))


@pytest.mark.parametrize("index", problem_numbers(QUICK, SOLVED_ENTRY_BY_ENTRY))
def test_gradient_of_every_weight(index: int, check: Check) -> None:
    solved = ((twin_of(index, name, "float64"), solution_of(index, name, "float64")) for name in ("torch", "jax"))
    check(check_gradients_with_oracle(problem_at(index, "float64"), *solved))


def test_gradient_along_a_direction(index: int, name: str) -> None:
    """In a random direction of all weights, by complex step, and where q(y|x) passes all on by finite differences."""
    problem = problem_at(index, "float64")
    gradients = solution_of(index, name, "float64").gradients
    generator = np.random.default_rng(index)
    direction = {key: generator.normal(size=value.shape) for key, value in problem.weights.items()}
    slope = sum(float(np.sum(gradients[key] * direction[key])) for key in direction)
    expected = complex_step_derivative(problem.objective, problem.weights, direction)
    assert slope == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if problem.options.label_gradient == 1:
        differences = central_difference_derivative(problem.objective, problem.weights, direction)
        assert slope == pytest.approx(differences, rel=1e-6, abs=1e-6)
