"""bfloat16 products: the twins agree to its rounding, and weights, sums and the log-likelihood stay in float32."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from parity_tests.problems import Options, make_problem
from seqssvae.backend import Backend, GivenRows, get_backend
from seqssvae.config import Precision

ROUNDING = 2.0**-8
"""Half a unit in bfloat16's last place."""
CASES = [Options(cell="gru", conditioning="every_step"), Options(cell="lstm", conditioning="output")]


def backend(options: Options, twin: str, precision: Precision) -> Backend:
    problem = make_problem(options, seed=4)
    training = replace(problem.config.training, precision=precision)
    twin_backend = get_backend(twin)(replace(problem.config, training=training), problem.dimensions)
    twin_backend.set_weights({name: value.astype(np.float32) for name, value in problem.weights.items()})
    return twin_backend


@pytest.mark.parametrize("options", CASES, ids=str)
def test_twins_agree_to_the_rounding_of_bfloat16(options: Options) -> None:
    assert_agreement(options)


def rows(options: Options) -> list[GivenRows]:
    """Rows of both kinds: with a label, and without."""
    problem = make_problem(options, seed=4)
    assert problem.labelled is not None
    assert problem.unlabelled is not None
    return [GivenRows(step.batch, step.noise) for step in (problem.labelled, problem.unlabelled)]


def flat(gradients: Mapping[str, np.ndarray]) -> np.ndarray:
    """All in one array."""
    return np.concatenate([gradients[name].ravel() for name in sorted(gradients)])


def assert_agreement(options: Options, bound: float = 8 * ROUNDING) -> np.ndarray:
    """Of the twins with each other and with float32; returns PyTorch's gradient."""
    given, solved_by = rows(options), {}
    for twin, precision in (("torch", "bf16"), ("jax", "bf16"), ("torch", "float32")):
        solved = backend(options, twin, precision).differentiate(*given, 0.5)
        gradient = flat(solved.gradients)
        assert gradient.dtype == solved.loss.dtype == np.float32
        solved_by[twin, precision] = float(solved.loss), gradient
    exact_loss, exact = solved_by["torch", "float32"]
    for twin in ("torch", "jax"):
        loss, gradient = solved_by[twin, "bf16"]
        assert 0 < abs(loss - exact_loss) < bound * abs(exact_loss)
        assert 0 < np.linalg.norm(gradient - exact) < bound * np.linalg.norm(exact)
    apart = solved_by["torch", "bf16"][1] - solved_by["jax", "bf16"][1]
    assert np.linalg.norm(apart) < bound * np.linalg.norm(exact)
    return solved_by["torch", "bf16"][1]
