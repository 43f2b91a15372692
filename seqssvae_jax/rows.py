"""Batches on the device, with all that is drawn at random for them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from seqssvae.backend import Batch
from seqssvae.noise import NoiseSpec
from seqssvae_jax.modules import Encoding, Noise


class Arrays(NamedTuple):
    """A batch on the device or on its way there, without noise."""

    x: Any
    y: Any
    row_mask: Any
    source: Any = None
    posterior: Any = None


class Rows(NamedTuple):
    """One batch on the device, and its noise.

    Args:
        x: Symbol ids, or what an encoder makes of them.
        y: Label ids, or None where they are missing.
        row_mask: True for real rows.
        noise: As in `seqssvae.noise`.
        source: Symbol ids of the sources, or what an encoder makes of them; None where there are none.
        posterior: Probabilities of the labels, where they are given.
    """

    x: Int[Array, "B T"] | Encoding
    y: Int[Array, " B"] | None
    row_mask: Bool[Array, " B"]
    noise: Noise
    source: Int[Array, "B S"] | Encoding | None = None
    posterior: Float[Array, "B K"] | None = None


def arrays_of(batch: Batch) -> Arrays:
    """A batch, to be given to a compiled program."""
    source = None if batch.source is None else np.asarray(batch.source, np.int32)
    x, y = np.asarray(batch.x, np.int32), np.asarray(batch.y, np.int32)
    return Arrays(x, y, np.asarray(batch.row_mask), source, batch.posterior)


def rows_of(batch: Arrays, observed: bool, noise: Noise) -> Rows:
    """A batch with its noise, its labels observed or missing."""
    y = jnp.maximum(batch.y, 0) if observed else None  # filler rows: any label will do
    return Rows(batch.x, y, batch.row_mask, noise, batch.source, batch.posterior)


def draw(spec: NoiseSpec, key: PRNGKeyArray, dtype: Any) -> Array:
    """One entry of the noise."""
    if spec.kind == "normal":
        return jax.random.normal(key, spec.shape, dtype)
    if spec.kind == "gumbel":
        return jax.random.gumbel(key, spec.shape, dtype)
    return jax.random.bernoulli(key, spec.keep, spec.shape)


def draw_noise(specs: Mapping[str, NoiseSpec], key: PRNGKeyArray, dtype: Any) -> Noise:
    """All that `noise_specs` lists."""
    keys = jax.random.split(key, len(specs))
    return {name: draw(spec, keys[index], dtype) for index, (name, spec) in enumerate(specs.items())}


def each_particle(function: Callable[[Rows], Any], rows: Rows, count: int) -> Any:
    """A function of the rows with the noise of one draw of z and y after the other: its results, stacked."""
    if count == 1:
        return jax.tree.map(lambda part: part[None], function(rows))

    def one(_: None, noise: Noise) -> tuple[None, Any]:
        return None, function(rows._replace(noise={**rows.noise, **noise}))

    return jax.lax.scan(one, None, {name: rows.noise[name] for name in ("z", "y") if name in rows.noise})[1]
