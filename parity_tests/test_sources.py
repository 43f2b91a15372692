"""Sequences that are made from a source: what the ladder's problems with a source leave to be shown."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import seqssvae_jax.decoder
import seqssvae_torch.decoder
from parity_tests.conftest import Check
from parity_tests.ladder import (
    check_gradients_with_oracle,
    check_objective,
    check_predictions,
    check_searches,
    check_trajectories,
    climb,
    compare,
)
from parity_tests.problems import Options, Problem, make_problem
from parity_tests.sampled import expectation, named, single_rows, solve, twin_with
from parity_tests.twins import TWINS, JaxTwin, TorchTwin
from seqssvae.checks.tolerances import BOUNDS
from seqssvae.config import DecodingOptions

ESTIMATORS: list[tuple[str, dict[str, Any]]] = [
    ("sequential", {}),
    ("top_k", {"k": 2}),
    ("gumbel_softmax", {}),
    ("score_function", {}),
]


@cache
def problem() -> Problem:
    """Rows of both kinds, with dropout and a filler row."""
    options = Options(conditioning="every_step", source=True, dropout=0.3, word_dropout=0.4, separate=True)
    return make_problem(options, seed=41, name="source")


@cache
def without_labels() -> Problem:
    """Its unlabelled rows alone: p(y|source) and p(z|source,y) count there, and half as much is to be compiled."""
    return replace(problem(), labelled=None)


@cache
def sound_without_labels(name: str) -> TorchTwin | JaxTwin:
    """A twin of these."""
    return TWINS[name](without_labels())


@cache
def sound(name: str) -> TorchTwin | JaxTwin:
    """A twin of it."""
    return TWINS[name](problem())


def pair() -> Any:
    """Both twins."""
    return [sound(name) for name in TWINS]


def test_every_rung_above_the_objective_holds(check: Check) -> None:
    """Predictions, p(y|source) among them; searches; weights after ten steps."""
    twins: Any = [sound_without_labels(name) for name in TWINS]
    check(climb(without_labels(), *twins, (check_objective, check_predictions, check_searches, check_trajectories)))


SEARCHES = [
    Options(conditioning="output", source=True),
    Options(conditioning="init", source=True, cell="lstm", decoder_layers=2),
    Options(conditioning="output", source=True, attention=False),
    Options(conditioning="every_step", source=True, attention=False, decoder_layers=2),
]


@pytest.mark.parametrize("options", SEARCHES, ids=lambda one: f"{one.conditioning} {one.cell} {one.attention}")
def test_symbols_are_chosen_step_by_step_as_the_oracle_does(options: Options, check: Check) -> None:
    """Sequences decoded symbol by symbol, with every way in which a source enters."""
    searched = make_problem(options, seed=43, name=f"search {options.conditioning}")
    torch_twin, jax_twin = (TWINS[name](searched) for name in TWINS)
    check(check_searches(searched, torch_twin, jax_twin))


def test_the_importance_bound_is_above_the_elbo(name: str) -> None:
    twin, batch = sound(name), problem().unlabelled.batch
    weights = twin.backend.log_weights(batch, 0, 200)
    bounds = np.logaddexp.reduce(weights) - np.log(200)
    many = np.logaddexp.reduce(bounds, axis=1)
    elbo = np.mean([sum_of(twin.backend.evaluate(batch, seed).terms) for seed in range(20)], 0)
    assert (many > elbo)[batch.row_mask].all()
    assert not weights[:, ~batch.row_mask].any()


def sum_of(terms: Any) -> np.ndarray:
    """The ELBO at beta 1."""
    return terms.reconstruction - terms.kl_z - terms.kl_y


@pytest.mark.thorough  # the ladder has it along a direction, for problems with a source too
def test_gradient_of_every_weight(check: Check) -> None:
    """By the complex step: those of p(y|source) and p(z|source,y) come through the KL terms alone."""
    check(check_gradients_with_oracle(problem(), *((twin, twin.solve()) for twin in pair())))


@pytest.mark.parametrize(("estimator", "given"), ESTIMATORS, ids=[name for name, _ in ESTIMATORS])
def test_the_twins_agree_on_estimates(estimator: str, given: dict[str, Any], check: Check) -> None:
    solutions = [named(twin_with(name, estimator, source=True, **given).solve()) for name in TWINS]
    check(compare("estimators with a source, torch and jax, float64", estimator, *solutions, BOUNDS["float64"]))


def test_sequential_equals_enumerate(name: str, check: Check) -> None:
    solutions = [named(twin_with(name, way, source=True).solve()) for way in ("enumerate", "sequential")]
    check(compare("sequential and enumerate with a source, float64", name, *solutions, 1e-9))


@pytest.mark.parametrize("name", ["torch", pytest.param("jax", marks=pytest.mark.thorough)])
def test_top_k_is_unbiased(name: str, check: Check) -> None:
    """The KL of y to p(y|source) included."""
    exact, twin = twin_with(name, "enumerate", source=True), twin_with(name, "top_k", source=True, k=2)
    for row in single_rows(twin.problem):
        expected, mean = named(solve(exact, row, {})), named(expectation(twin, row, 2))
        check(compare("top_k with a source, expected, float64", name, expected, mean, 1e-9))


def test_rows_hear_their_own_source_alone(name: str) -> None:
    batch = problem().unlabelled.batch
    z = np.random.default_rng(0).normal(size=(3, len(batch.x), 2))
    other = batch.source.copy()
    other[1, 0] = 4 if other[1, 0] != 4 else 5
    before, after = (sound(name).outputs(batch.x, z, source) for source in (batch.source, other))
    for old, new, axis in (
        (before.log_q_y, after.log_q_y, 0),
        (before.loc, after.loc, 1),
        (before.log_prob_steps, after.log_prob_steps, 1),
    ):
        changed = (old != new).any(axis=tuple(i for i in range(old.ndim) if i != axis))
        np.testing.assert_array_equal(changed, np.arange(len(batch.x)) == 1)


def test_a_typical_sequence_is_that_of_the_mean_of_z(name: str) -> None:
    """And z is drawn around it otherwise, differently for each seed, with p(z|source,y)'s scale."""
    twin, oracle, batch = sound(name), problem().oracle(), problem().labelled.batch
    source, y = batch.source[:2], np.array([2, 0], np.int32)
    encoded = [oracle.source(source, None, b) for b in range(2)]
    mean = np.array([oracle.networks.latent_predictor(encoded[b], int(y[b]))[0] for b in range(2)])
    given = twin.backend.generate(y, DecodingOptions(6, "greedy"), 0, z=mean, source=source)
    mean_decoded = twin.backend.generate(y, DecodingOptions(6, "greedy"), 0, source=source, use_mean=True)
    np.testing.assert_array_equal(mean_decoded[0], given[0])
    np.testing.assert_allclose(mean_decoded[1], given[1], rtol=1e-9)
    np.testing.assert_allclose(mean_decoded[1], oracle.log_prob(mean_decoded[0], y, mean, source), rtol=1e-9)
    drawn = [twin.backend.generate(y, DecodingOptions(6, "greedy"), seed, source=source)[1] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])


