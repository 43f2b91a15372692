"""Log-probabilities of symbols without the logits of all positions: against the reference, in both twins."""

from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from output_layers import (
    SOLVERS,
    B,
    H,
    K,
    T,
    V,
    expected,
    in_float32,
    learning,
    on_device,
    operands,
    solve_fused,
    solve_torch,
    weights_and_cotangent,
)
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.flops import jax_flops, torch_flops
from seqssvae.data.vocabulary import NEVER_GENERATED
from seqssvae_jax.ops import output_layer as layer_of_jax
from seqssvae_jax.ops import symbol_log_probs_custom_vjp as of_jax
from seqssvae_jax.ops.symbol_log_probs import reference as reference_of_jax
from seqssvae_torch.ops import output_layer
from seqssvae_torch.ops import symbol_log_probs_custom_vjp as of_torch
from seqssvae_torch.ops.symbol_log_probs import reference


@pytest.fixture(params=[*SOLVERS, "jax, many symbols"])
def solve(request, monkeypatch) -> Callable[..., Any]:
    twin, *many = request.param.split(", ")
    if many:
        monkeypatch.setattr(layer_of_jax, "LARGE", 0)
    return SOLVERS[twin]


MOST, KINDS, ROWS = (None, 1, 2 * B * V, 3 * B * V, 2 * K * B * V), ("come true", "do not", "unknown"), (None, 1, B)
CASES = [
    pytest.param(MOST[i], KINDS[j], ROWS[k], marks=() if (i + j + k) % 3 == 0 else pytest.mark.thorough)
    for i, j, k in product(range(len(MOST)), range(len(KINDS)), range(len(ROWS)))
]
"""At every change each pair of values of any two."""


@pytest.mark.parametrize(("most", "kind", "rows_of_bias"), CASES)
def test_values_and_gradients_are_those_of_all_logits(solve, rows_of_bias, kind, most):
    given, (weights, cotangent) = operands(rows_of_bias=rows_of_bias), weights_and_cotangent(kind)
    values, gradients = solve(given, cotangent, weights, most)
    expected_values, expected_gradients = expected(given, cotangent)
    np.testing.assert_allclose(values, expected_values, atol=1e-13)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("most", [None, 1, 2 * K * B * V, 4 * K * B * V])
@pytest.mark.parametrize("rows_of_bias", [None, 1, B])
def test_few_calls_give_the_same(rows_of_bias, most):
    given, (_, cotangent) = operands(rows_of_bias=rows_of_bias), weights_and_cotangent("unknown")
    values, gradients = solve_fused(given, cotangent, None, most)
    expected_values, expected_gradients = expected(given, cotangent)
    np.testing.assert_allclose(values, expected_values, atol=1e-13)
    for name, gradient in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("rows_of_bias", [None, 1, B])
def test_the_references_are_the_plain_form(rows_of_bias):
    given, (_, cotangent) = operands(rows_of_bias=rows_of_bias), weights_and_cotangent("unknown")
    values, gradients = expected(given, cotangent)
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in learning(given).items()}
    in_torch = reference(**{"label_bias": None, **leaves}, x=torch.tensor(given["x"]).long())
    in_torch.backward(torch.tensor(cotangent))

    def in_jax(leaves):
        return reference_of_jax(**{"label_bias": None, **leaves}, x=jnp.asarray(given["x"]))

    with jax.enable_x64(True):
        log_p, back = jax.vjp(in_jax, jax.tree.map(jnp.asarray, learning(given)))
        (of_jax_,) = back(jnp.asarray(cotangent))
    np.testing.assert_allclose(in_torch.detach().numpy(), values, atol=1e-13)
    np.testing.assert_allclose(np.asarray(log_p), values, atol=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(leaves[name].grad.numpy(), gradient, atol=1e-13, err_msg=name)
        np.testing.assert_allclose(np.asarray(of_jax_[name]), gradient, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (2, 3, 1, 0), (3, 1, 2, 0)])
