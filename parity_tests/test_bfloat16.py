"""bfloat16 products: the twins agree to its rounding, and weights, sums and the log-likelihood stay in float32."""

from collections.abc import Mapping
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

import seqssvae_jax.fused
from parity_tests import problems
from parity_tests.problems import Options, make_problem
from seqssvae import kernels
from seqssvae.backend import Backend, GivenRows, get_backend
from seqssvae.config import Precision

ROUNDING = 2.0**-8
"""Half a unit in bfloat16's last place."""
CASES = [Options(cell="gru", conditioning="every_step"), Options(cell="lstm", conditioning="output")]
LARGER = [
    Options(cell="gru", conditioning="every_step", encoder_layers=2, decoder_layers=2),
    Options(cell="lstm", conditioning="output", pooling="mean", source=True),
]
"""With sizes that the kernels read."""


def backend(options: Options, twin: str, precision: Precision) -> Backend:
    problem = make_problem(options, seed=4)
    training = replace(problem.config.training, precision=precision)
    found = get_backend(twin)(replace(problem.config, training=training), problem.dimensions)
    found.set_weights({name: value.astype(np.float32) for name, value in problem.weights.items()})
    return found


@pytest.mark.parametrize("options", CASES, ids=str)
def test_twins_agree_to_the_rounding_of_bfloat16(options: Options) -> None:
    assert_agreement(options)


# without kernels each twin has its framework's operations, which the test above compares: there is nothing else
@pytest.mark.skipif(kernels.library() is None, reason="no C compiler at installation, or no bfloat16 instructions here")
@pytest.mark.parametrize("options", LARGER, ids=str)
def test_twins_agree_where_kernels_read_the_layers(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(problems.ENCODER_SIZES, "hidden_size", 8)
    monkeypatch.setitem(problems.DECODER_SIZES, "hidden_size", 16)
    by_torch, by_jax = Mock(side_effect=kernels.run), Mock(side_effect=seqssvae_jax.fused.forward)
    monkeypatch.setattr(kernels, "run", by_torch)
    monkeypatch.setattr(seqssvae_jax.fused, "forward", by_jax)
    with_kernels = assert_agreement(options, bound=16 * ROUNDING)
    layers = options.encoder_layers * (2 if options.source else 1) + options.decoder_layers
    assert by_torch.call_count == 2 * 2 * layers  # rows of both kinds, forward and back
    assert by_jax.call_count >= 2 * layers  # JAX may trace a function again
    monkeypatch.setenv("SEQSSVAE_KERNELS", "0")
    without = backend(options, "torch", "bf16").differentiate(*rows(options), 0.5)
    assert by_torch.call_count == 2 * 2 * layers
    gradient = flat(without.gradients)
    assert 0 < np.linalg.norm(with_kernels - gradient) < 16 * ROUNDING * np.linalg.norm(gradient)


def rows(options: Options) -> list[GivenRows]:
    """Of both kinds."""
    problem = make_problem(options, seed=4)
    assert problem.labelled is not None
    assert problem.unlabelled is not None
    return [GivenRows(step.batch, step.noise) for step in (problem.labelled, problem.unlabelled)]


def flat(gradients: Mapping[str, np.ndarray]) -> np.ndarray:
    """All in one array."""
    return np.concatenate([gradients[name].ravel() for name in sorted(gradients)])


def assert_agreement(options: Options, bound: float = 8 * ROUNDING) -> np.ndarray:
    """Of the twins with each other and with float32; returns PyTorch's gradient."""
    given, found = rows(options), {}
    for twin, precision in (("torch", "bf16"), ("jax", "bf16"), ("torch", "float32")):
        solved = backend(options, twin, precision).differentiate(*given, 0.5)
        gradient = flat(solved.gradients)
        assert gradient.dtype == solved.loss.dtype == np.float32
        found[twin, precision] = float(solved.loss), gradient
    exact_loss, exact = found["torch", "float32"]
    for twin in ("torch", "jax"):
        loss, gradient = found[twin, "bf16"]
        assert 0 < abs(loss - exact_loss) < bound * abs(exact_loss)
        assert 0 < np.linalg.norm(gradient - exact) < bound * np.linalg.norm(exact)
    apart = found["torch", "bf16"][1] - found["jax", "bf16"][1]
    assert np.linalg.norm(apart) < bound * np.linalg.norm(exact)
    return found["torch", "bf16"][1]
