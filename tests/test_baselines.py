"""What `score_function` expects of a row, in both twins, beside the formulas in NumPy."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import seqssvae_jax.baselines
import seqssvae_torch.baselines
from seqssvae.config import ObjectiveConfig
from seqssvae.parameters import baseline_shapes

V = 7
X = np.array([[4, 5, 4, 3], [6, 3, 0, 0], [5, 5, 3, 0], [0, 0, 0, 0]])
REAL = np.array([True, True, True, False])
TWINS = {"torch": (seqssvae_torch.baselines, torch.tensor), "jax": (seqssvae_jax.baselines, jnp.array)}


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> Any:
    """The module of a twin, and how it makes an array."""
    return TWINS[request.param]


def learn(twin: Any, name: str, signals: list[np.ndarray], decay: float = 0.8) -> tuple[dict[str, Any], np.ndarray]:
    """State and expectation after having seen these signals of the rows."""
    module, array = twin
    objective = ObjectiveConfig(gradient_estimator="score_function", baseline=name)
    state = {key: array(np.zeros(shape, np.float32)) for key, shape in baseline_shapes(objective, V).items()}
    for signal in signals:
        state = module.updated(state, array(X), array(signal.astype(np.float32)), array(REAL), decay)
    return state, np.asarray(module.expected(state, array(X)))


def test_the_average_has_decaying_weights_and_leaves_filler_rows_out(twin: Any) -> None:
    signals = [np.array([-3.0, -1.0, -2.0, 99.0]), np.array([-6.0, -4.0, -2.0, -99.0])]
    _, expected = learn(twin, "average", signals)
    weights = np.array([0.8 * 0.2, 0.2])
    mean = (weights * [-2.0, -4.0]).sum() / weights.sum()
    np.testing.assert_allclose(expected, mean, rtol=1e-6)
    assert (learn(twin, "average", [])[1] == 0).all()


def test_one_step_of_what_symbols_add(twin: Any) -> None:
    """Half of a row's error, over 1 plus the squared norm of its counts and over the rows, for each occurrence."""
    signal = np.array([-3.0, -1.0, -5.0, 99.0])
    state, _ = learn(twin, "input", [signal])
    counts = np.array([[(row == symbol).sum() for symbol in range(V)] for row in X])
    counts[:, 0] = 0
    error = np.where(REAL, signal + 3.0, 0.0)  # the mean is -3
    expected = (0.5 * error / (1 + (counts**2).sum(1)) / 3) @ counts
    np.testing.assert_allclose(np.asarray(state["baseline.symbols"]), expected, rtol=1e-5, atol=1e-7)
    assert state["baseline.symbols"][0] == 0


def test_it_learns_what_is_linear_in_the_symbols(twin: Any) -> None:
    adds = np.array([0, 0, 0, -1.0, -2.0, -0.5, -4.0])
    signal = adds[X].sum(1)
    _, expected = learn(twin, "input", [signal] * 400)
    np.testing.assert_allclose(expected[REAL], signal[REAL], atol=0.05)
    constant = learn(twin, "average", [signal] * 400)[1]
    assert np.abs(constant[REAL] - signal[REAL]).max() > 1
