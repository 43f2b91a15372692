"""The networks: each takes arrays and returns a distribution, so that the programs read as the graphical model.

`y` enters as a one-hot vector: of shape `(K, 1, K)` where it is enumerated, `(B, K)` where it is observed, or
`(S, B, K)` for S labels of each row.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int, Shaped
from numpyro import distributions as dist

from seqssvae.config import EncoderKind, ModelConfig
from seqssvae.data.vocabulary import PAD, SPECIALS, UNK
from seqssvae.parameters import GATES, source_feature_size
from seqssvae_jax.distributions import DiagonalNormal
from seqssvae_jax.ops import (
    CellWeights,
    State,
    cell_step,
    linear,
    linear_of_labels,
    max_over_windows,
    pool,
    recurrence,
    tanh,
)

Noise = Mapping[str, Array]

SCALE_FLOOR = 1e-4
"""Least standard deviation of q(z|x,y), and of p(z|source,y)."""


def dropped(values: Array, noise: Noise, name: str, rate: float) -> Array:
    """Inverted dropout with the mask of that name; without one, as in evaluation, the values as they are."""
    return values * noise[name] / (1.0 - rate) if name in noise else values


def noise_of_label(noise: Array | None, y: Float[Array, "*#B L"]) -> Array | None:
    """The noise of z for these labels, of shape `(*B, Z)`.

    Where noise is given for every label, as `(K, B, Z)`, each label has its own: noise is indexed by label, whether
    labels are enumerated, chosen, taken one after the other, or observed.
    """
    if noise is None or noise.ndim == 2:
        return noise
    return noise[y.argmax(-1), jnp.arange(noise.shape[1])]


class Linear(nnx.Module):
    """`W a + b`, or `W a`, with the weights of `seqssvae.parameters`."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, inputs: Float[Array, "*N I"]) -> Float[Array, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight[...], None if self.bias is None else self.bias[...])


