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
from jaxtyping import Bool, Float, Int
from numpyro import distributions as dist

from seqssvae.config import ModelConfig
from seqssvae.parameters import GATES, STATES, feature_size
from seqssvae.vocabulary import PAD, START, UNK
from seqssvae_jax.distributions import AutoregressiveCategorical, DiagonalNormal
from seqssvae_jax.likelihood import symbol_log_probs
from seqssvae_jax.products import Multiplies, linear
from seqssvae_jax.recurrence import RecurrentLayer, State

Noise = Mapping[str, Array]

SCALE_FLOOR = 1e-4
"""Least standard deviation of q(z|x,y)."""


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
    """

    def __init__(self, inputs: int, label_count: int, outputs: int, bias: bool = True) -> None:
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))
        self.label_weight = nnx.Param(jnp.zeros((outputs, label_count)))
        if bias:
            self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, inputs: Float[Array, "*#N I"], y: Float[Array, "*#N L"]) -> Float[Array, "*#N O"]:
        """The two products, broadcast against each other: `(B, I)` with `(K, 1, K)` gives `(K, B, O)`."""
        result = linear(inputs, self.weight[...], None, self.rounding) + linear(y, self.label_weight[...])
        return result + self.bias[...] if hasattr(self, "bias") else result


def reverse_rows(values: Float[Array, "B T F"], lengths: Int[Array, "B"]) -> Float[Array, "B T F"]:
    """Reverse the real positions of each row and leave the padding behind them: its own inverse."""
    positions = jnp.arange(values.shape[1])
    mirrored = lengths[:, None] - 1 - positions
    index = jnp.where(mirrored >= 0, mirrored, positions)
    return jnp.take_along_axis(values, index[:, :, None], 1)


class EncoderTower(nnx.Module):
    """Embedding and recurrent layers that turn a row into its features."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        encoder = model.encoder
        self.pooling = encoder.pooling
        self.hidden_size = encoder.hidden_size
        directions = ("left_to_right", "right_to_left") if encoder.bidirectional else ("left_to_right",)
        self.embedding = nnx.Param(jnp.zeros((vocabulary_size, encoder.embedding_size)))
        sizes = [encoder.embedding_size] + [feature_size(model)] * (encoder.layers - 1)
        self.layers = nnx.List(
            nnx.Dict({name: RecurrentLayer(model.cell, size, encoder.hidden_size) for name in directions})
            for size in sizes
        )

    def __call__(
        self, x: Int[Array, "B T"], keep_embedding: Bool[Array, "B T E"] | None, rate: float
    ) -> Float[Array, "B F"]:
        """Features of each row; zeros for filler rows."""
        mask = x != PAD
        lengths = mask.sum(1)
        states = self.embedding[...][x]
        if keep_embedding is not None:
            states = states * keep_embedding / (1.0 - rate)
        for layer in self.layers:
            states = jnp.concatenate([self._read(cell, name, states, lengths) for name, cell in layer.items()], -1)
        return self._pool(states, mask, lengths)

    @staticmethod
    def _read(
        layer: RecurrentLayer, direction: str, states: Float[Array, "B T I"], lengths: Int[Array, "B"]
    ) -> Float[Array, "B T H"]:
        backwards = direction == "right_to_left"
        gates = layer.project(reverse_rows(states, lengths) if backwards else states)
        outputs = layer(gates, None, layer.zero_state(1, len(states)))[0]
        return reverse_rows(outputs, lengths) if backwards else outputs

    def _pool(
        self, states: Float[Array, "B T F"], mask: Bool[Array, "B T"], lengths: Int[Array, "B"]
    ) -> Float[Array, "B F"]:
        real = (lengths > 0)[:, None]
        if self.pooling == "mean":
            return (states * mask[:, :, None]).sum(1) / jnp.maximum(lengths, 1)[:, None]
        if self.pooling == "max":
            lowest = jnp.finfo(states.dtype).min
            return jnp.where(real, jnp.where(mask[:, :, None], states, lowest).max(1), 0.0)
        size = self.hidden_size
        last = jnp.maximum(lengths - 1, 0)[:, None, None]
        ends = [jnp.take_along_axis(states[..., :size], last, 1)[:, 0]]
        if states.shape[-1] > size:
            ends.append(states[:, 0, size:])
        return jnp.where(real, jnp.concatenate(ends, -1), 0.0)


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
        return tuple(
            dropped(
                tower(x, noise.get(f"encoder.embedding.{index}"), self.dropout),
                noise,
                f"features.{index}",
                self.dropout,
            )
            for index, tower in enumerate(self.towers)
        )


class Classifier(Multiplies):
    """q(y|x)."""

    def __init__(self, model: ModelConfig, label_count: int) -> None:
        self.weight = nnx.Param(jnp.zeros((label_count, feature_size(model))))
        self.bias = nnx.Param(jnp.zeros(label_count))

    def __call__(self, features: tuple[Float[Array, "B F"], ...]) -> dist.CategoricalLogits:
        """A Categorical of batch shape `(B,)` over K labels, from the first features."""
        logits = linear(features[0], self.weight[...], self.bias[...], self.rounding)
        return dist.CategoricalLogits(jax.nn.log_softmax(logits))


