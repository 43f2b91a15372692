"""Which gradient estimators are unbiased, the draws summed out, which is not, and broken variants that are caught."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import seqssvae_jax.gradient_estimators
import seqssvae_jax.inference
import seqssvae_jax.modules
import seqssvae_torch.gradient_estimators
import seqssvae_torch.inference
import seqssvae_torch.modules
from parity_tests.conftest import Check
from parity_tests.ladder import compare
from parity_tests.problems import Arrays, Step
from parity_tests.sampled import (
    LABELS,
    expectation,
    named,
    problem_with,
    single_rows,
    solve,
    twin_with,
)
from parity_tests.twins import TWINS, JaxTwin, TorchTwin
from seqssvae.backend import GivenRows
from seqssvae.checks.tolerances import relative_difference


@pytest.mark.parametrize(
    ("name", "k"),
    [
        *(("torch", k) for k in range(1, LABELS + 1)),
        *(pytest.param("jax", k, marks=pytest.mark.thorough if k > 1 else ()) for k in range(1, LABELS + 1)),
    ],
)
def test_top_k_is_unbiased(name: str, k: int, check: Check) -> None:
    """Of every row: value and gradient, the label that is drawn summed out, the noise of z being that of the label."""
    exact, twin = twin_with(name, "enumerate"), twin_with(name, "top_k", k=k)
    for row in single_rows(twin.problem):
        expected, mean = solve(exact, row, {}), expectation(twin, row, k)
        check(compare(f"top_k with k {k} expected, float64", name, named(expected), named(mean), 1e-9))


def test_top_k_of_a_batch_is_exact_where_nothing_is_left_to_draw(name: str, check: Check) -> None:
    expected = named(twin_with(name, "enumerate").solve())
    for k in (LABELS - 1, LABELS, LABELS + 3) if name == "torch" else (LABELS - 1,):
        solution = named(twin_with(name, "top_k", k=k).solve())
        check(compare("top_k with k of at least K - 1, float64", name, expected, solution, 1e-9))


@pytest.mark.parametrize("baseline", ["none", "input"])
def test_score_function_is_unbiased(name: str, baseline: str, check: Check) -> None:
    """Whatever it expects of a row."""
    exact, twin = twin_with(name, "enumerate"), twin_with(name, "score_function", baseline=baseline)
    for row in single_rows(twin.problem):
        expected, mean = solve(exact, row, {}), expectation(twin, row, 0)
        check(
            compare(f"score_function, baseline {baseline}, expected, float64", name, named(expected), named(mean), 1e-9)
        )


def test_gumbel_softmax_is_biased_and_follows_its_own_formula(name: str) -> None:
    """Its gradient in a bias of the classifier, from derivatives of f in y that the oracle gives.

    y enters linearly through the columns of label weights, so that f at y + e e_k is f with the drawn label's columns
    replaced by themselves plus e times those of k.
    """
    temperature = 0.7
    twin = twin_with(name, "gumbel_softmax")
    problem = twin.problem
    row = next(single_rows(problem))
    noise = problem.unlabelled.noise["y"][:1]
    given = [None, replace_noise(row, {"y": noise})]
    gradient = twin.backend.differentiate(*given, problem.beta, temperature).gradients["classifier.bias"]
    log_q = twin.backend.classify(row.batch.x)[0]
    log_p = np.log(problem.dimensions.label_prior)
    drawn = int((log_q + noise[0]).argmax())
    slopes = np.array([slope_of_f(problem, row, drawn, k) for k in range(LABELS)])
    mixture = np.exp((log_q + noise[0]) / temperature)
    mixture /= mixture.sum()
    q = np.exp(log_q)
    kl = (q * (log_q - log_p)).sum()
    through_y = (slopes * mixture).sum() - slopes
    expected = mixture * through_y / temperature + q * (log_q - log_p - kl)
    assert relative_difference(expected, gradient) < 1e-9
    exact = twin_with(name, "enumerate")
    mean = expectation(twin, row, 0).gradients
    assert relative_difference(solve(exact, row, {}).gradients["classifier.bias"], mean["classifier.bias"]) > 0.01


def replace_noise(row: Step, noise: Arrays) -> GivenRows:
    return GivenRows(row.batch, {**row.noise, **noise})


def slope_of_f(problem: Any, row: Any, drawn: int, k: int, step: float = 1e-30) -> float:
    """The derivative in y's entry k of log p(x|y,z) - beta (log q(z|x,y) - log p(z)), at the label drawn."""
    weights = {name: value.astype(complex) for name, value in problem.weights.items()}
    for name, value in weights.items():
        if name.endswith(("label_weight", "label_bias")):
            value[:, drawn] += 1j * step * value[:, k]
    rows = row.rows()._replace(y=np.array([drawn]), noise={"z": row.noise["z"][drawn]})
    terms = problem.oracle(weights).labelled_terms(rows, problem.beta)
    return float((terms.reconstruction[0] - problem.beta * terms.kl_z[0]).imag / step)


# Broken variants


def _estimators(name: str) -> Any:
    return seqssvae_torch.gradient_estimators if name == "torch" else seqssvae_jax.gradient_estimators


def _without_the_score(patch: pytest.MonkeyPatch, name: str) -> None:
    patch.setattr(_estimators(name), "_gradient_only", lambda value: 0.0 * value)


def _noise_by_place(patch: pytest.MonkeyPatch, name: str) -> None:
    module = seqssvae_torch.modules if name == "torch" else seqssvae_jax.modules
    original = module.noise_of_label

    def by_place(noise: Any, y: Any) -> Any:
        return noise[: len(y)] if noise is not None and noise.ndim == 3 == y.ndim else original(noise, y)

    patch.setattr(module, "noise_of_label", by_place)


def _without_what_the_control_variate_adds(patch: pytest.MonkeyPatch, name: str) -> None:
    kind = _estimators(name).TopKELBO
    original = kind.weights

    def weights(self: Any, log_q: Any, labels: Any) -> Any:
        factors = original(self, log_q, labels)
        if name == "torch":
            return torch.cat([factors[:-1], factors[-1:].detach()])
        return jnp.concatenate([factors[:-1], jax.lax.stop_gradient(factors[-1:])])

    patch.setattr(kind, "weights", weights)


def _weights_that_do_not_sum_to_1(patch: pytest.MonkeyPatch, name: str) -> None:
    kind = _estimators(name).TopKELBO
    original = kind.weights

    def weights(self: Any, log_q: Any, labels: Any) -> Any:
        return original(self, log_q, labels) * 1.01

    patch.setattr(kind, "weights", weights)


DEFECTS = [
    _without_the_score,
    _noise_by_place,
    _without_what_the_control_variate_adds,
    _weights_that_do_not_sum_to_1,
]


PLANTED = [*(("torch", plant) for plant in DEFECTS), *(("jax", plant) for plant in DEFECTS[:2])]


@pytest.mark.parametrize(("name", "plant"), PLANTED, ids=lambda part: getattr(part, "__name__", part))
def test_a_broken_top_k_is_caught(name: str, plant: Any) -> None:
    """The test of unbiasedness notices."""
    exact = twin_with(name, "enumerate")
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, name)
        twin: TorchTwin | JaxTwin = TWINS[name](problem_with("top_k", k=1))
        row = next(single_rows(twin.problem))
        expected, mean = named(solve(exact, row, {})), named(expectation(twin, row, 1))
    assert max(relative_difference(expected[key], mean[key]) for key in expected) > 1e-4
