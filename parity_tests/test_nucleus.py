"""Temperature and nucleus in both twins: against plain loops, by their definition, and by what is drawn."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Float
from scipy.stats import chisquare

from parity_tests.arithmetic import log_softmax
from parity_tests.cases import case, twin_of_case
from parity_tests.decoding import nucleus as expected_nucleus
from parity_tests.test_compilations import compiled
from seqssvae.config import DecodingOptions
from seqssvae.data.vocabulary import NEVER_GENERATED
from seqssvae_jax.distributions import nucleus as jax_nucleus
from seqssvae_torch.distributions import nucleus as torch_nucleus

V = 7
Nucleus = Callable[[Float[np.ndarray, "N V"], float, float], Float[np.ndarray, "N V"]]
CASE = ("gru", "output", 1)

_compiled = jax.jit(jax_nucleus)


def by_torch(logits: Any, temperature: float, top_p: float) -> Any:
    return torch_nucleus(torch.from_numpy(logits), temperature, top_p).numpy()


def by_jax(logits: Any, temperature: float, top_p: float) -> Any:
    with jax.enable_x64(True):
        return np.asarray(_compiled(logits, temperature, top_p))


NUCLEI: dict[str, Nucleus] = {"torch": by_torch, "jax": by_jax}
logits_of_rows = arrays(np.float64, (3, V), elements=st.integers(-200, 200).map(lambda tenths: tenths / 10))
temperatures = st.floats(0.05, 20)
shares = st.floats(0.01, 1.0)


def far_from_ties(logits: Float[np.ndarray, "N V"], temperature: float, top_p: float) -> bool:
    """Whether no sum of probabilities is within rounding of `top_p`, where the last digit would decide."""
    scaled = np.exp([log_softmax(row / temperature) for row in logits])
    reached = np.cumsum(-np.sort(-scaled, axis=1), axis=1)
    return top_p == 1 or bool((abs(reached - top_p) > 1e-9).all())


def check_definition(nucleus: Nucleus, logits: Float[np.ndarray, "N V"], temperature: float, top_p: float) -> None:
    """Assert that the kept symbols are the fewest most probable ones that reach `top_p`, and their proportions."""
    for row, kept in zip(logits, np.exp(nucleus(logits, temperature, top_p)), strict=True):
        whole = np.exp(log_softmax(row / temperature))
        inside = kept > 0
        assert inside.any()
        assert kept.sum() == pytest.approx(1.0)
        assert whole[inside].sum() >= top_p - 1e-12
        assert whole[inside].sum() - whole[inside].min() < top_p
        assert whole[inside].min() >= whole[~inside].max(initial=0.0)
        np.testing.assert_allclose(kept[inside], whole[inside] / whole[inside].sum(), rtol=1e-9)


@pytest.mark.parametrize("name", NUCLEI)
@settings(max_examples=60, deadline=None)
@given(logits=logits_of_rows, temperature=temperatures, top_p=shares)
def test_it_is_what_plain_loops_make_of_it(name: str, logits: Any, temperature: float, top_p: float) -> None:
    logits[:, [0, 2]] = -np.inf
    assume(far_from_ties(logits, temperature, top_p))
    expected = np.array([expected_nucleus(row, temperature, top_p) for row in logits])
    nucleus = NUCLEI[name](logits, temperature, top_p)
    assert ((nucleus == -np.inf) == (expected == -np.inf)).all()
    np.testing.assert_allclose(nucleus, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NUCLEI)
@settings(max_examples=60, deadline=None)
@given(logits=logits_of_rows, temperature=temperatures, top_p=st.floats(0.01, 0.999))
def test_the_fewest_symbols_that_reach_top_p_are_kept(name: str, logits: Any, temperature: float, top_p: float) -> None:
    assume(far_from_ties(logits, temperature, top_p))
    check_definition(NUCLEI[name], logits, temperature, top_p)


def without_the_last(logits: Any, temperature: float, top_p: float) -> Any:
    """A nucleus that leaves out the symbol by which `top_p` is reached."""
    ordered, order = (torch.from_numpy(logits) / temperature).sort(-1, descending=True)
    below = ordered.softmax(-1).cumsum(-1) < top_p
    below[..., 0] = True
    return torch.full_like(ordered, -torch.inf).scatter(-1, order, ordered.where(below, -torch.inf)).log_softmax(-1)


def temperature_last(logits: Any, temperature: float, top_p: float) -> Any:
    """A temperature that is applied to what the nucleus at temperature 1 keeps."""
    return torch_nucleus(torch_nucleus(torch.from_numpy(logits), 1.0, top_p), temperature, 1.0)


def not_normalised(logits: Any, temperature: float, top_p: float) -> Any:
    """The kept symbols with the probabilities that they had among all."""
    kept = torch_nucleus(torch.from_numpy(logits), temperature, top_p)
    return torch_nucleus(torch.from_numpy(logits), temperature, 1.0).where(kept > -torch.inf, -torch.inf)


@pytest.mark.parametrize("broken", [without_the_last, temperature_last, not_normalised])
def test_a_broken_nucleus_is_caught(broken: Nucleus) -> None:
    logits = np.log([[0.05, 0.3, 0.1, 0.15, 0.2, 0.15, 0.05]])
    for nucleus in NUCLEI.values():
        check_definition(nucleus, logits, 2.0, 0.6)
    with pytest.raises(AssertionError):
        check_definition(lambda *given: broken(*given).numpy(), logits, 2.0, 0.6)


@pytest.mark.parametrize("name", NUCLEI)
def test_by_hand(name: str) -> None:
    nucleus, equal = NUCLEI[name], np.zeros((1, 4))
    assert np.exp(nucleus(equal, 1.0, 0.5)).tolist() == [[0.5, 0.5, 0, 0]]  # of equals, the lower ids
    assert np.exp(nucleus(equal, 1.0, 1e-300)).tolist() == [[1, 0, 0, 0]]  # at least one
    halves = np.log([[0.1, 0.2, 0.4, 0.3]])
    np.testing.assert_allclose(np.exp(nucleus(halves, 1.0, 0.65)), [[0, 0, 4 / 7, 3 / 7]], rtol=1e-12)
    np.testing.assert_allclose(np.exp(nucleus(halves, 0.5, 1.0)), np.array([[1, 4, 16, 9]]) / 30, rtol=1e-12)
    # squared: .03, .13, .53, .30: with the temperature first .5 is reached by one symbol
    np.testing.assert_allclose(np.exp(nucleus(halves, 0.5, 0.5)), [[0, 0, 1, 0]], rtol=1e-12)


@pytest.mark.parametrize("name", NUCLEI)
def test_the_least_temperature_is_the_argmax_and_the_greatest_is_none(name: str) -> None:
    logits = np.array([[0.0, 0.1, -np.inf, 0.05, 0.0999999, -5.0, 3.0], [2.0, 1.0, -np.inf, 0, 0, 0, 0]])
    for temperature in (1e-300, 1e-30, 1e-9):
        assert np.exp(NUCLEI[name](logits, temperature, 1.0)).argmax(1).tolist() == [6, 0]
        np.testing.assert_allclose(np.exp(NUCLEI[name](logits, temperature, 0.9)).max(1), 1.0)
    for temperature in (1e30, 1e300):
        np.testing.assert_allclose(np.exp(NUCLEI[name](logits, temperature, 1.0))[0, [0, 2, 6]], [1 / 6, 0, 1 / 6])


@cache
def drawn(name: str, temperature: float, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """The first symbols of many sequences of one y and z, and their log-probabilities by the model."""
    y, z = np.ones(5000, np.int32), np.tile([0.4, -0.9], (5000, 1))
    options = DecodingOptions(1, temperature=temperature, top_p=top_p, allow_unknown=True)
    x, log_prob = twin_of_case(name, *CASE).backend.generate(y, options, 5, z=z)
    return x, log_prob


def expected_first(temperature: float, top_p: float) -> Float[np.ndarray, " V"]:
    """What they should follow."""
    log_probabilities = case(*CASE).oracle().next_log_probabilities((), 1, np.array([0.4, -0.9]))
    return np.exp(expected_nucleus(log_probabilities, temperature, top_p))


STEERED = [(1.0, 1.0), (0.4, 1.0), (1.0, 0.7), (2.5, 0.8)]


def p_value(x: np.ndarray, expected: Float[np.ndarray, " V"]) -> float:
    """That of Pearson's chi-squared test that first symbols follow a distribution; 0 if one of them could not be."""
    counts = np.bincount(x[:, 0], minlength=len(expected))
    possible = expected > 0
    return 0.0 if counts[~possible].any() else chisquare(counts[possible], expected[possible] * len(x)).pvalue


