"""Predictions and searches of both twins, symbol for symbol, against the oracle's and each other's."""

from typing import Any

import numpy as np
import pytest

from parity_tests import decoding
from parity_tests.cases import CASES, case, twin_of_case
from parity_tests.conftest import Check
from parity_tests.ladder import check_predictions, check_searches, climb, in_precision
from parity_tests.problems import Options, make_problem
from parity_tests.twins import JaxTwin, TorchTwin
from seqssvae.config import DecodingOptions
from seqssvae.data.vocabulary import UNK


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        *((options, "float64") for options in CASES),
        *(pytest.param(options, "float32", marks=pytest.mark.thorough) for options in CASES[:2]),
        (CASES[2], "float32"),
    ],
    ids=str,
)
def test_probabilities_embedding_greedy_and_beam(options: Any, precision: Any, check: Check) -> None:
    problem = in_precision(case(*options), precision)
    twins = TorchTwin(problem, precision), JaxTwin(problem, precision)
    check(climb(problem, *twins, (check_predictions, check_searches)))


@pytest.mark.parametrize("context", [0, 2])
def test_greedy_and_beam_of_a_decoder_with_a_context(context: int, check: Check) -> None:
    options = Options(context=context, encoder="convolution", kind="unlabelled", filler=False, source=context > 0)
    problem = make_problem(options, seed=8, name=f"context-{context}")
    check(climb(problem, TorchTwin(problem), JaxTwin(problem), (check_predictions, check_searches)))


@pytest.mark.parametrize("options", CASES, ids=str)
def test_generate_returns_the_best_of_the_beam(name: str, options: Any) -> None:
    y, z = np.array([0, 1, 2, 1]), np.random.default_rng(3).normal(size=(4, 2))
    expected, scores = decoding.beam_search(case(*options).oracle(), y, z, 5, width=4, exclude=(UNK,))
    x, log_prob = twin_of_case(name, *options).backend.generate(y, DecodingOptions(5, "beam", 4), 0, z=z)
    assert np.array_equal(x, expected[:, 0])
    assert log_prob == pytest.approx(scores[:, 0], rel=1e-9)