class JointLinear(nnx.Module):
    """`W a + U y + b`: a linear map of `[a, y]` that never concatenates, so that each part keeps its own shape."""

    def __init__(self, inputs: int, label_count: int, outputs: int, bias: bool = True) -> None:
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))
        self.label_weight = nnx.Param(jnp.zeros((outputs, label_count)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, inputs: Float[Array, "*#N I"], y: Float[Array, "*#N L"]) -> Float[Array, "*#N O"]:
        """The two products, broadcast against each other: `(B, I)` with `(K, 1, K)` gives `(K, B, O)`."""
        result = linear(inputs, self.weight[...]) + linear_of_labels(y, self.label_weight[...])
        return result if self.bias is None else result + self.bias[...]


class RecurrentLayer(nnx.Module):
    """One recurrent layer in one direction.

    Args:
        cell: `gru` or `lstm`.
        input_size: Size of what it reads.
        hidden_size: H.
    """

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        gates = GATES[cell] * hidden_size
        self.weight_ih = nnx.Param(jnp.zeros((gates, input_size)))
        self.weight_hh = nnx.Param(jnp.zeros((gates, hidden_size)))
        self.bias = nnx.Param(jnp.zeros(gates))
        self.bias_n = nnx.Param(jnp.zeros(hidden_size)) if cell == "gru" else None

    @property
    def weights(self) -> CellWeights:
        """The weights, as the operations take them."""
        bias_n = None if self.bias_n is None else self.bias_n[...]
        return CellWeights(self.weight_ih[...], self.weight_hh[...], self.bias[...], bias_n)

    def __call__(
        self, inputs: Float[Array, "#K B T I"], constant: Float[Array, "K B G"] | None, state: State
    ) -> Float[Array, "K B T H"]:
        """Outputs of every step; arguments as of `seqssvae_jax.ops.recurrence`."""
        return recurrence([self.weights], [inputs], constant, state)[0]

    def step(self, inputs: Float[Array, "*#N I"], constant: Float[Array, "*#N G"] | None, state: State) -> State:
        """The state after one more input; its first entry is the output."""
        gates = linear(inputs, self.weight_ih[...], self.bias[...])
        return cell_step(self.weights, gates if constant is None else gates + constant, state)


def reverse_rows(values: Shaped[Array, "B T *F"], lengths: Int[Array, " B"]) -> Shaped[Array, "B T *F"]:
    """Reverse the symbols of each row and leave the padding behind them: its own inverse."""
    positions = jnp.arange(values.shape[1])
    mirrored = lengths[:, None] - 1 - positions
    index = jnp.where(mirrored >= 0, mirrored, positions)
    return jnp.take_along_axis(values, index.reshape(*index.shape, *[1] * (values.ndim - 2)), 1)


class Encoding(NamedTuple):
    """What an encoder makes of sequences.

    Args:
        symbols: The sequences.
        features: Of each row, zeros for filler rows: one set, or with separate encoders one for q(y|x) and one for
            q(z|x,y).
        states: Of each symbol, where a decoder attends to them.
    """

    symbols: Int[Array, "B T"]
    features: tuple[Float[Array, "B F"], ...]
    states: Float[Array, "B T F"] | None = None


def symbols_of(x: Int[Array, "B T"] | Encoding) -> Int[Array, "B T"]:
    """The sequences, which may have been encoded before."""
    return x.symbols if isinstance(x, Encoding) else x


def real_rows(x: Int[Array, "B T"]) -> Bool[Array, " B"]:
    """True for rows with symbols; rows that fill up a batch are all PAD."""
    return (x != PAD).any(1)


class EncoderTower(nnx.Module):
    """Embedding, and recurrent layers or a convolution or both, that turn a row into its features."""

    def __init__(self, model: ModelConfig, vocabulary_size: int, kind: EncoderKind = "recurrent") -> None:
        encoder = model.encoder
        self.pooling = encoder.pooling
        self.directions = ("left_to_right", "right_to_left") if encoder.bidirectional else ("left_to_right",)
        self.embedding = nnx.Param(jnp.zeros((vocabulary_size, encoder.embedding_size)))
        sizes = [encoder.embedding_size] + [source_feature_size(model)] * (encoder.layers - 1)
        self.layers = nnx.List(
            nnx.Dict({name: RecurrentLayer(model.cell, size, encoder.hidden_size) for name in self.directions})
            for size in (sizes if kind != "convolution" else ())
        )
        self.convolutions = nnx.Dict(
            {str(width): Linear(width * encoder.embedding_size, encoder.channels) for width in encoder.widths}
            if kind != "recurrent"
            else {}
        )

    def __call__(
        self, x: Int[Array, "B T"], noise: Noise, name: str, rate: float, with_states: bool = False
    ) -> tuple[Float[Array, "B F"], Float[Array, "B T F"] | None]:
        """Features of each row, and the states of its symbols if they are asked for.

        Args:
            x: Symbol ids.
            noise: Which entries of the embedding are kept, under that name.
            name: Of the entry of the noise.
            rate: Share of entries that are not.
            with_states: Whether the states of the symbols are wanted.
        """
        lengths = (x != PAD).sum(1)
        inputs = tuple(self.embedding[...][symbols] for symbols in self._as_read(x, lengths))
        if name in noise:
            kept = self._as_read(noise[name], lengths)
            inputs = tuple(values * keep / (1.0 - rate) for values, keep in zip(inputs, kept, strict=True))
        read = inputs[0]  # from left to right
        states: tuple[Array, ...] = ()
        for number, layer in enumerate(self.layers):
            if number:
                inputs = self._as_read(self._joined(states, lengths), lengths)
            cells = [cell.weights for cell in layer.values()]
            states = tuple(of_cell[0] for of_cell in recurrence(cells, [values[None] for values in inputs]))
        parts = [pool(of_direction, lengths, self.pooling) for of_direction in states]
        for filters in self.convolutions.values():
            parts.append(max_over_windows(read, lengths, filters.weight[...], filters.bias[...]))
        return jnp.concatenate(parts, -1), self._joined(states, lengths) if with_states else None

    def _as_read(self, values: Shaped[Array, "B T *F"], lengths: Int[Array, " B"]) -> tuple[Array, ...]:
        """Rows as each direction reads them."""
        return tuple(reverse_rows(values, lengths) if name == "right_to_left" else values for name in self.directions)

    def _joined(self, states: tuple[Float[Array, "B T H"], ...], lengths: Int[Array, " B"]) -> Float[Array, "B T F"]:
        """States of all directions, in the order of the symbols."""
        named = zip(self.directions, states, strict=True)
        parts = [reverse_rows(of, lengths) if name == "right_to_left" else of for name, of in named]
        return jnp.concatenate(parts, -1)


class Encoder(nnx.Module):
    """Reads x once per row, whatever the number of labels; separate encoders read it once each."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        self.dropout = model.dropout
        towers = 2 if model.encoder.separate else 1
        self.towers = nnx.List(EncoderTower(model, vocabulary_size, model.encoder.kind) for _ in range(towers))

    def __call__(self, x: Int[Array, "B T"], noise: Noise | None = None) -> Encoding:
        """Features of each row, from each tower."""
        noise, features_of_towers, read = noise or {}, [], x
        if "encoder.word_dropout" in noise:
            read = jnp.where(noise["encoder.word_dropout"] | (x < len(SPECIALS)), x, UNK)
        for index, tower in enumerate(self.towers):
            features, _ = tower(read, noise, f"encoder.embedding.{index}", self.dropout)
            features_of_towers.append(dropped(features, noise, f"features.{index}", self.dropout))
        return Encoding(x, tuple(features_of_towers))


class SourceEncoder(nnx.Module):
    """Reads the source once per row, for model and guide."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        self.dropout = model.dropout
        self.tower = EncoderTower(model, vocabulary_size)

    def __call__(self, source: Int[Array, "B S"], noise: Noise | None = None) -> Encoding:
        """Features of each row, and the states that a decoder may attend to."""
        noise = noise or {}
        features, states = self.tower(source, noise, "source.embedding", self.dropout, with_states=True)
        return Encoding(source, (dropped(features, noise, "source.features", self.dropout),), states)


class Classifier(nnx.Module):
    """q(y|x)."""

    def __init__(self, features: int, label_count: int) -> None:
        self.weight = nnx.Param(jnp.zeros((label_count, features)))
        self.bias = nnx.Param(jnp.zeros(label_count))

    def __call__(self, encoding: Encoding) -> dist.CategoricalLogits:
        """A Categorical of batch shape `(B,)` over K labels, from the first features."""
        logits = linear(encoding.features[0], self.weight[...], self.bias[...])
        return dist.CategoricalLogits(jax.nn.log_softmax(logits))


class LatentEncoder(nnx.Module):
    """q(z|x,y); and, of the features of a source, p(z|source,y)."""

    def __init__(self, model: ModelConfig, features: int, label_count: int) -> None:
        hidden = model.encoder.hidden_size
        self.hidden = JointLinear(features, label_count, hidden)
        self.loc = Linear(hidden, model.latent_size)
        self.scale = Linear(hidden, model.latent_size)

    def __call__(self, encoding: Encoding, y: Float[Array, "*#B L"], noise: Noise | None = None) -> DiagonalNormal:
        """A diagonal Normal of batch shape `(K, B)` or `(B,)` over Z, from the last features and noise `z`, if any."""
        hidden = tanh(self.hidden(encoding.features[-1], y))
        scale = jax.nn.softplus(self.scale(hidden)) + SCALE_FLOOR
        return DiagonalNormal(self.loc(hidden), scale, noise=noise_of_label((noise or {}).get("z"), y))
