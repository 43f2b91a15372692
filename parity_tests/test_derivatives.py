"""Gradients by the complex step, against central differences and by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from parity_tests.derivatives import (
    Weights,
    central_difference_derivative,
    complex_step_derivative,
    complex_step_gradient,
)
from parity_tests.fixtures import load_problems
from parity_tests.problems import Options, Problem, make_problem

PROBLEMS = load_problems()


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_complex_step_equals_central_differences(problem: Problem) -> None:
    """Along random directions, each in the space of some of the weights, with the whole derivative of q(y|x)."""
    whole = replace(problem.config.objective, label_gradient=1.0)
    problem = replace(problem, config=replace(problem.config, objective=whole))
    generator = np.random.default_rng(0)
    names = list(problem.weights)
    for some in (names[i::5] for i in range(5)):
        direction = {name: generator.normal(size=problem.weights[name].shape) for name in some}
        by_complex_step = complex_step_derivative(problem.objective, problem.weights, direction)
        by_differences = central_difference_derivative(problem.objective, problem.weights, direction)
        np.testing.assert_allclose(by_complex_step, by_differences, rtol=1e-6, atol=1e-8, err_msg=", ".join(some))


def test_gradient_has_the_derivative_along_every_direction() -> None:
    problem = make_problem(Options(cell="lstm", bidirectional=False, kind="labelled", shortest=1), seed=30)
    gradient = complex_step_gradient(problem.objective, problem.weights)
    assert {name: value.shape for name, value in gradient.items()} == {
        name: value.shape for name, value in problem.weights.items()
    }
    generator = np.random.default_rng(1)
    for _ in range(3):
        direction = {name: generator.normal(size=value.shape) for name, value in problem.weights.items()}
        expected = complex_step_derivative(problem.objective, problem.weights, direction)
        np.testing.assert_allclose(sum((gradient[n] * direction[n]).sum() for n in gradient), expected, rtol=1e-12)


def test_gradient_leaves_the_weights_as_they_were_and_takes_only_those_named() -> None:
    problem = make_problem(Options(kind="labelled"), seed=31)
    before = {name: value.copy() for name, value in problem.weights.items()}
    gradient = complex_step_gradient(problem.objective, problem.weights, ["classifier.bias"])
    assert list(gradient) == ["classifier.bias"]
    for name, value in before.items():
        np.testing.assert_array_equal(problem.weights[name], value)


def test_gradient_of_the_classification_term_by_hand() -> None:
    """d(-log q_y)/d bias_k = q_k - [k = y], averaged over the labelled rows, times alpha; the ELBO of a labelled row
    does not depend on the classifier."""
    problem = make_problem(Options(kind="labelled", label_count=4, filler=True), seed=32)
    rows = problem.labelled.rows()
    q_y = np.exp(problem.oracle().log_q_y(rows.x, rows.noise))[:2]
    expected = problem.alpha * (q_y - np.eye(4)[rows.y[:2]]).mean(0)
    gradient = complex_step_gradient(problem.objective, problem.weights, ["classifier.bias"])
    np.testing.assert_allclose(gradient["classifier.bias"], expected, rtol=1e-12)


def test_complex_step_of_a_known_function() -> None:
    """d/dw [exp(w) / sqrt(sin(w)^3 + cos(w)^3)] at 1.5, the example of Squire & Trapp."""

    def function(weights: Weights) -> np.inexact:
        (w,) = weights["w"]
        return np.exp(w) / np.sqrt(np.sin(w) ** 3 + np.cos(w) ** 3)

    s, c = math.sin(1.5), math.cos(1.5)
    total = s**3 + c**3
    expected = math.exp(1.5) * (total**-0.5 - 0.5 * total**-1.5 * (3 * s**2 * c - 3 * c**2 * s))
    at = {"w": np.array([1.5])}
    np.testing.assert_allclose(complex_step_gradient(function, at)["w"], [expected], rtol=1e-14)
    derivative = central_difference_derivative(function, at, {"w": np.array([2.0])})
    np.testing.assert_allclose(derivative, 2 * expected, rtol=1e-8)