def test_hidden_states_may_lie_in_any_order(order):
    """Gradients are written in place, which has to be a place and no copy."""
    given, (weights, cotangent) = operands(), weights_and_cotangent("come true")
    values = torch.tensor(given["hidden"])
    back = np.argsort(order).tolist()
    hidden = values.permute(order).contiguous().permute(back).requires_grad_()
    fixed = {name: torch.tensor(value) for name, value in given.items() if name not in ("hidden", "x")}
    log_p = of_torch.symbol_log_probs(
        hidden, **fixed, x=torch.tensor(given["x"]).long(), gradient_weights=torch.tensor(weights)
    )
    log_p.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(hidden.grad.numpy(), expected(given, cotangent)[1]["hidden"], atol=1e-13)


@pytest.mark.parametrize("kind", ["come true", "unknown"])
def test_float32_is_exact_to_rounding(solve, kind):
    given, (weights, cotangent) = operands(3), weights_and_cotangent(kind)
    short = in_float32(given)
    weights = None if weights is None else np.float32(weights)
    values, gradients = solve(short, np.float32(cotangent), weights, 2 * B * V)
    expected_values, expected_gradients = expected(given, cotangent)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected_values, rtol=2e-6, atol=2e-6)
    for name, gradient in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-5, atol=2e-6, err_msg=name)


def test_logits_far_apart_stay_finite(solve):
    given = operands(1)
    given["weight"] = given["weight"] * 300
    short = in_float32(given)
    weights, cotangent = weights_and_cotangent("come true")
    values, gradients = solve(short, np.float32(cotangent), np.float32(weights), None)
    expected_values, _ = expected(given, cotangent)
    assert expected_values.min() < -200
    np.testing.assert_allclose(values, expected_values, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("bias", [20.0, 400.0])
def test_a_great_bias_may_be_undone_by_the_weight(solve, bias):
    """The greatest product with the greatest bias is then far above all logits."""
    given = operands(1, rows_of_bias=None)
    given["hidden"][..., 0] = 1.0
    given["bias"][5], given["weight"][5, 0] = bias, -bias - 10
    short = in_float32(given)
    weights, cotangent = weights_and_cotangent("come true")
    values, gradients = solve(short, np.float32(cotangent), np.float32(weights), None)
    expected_values, expected_gradients = expected(given, cotangent)
    np.testing.assert_allclose(values, expected_values, atol=1e-4)
    for name, gradient in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-4 * max(1, np.abs(gradient).max()), err_msg=name)


def test_what_is_never_generated_may_have_any_product(solve):
    """Such as to be far above all logits."""
    given, (weights, cotangent) = operands(7, rows_of_bias=None), weights_and_cotangent("come true")
    given["hidden"][..., 0] = 1.0
    expected_values, expected_gradients = expected(given, cotangent)
    for place in (500.0, -500.0):
        given["weight"][list(NEVER_GENERATED), 0] = place
        values, gradients = solve(in_float32(given), np.float32(cotangent), np.float32(weights), None)
        np.testing.assert_allclose(values, expected_values, atol=1e-5)
        for name, gradient in expected_gradients.items():
            np.testing.assert_allclose(gradients[name], gradient, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("all_biases", [20.0, -25.0, 27.0, -28.0, 29.0, 300.0, -300.0])
@pytest.mark.parametrize("kind", ["come true", "unknown"])
def test_what_all_biases_have_in_common_changes_nothing(solve, kind, all_biases):
    """Sums of exponentials may be far from 1, or too great or small for float32."""
    given, (weights, cotangent) = operands(4), weights_and_cotangent(kind)
    weights = None if weights is None else np.float32(weights)
    moved = given | {"bias": given["bias"] + all_biases}
    values, gradients = solve(in_float32(moved), np.float32(cotangent), weights, B * V)
    expected_values, expected_gradients = expected(given, cotangent)
    np.testing.assert_allclose(values, expected_values, atol=2e-5 + 1e-6 * abs(all_biases))
    for name, gradient in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-3, atol=1e-4, err_msg=name)


