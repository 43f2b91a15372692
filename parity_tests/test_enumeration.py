"""All labels at once, one label after the other, and observed labels."""

import warnings
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from numpyro.infer import TraceEnum_ELBO as NumPyroTraceEnum
from pyro.infer import TraceEnum_ELBO as PyroTraceEnum

from parity_tests.cases import CASES, case, twin_of_case
from parity_tests.ladder import relative_difference
from parity_tests.problems import Options, make_problem
from parity_tests.twins import TWINS, JaxTwin, TorchTwin
from seqssvae_jax.objectives import LabelledELBO

BETA = 0.3


def _torch_loss_and_gradients(twin: TorchTwin, enumeration: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    ssvae = twin.backend.ssvae
    ssvae.enumeration = enumeration
    rows = twin.rows(twin.problem.unlabelled, False)
    assert rows is not None
    elbo = PyroTraceEnum(max_plate_nesting=1)
    loss = elbo.differentiable_loss(ssvae.model, ssvae.guide, rows.x, None, rows.row_mask, BETA, rows.noise)
    weights = dict(ssvae.named_parameters())
    gradients = torch.autograd.grad(loss, list(weights.values()))
    ssvae.enumeration = "parallel"
    return loss.detach().numpy(), {name: value.numpy() for name, value in zip(weights, gradients, strict=True)}


def _jax_loss_and_gradients(twin: JaxTwin, enumeration: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    with jax.enable_x64(True):
        rows = twin.rows(twin.problem.unlabelled, False)
        assert rows is not None
        key = jax.random.key(0)

        def parallel(weights: dict[str, jax.Array]) -> jax.Array:
            ssvae = twin.backend.ssvae.bind(weights)
            elbo = NumPyroTraceEnum(max_plate_nesting=1)
            return elbo.loss(key, {}, ssvae.model, ssvae.guide, rows.x, None, rows.row_mask, BETA, rows.noise)

        def sequential(weights: dict[str, jax.Array]) -> jax.Array:
            """NumPyro has no sequential enumeration: the labelled objective, one observed label after the other."""
            ssvae = twin.backend.ssvae.bind(weights)
            log_q_y = ssvae.classifier(ssvae.encoder(rows.x, rows.noise)).logits
            loss = (jax.numpy.exp(log_q_y) * log_q_y).sum()  # minus the entropy
            for label in range(ssvae.label_count):
                y = jax.numpy.full(len(rows.x), label)
                arguments = (rows.x, y, rows.row_mask, BETA, rows.noise)
                _, terms = LabelledELBO().loss_and_terms(key, {}, ssvae.model, ssvae.guide, *arguments)
                rest = terms.reconstruction - BETA * terms.kl_z - terms.kl_y
                loss = loss - (jax.numpy.exp(log_q_y[:, label]) * rest).sum()
            return loss

        function = parallel if enumeration == "parallel" else sequential
        loss, gradients = jax.jit(jax.value_and_grad(function))(twin.backend.state.weights)
        return np.asarray(loss), {name: np.asarray(value) for name, value in gradients.items()}


@pytest.mark.parametrize("options", CASES, ids=str)
def test_sequential_equals_parallel(name: str, options: Any) -> None:
    solve = _torch_loss_and_gradients if name == "torch" else _jax_loss_and_gradients
    twin = twin_of_case(name, *options)
    loss, gradients = solve(twin, "parallel")
    loss_one_by_one, gradients_one_by_one = solve(twin, "sequential")
    assert relative_difference(loss, loss_one_by_one) < 1e-12
    assert max(relative_difference(gradients[key], gradients_one_by_one[key]) for key in gradients) < 1e-9


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
