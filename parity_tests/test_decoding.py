"""Greedy and beam search: against exhaustive search, and by hand where ties decide."""

from itertools import product

import numpy as np
import pytest

from parity_tests.decoding import beam_search, greedy
from parity_tests.oracle import Oracle
from parity_tests.problems import Options, Problem, make_problem
from seqssvae.data.vocabulary import END, PAD, UNK

FEW = (0, 2, 6, 7, 8)
"""With these never generated, UNK, END, 4 and 5 remain."""
CELLS_AND_CONDITIONINGS = list(product(("gru", "lstm"), ("init", "every_step", "output")))


def _oracle(problem: Problem, weights: dict[str, np.ndarray] | None = None) -> Oracle:
    return Oracle(problem.config.model, weights or problem.weights, problem.dimensions.label_prior, FEW)


@pytest.mark.parametrize(("cell", "conditioning"), CELLS_AND_CONDITIONINGS)
def test_a_wide_beam_finds_the_best_of_all_sequences(cell: str, conditioning: str) -> None:
    oracle = _oracle(make_problem(Options(cell=cell, conditioning=conditioning), seed=20))
    whole = [(*row, END) for length in range(3) for row in product((UNK, 4, 5), repeat=length)]
    every = whole + list(product((UNK, 4, 5), repeat=3))
    x = np.array([row + (PAD,) * (3 - len(row)) for row in every], dtype=np.int32)
    y, z = np.array([1], dtype=np.int32), np.array([[0.7, -0.4]])
    scores = oracle.log_prob(x, np.tile(y, len(x)), np.tile(z, (len(x), 1)))
    order = np.argsort(-scores)
    sequences, log_p = beam_search(oracle, y, z, max_length=2, width=len(x) + 2)
    np.testing.assert_array_equal(sequences[0, : len(x)], x[order])
    np.testing.assert_allclose(log_p[0, : len(x)], scores[order], rtol=1e-13)
    assert (sequences[0, len(x) :] == PAD).all()
    assert (log_p[0, len(x) :] == -np.inf).all()


def test_a_beam_of_one_is_greedy_and_scores_are_log_probabilities() -> None:
    problem = make_problem(Options(cell="lstm", conditioning="every_step"), seed=21)
    oracle = problem.oracle()
    y = np.array([0, 1, 2, 0, 1], dtype=np.int32)
    z = np.random.default_rng(0).normal(size=(5, 2))
    sequences, scores = greedy(oracle, y, z, max_length=7)
    beams, beam_scores = beam_search(oracle, y, z, max_length=7, width=1)
    assert sequences.shape == (5, 8)
    np.testing.assert_array_equal(beams[:, 0], sequences)
    np.testing.assert_array_equal(beam_scores[:, 0], scores)
    np.testing.assert_allclose(oracle.log_prob(sequences, y, z), scores, rtol=1e-13)


def test_greedy_ends_with_end_or_after_one_step_more_than_the_limit() -> None:
    problem = make_problem(Options(conditioning="output"), seed=22)
    y, z = np.array([0], dtype=np.int32), np.zeros((1, 2))
    bias = problem.weights["decoder.output.bias"].copy()
    bias[END] = 100.0
    sequences, _ = greedy(problem.oracle({**problem.weights, "decoder.output.bias": bias}), y, z, max_length=3)
    assert sequences.tolist() == [[END, PAD, PAD, PAD]]
    bias[END] = -100.0
    sequences, _ = greedy(problem.oracle({**problem.weights, "decoder.output.bias": bias}), y, z, max_length=3)
    assert (sequences > END).sum() + (sequences == UNK).sum() == 4


def test_ties_go_to_the_higher_parent_and_then_to_the_lower_symbol() -> None:
    """With zero weights each of UNK, END, 4 and 5 has log-probability -log 4 at every step."""
    problem = make_problem(Options(), seed=23)
    oracle = _oracle(problem, {name: np.zeros_like(value) for name, value in problem.weights.items()})
    y, z = np.array([0], dtype=np.int32), np.zeros((1, 2))
    sequences, scores = beam_search(oracle, y, z, max_length=1, width=4)
    assert sequences.tolist() == [[[END, PAD], [UNK, UNK], [UNK, END], [UNK, 4]]]
    np.testing.assert_allclose(scores, -np.log(4.0) * np.array([[1, 2, 2, 2]]), rtol=1e-13)
    assert greedy(oracle, y, z, max_length=1)[0].tolist() == [[UNK, UNK]]


def test_a_beam_finds_what_greedy_misses() -> None:
    """END first has probability .4, UNK .6; but behind UNK all four are equally likely, so END alone is best."""
    problem = make_problem(Options(conditioning="every_step"), seed=24)
    weights = {name: np.zeros_like(value) for name, value in problem.weights.items()}
    bias = np.full(9, -50.0)
    bias[[UNK, END]] = np.log([0.6, 0.4])
    weights["decoder.output.bias"] = bias
    weights["decoder.embedding"][UNK, 0] = 1.0  # opens h[0] behind UNK, which takes the bias back
    weights["decoder.layers.0.weight_ih"][10, 0] = 50.0  # n gate: tanh(50) = 1
    weights["decoder.layers.0.bias"][5] = -50.0  # update gate: h = n
    weights["decoder.output.weight"][:, 0] = -bias
    oracle = _oracle(problem, weights)
    y, z = np.array([0], dtype=np.int32), np.zeros((1, 2))
    sequences, scores = greedy(oracle, y, z, max_length=1)
    assert sequences[0, 0] == UNK
    np.testing.assert_allclose(scores, np.log(0.6 / 4), rtol=1e-12)
    sequences, scores = beam_search(oracle, y, z, max_length=1, width=2)
    assert sequences[0, 0].tolist() == [END, PAD]
    np.testing.assert_allclose(scores[0], np.log([0.4, 0.6 / 4]), rtol=1e-12)


def test_search_is_independent_between_rows() -> None:
    problem = make_problem(Options(cell="gru", conditioning="init"), seed=25)
    y = np.array([2, 0, 1], dtype=np.int32)
    z = np.random.default_rng(1).normal(size=(3, 2))
    beams = beam_search(problem.oracle(), y, z, max_length=3, width=3)
    for n in range(3):
        alone = beam_search(problem.oracle(), y[n : n + 1], z[n : n + 1], max_length=3, width=3)
        np.testing.assert_array_equal(alone[0][0], beams[0][n])
        np.testing.assert_array_equal(alone[1][0], beams[1][n])
