"""What is done with a missing label: exactness, unbiasedness summed out, agreement of the twins, broken variants."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

import seqssvae_jax.gradient_estimators
import seqssvae_jax.inference
import seqssvae_jax.modules
import seqssvae_torch.gradient_estimators
import seqssvae_torch.inference
import seqssvae_torch.modules
from parity_tests.conftest import Check
from parity_tests.ladder import TRAJECTORY_BOUNDS, compare
from parity_tests.sampled import (
    expect_something,
    named,
    problem_with,
    twin_with,
)
from parity_tests.twins import TWINS, JaxTwin
from seqssvae.backend import GivenRows
from seqssvae.checks import verify
from seqssvae.checks.tolerances import BOUNDS, relative_difference
from seqssvae.config import Conditioning

ESTIMATORS: list[tuple[str, dict[str, Any]]] = [
    ("enumerate", {"num_particles": 2, "kind": "mixed"}),
    ("sequential", {"label_gradient": 0.25}),
    ("top_k", {"k": 1}),
    ("top_k", {"k": 2, "num_particles": 2, "label_gradient": 0.25, "kind": "mixed"}),
    ("top_k", {"k": 0, "rest_mass": 0.3}),
    ("gumbel_softmax", {"label_gradient": 0.25}),
    ("score_function", {"baseline": "none"}),
    ("score_function", {"baseline": "average"}),
    ("score_function", {"baseline": "input", "label_gradient": 0.25, "kind": "mixed"}),
]
IDS = [" ".join([name, *(f"{key}={value}" for key, value in given.items())]) for name, given in ESTIMATORS]


@pytest.mark.parametrize(("estimator", "given"), ESTIMATORS, ids=IDS)
def test_the_twins_agree(estimator: str, given: dict[str, Any], check: Check) -> None:
    """Loss, terms and gradients from the same noise."""
    twins = [twin_with(name, estimator, **given) for name in TWINS]
    solutions = [named(twin.solve()) for twin in twins]
    where = f"{twins[0].problem.name} {given}"
    check(compare("estimators, torch and jax, float64", where, *solutions, BOUNDS["float64"]))


WITH_SHARE = [(estimator, given) for estimator, given in ESTIMATORS if "label_gradient" in given]


@pytest.mark.parametrize(("estimator", "given"), WITH_SHARE, ids=[estimator for estimator, _ in WITH_SHARE])
def test_the_share_of_the_gradient_that_reaches_q_y(estimator: str, given: dict[str, Any]) -> None:
    """From that of none in a straight line to that of all of it, with the same loss; jax is as torch is, above."""
    solutions = {}
    for share in (0.0, 0.25, 1.0):
        twin = twin_with("torch", estimator, **{**given, "label_gradient": share})
        unlabelled = twin.problem.unlabelled
        solutions[share] = twin.backend.differentiate(None, GivenRows(unlabelled.batch, unlabelled.noise), 0.3)
    none, some, all_ = solutions.values()
    for key, gradient in none.gradients.items():
        between = gradient + 0.25 * (all_.gradients[key] - gradient)
        assert relative_difference(between, some.gradients[key]) < 1e-12
    assert none.loss == pytest.approx(all_.loss, rel=1e-15)
    assert not none.gradients["classifier.weight"].any()
    assert all_.gradients["classifier.weight"].all()


@pytest.mark.parametrize(
    ("estimator", "given"),
    [pytest.param(*ESTIMATORS[3], marks=pytest.mark.thorough), ESTIMATORS[8]],
    ids=[IDS[3], IDS[8]],
)
def test_the_twins_agree_after_ten_steps(estimator: str, given: dict[str, Any], check: Check) -> None:
    """Weights, averages and what is expected of a row."""
    states = []
    for twin in (twin_with(name, estimator, **given) for name in TWINS):
        twin.train(10, 5e-3)
        states.append({**twin.backend.get_weights(), **twin.backend.get_optimizer_state()})
        twin.restart()
        expect_something(twin)
    bound = TRAJECTORY_BOUNDS["float64"]
    check(compare("estimators, ten steps, torch and jax, float64", f"{estimator} {given}", *states, bound))


@pytest.mark.parametrize(
    "estimator",
    [
        "top_k",
        *(
            pytest.param(name, marks=pytest.mark.thorough)
            for name in ("sequential", "gumbel_softmax", "score_function")
        ),
    ],
)
def test_the_twins_agree_in_float32(estimator: str, check: Check) -> None:
    """Within 1e-5, or what rounding weights to float32 moves times a factor, as in the certificate of a run."""
    problem = problem_with(estimator, k=2)
    exact = TWINS["torch"](problem)
    expect_something(exact)
    wider = verify.sensitivities(exact.backend, *exact.given(), problem.beta, seed=0)
    solutions = []
    for kind in TWINS.values():
        twin = kind(problem, "float32")
        expect_something(twin)
        solutions.append(named(twin.solve()))
    for name in solutions[0]:
        bound = max(BOUNDS["float32"], verify.ROUNDINGS * wider.get("loss" if "." not in name else name, 0.0))
        both = ({name: of[name]} for of in solutions)
        check(compare("estimators, torch and jax, float32", problem.name, *both, bound))


CASES: list[tuple[str, Conditioning]] = [
    ("torch", "init"),
    ("torch", "every_step"),
    ("torch", "output"),
    ("jax", "output"),
]


@pytest.mark.parametrize(("name", "conditioning"), CASES)
def test_sequential_equals_enumerate(name: str, conditioning: Conditioning, check: Check) -> None:
    solutions = [named(twin_with(name, estimator, conditioning).solve()) for estimator in ("enumerate", "sequential")]
    check(compare("sequential and enumerate, float64", f"{name} {conditioning}", *solutions, 1e-9))


@pytest.mark.parametrize("name", ["torch", pytest.param("jax", marks=pytest.mark.thorough)])  # which is torch's, above
def test_particles_are_averaged(name: str, check: Check) -> None:
    for estimator, given in (("enumerate", {"kind": "mixed"}), ("top_k", {"k": 1})):
        twin = TWINS[name](problem_with(estimator, num_particles=2, **given))
        one = TWINS[name](problem_with(estimator, **given))
        every = named(twin.solve())
        singles = []
        for draw in range(2):
            labelled, unlabelled = twin.problem.labelled, twin.problem.unlabelled
            of_labelled = labelled and {**labelled.noise, "z": labelled.noise["z"][draw]}
            of_unlabelled = {key: value[draw] if key in "zy" else value for key, value in unlabelled.noise.items()}
            one.problem = replace(
                one.problem,
                labelled=labelled and labelled._replace(noise=of_labelled),
                unlabelled=unlabelled._replace(noise=of_unlabelled),
            )
            singles.append(named(one.solve()))
        mean = {key: np.asarray(sum(single[key] for single in singles) / 2) for key in every}
        check(compare("particles and their mean, float64", f"{name} {estimator}", mean, every, 1e-9))


def test_the_importance_weighted_bounds_are_the_oracles(name: str, check: Check) -> None:
    """log of the mean over draws of p(y) p(x|y,z) p(z) / q(z|x,y); summed over y not below the ELBO of one draw."""
    twin = twin_with(name, "enumerate", num_particles=2)
    step, config = twin.problem.unlabelled, twin.problem.config
    log_p = np.log(twin.problem.dimensions.label_prior)[:, None]
    log_weights, elbos = [], []
    for draw in range(2):
        rows = step.rows()._replace(noise={**step.noise, "z": step.noise["z"][draw]})
        terms = twin.problem.oracle().unlabelled_terms(rows, 1.0)
        log_weights.append((log_p + terms[-2] - terms[-1]).T)
        elbos.append(terms.elbo)
    real = step.batch.row_mask
    expected = np.where(real[:, None], np.stack(log_weights), 0.0)
    assert (np.logaddexp.reduce(log_weights, axis=2) >= np.array(elbos))[:, real].all()
    rows = twin.rows(step, False)
    if name == "torch":
        weights = seqssvae_torch.inference.log_weights(twin.backend.ssvae, rows, config.objective.num_particles)
        weights = weights.cpu().numpy()
    else:
        with jax.enable_x64(True):
            weights = np.asarray(jax.jit(lambda rows: _jax_log_weights(twin, rows))(rows))
    check(compare("importance weights and oracle, float64", name, {"log": expected}, {"log": weights}, 1e-9))
    drawn = twin.backend.log_weights(step.batch, seed=1, particles=3)
    again = twin.backend.log_weights(step.batch, seed=1, particles=3)
    np.testing.assert_array_equal(drawn, again)
    assert np.isfinite(drawn).all()


def _jax_log_weights(twin: JaxTwin, rows: Any) -> jax.Array:
    return seqssvae_jax.inference.log_weights(twin.backend.ssvae, rows, 2)


def test_k_is_the_least_that_leaves_little(name: str) -> None:
    """The step is that of the k that q(y|x) calls for, of 1, 2 and 4, which is all of them."""
    problem = problem_with("top_k", k=0)
    unlabelled = problem.unlabelled
    rest = {}
    twin = TWINS[name](problem)
    q = -np.sort(-np.exp(twin.backend.classify(unlabelled.batch.x)), -1)[unlabelled.batch.row_mask]
    for k in (1, 2, 4):
        rest[k] = q[:, k:].sum(1).mean()
    for bound, k in ((rest[1] + 1e-9, 1), (rest[1] - 1e-9, 2), (rest[2] - 1e-9, 4), (1e-9, 4)):
        twin = TWINS[name](problem_with("top_k", k=0, rest_mass=bound))
        given = twin_with(name, "top_k", k=k).solve()
        assert twin.solve().loss == twin.solve().loss == pytest.approx(float(given.loss), rel=1e-12)
        if name == "jax":
            assert twin.backend._differentiate._cache_size() == 1  # each k is compiled once


def test_a_baseline_survives_a_file(name: str) -> None:
    twin = twin_with(name, "score_function", baseline="input")
    twin.train(3, 5e-3)
    weights, state = twin.backend.get_weights(), twin.backend.get_optimizer_state()
    assert state["baseline.symbols"].any()
    assert 0.4 < state["baseline.mass"] < 1
    after = {**twin.train(3, 5e-3), **twin.backend.get_optimizer_state()}
    other = TWINS[name](twin.problem)
    other.backend.set_weights(weights)
    other.backend.set_optimizer_state(state)
    again = {**other.train(3, 5e-3), **other.backend.get_optimizer_state()}
    for key, value in after.items():
        np.testing.assert_array_equal(value, again[key])
    twin.restart()
    expect_something(twin)
    missing = {key: value for key, value in state.items() if key != "baseline.symbols"}
    with pytest.raises(ValueError, match=r"baseline\.symbols is missing"):
        other.backend.set_optimizer_state(missing)
