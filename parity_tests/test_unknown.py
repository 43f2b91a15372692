"""`<UNK>` is generated where that is asked for alone, and no probability changes: both twins, by all three methods.

The model here would write it at nearly every step.
"""

from dataclasses import replace
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import chisquare

from parity_tests import decoding
from parity_tests.arithmetic import log_softmax
from parity_tests.cases import CASES, case
from parity_tests.defects import TWINS as MODULES
from parity_tests.problems import Problem
from parity_tests.twins import TWINS
from seqssvae.config import DecodingMethod, DecodingOptions
from seqssvae.data.vocabulary import END, NEVER_GENERATED, UNK

LONGEST, ROWS, METHODS = 3, 400, get_args(DecodingMethod)
Y, Z = np.ones(ROWS, np.int32), np.tile([0.4, -0.9], (ROWS, 1))
ABOUT_AS_LIKELY, FAR_LIKELIER = 0.0, 6.0
"""What is added to the logit of UNK."""


@cache
def problem(added: float) -> Problem:
    """The first case, with a model that is fond of UNK."""
    first = case(*CASES[0])
    bias = first.weights["decoder.output.bias"].copy()
    bias[UNK] += added
    return replace(first, weights={**first.weights, "decoder.output.bias": bias})


@cache
def backend_of(name: str, added: float) -> Any:
    """A twin of it."""
    return TWINS[name](problem(added)).backend


def expected(added: float, method: str, exclude: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What a search finds, by the oracle, for one row."""
    given = problem(added).oracle(), Y[:1], Z[:1], LONGEST
    if method == "greedy":
        return decoding.greedy(*given, exclude=exclude)
    sequences, scores = decoding.beam_search(*given, width=4, exclude=exclude)
    return sequences[:, 0], scores[:, 0]


def check(backend: Any, method: DecodingMethod, allow_unknown: bool, added: float) -> None:
    """Assert that symbols are those that may be, and their probability that of the model as it is."""
    options = DecodingOptions(LONGEST, method, 4, allow_unknown=allow_unknown)
    x, log_prob = backend.generate(Y, options, 3, z=Z)
    assert bool((x == UNK).any()) == allow_unknown
    oracle = problem(added).oracle()
    np.testing.assert_allclose(log_prob[:4], oracle.log_prob(x[:4], Y[:4], Z[:4]), rtol=1e-9)
    if method != "sample":
        symbols, score = expected(added, method, () if allow_unknown else (UNK,))
        np.testing.assert_array_equal(x, np.repeat(symbols, ROWS, 0))
        np.testing.assert_allclose(log_prob, np.repeat(score, ROWS), rtol=1e-9)
        return
    never = NEVER_GENERATED if allow_unknown else (*NEVER_GENERATED, UNK)
    first = oracle.next_log_probabilities((), 1, Z[0])
    shares = np.exp(log_softmax(first, excluded=never))
    counts = np.bincount(x[:, 0], minlength=len(shares))
    assert not counts[list(never)].any()
    assert chisquare(counts[shares > 0], shares[shares > 0] * ROWS).pvalue > 1e-3


@pytest.mark.parametrize("allow_unknown", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_unknown_is_generated_where_it_is_allowed_alone(name: str, method: Any, allow_unknown: bool) -> None:
    check(backend_of(name, FAR_LIKELIER), method, allow_unknown, FAR_LIKELIER)


def test_what_is_drawn_otherwise_keeps_its_proportions(name: str) -> None:
    check(backend_of(name, ABOUT_AS_LIKELY), "sample", False, ABOUT_AS_LIKELY)


@pytest.mark.parametrize("method", METHODS)
def test_a_forgotten_mask_is_caught(name: str, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = MODULES[name].distributions
    without = module._without
    monkeypatch.setattr(
        module, "_without", lambda exclude, logits: without([one for one in exclude if one != UNK], logits)
    )
    with pytest.raises(AssertionError):
        check(TWINS[name](problem(FAR_LIKELIER)).backend, method, False, FAR_LIKELIER)


def test_log_p_is_as_it_was(name: str) -> None:
    """A row that holds UNK has the probability that the model gives it, and all rows together have probability 1."""
    symbols, x = (UNK, *range(END, problem(0.0).dimensions.vocabulary_size)), []
    for a in symbols:
        x += [[END, 0]] if a == END else [[a, b] for b in symbols]
    backend, rows = backend_of(name, FAR_LIKELIER), np.array(x, np.int32)
    z = np.tile(Z[0], (len(rows), 3, 1))
    log_p = backend.log_likelihood(rows, z)[:, 1]
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-9)