@pytest.mark.parametrize(("temperature", "top_p"), STEERED)
def test_samples_follow_it(name: str, temperature: float, top_p: float) -> None:
    assert p_value(drawn(name, temperature, top_p)[0], expected_first(temperature, top_p)) > 1e-3
    others = [steered for steered in STEERED if steered != (temperature, top_p)]
    assert all(p_value(drawn(name, temperature, top_p)[0], expected_first(*other)) < 1e-6 for other in others)


def test_the_log_probability_is_the_model_s_own(name: str) -> None:
    for steered in STEERED:
        x, log_prob = drawn(name, *steered)
        expected = case(*CASE).oracle().log_prob(x[:4], np.ones(4, np.int32), np.tile([0.4, -0.9], (4, 1)))
        np.testing.assert_allclose(log_prob[:4], expected, rtol=1e-9)
        assert not np.isin(x[:, 0], NEVER_GENERATED).any()


def test_with_a_temperature_near_0_samples_are_greedy(name: str) -> None:
    backend = twin_of_case(name, *CASE).backend
    y, z = np.array([0, 1, 2]), np.random.default_rng(3).normal(size=(3, 2))
    greedy, _ = backend.generate(y, DecodingOptions(4, "greedy"), 0, z=z)
    for steered in ({"temperature": 1e-6}, {"top_p": 1e-6}):
        assert np.array_equal(backend.generate(y, DecodingOptions(4, **steered), 0, z=z)[0], greedy)


def test_no_other_temperature_or_share_is_compiled_anew() -> None:
    backend = twin_of_case("jax", *CASE).backend
    y = np.array([0, 1, 2])
    backend.generate(y, DecodingOptions(4), 0)
    with compiled() as names:
        for temperature, top_p in ((0.5, 1.0), (2.0, 0.3), (1e-6, 0.999)):
            backend.generate(y, DecodingOptions(4, temperature=temperature, top_p=top_p), 1)
    assert names == []
