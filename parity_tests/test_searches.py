"""Greedy decoding and beam search of both twins, symbol for symbol, against the oracle's."""

from typing import Any

import numpy as np
import pytest

from parity_tests import decoding
from parity_tests.cases import CASES, case, twin_of_case

MAX_LENGTH = 5
Y = np.array([0, 1, 2, 1])
Z = np.random.default_rng(3).normal(size=(4, 2))


@pytest.mark.parametrize("options", CASES, ids=str)
def test_greedy(name: str, options: Any) -> None:
    expected, scores = decoding.greedy(case(*options).oracle(), Y, Z, MAX_LENGTH)
    x, log_prob = twin_of_case(name, *options).backend.generate(Y, MAX_LENGTH, seed=0, method="greedy", z=Z)
    assert np.array_equal(x, expected)
    assert log_prob == pytest.approx(scores, rel=1e-9)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_best_of_a_beam(name: str, options: Any) -> None:
    expected, scores = decoding.beam_search(case(*options).oracle(), Y, Z, MAX_LENGTH, width=4)
    x, log_prob = twin_of_case(name, *options).backend.generate(Y, MAX_LENGTH, seed=0, method="beam", beam_width=4, z=Z)
    assert np.array_equal(x, expected[:, 0])
    assert log_prob == pytest.approx(scores[:, 0], rel=1e-9)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_embedding(name: str, options: Any) -> None:
    problem = case(*options)
    assert problem.unlabelled is not None
    x = problem.unlabelled.batch.x
    found = twin_of_case(name, *options).backend.encode(x)
    assert found == pytest.approx(problem.oracle().embedding(x), rel=1e-9, abs=1e-12)
