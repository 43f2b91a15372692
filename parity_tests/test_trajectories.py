"""Weights after 1, 10 and 100 steps of each optimiser, with the same noise: the twins walk the same way."""

from functools import cache

import pytest

from parity_tests.cases import CASES
from parity_tests.conftest import Check
from parity_tests.ladder import LEARNING_RATE, check_trajectories, compare, failures, in_precision
from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import JaxTwin, TorchTwin
from seqssvae.config import OptimizerConfig, Precision

OPTIMIZERS = (
    OptimizerConfig(name="adam", clip_norm=1.0),
    OptimizerConfig(name="adamw", clip_norm=1.0, weight_decay=0.1),
    OptimizerConfig(name="sgd", clip_norm=1.0),
)
pytestmark = pytest.mark.usefixtures("unchecked")
WALKS = list(zip(CASES, OPTIMIZERS, strict=True))
BOTH = pytest.mark.parametrize(("case", "optimizer"), WALKS, ids=lambda value: str(value)[:24])


def problem_with(case: tuple[str, str, int], optimizer: OptimizerConfig) -> Problem:
    cell, conditioning, layers = case
    kind = "mixed" if case == CASES[0] else "unlabelled"  # of which JAX compiles the half
    options = Options(
        cell=cell, conditioning=conditioning, decoder_layers=layers, kind=kind, dropout=0.3, word_dropout=0.4
    )
    return make_problem(options, 11, f"{cell}-{conditioning}-{optimizer.name}", optimizer)


@cache
def twins_of(case: tuple[str, str, int], optimizer: OptimizerConfig, precision: Precision) -> tuple[TorchTwin, JaxTwin]:
    problem = in_precision(problem_with(case, optimizer), precision)
    return TorchTwin(problem, precision), JaxTwin(problem, precision)


@pytest.mark.parametrize(
    ("case", "optimizer", "precision"),
    [
        *((*walk, "float64") for walk in WALKS),
        *(pytest.param(*walk, "float32", marks=pytest.mark.thorough) for walk in WALKS[:2]),
        (*WALKS[2], "float32"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_same_weights_and_optimiser_state(
    case: tuple[str, str, int], optimizer: OptimizerConfig, precision: Precision, check: Check
) -> None:
    torch, jax = twins_of(case, optimizer, precision)
    check(check_trajectories(torch.problem, torch, jax, (1, 10, 100)))


@BOTH
def test_the_weights_do_move(case: tuple[str, str, int], optimizer: OptimizerConfig) -> None:
    torch, _ = twins_of(case, optimizer, "float64")
    moved = compare("", "", torch.problem.weights, torch.train(20, LEARNING_RATE), 1e-3)
    torch.restart()
    assert len(failures(moved)) > 0.9 * len(moved)


def test_optimiser_state_goes_from_one_twin_to_the_other(check: Check) -> None:
    """Ten steps in torch, then ten in jax, are twenty in torch."""
    whole, other = twins_of(CASES[0], OPTIMIZERS[0], "float64")
    half = TorchTwin(whole.problem)
    half.train(10, LEARNING_RATE)
    other.backend.set_weights(half.backend.get_weights())
    other.backend.set_optimizer_state(half.backend.get_optimizer_state())
    rung = "weights after 10 steps in torch and 10 in jax, and 20 in torch"
    check(compare(rung, whole.problem.name, whole.train(20, LEARNING_RATE), other.train(10, LEARNING_RATE), 1e-9))
    whole.restart()
    other.restart()
