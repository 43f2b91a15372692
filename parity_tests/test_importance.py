"""Importance weights, and what they are made of: in both twins, against the oracle and against all there is to sum."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from parity_tests.conftest import Check
from parity_tests.findings import compare
from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import TWINS
from seqssvae.backend import Batch
from seqssvae.data.vocabulary import END, PAD, UNK
from seqssvae.inference.likelihood import row_likelihood

PROBLEMS = {
    "gru every_step": make_problem(Options(conditioning="every_step", kind="unlabelled"), seed=60),
    "lstm output source": make_problem(Options(cell="lstm", source=True, kind="unlabelled"), seed=61),
    "convolution context": make_problem(Options(encoder="convolution", context=1, kind="unlabelled"), seed=62),
}
DRAWS = 400


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_latents_and_likelihoods_of_every_label_are_the_oracles(problem: Problem, check: Check) -> None:
    oracle, batch = problem.oracle(), problem.unlabelled.batch
    loc, scale = (np.moveaxis(part, 0, 1) for part in oracle.posterior(batch.x, None, batch.source))
    z = np.random.default_rng(0).normal(size=loc.shape)
    log_p = oracle.step_log_probabilities(batch.x, np.moveaxis(z, 1, 0), None, batch.source).sum(-1).T
    expected = {"loc": loc, "scale": scale, "prior_loc": np.zeros_like(loc), "prior_scale": np.ones_like(loc)}
    if batch.source is not None:
        priors = [[oracle.networks.latent_predictor(oracle.source(batch.source, None, b), k) for k in range(3)]
                  for b in range(len(batch.x))]  # fmt: skip
        expected["prior_loc"], expected["prior_scale"] = np.moveaxis(np.array(priors), 2, 0)
    for name in TWINS:
        backend = TWINS[name](problem).backend
        computed = backend.latents(batch.x, batch.source)._asdict()
        computed["log p(x|y,z)"] = backend.log_likelihood(batch.x, z, batch.source)
        computed["features"] = backend.encode(batch.x, batch.source, features=True)
        others = {"log p(x|y,z)": log_p, "features": oracle.features(batch.x, None, batch.source)[0]}
        check(compare("latents, float64", name, {**expected, **others}, computed, 1e-9))


@pytest.fixture(scope="module")
def every() -> np.ndarray:
    """All sequences of at most three symbols END included, and all that go on after three: (N, 3)."""
    symbols = [UNK, 4, 5, 6, 7, 8]
    whole = [(*row, END) for length in range(3) for row in itertools.product(symbols, repeat=length)]
    rows = whole + list(itertools.product(symbols, repeat=3))
    return np.array([row + (PAD,) * (3 - len(row)) for row in rows], np.int32)


def broad(problem: Problem) -> Problem:
    """The problem with a q(z|x,y) that is wider than p(z|x,y): with a narrow one, few draws may miss most of it."""
    weights = {name: 0.2 * value if "latent_encoder" in name else value for name, value in problem.weights.items()}
    weights["latent_encoder.scale.bias"] = np.full_like(weights["latent_encoder.scale.bias"], 1.2)
    return replace(problem, weights=weights)


def quadrature(problem: Problem, x: np.ndarray, points: int = 24) -> np.ndarray:
    """log p(x) with z summed out by Gauss and Hermite's rule: (N,)."""
    backend = TWINS["torch"](problem).backend
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    log_weights, prior = np.log(weights / weights.sum()), np.log(problem.dimensions.label_prior)
    parts = []
    for first, second in itertools.product(range(points), repeat=2):
        z = np.broadcast_to(np.array([nodes[first], nodes[second]]), (len(x), len(prior), 2))
        log_joint = backend.log_likelihood(x, z) + prior
        parts.append(np.logaddexp.reduce(log_joint, axis=1) + log_weights[first] + log_weights[second])
    return np.logaddexp.reduce(parts)


@pytest.fixture(scope="module")
def exact(every: np.ndarray) -> np.ndarray:
    """log p(x) of each of them: (N,)."""
    return quadrature(broad(PROBLEMS["gru every_step"]), every)


@pytest.mark.parametrize("name", TWINS)
def test_the_likelihood_is_that_of_the_sum_over_everything(name: str, every: np.ndarray, exact: np.ndarray) -> None:
    """Probabilities of all sequences sum to 1, and importance sampling finds each of them within its error."""
    problem = broad(PROBLEMS["gru every_step"])
    assert np.exp(exact).sum() == pytest.approx(1.0, abs=1e-9)
    weights = TWINS[name](problem).backend.log_weights(_rows(every), 3, DRAWS)
    likelihood = row_likelihood(weights)
    away = (likelihood.log_p - exact) / likelihood.standard_error
    assert np.abs(away).max() < 5
    assert np.sqrt(np.mean(away**2)) == pytest.approx(1.0, abs=0.2)
    total_error = np.sqrt(np.sum((np.exp(exact) * likelihood.standard_error) ** 2))
    assert abs(np.exp(likelihood.log_p).sum() - 1) < 4 * total_error
    assert (likelihood.effective_samples <= DRAWS).all()
    assert (likelihood.effective_samples > 1).all()
    # a likelihood without the density of q, which is wrong, is far away
    wrong = row_likelihood(weights + np.random.default_rng(0).normal(size=weights.shape) ** 2)
    assert (np.abs(wrong.log_p - exact) > 5 * wrong.standard_error).mean() > 0.5


def _rows(x: np.ndarray) -> Batch:
    return Batch(x, np.full(len(x), -1, np.int32), np.ones(len(x), bool), np.arange(len(x)))
