"""Weights after 1, 10 and 100 steps of each optimiser, with the same noise: the twins walk the same way."""

from dataclasses import replace

import pytest

from parity_tests.cases import CASES
from parity_tests.ladder import compare, failures
from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import JaxTwin, TorchTwin
from seqssvae.config import OptimizerConfig

OPTIMIZERS = (
    OptimizerConfig(name="adam", clip_norm=1.0),
    OptimizerConfig(name="adamw", clip_norm=1.0, weight_decay=0.1),
    OptimizerConfig(name="sgd", clip_norm=1.0),
)


def problem_with(case: tuple[str, str, int], optimizer: OptimizerConfig) -> Problem:
    cell, conditioning, layers = case
    options = Options(
        cell=cell, conditioning=conditioning, decoder_layers=layers, kind="mixed", dropout=0.3, word_dropout=0.4
    )
    problem = make_problem(options, seed=11, name=f"{cell}-{conditioning}-{optimizer.name}")
    return replace(problem, config=replace(problem.config, optimizer=optimizer))


@pytest.mark.parametrize(("case", "optimizer"), zip(CASES, OPTIMIZERS, strict=True), ids=lambda value: str(value)[:24])
def test_same_weights_and_optimiser_state(case: tuple[str, str, int], optimizer: OptimizerConfig) -> None:
    problem = problem_with(case, optimizer)
    torch, jax = TorchTwin(problem), JaxTwin(problem)
    findings, taken = [], 0
    for steps in (1, 10, 100):
        in_torch, in_jax = torch.train(steps - taken, 0.02), jax.train(steps - taken, 0.02)
        taken = steps
        findings += compare(f"weights after {steps} steps", problem.name, in_torch, in_jax, 1e-9)
    states = torch.backend.get_optimizer_state(), jax.backend.get_optimizer_state()
    findings += compare("optimiser state", problem.name, *states, 1e-9)
    assert not failures(findings)
    moved = compare("", problem.name, {k: problem.weights[k] for k in in_torch}, in_torch, 1e-3)
    assert len(failures(moved)) > 0.9 * len(moved)


def test_optimiser_state_goes_from_one_twin_to_the_other() -> None:
    """Ten steps in torch, then ten in jax, are twenty in torch."""
    problem = problem_with(CASES[0], OPTIMIZERS[0])
    whole = TorchTwin(problem)
    half, other = TorchTwin(problem), JaxTwin(problem)
    half.train(10, 0.02)
    other.backend.set_weights(half.backend.get_weights())
    other.backend.set_optimizer_state(half.backend.get_optimizer_state())
    findings = compare("weights after 20 steps", problem.name, whole.train(20, 0.02), other.train(10, 0.02), 1e-9)
    assert not failures(findings)