def test_logits_of_one_step_may_be_far_apart(solve):
    """From which on PyTorch subtracts the greatest logit; blocks of several steps have those of all of them."""
    given, (weights, cotangent) = operands(5), weights_and_cotangent("come true")
    given["hidden"][:, :, 2] *= 100
    expected_values, expected_gradients = expected(given, cotangent)
    assert expected_values.min() < -100
    for most in (B * V, None):
        values, gradients = solve(in_float32(given), np.float32(cotangent), np.float32(weights), most)
        np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-4)
        for name, gradient in expected_gradients.items():
            tolerance = 1e-4 * np.abs(gradient).max()
            np.testing.assert_allclose(gradients[name], gradient, atol=tolerance, err_msg=name)


@given(sizes=st.tuples(*[st.integers(1, 7)] * 3), vocabulary_size=st.integers(4, 40), most=st.integers(1, 3000))
def test_blocks_cover_every_position_once_and_are_small(sizes, vocabulary_size, most):
    steps, labels, rows = sizes
    seen = np.zeros((steps, labels), int)
    for block in output_layer.blocks(steps, labels, rows, vocabulary_size, most):
        seen[block.steps, block.labels] += 1
        size = seen[block.steps, block.labels].size * rows * vocabulary_size
        assert size <= max(most, rows * vocabulary_size)
    assert (seen == 1).all()
    taken = of_jax.labels_per_block(labels, rows, vocabulary_size, most)
    assert 1 <= taken <= labels
    assert taken == 1 or taken * rows * vocabulary_size <= most


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves(result)
        self.size = max([self.size, *(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))])
        return result


def largest_of(jaxpr: Any) -> int:
    largest = max((variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars), default=0)
    for equation in jaxpr.eqns:
        for parameter in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                largest = max(largest, largest_of(inner))
    return largest


@pytest.mark.parametrize("kind", ["come true", "do not", "unknown"])
@pytest.mark.parametrize("twin", SOLVERS)
def test_no_array_has_the_logits_of_more_than_one_step(twin, kind, monkeypatch):
    monkeypatch.setattr(output_layer, "SMALL", 1)  # or else steps would be kept together that are few numbers
    generator = np.random.default_rng(0)
    many = 500
    given = operands() | {"weight": generator.normal(size=(many, H)), "bias": generator.normal(size=many)}
    given["label_bias"] = None
    weights, cotangent = weights_and_cotangent(kind)
    if twin == "torch":
        with Largest() as counted:
            solve_torch(given, cotangent, weights, None)
        assert counted.size == K * B * many
    else:
        with jax.enable_x64(True):
            leaves = jax.tree.map(jnp.asarray, learning(given))

            def function(leaves, cotangent):
                fixed = {"label_bias": None, **on_device(given, weights)}
                return jax.vjp(lambda leaves: of_jax.symbol_log_probs(**fixed, **leaves), leaves)[1](cotangent)

            assert largest_of(jax.make_jaxpr(function)(leaves, cotangent).jaxpr) == K * B * many


@pytest.mark.parametrize("twin", SOLVERS)
def test_known_weights_spare_a_product(twin):
    def flops(kind: str) -> int:
        given, (weights, cotangent) = operands(), weights_and_cotangent(kind)
        if twin == "torch":
            return torch_flops(lambda: solve_torch(given, cotangent, weights, None))
        with jax.enable_x64(True):
            leaves = jax.tree.map(jnp.asarray, learning(given))

            def function(leaves):
                fixed = on_device(given, weights)
                log_p, back = jax.vjp(lambda leaves: of_jax.symbol_log_probs(**fixed, **leaves), leaves)
                return log_p, back(jnp.asarray(cotangent))

            return jax_flops(function, leaves)

    one = 2 * K * B * T * H * V
    assert flops("come true") == 3 * one
    assert flops("unknown") == 4 * one
