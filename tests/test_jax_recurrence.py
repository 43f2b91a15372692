"""The recurrent layers of the JAX twin: read in one loop with a hand-written gradient, against step after step."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seqssvae.parameters import STATES
from seqssvae_jax.ops.recurrence import RecurrentLayer, project_together, read_together

K, B, T, INPUTS, H = 3, 4, 5, 2, 6


@pytest.fixture(autouse=True)
def float64() -> Any:
    with jax.enable_x64(True):
        yield


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float64) / 2


def layer_with_weights(cell: str, seed: int) -> RecurrentLayer:
    layer = RecurrentLayer(cell, INPUTS, H)
    for place, (_, weight) in enumerate(nnx.iter_graph(layer)):
        if isinstance(weight, nnx.Param):
            weight[...] = normal(100 * seed + place, *weight[...].shape)
    return layer


def read_alone(layer: RecurrentLayer, inputs: jax.Array, constant: jax.Array, state: tuple) -> jax.Array:
    """Step after step, with gradients that nobody wrote."""
    outputs = []
    for step in range(T):
        state = layer.step(layer.project(inputs[:, step]) + constant, state)
        outputs.append(state[0])
    return jnp.stack(outputs, 2)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_layers_read_together_are_each_read_alone_step_by_step(cell: str) -> None:
    layers = [layer_with_weights(cell, seed) for seed in range(2)]
    graphs, weights = zip(*map(nnx.split, layers), strict=True)
    inputs, constants = list(normal(1, 2, B, T, INPUTS)), list(normal(2, 2, K, B, layers[0].bias[...].size))
    states = [tuple(normal(3 + place, STATES[cell], K, B, H)) for place in range(2)]
    weighting = normal(9, 2, K, B, T, H)

    def together(*arguments: Any) -> tuple[jax.Array, ...]:
        weights, inputs, constants, states = arguments
        read = [nnx.merge(*parts) for parts in zip(graphs, weights, strict=True)]
        return read_together(read, project_together(read, inputs), constants, states)

    def alone(*arguments: Any) -> tuple[jax.Array, ...]:
        parts = zip(graphs, *arguments, strict=True)
        return tuple(read_alone(nnx.merge(graph, of), *others) for graph, of, *others in parts)

    found, expected = (
        jax.jit(jax.value_and_grad(lambda arguments, read=read: (jnp.stack(read(*arguments)) * weighting).sum()))(
            (weights, inputs, constants, states)
        )
        for read in (together, alone)
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.allclose(one, other, rtol=0, atol=1e-12)
