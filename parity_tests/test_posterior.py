"""Labels that are weighted by another posterior than q(y|x): a tighter bound, its gradient, and what is given."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import TWINS, JaxTwin, TorchTwin
from seqssvae.backend import NO_LABEL, Batch, Derivatives, GivenRows
from seqssvae.data.vocabulary import PAD

OPTIONS = Options(context=1, kind="unlabelled", label_count=3, filler=False)
CERTAIN = np.eye(3)


@cache
def problem_of(posterior: Any) -> Problem:
    """A small problem, whose networks cost little, without a term of distillation."""
    problem = make_problem(replace(OPTIONS, posterior=posterior), seed=31)
    objective = replace(problem.config.objective, distillation=0.0)
    return replace(problem, config=replace(problem.config, objective=objective))


@cache
def twin_of(name: str, posterior: str) -> TorchTwin | JaxTwin:
    """A twin of it."""
    return TWINS[name](problem_of(posterior))


def first_row() -> Batch:
    """A batch that has one row, and filler rows."""
    step = problem_of("exact").unlabelled
    assert step is not None
    real = np.arange(len(step.batch.x)) == 0
    x, rows = np.where(real[:, None], step.batch.x, PAD), np.where(real, 0, -1)
    return Batch(x, np.full(len(x), NO_LABEL, np.int32), real, rows)


def solve(name: str, posterior: str, seed: int, batch: Batch, r: np.ndarray | None = None) -> Derivatives:
    """Terms and gradients with other weights and noise, a function of the seed."""
    backend, problem, generator = twin_of(name, posterior).backend, problem_of(posterior), np.random.default_rng(seed)
    scale = generator.choice((0.1, 0.5, 1.0))
    backend.set_weights({key: generator.normal(0.0, scale, value.shape) for key, value in problem.weights.items()})
    assert problem.unlabelled is not None
    noise = {"z": generator.normal(size=problem.unlabelled.noise["z"].shape)}
    return backend.differentiate(None, GivenRows(replace(batch, posterior=r), noise), problem.beta)


def elbo(derivatives: Derivatives) -> np.ndarray:
    """The bound of each row."""
    terms = derivatives.unlabelled
    assert terms is not None
    return terms.reconstruction - OPTIONS.beta * terms.kl_z - terms.kl_y


@pytest.mark.parametrize("name", ["torch", "jax"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_the_exact_bound_is_the_tightest_and_q_s_own_is_the_amortised(name: str, seed: int) -> None:
    step = problem_of("exact").unlabelled
    assert step is not None
    amortised, exact = (solve(name, posterior, seed, step.batch) for posterior in ("amortised", "exact"))
    assert (elbo(exact) >= elbo(amortised) - 1e-9).all()
    assert exact.loss == pytest.approx(-elbo(exact).mean(), rel=1e-9)
    q = np.exp(twin_of(name, "exact").backend.classify(step.batch.x))
    of_q = solve(name, "given", seed, step.batch, q)
    np.testing.assert_allclose(elbo(of_q), elbo(amortised), rtol=1e-9, atol=1e-9)
    assert of_q.unlabelled is not None
    np.testing.assert_allclose(of_q.unlabelled.distillation, -(q * np.log(q)).sum(1), rtol=1e-9)


@pytest.mark.parametrize("name", ["torch", "jax"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=5)
def test_the_exact_bound_is_the_logarithm_of_a_sum_and_has_its_gradient(name: str, seed: int) -> None:
    batch = first_row()
    exact = solve(name, "exact", seed, batch)
    certain = [solve(name, "given", seed, batch, np.tile(row, (len(batch.x), 1))) for row in CERTAIN]
    of_labels = np.array([elbo(of_label)[0] for of_label in certain])  # L(x, y): there is one label, and no entropy
    assert exact.loss == pytest.approx(-logsumexp(of_labels), rel=1e-9)
    assert not elbo(exact)[1:].any()
    for key, gradient in exact.gradients.items():
        expected = sum(r * of_label.gradients[key] for r, of_label in zip(softmax(of_labels), certain, strict=True))
        np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-10)
    assert not exact.gradients["classifier.weight"].any()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_rows_without_a_posterior_are_refused_where_one_is_to_be_given(name: str) -> None:
    with pytest.raises(ValueError, match=r"the rows have no posterior: give one as Batch\.posterior\."):
        solve(name, "given", 0, first_row())