class LatentEncoder(nnx.Module):
    """q(z|x,y)."""

    def __init__(self, model: ModelConfig, label_count: int) -> None:
        hidden = model.encoder.hidden_size
        self.hidden = JointLinear(feature_size(model), label_count, hidden)
        self.loc = Linear(hidden, model.latent_size)
        self.scale = Linear(hidden, model.latent_size)

    def __call__(
        self, features: tuple[Float[Array, "B F"], ...], y: Float[Array, "*#B L"], noise: Noise | None = None
    ) -> DiagonalNormal:
        """A diagonal Normal of batch shape `(K, B)` or `(B,)` over Z, from the last features and noise `z`, if any."""
        hidden = jnp.tanh(self.hidden(features[-1], y))
        scale = jax.nn.softplus(self.scale(hidden)) + SCALE_FLOOR
        return DiagonalNormal(self.loc(hidden), scale, noise=noise_of_label((noise or {}).get("z"), y))


class InitialState(nnx.Module):
    """The first state of the decoder as a function of y and z: a perceptron with one hidden layer."""

    def __init__(self, latent_size: int, label_count: int, hidden: int, states: int) -> None:
        self.hidden = JointLinear(latent_size, label_count, hidden)
        self.output = Linear(hidden, states)

    def __call__(self, z: Float[Array, "*#B Z"], y: Float[Array, "*#B L"]) -> Float[Array, "*#B S"]:
        """All states, one behind the other, before their last non-linearity."""
        return self.output(jnp.tanh(self.hidden(z, y)))


