"""The recipe ported to NumPyro as it stands: everything repeated K times, a scan of a GRU cell, all logits at once.

Networks and sizes are those of `benchmarks.peers.recipe_torch`. The program is jitted and its state donated, as any
user of NumPyro would write it; a batch is padded to its longest row, rounded up to a multiple of `ROUND`, since every
other length would be compiled anew.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from flax import nnx
from jax import Array
from jaxtyping import Int
from numpyro import distributions as dist
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO

from benchmarks.sizes import Sizes

PAD, START = 0, 2
ROUND = 4


def read(
    cell: nnx.GRUCell, inputs: Array, first: Array, mask: Array | None = None, reverse: bool = False
) -> tuple[Array, Array]:
    """Last state and outputs of a cell scanned over `(B, T, I)`; where the mask is False the state stays."""

    def step(state: Array, now: tuple[Array, Array | None]) -> tuple[Array, Array]:
        new, _ = cell(state, now[0])
        state = new if now[1] is None else jnp.where(now[1][:, None], new, state)
        return state, state

    over = inputs.swapaxes(0, 1), None if mask is None else mask.T
    last, outputs = jax.lax.scan(step, first, over, reverse=reverse)
    return last, outputs.swapaxes(0, 1)


class Recipe(nnx.Module):
    """Encoder, heads and decoder of the semi-supervised sequence autoencoder."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs) -> None:
        self.sizes = sizes
        embedding, hidden, latent, labels = sizes.embedding, sizes.hidden, sizes.latent, sizes.labels
        self.encoder_embedding = nnx.Embed(sizes.vocabulary, embedding, rngs=rngs)
        self.forwards = nnx.GRUCell(embedding, hidden, rngs=rngs)
        self.backwards = nnx.GRUCell(embedding, hidden, rngs=rngs)
        self.classifier = nnx.Linear(2 * hidden, labels, rngs=rngs)
        self.latent = nnx.Linear(2 * hidden + labels, hidden, rngs=rngs)
        self.loc = nnx.Linear(hidden, latent, rngs=rngs)
        self.scale = nnx.Linear(hidden, latent, rngs=rngs)
        self.decoder_embedding = nnx.Embed(sizes.vocabulary, embedding, rngs=rngs)
        self.initial = nnx.Linear(latent + labels, hidden, rngs=rngs)
        self.initial_output = nnx.Linear(hidden, hidden, rngs=rngs)
        self.decoder = nnx.GRUCell(embedding + latent + labels, hidden, rngs=rngs)
        self.output = nnx.Linear(hidden, sizes.vocabulary, rngs=rngs)

    def features(self, x: Int[Array, "B T"]) -> Array:
        """Last states of both directions."""
        embedded, first = self.encoder_embedding(x), jnp.zeros((len(x), self.sizes.hidden))
        forwards, _ = read(self.forwards, embedded, first, x != PAD)
        backwards, _ = read(self.backwards, embedded, first, x != PAD, reverse=True)
        return jnp.concatenate([forwards, backwards], -1)

    def logits(self, x: Int[Array, "B T"], y: Array, z: Array) -> Array:
        """Logits of every symbol, `(K, B, T, V)` or `(B, T, V)`."""
        shape = z.shape[:-1]
        inputs = jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        condition = jnp.concatenate([z, jnp.broadcast_to(y, (*shape, y.shape[-1]))], -1)
        condition = condition.reshape(-1, condition.shape[-1])
        embedded = self.decoder_embedding(inputs)
        embedded = jnp.broadcast_to(embedded, (*shape, *embedded.shape[1:])).reshape(len(condition), x.shape[1], -1)
        repeated = jnp.broadcast_to(condition[:, None], (len(condition), x.shape[1], condition.shape[-1]))
        first = jnp.tanh(self.initial_output(jnp.tanh(self.initial(condition))))
        _, outputs = read(self.decoder, jnp.concatenate([embedded, repeated], -1), first)
        return self.output(outputs).reshape(*shape, x.shape[1], -1)


def model(recipe: Recipe, x: Int[Array, "B T"], y: Int[Array, " B"] | None = None) -> None:
    """p(x, y, z)."""
    sizes = recipe.sizes
    with numpyro.plate("rows", len(x)):
        y = numpyro.sample("y", dist.Categorical(logits=jnp.zeros(sizes.labels)), obs=y)
        z = numpyro.sample("z", dist.Normal(jnp.zeros(sizes.latent), 1.0).to_event(1))
        logits = recipe.logits(x, jax.nn.one_hot(y, sizes.labels), z)
        numpyro.sample("x", dist.Categorical(logits=logits).mask(x != PAD).to_event(1), obs=x)


def guide(recipe: Recipe, x: Int[Array, "B T"], y: Int[Array, " B"] | None = None) -> None:
    """q(y, z | x)."""
    sizes = recipe.sizes
    with numpyro.plate("rows", len(x)):
        features = recipe.features(x)
        if y is None:
            logits = recipe.classifier(features)
            y = numpyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
        one_hot = jax.nn.one_hot(y, sizes.labels)
        shape = (*one_hot.shape[:-2], len(x))
        parts = (jnp.broadcast_to(part, (*shape, part.shape[-1])) for part in (features, one_hot))
        hidden = jnp.tanh(recipe.latent(jnp.concatenate(list(parts), -1)))
        scale = jax.nn.softplus(recipe.scale(hidden)) + 1e-4
        numpyro.sample("z", dist.Normal(recipe.loc(hidden), scale).to_event(1))


class RecipeTrainer:
    """Takes steps with `TraceEnum_ELBO` and Adam."""

    def __init__(self, sizes: Sizes) -> None:
        graph, weights, rest = nnx.split(Recipe(sizes, nnx.Rngs(0)), nnx.Param, ...)
        optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(1e-3))
        self.state = weights, optimizer.init(weights), jax.random.key(0)

        @partial(jax.jit, donate_argnums=0)
        def step(state: Any, x: Int[Array, "B T"], y: Int[Array, " B"] | None) -> tuple[Any, Array]:
            weights, moments, key = state
            key, own = jax.random.split(key)

            def loss(weights: Any) -> Array:
                recipe = nnx.merge(graph, weights, rest)
                elbo = TraceEnum_ELBO(max_plate_nesting=1) if y is None else Trace_ELBO()
                programs = [partial(program, recipe) for program in (model, guide)]
                return elbo.loss(own, {}, *programs, x, y) / len(x)

            value, gradients = jax.value_and_grad(loss)(weights)
            updates, moments = optimizer.update(gradients, moments)
            return (optax.apply_updates(weights, updates), moments, key), value

        self._step = step

    def step(self, x: Int[np.ndarray, "B T"]) -> float:
        """One step of the optimiser on rows without labels."""
        self.state, loss = self._step(self.state, x, None)
        return float(loss)

    def labelled_step(self, x: Int[np.ndarray, "B T"], y: Int[np.ndarray, " B"]) -> float:
        """One step of the optimiser on rows with labels."""
        self.state, loss = self._step(self.state, x, y)
        return float(loss)
