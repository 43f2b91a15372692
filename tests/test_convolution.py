"""The maximum over windows: both twins against loops over rows, symbols and filters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqssvae_jax.ops import max_over_windows as in_jax
from seqssvae_torch.ops import max_over_windows as in_torch


def by_loops(inputs, lengths, weight, bias):
    """Each filter at each symbol: the sum over what stands before it, as far as the row goes."""
    size = inputs.shape[2]
    width, values = weight.shape[1] // size, np.zeros((len(inputs), len(weight)))
    for row, length in enumerate(lengths):
        for symbol in range(length):
            for number, filters in enumerate(weight.reshape(len(weight), width, size)):
                seen = range(max(0, symbol - width + 1), symbol + 1)
                value = bias[number] + sum(filters[width - 1 + t - symbol] @ inputs[row, t] for t in seen)
                values[row, number] = max(values[row, number], value)
    return values


@given(
    lengths=st.lists(st.integers(0, 5), min_size=4, max_size=4),  # of one shape, which JAX compiles
    width=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=25)
def test_values_are_those_of_loops_whatever_the_padding(lengths, width, seed):
    generator = np.random.default_rng(seed)
    inputs, weight = generator.normal(size=(len(lengths), 5, 2)), generator.normal(size=(3, 2 * width))
    bias = generator.normal(size=3)
    expected = by_loops(inputs, lengths, weight, bias)
    with jax.enable_x64(True):
        values = in_jax(*(jnp.array(part) for part in (inputs, lengths, weight, bias)))
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)
    values = in_torch(*(torch.tensor(part) for part in (inputs, lengths, weight, bias)))
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_gradients_of_the_twins_are_the_same_and_nothing_comes_from_padding(width):
    generator = np.random.default_rng(width)
    given = [generator.normal(size=shape) for shape in ((3, 6, 2), (5, 2 * width), (5,))]
    lengths, weights = np.array([6, 0, 3]), generator.normal(size=(3, 5))
    with jax.enable_x64(True):
        of_jax = jax.grad(lambda x, w, b: (in_jax(x, jnp.array(lengths), w, b) * weights).sum(), (0, 1, 2))(
            *(jnp.array(part) for part in given)
        )
    tensors = [torch.tensor(part, requires_grad=True) for part in given]
    (in_torch(tensors[0], torch.tensor(lengths), *tensors[1:]) * torch.tensor(weights)).sum().backward()
    for ours, theirs in zip(tensors, of_jax, strict=True):
        np.testing.assert_allclose(ours.grad, theirs, rtol=1e-10, atol=1e-12)
    assert not np.any(of_jax[0][1])
    assert not np.any(of_jax[0][2, 3:])
    assert np.any(of_jax[0][2, :3])
