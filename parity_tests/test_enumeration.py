"""The frameworks' own estimators: all labels at once, one label after the other, and observed labels."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from numpyro.infer import TraceEnum_ELBO as NumPyroTraceEnum
from pyro import poutine
from pyro.infer import TraceEnum_ELBO as PyroTraceEnum

from parity_tests.cases import CASES, case, twin_of_case
from parity_tests.conftest import Check
from parity_tests.derivatives import complex_step_derivative
from parity_tests.ladder import compare, relative_difference
from parity_tests.problems import Options, make_problem
from parity_tests.twins import TWINS, JaxTwin, TorchTwin
from seqssvae_jax.elbo import LabelledELBO

BETA = 0.3


def _torch_loss_and_gradients(twin: TorchTwin, enumeration: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    ssvae = twin.backend.ssvae
    rows = twin.rows(twin.problem.unlabelled, False)
    assert rows is not None
    elbo = PyroTraceEnum(max_plate_nesting=1)
    guide = poutine.infer_config(ssvae.guide, lambda site: {"enumerate": enumeration} if site["name"] == "y" else {})
    loss = elbo.differentiable_loss(ssvae.model, guide, rows.x, None, None, BETA, rows.noise)
    weights = dict(ssvae.named_parameters())
    gradients = torch.autograd.grad(loss, list(weights.values()))
    named = zip(weights, gradients, strict=True)
    return loss.detach().cpu().numpy(), {name: value.cpu().numpy() for name, value in named}


def _jax_loss_and_gradients(twin: JaxTwin, enumeration: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with jax.enable_x64(True):
        rows = twin.rows(twin.problem.unlabelled, False)
        assert rows is not None
        key = jax.random.key(0)

        def parallel(weights: dict[str, jax.Array]) -> jax.Array:
            ssvae = twin.backend.bound(weights)
            elbo = NumPyroTraceEnum(max_plate_nesting=1)
            return elbo.loss(key, {}, ssvae.model, ssvae.guide, rows.x, None, None, BETA, rows.noise)

        def sequential(weights: dict[str, jax.Array]) -> jax.Array:
            """NumPyro has no sequential enumeration: the labelled objective, one observed label after the other."""
            ssvae = twin.backend.bound(weights)
            log_q_y = ssvae.classifier(ssvae.encode(rows.x, None, rows.noise)).logits
            loss = (jax.numpy.exp(log_q_y) * log_q_y).sum()  # minus the entropy
            for label in range(ssvae.label_count):
                y = jax.numpy.full(len(rows.x), label)
                programs = (ssvae.model, ssvae.guide, rows.x, y, None, BETA, rows.noise)
                _, terms = LabelledELBO().loss_and_terms(rows.row_mask, key, {}, *programs)
                rest = terms.reconstruction - BETA * terms.kl_z - terms.kl_y
                loss = loss - (jax.numpy.exp(log_q_y[:, label]) * rest).sum()
            return loss

        function = parallel if enumeration == "parallel" else sequential
        loss, gradients = jax.jit(jax.value_and_grad(function))(twin.backend.state.weights)
        return np.asarray(loss), {name: np.asarray(value) for name, value in gradients.items()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("torch", options) for options in CASES),
        *(pytest.param("jax", options, marks=pytest.mark.thorough) for options in CASES[:2]),
        ("jax", CASES[2]),
    ],
    ids=str,
)
def test_both_equal_the_oracle_and_each_other(name: str, options: Any, check: Check) -> None:
    solve, framework = {"torch": (_torch_loss_and_gradients, "Pyro"), "jax": (_jax_loss_and_gradients, "NumPyro")}[name]
    problem, twin = case(*options), twin_of_case(name, *options)
    assert problem.unlabelled is not None
    rows = problem.unlabelled.rows()

    def oracle(weights: Mapping[str, np.ndarray]) -> np.ndarray:
        return -problem.oracle(weights).unlabelled_terms(rows, BETA).elbo.sum()

    def along(gradients: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(sum((gradients[key] * direction[key]).sum() for key in direction))

    generator = np.random.default_rng(1)
    direction = {key: generator.normal(size=value.shape) for key, value in problem.weights.items()}
    slope = np.asarray(complex_step_derivative(oracle, problem.weights, direction))
    expected = {"loss": oracle(problem.weights), "slope along a direction": slope}
    loss, gradients = solve(twin, "parallel")
    one_by_one = solve(twin, "sequential")
    of_framework = {"loss": loss, "slope along a direction": along(gradients)}
    check(compare(f"TraceEnum_ELBO of {framework} and oracle, float64", problem.name, expected, of_framework, 1e-9))
    rung = f"TraceEnum_ELBO of {framework}, parallel and sequential, float64"
    check(compare(rung, problem.name, {"loss": loss, **gradients}, {"loss": one_by_one[0], **one_by_one[1]}, 1e-9))


def test_observed_labels_enumerate_nothing_and_warn_of_nothing(name: str) -> None:
    options = replace(case(*CASES[2]).options, kind="labelled")
    twin = TWINS[name](make_problem(options, seed=3))
    shapes = []
    decoder = type(twin.backend.ssvae.decoder)
    method = "forward" if name == "torch" else "__call__"
    original = getattr(decoder, method)

    def spy(self: Any, y: Any, z: Any, *rest: Any) -> Any:
        shapes.append((y.shape, z.shape))
        return original(self, y, z, *rest)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(decoder, method, spy)
        solution = twin.solve()
    assert np.isfinite(solution.loss)
    assert {len(y) for y, _ in shapes} == {2}
    assert {tuple(z) for _, z in shapes} == {(3, 2)}


@pytest.mark.parametrize("name", ["torch", pytest.param("jax", marks=pytest.mark.thorough)])  # as in the ladder
def test_the_share_of_the_gradient_that_reaches_q_y(name: str) -> None:
    """The loss is the same; the gradient goes from that of labels alone to that of the ELBO in a straight line."""
    solutions = {}
    for share in (0.0, 0.25, 1.0):
        options = Options(conditioning="output", kind="unlabelled", label_gradient=share)
        solutions[share] = TWINS[name](make_problem(options, seed=3)).solve()
    none, some, all_ = solutions.values()
    assert none.loss == pytest.approx(all_.loss, rel=1e-15)
    for key, gradient in none.gradients.items():
        between = gradient + 0.25 * (all_.gradients[key] - gradient)
        assert relative_difference(between, some.gradients[key]) < 1e-12
    assert not none.gradients["classifier.weight"].any()
    assert all_.gradients["classifier.weight"].all()