class Projection(Multiplies):
    """`W a`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))

    def __call__(self, inputs: Float[Array, "*N I"]) -> Float[Array, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight[...], None, self.rounding)


class Decoder(nnx.Module):
    """p(x|y,z): a recurrent network, conditioned on y and z in one of three ways (`DecoderConfig.conditioning`)."""

    def __init__(self, model: ModelConfig, vocabulary_size: int, label_count: int) -> None:
        decoder, hidden = model.decoder, model.decoder.hidden_size
        self.conditioning = decoder.conditioning
        self.dropout = model.dropout
        self.state_kinds = STATES[model.cell]
        self.embedding = nnx.Param(jnp.zeros((vocabulary_size, decoder.embedding_size)))
        sizes = [decoder.embedding_size] + [hidden] * (decoder.layers - 1)
        self.layers = nnx.List(RecurrentLayer(model.cell, size, hidden) for size in sizes)
        states = self.state_kinds * decoder.layers * hidden
        if decoder.conditioning == "output":
            self.initial_state = nnx.Param(jnp.zeros(states))
            self.condition = JointLinear(model.latent_size, label_count, hidden)
            self.projection = Projection(hidden, hidden)
            self.label_bias = nnx.Param(jnp.zeros((vocabulary_size, label_count)))
        else:
            self.initial = InitialState(model.latent_size, label_count, hidden, states)
        if decoder.conditioning == "every_step":
            self.condition = JointLinear(model.latent_size, label_count, GATES[model.cell] * hidden, bias=False)
        self.output = Linear(hidden, vocabulary_size)

    def __call__(
        self,
        y: Float[Array, "*#B L"],
        z: Float[Array, "*B Z"],
        time_steps: int,
        noise: Noise | None = None,
        weights: Float[Array, "..."] | None = None,
    ) -> AutoregressiveCategorical:
        """p(x|y,z) of batch shape `(K, B)` or `(B,)` over sequences of at most `time_steps` symbols.

        `weights` are those that an objective will give to log p(x|y,z), if they are known (`symbol_log_probs`); where
        they are of every label, `(K, B)`, but there is one a row, its own; of any other shape they are passed over.
        """
        if weights is not None and z.ndim == 2 == weights.ndim:  # of every label, but this is one
            weights = (jax.lax.stop_gradient(y).T * weights).sum(0)
        weights = weights if weights is not None and weights.shape == z.shape[:-1] else None

        def conditioned(y: Float[Array, "#B L"], z: Float[Array, "B Z"]) -> ConditionedDecoder:
            return ConditionedDecoder(self, y, z)

        return AutoregressiveCategorical(self, conditioned, y, z, time_steps, noise or {}, weights)

    def log_prob_steps(
        self, x: Int[Array, "B T"], conditions: "Conditions", noise: Noise, weights: Float[Array, "K B"] | None
    ) -> Float[Array, "K B T"]:
        """`log p(x_t | x_<t, y, z)` of every symbol of x, 0 at padding: what is called teacher forcing.

        Args:
            x: Symbol ids.
            conditions: What y and z contribute, with a dimension of labels in front.
            noise: As in `seqssvae.noise`.
            weights: As in `symbol_log_probs`.
        """
        inputs = jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        if "word_dropout" in noise:
            inputs = jnp.where(noise["word_dropout"] | (inputs == START), inputs, UNK)
        embedded = dropped(self.embedding[...][inputs], noise, "decoder.embedding", self.dropout)
        hidden = self._recurrence(embedded, conditions)
        if conditions.output is not None:
            hidden = jnp.tanh(self.projection(hidden) + conditions.output[:, :, None])
        weight, bias = self.output.weight[...], self.output.bias[...]
        return symbol_log_probs(hidden, weight, bias, conditions.label_bias, x, weights, self.output.rounding)

    def _recurrence(self, embedded: Float[Array, "B T E"], conditions: "Conditions") -> Float[Array, "#K B T H"]:
        """Outputs of the top layer, once per row with `output` conditioning and once per label otherwise."""
        states = conditions.states
        if states is None:
            flat = jnp.broadcast_to(self.initial_state[...], (1, len(embedded), self.initial_state[...].size))
            states = self.split_states(flat)
        first, *higher = zip(self.layers, states, strict=True)
        layer, state = first
        outputs = layer(layer.project(embedded), conditions.constant, state)
        for layer, state in higher:  # a higher layer reads what depends on the label: fold labels into rows
            labels, rows = outputs.shape[:2]
            gates = layer.project(outputs).reshape(labels * rows, embedded.shape[1], -1)
            folded = tuple(part.reshape(1, labels * rows, -1) for part in state)
            outputs = layer(gates, None, folded)[0].reshape(labels, rows, embedded.shape[1], -1)
        return outputs

    def split_states(self, flat: Float[Array, "*B S"]) -> list[State]:
        """First states, a tuple per layer, from all of them one behind the other."""
        parts = jnp.split(jnp.tanh(flat), self.state_kinds * len(self.layers), -1)
        return [tuple(parts[layer :: len(self.layers)]) for layer in range(len(self.layers))]


class Conditions(NamedTuple):
    """What label and z contribute to a sequence's probability: for one label, or under `vmap` for each.

    Args:
        states: First states of each layer, `(B, H)`; None where they do not depend on label and z.
        constant: Added to the gates of every step, if anything is.
        output: Added to the projected output of every step, if anything is.
        label_bias: Added to the logits of every step, if anything is.
    """

    states: list[State] | None
    constant: Float[Array, "*B G"] | None
    output: Float[Array, "*B H"] | None
    label_bias: Float[Array, "*#B V"] | None


class ConditionedDecoder:
    """The decoder for one label per row and given z, `vmap`ped over labels where they are enumerated.

    It is written for `(B, ...)`: what y and z contribute to whole sequences, and one step after the other.
    """

    def __init__(self, decoder: Decoder, y: Float[Array, "#B L"], z: Float[Array, "B Z"]) -> None:
        self.decoder = decoder
        self.y = y
        self.z = z

    def conditions(self) -> Conditions:
        """What y and z contribute to whole sequences."""
        decoder = self.decoder
        if decoder.conditioning == "output":
            return Conditions(None, None, decoder.condition(self.z, self.y), linear(self.y, decoder.label_bias[...]))
        return Conditions(self.initial_states(), self._constant(), None, None)

    def initial_states(self) -> list[State]:
        """First states, a tuple per layer, each of shape `(B, H)`."""
        decoder = self.decoder
        if decoder.conditioning == "output":
            flat = jnp.broadcast_to(decoder.initial_state[...], (len(self.z), decoder.initial_state[...].size))
        else:
            flat = decoder.initial(self.z, self.y)
        return decoder.split_states(flat)

    def _constant(self) -> Float[Array, "B G"] | None:
        every_step = self.decoder.conditioning == "every_step"
        return self.decoder.condition(self.z, self.y) if every_step else None

    def _logits(self, outputs: Float[Array, "B H"]) -> Float[Array, "B V"]:
        decoder = self.decoder
        if decoder.conditioning != "output":
            return decoder.output(outputs)
        hidden = jnp.tanh(decoder.projection(outputs) + decoder.condition(self.z, self.y))
        return decoder.output(hidden) + linear(self.y, decoder.label_bias[...])

    def step(self, symbols: Int[Array, "B"], states: list[State]) -> tuple[Float[Array, "B V"], list[State]]:
        """Logits of the next symbol after `symbols`, and the states after reading them."""
        inputs = self.decoder.embedding[...][symbols]
        constant = self._constant()
        new_states: list[State] = []
        for layer, state in zip(self.decoder.layers, states, strict=True):
            gates = layer.project(inputs)
            if constant is not None and not new_states:
                gates = gates + constant
            new_states.append(layer.step(gates, state))
            inputs = new_states[-1][0]
        return self._logits(inputs), new_states

    def repeat_rows(self, times: int) -> "ConditionedDecoder":
        """The same decoder with each row repeated, its copies side by side (for the hypotheses of a beam)."""
        y = jnp.broadcast_to(self.y, (len(self.z), self.y.shape[-1]))
        return ConditionedDecoder(self.decoder, jnp.repeat(y, times, 0), jnp.repeat(self.z, times, 0))
