"""Gradients of the oracle: by the complex step, and by central differences to check it."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]
ScalarFunction = Callable[[Weights], np.ndarray | np.inexact]
"""Of the weights; analytic, where a complex step is taken."""

COMPLEX_STEP = 1e-30
"""There is no subtraction, so no cancellation, and the step can be this small (Squire & Trapp 1998, equation 6)."""


def complex_step_gradient(
    function: ScalarFunction, weights: Weights, names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """`df/dw = Im f(w + ih) / h`, entry by entry.

    Args:
        function: What to differentiate.
        weights: Where the gradient is taken, in float64.
        names: The weights to differentiate by; without it, all.
    """
    raised = {name: value.astype(np.complex128) for name, value in weights.items()}
    gradient = {}
    for name in weights if names is None else names:
        gradient[name] = np.zeros(weights[name].shape)
        for index in np.ndindex(weights[name].shape):
            raised[name][index] += 1j * COMPLEX_STEP
            gradient[name][index] = np.imag(function(raised)) / COMPLEX_STEP
            raised[name][index] = weights[name][index]
    return gradient


def complex_step_derivative(function: ScalarFunction, weights: Weights, direction: Mapping[str, np.ndarray]) -> float:
    """The derivative along a direction, `sum over entries of df/dw * direction`, from one evaluation."""
    moved = {
        name: value + 1j * COMPLEX_STEP * direction.get(name, np.zeros(value.shape)) for name, value in weights.items()
    }
    return float(np.imag(function(moved)) / COMPLEX_STEP)


def central_difference_derivative(
    function: ScalarFunction,
    weights: Weights,
    direction: Mapping[str, np.ndarray],
    step: float = 1e-5,
) -> float:
    """The same derivative as `(f(w + h d) - f(w - h d)) / 2h`, with an error of the order of h squared."""
    sides = []
    for sign in (1.0, -1.0):
        moved = {name: value + sign * step * direction.get(name, 0.0) for name, value in weights.items()}
        sides.append(float(function(moved)))
    return (sides[0] - sides[1]) / (2.0 * step)
