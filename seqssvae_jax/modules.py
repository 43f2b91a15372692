"""The networks: each takes arrays and returns a distribution, so that the programs read as the graphical model.

`y` enters as a one-hot vector, of shape `(K, 1, K)` where it is enumerated and `(B, K)` where it is observed; or
`(S, B, K)`, for S labels of each row.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Shaped
from numpyro import distributions as dist

from seqssvae.config import ModelConfig
from seqssvae.parameters import feature_size
from seqssvae.vocabulary import PAD, SPECIALS, UNK
from seqssvae_jax.distributions import DiagonalNormal
from seqssvae_jax.products import Multiplies, linear
from seqssvae_jax.recurrence import RecurrentLayer, project_together, read_together

Noise = Mapping[str, Array]

SCALE_FLOOR = 1e-4
"""Least standard deviation of q(z|x,y), and of p(z|source,y)."""


def dropped(values: Array, noise: Noise, name: str, rate: float) -> Array:
    """Inverted dropout with the mask of that name; without one (as in evaluation), the values as they are."""
    return values * noise[name] / (1.0 - rate) if name in noise else values


def noise_of_label(noise: Array | None, y: Float[Array, "*#B L"]) -> Array | None:
    """The noise of z for these labels, of shape `(*B, Z)`: theirs, where it is given for every label, as `(K, B, Z)`.

    So noise is indexed by label, whether labels are enumerated, chosen, taken one after the other, or observed.
    """
    if noise is None or noise.ndim == 2:
        return noise
    return noise[y.argmax(-1), jnp.arange(noise.shape[1])]


class Linear(Multiplies):
    """`W a + b`, with the weights of `seqssvae.parameters`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, inputs: Float[Array, "*N I"]) -> Float[Array, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight[...], self.bias[...], self.rounding)


class JointLinear(Multiplies):
    """`W a + U y + b`: a linear map of `[a, y]` that never concatenates, so that each part keeps its own shape.

    Args:
        inputs: Size of a.
        label_count: K.
        outputs: Size of the result.
        bias: Whether there is a b.
        features_first: Whether the first product is made with features first, as recurrent layers read it.
    """

    def __init__(
        self, inputs: int, label_count: int, outputs: int, bias: bool = True, features_first: bool = False
    ) -> None:
        self.features_first = features_first
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))
        self.label_weight = nnx.Param(jnp.zeros((outputs, label_count)))
        if bias:
            self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, inputs: Float[Array, "*#N I"], y: Float[Array, "*#N L"]) -> Float[Array, "*#N O"]:
        """The two products, broadcast against each other: `(B, I)` with `(K, 1, K)` gives `(K, B, O)`."""
        result = linear(inputs, self.weight[...], None, self.rounding, self.features_first)
        result = result + linear(y, self.label_weight[...])
        return result + self.bias[...] if hasattr(self, "bias") else result


def reverse_rows(values: Shaped[Array, "B T *F"], lengths: Int[Array, "B"]) -> Shaped[Array, "B T *F"]:
    """Reverse the real positions of each row and leave the padding behind them: its own inverse."""
    positions = jnp.arange(values.shape[1])
    mirrored = lengths[:, None] - 1 - positions
    index = jnp.where(mirrored >= 0, mirrored, positions)
    return jnp.take_along_axis(values, index.reshape(*index.shape, *[1] * (values.ndim - 2)), 1)


class Encoding(NamedTuple):
    """What an encoder makes of sequences.

    Args:
        features: Of each row; zeros for filler rows.
        states: Of each symbol.
        mask: True for real symbols.
    """

    features: Float[Array, "B F"]
    states: Float[Array, "B S F"]
    mask: Bool[Array, "B S"]