def test_a_source_must_be_given_where_there_is_one_and_nowhere_else(name: str) -> None:
    x = problem().labelled.batch.x
    with pytest.raises(ValueError, match="the model has sources: give source"):
        sound(name).backend.classify(x)
    without = TWINS[name](make_problem(Options(), seed=1))
    with pytest.raises(ValueError, match="the model has no sources: give none"):
        without.backend.classify(x, problem().labelled.batch.source)


def _of_padding_as_well(name: str) -> Any:
    attention = {"torch": seqssvae_torch, "jax": seqssvae_jax}[name].decoder.Attention
    method = "forward" if name == "torch" else "__call__"
    original, ones = getattr(attention, method), {"torch": torch.ones_like, "jax": jnp.ones_like}[name]
    return (
        attention,
        method,
        lambda self, states, memory: original(self, states, memory._replace(mask=ones(memory.mask))),
    )


def _prior_of_the_label_alone(name: str) -> Any:
    model = {"torch": seqssvae_torch, "jax": seqssvae_jax}[name].model.SSVAE
    original = model.label_prior
    return model, "label_prior", lambda self, source=None, *more: original(self)


def _standard_normal_z(name: str) -> Any:
    model = {"torch": seqssvae_torch, "jax": seqssvae_jax}[name].model.SSVAE
    original = model.latent_prior
    return model, "latent_prior", lambda self, source=None, y=None, *more: original(self)


def _source_of_the_next_row(name: str) -> Any:
    decoder = {"torch": seqssvae_torch, "jax": seqssvae_jax}[name].decoder.Decoder
    original, roll = decoder.remember, {"torch": torch.roll, "jax": jnp.roll}[name]

    def remember(self: Any, source: Any) -> Any:
        return original(self, jax.tree.map(lambda part: roll(part, 1, 0), source))

    return decoder, "remember", remember


def test_nothing_is_found_where_nothing_is_broken(check: Check) -> None:
    check(check_objective(without_labels(), *(sound_without_labels(name) for name in TWINS)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "defect", [_of_padding_as_well, _prior_of_the_label_alone, _standard_normal_z, _source_of_the_next_row]
)
def test_a_broken_variant_is_found(name: str, defect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, broken = defect(name)
    monkeypatch.setattr(owner, attribute, broken)
    broken_twin = TWINS[name](without_labels())
    twins: Any = [broken_twin if other == name else sound_without_labels(other) for other in TWINS]
    findings = check_objective(without_labels(), *twins)
    assert not all(one.holds for one in findings), f"{defect.__name__} in {name} went unnoticed"
