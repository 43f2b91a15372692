"""Log-probabilities of symbols with products rounded to bfloat16, in both twins."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from output_layers import (
    SOLVERS,
    B,
    V,
    expected,
    in_float32,
    operands,
    weights_and_cotangent,
)

from seqssvae_jax.ops import output_layer as layer_of_jax

WAYS = ("torch", "jax", "jax, many symbols")


@pytest.fixture(params=WAYS)
def solve_rounded(request, monkeypatch) -> Callable[..., Any]:
    """What computes values and gradients, with its products in bfloat16."""
    twin, *way = request.param.split(", ")
    monkeypatch.setattr(layer_of_jax, "LARGE", 0 if way == ["many symbols"] else 1024)
    rounding = torch.bfloat16 if twin == "torch" else jnp.bfloat16
    return lambda *given: SOLVERS[twin](*given, rounding)


@pytest.mark.parametrize("rows_of_bias", [None, 1])
def test_bfloat16_rounds_products_alone(solve_rounded, rows_of_bias):
    given, (weights, cotangent) = operands(3, rows_of_bias, 8), weights_and_cotangent("come true")
    values, gradients = solve_rounded(in_float32(given), np.float32(cotangent), np.float32(weights), None)
    expected_values, expected_gradients = expected(given, cotangent)
    assert values.dtype == np.float32
    assert 1e-5 < np.abs(values - expected_values).max() < 0.08
    for name, gradient in expected_gradients.items():
        assert gradients[name].dtype == np.float32
        np.testing.assert_allclose(gradients[name], gradient, atol=0.02 * np.abs(gradient).max(), err_msg=name)


@pytest.mark.parametrize("scale", [1, 60])
@pytest.mark.parametrize("most", [None, B * V, 2 * B * V])
@pytest.mark.parametrize("kind", ["come true", "do not", "unknown"])
def test_bfloat16_with_operands_that_are_rounded(solve_rounded, kind, most, scale):
    """What is left is the rounding of logits and of their gradients."""
    given, (weights, cotangent) = operands(4, None, 8), weights_and_cotangent(kind)
    given["hidden"] = given["hidden"] * scale
    given = {name: value if name == "x" or value is None else bfloat16_of(value) for name, value in given.items()}
    weights = None if weights is None else np.float32(weights)
    values, gradients = solve_rounded(in_float32(given), np.float32(cotangent), weights, most)
    expected_values, expected_gradients = expected(given, cotangent)
    np.testing.assert_allclose(values, expected_values, rtol=4e-3, atol=0.03 * scale)
    for name, gradient in expected_gradients.items():
        tolerance = (0.02 if scale == 1 else 0.3) * np.abs(gradient).max()
        np.testing.assert_allclose(gradients[name], gradient, atol=tolerance, err_msg=name)


def bfloat16_of(values: np.ndarray) -> np.ndarray:
    """These numbers rounded to bfloat16, in float64."""
    return torch.tensor(values).to(torch.bfloat16).double().numpy()


@pytest.mark.parametrize("all_biases", [-300.0, 27.0, 300.0])
def test_bfloat16_with_biases_that_have_much_in_common(solve_rounded, all_biases):
    given, (weights, cotangent) = operands(6, None, 8), weights_and_cotangent("come true")
    moved = given | {"bias": given["bias"] + all_biases}
    weights, cotangent = np.float32(weights), np.float32(cotangent)
    values, gradients = solve_rounded(in_float32(moved), cotangent, weights, None)
    expected_values, expected_gradients = solve_rounded(in_float32(given), cotangent, weights, None)
    np.testing.assert_allclose(values, expected_values, atol=1e-4)
    for name, gradient in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=0.01 * np.abs(gradient).max(), err_msg=name)