class EncoderTower(nnx.Module):
    """Embedding and recurrent layers that turn a row into its features."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        encoder = model.encoder
        self.pooling = encoder.pooling
        self.directions = ("left_to_right", "right_to_left") if encoder.bidirectional else ("left_to_right",)
        self.embedding = nnx.Param(jnp.zeros((vocabulary_size, encoder.embedding_size)))
        sizes = [encoder.embedding_size] + [feature_size(model)] * (encoder.layers - 1)
        self.layers = nnx.List(
            nnx.Dict({name: RecurrentLayer(model.cell, size, encoder.hidden_size) for name in self.directions})
            for size in sizes
        )

    def __call__(self, x: Int[Array, "B T"], keep_embedding: Bool[Array, "B T E"] | None, rate: float) -> Encoding:
        """Features of each row, and what they are made of."""
        lengths = (x != PAD).sum(1)
        outputs = self._outputs(x, lengths, keep_embedding, rate)
        return Encoding(self._pool(outputs, lengths), self._joined(outputs, lengths), x != PAD)

    def features(
        self, x: Int[Array, "B T"], keep_embedding: Bool[Array, "B T E"] | None, rate: float
    ) -> Float[Array, "B F"]:
        """Features of each row, without the states in the order of the symbols: no direction is turned back."""
        lengths = (x != PAD).sum(1)
        return self._pool(self._outputs(x, lengths, keep_embedding, rate), lengths)

    def _outputs(
        self, x: Int[Array, "B T"], lengths: Int[Array, "B"], keep_embedding: Bool[Array, "B T E"] | None, rate: float
    ) -> tuple[Float[Array, "B T H"], ...]:
        """States of the top layer, of each direction in the order in which it reads."""
        states = tuple(self.embedding[...][read] for read in self._as_read(x, lengths))
        if keep_embedding is not None:
            kept = self._as_read(keep_embedding, lengths)
            states = tuple(of * keep / (1.0 - rate) for of, keep in zip(states, kept, strict=True))
        for place, layer in enumerate(self.layers):
            if place:
                states = self._as_read(self._joined(states, lengths), lengths)
            cells = tuple(layer.values())
            zeros = tuple(cell.zero_state(1, len(x)) for cell in cells)
            outputs = read_together(cells, project_together(cells, states), (None,) * len(cells), zeros)
            states = tuple(of[0] for of in outputs)
        return states

    def _as_read(
        self, values: Shaped[Array, "B T *F"], lengths: Int[Array, "B"]
    ) -> tuple[Shaped[Array, "B T *F"], ...]:
        """Rows as each direction reads them."""
        return tuple(reverse_rows(values, lengths) if name == "right_to_left" else values for name in self.directions)

    def _joined(self, outputs: tuple[Float[Array, "B T H"], ...], lengths: Int[Array, "B"]) -> Float[Array, "B T F"]:
        """States of all directions, in the order of the symbols."""
        named = zip(self.directions, outputs, strict=True)
        parts = [reverse_rows(of, lengths) if name == "right_to_left" else of for name, of in named]
        return jnp.concatenate(parts, -1)

    def _pool(self, outputs: tuple[Float[Array, "B T H"], ...], lengths: Int[Array, "B"]) -> Float[Array, "B F"]:
        return jnp.concatenate([self._pooled(of, lengths) for of in outputs], -1)

    def _pooled(self, states: Float[Array, "B T H"], lengths: Int[Array, "B"]) -> Float[Array, "B H"]:
        mask = (jnp.arange(states.shape[1]) < lengths[:, None])[:, :, None]
        if self.pooling == "mean":
            pooled = (states * mask).sum(1) / jnp.maximum(lengths, 1)[:, None]
        elif self.pooling == "max":
            pooled = jnp.where(mask, states, jnp.finfo(states.dtype).min).max(1)
        else:
            last = jnp.maximum(lengths - 1, 0)[:, None, None]
            pooled = jnp.take_along_axis(states, last, 1)[:, 0]
        return jnp.where((lengths > 0)[:, None], pooled, 0.0)


class Encoder(nnx.Module):
    """Reads x once per row, whatever the number of labels.

    With separate encoders there are two sets of features, one for q(y|x) and one for q(z|x,y).
    """

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        self.dropout = model.dropout
        towers = 2 if model.encoder.separate else 1
        self.towers = nnx.List(EncoderTower(model, vocabulary_size) for _ in range(towers))

    def __call__(self, x: Int[Array, "B T"], noise: Noise | None = None) -> tuple[Float[Array, "B F"], ...]:
        """Features of each row, from each tower."""
        noise = noise or {}
        if "encoder.word_dropout" in noise:
            x = jnp.where(noise["encoder.word_dropout"] | (x < len(SPECIALS)), x, UNK)
        return tuple(
            dropped(
                tower.features(x, noise.get(f"encoder.embedding.{index}"), self.dropout),
                noise,
                f"features.{index}",
                self.dropout,
            )
            for index, tower in enumerate(self.towers)
        )


class SourceEncoder(nnx.Module):
    """Reads the source once per row, for model and guide."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        self.dropout = model.dropout
        self.tower = EncoderTower(model, vocabulary_size)

    def __call__(self, source: Int[Array, "B S"], noise: Noise | None = None) -> Encoding:
        """Features of each row, and the states that a decoder may attend to."""
        noise = noise or {}
        found = self.tower(source, noise.get("source.embedding"), self.dropout)
        return found._replace(features=dropped(found.features, noise, "source.features", self.dropout))


class Classifier(Multiplies):
    """q(y|x)."""

    def __init__(self, features: int, label_count: int) -> None:
        self.weight = nnx.Param(jnp.zeros((label_count, features)))
        self.bias = nnx.Param(jnp.zeros(label_count))

    def __call__(self, features: tuple[Float[Array, "B F"], ...]) -> dist.CategoricalLogits:
        """A Categorical of batch shape `(B,)` over K labels, from the first features."""
        logits = linear(features[0], self.weight[...], self.bias[...], self.rounding)
        return dist.CategoricalLogits(jax.nn.log_softmax(logits))


class LatentEncoder(nnx.Module):
    """q(z|x,y); and, of the features of a source, p(z|source,y)."""

    def __init__(self, model: ModelConfig, features: int, label_count: int) -> None:
        hidden = model.encoder.hidden_size
        self.hidden = JointLinear(features, label_count, hidden)
        self.loc = Linear(hidden, model.latent_size)
        self.scale = Linear(hidden, model.latent_size)

    def __call__(
        self, features: tuple[Float[Array, "B F"], ...], y: Float[Array, "*#B L"], noise: Noise | None = None
    ) -> DiagonalNormal:
        """A diagonal Normal of batch shape `(K, B)` or `(B,)` over Z, from the last features and noise `z`, if any."""
        hidden = jnp.tanh(self.hidden(features[-1], y))
        scale = jax.nn.softplus(self.scale(hidden)) + SCALE_FLOOR
        return DiagonalNormal(self.loc(hidden), scale, noise=noise_of_label((noise or {}).get("z"), y))
