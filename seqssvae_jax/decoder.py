"""The decoder: a distribution over sequences for given y and z, and for a given source where there is one.

`y` enters as a one-hot vector, as in `modules`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from seqssvae.config import ModelConfig
from seqssvae.data.vocabulary import PAD, START, UNK
from seqssvae.parameters import GATES, STATES, source_feature_size
from seqssvae_jax.distributions import AutoregressiveCategorical, Operands
from seqssvae_jax.modules import Encoding, JointLinear, Linear, Noise, RecurrentLayer, dropped
from seqssvae_jax.ops import State, linear, linear_of_labels, tanh, tanh_of_sum, windows


class InitialState(nnx.Module):
    """The first states as a function of y and z: a perceptron with one hidden layer."""

    def __init__(self, latent_size: int, label_count: int, hidden: int, states: int) -> None:
        self.hidden = JointLinear(latent_size, label_count, hidden)
        self.output = Linear(hidden, states)

    def __call__(
        self, z: Float[Array, "*#B Z"], y: Float[Array, "*#B L"], source: Float[Array, "B H"] | float = 0.0
    ) -> Float[Array, "*#B S"]:
        """All states, one behind the other, before their last non-linearity; `source` is what a source contributes."""
        return self.output(tanh(self.hidden(z, y) + source))


class Context(nnx.Module):
    """What a decoder makes of its last inputs instead of a recurrence; of none, where it sees none.

    References:
        Yang et al. 2017, Improved Variational Autoencoders for Text Modeling using Dilated Convolutions,
        https://arxiv.org/abs/1702.08139: the less context a decoder has, the more it makes use of its latents.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        self.weight = nnx.Param(jnp.zeros((hidden, inputs))) if inputs else None
        self.bias = nnx.Param(jnp.zeros(hidden))

    def __call__(self, seen: Float[Array, "*#N I"], source: Float[Array, "*#N H"] | float) -> Float[Array, "*#N H"]:
        """The outputs of steps that have seen these inputs; `source` is what a source contributes."""
        if self.weight is None:
            return tanh(jnp.broadcast_to(self.bias[...], (*seen.shape[:-1], self.bias.size)) + source)
        return tanh(linear(seen, self.weight[...], self.bias[...]) + source)


class Memory(NamedTuple):
    """What the decoder knows of the source: all that does not depend on label or step is computed once per row.

    Args:
        features: Of each row.
        keys: With which the states of the decoder are compared; None without attention.
        values: What is attended to, as it contributes to the output; None without attention.
        mask: True for symbols, False for padding.
    """

    features: Float[Array, "B F"]
    keys: Float[Array, "B S H"] | None
    values: Float[Array, "B S H"] | None
    mask: Bool[Array, "B S"]

    def take(self, rows: Int[Array, " N"]) -> Memory:
        """The memory of these rows."""
        return jax.tree.map(lambda part: part[rows], self)


class Attention(nnx.Module):
    """What each step of the decoder reads in the source: a mean of its states, weighted by how they fit the step's.

    Args:
        model: The networks.
        combines: Whether the layer that joins it with the step's state is its own.

    References:
        Luong et al. 2015, Effective Approaches to Attention-based Neural Machine Translation, equations 5, 7 and 8
        ("general"), https://arxiv.org/abs/1508.04025.
    """

    def __init__(self, model: ModelConfig, combines: bool) -> None:
        hidden = model.decoder.hidden_size
        self.key = Linear(source_feature_size(model), hidden, bias=False)
        self.context = Linear(source_feature_size(model), hidden, bias=False)
        self.output = Linear(hidden, hidden) if combines else None

    def __call__(self, states: Float[Array, "*K B T H"], memory: Memory) -> Float[Array, "*K B T H"]:
        """What is read at each step, as it contributes to the output."""
        scores = jnp.einsum("...bth,bsh->...bts", states, memory.keys)
        # not minus infinity: a filler row has nothing to attend to
        scores = jnp.where(memory.mask[:, None], scores, jnp.finfo(scores.dtype).min)
        return jnp.einsum("...bts,bsh->...bth", jax.nn.softmax(scores), memory.values)


class Decoder(nnx.Module):
    """p(x|y,z): a recurrent network, conditioned on y and z in one of three ways (`DecoderConfig.conditioning`).

    Where there is a source, it is p(x|source,y,z): the source's features enter the first state, and with `every_step`
    every step's input, and each step may attend to it. Instead of the recurrence there may be a layer that sees the
    last inputs alone (`DecoderConfig.context`), which the source's features enter at every step.
    """

    def __init__(self, model: ModelConfig, vocabulary_size: int, label_count: int, has_source: bool = False) -> None:
        decoder, hidden = model.decoder, model.decoder.hidden_size
        self.conditioning = decoder.conditioning
        self.dropout = model.dropout
        self.state_kinds = STATES[model.cell]
        self.seen = decoder.context
        self.embedding_size = 0 if self.seen == 0 else decoder.embedding_size
        shape = vocabulary_size, self.embedding_size
        self.embedding = nnx.Param(jnp.zeros(shape)) if self.embedding_size else None
        sizes = [decoder.embedding_size] + [hidden] * (decoder.layers - 1)
        self.layers = nnx.List(
            RecurrentLayer(model.cell, size, hidden) for size in (sizes if self.seen is None else ())
        )
        self.context = None if self.seen is None else Context(self.seen * decoder.embedding_size, hidden)
        states = self.state_kinds * decoder.layers * hidden
        if decoder.conditioning == "output":
            self.initial_state = nnx.Param(jnp.zeros(states)) if self.seen is None else None
            self.condition = JointLinear(model.latent_size, label_count, hidden)
            self.projection = Linear(hidden, hidden, bias=False)
            self.label_bias = nnx.Param(jnp.zeros((vocabulary_size, label_count)))
        else:
            self.initial = InitialState(model.latent_size, label_count, hidden, states)
        if decoder.conditioning == "every_step":
            self.condition = JointLinear(model.latent_size, label_count, GATES[model.cell] * hidden, bias=False)
        self.output = Linear(hidden, vocabulary_size)
        if has_source:
            features = source_feature_size(model)
            recurrent = decoder.conditioning == "output" and self.seen is None
            self.source_state = Linear(features, states if recurrent else hidden, bias=False)
            if decoder.conditioning == "every_step":
                self.source_condition = Linear(features, GATES[model.cell] * hidden, bias=False)
        attends = has_source and decoder.attention
        self.attention = Attention(model, decoder.conditioning != "output") if attends else None

    def __call__(
        self,
        y: Float[Array, "*#B L"],
        z: Float[Array, "*B Z"],
        time_steps: int,
        source: Encoding | None = None,
        noise: Noise | None = None,
    ) -> AutoregressiveCategorical:
        """p(x|y,z) of batch shape `(K, B)` or `(B,)` over sequences of at most `time_steps` symbols."""
        memory = None if source is None else self.remember(source)
        return AutoregressiveCategorical(ConditionedDecoder(self, y, z, noise or {}, memory), time_steps)

    def remember(self, source: Encoding) -> Memory:
        """What the decoder will need of the source."""
        keys, values = None, None
        if self.attention is not None and source.states is not None:
            keys, values = self.attention.key(source.states), self.attention.context(source.states)
        return Memory(source.features[0], keys, values, source.symbols != PAD)


class ConditionedDecoder:
    """The decoder for given y and z: an `Autoregression`.

    What y and z contribute is written for one label a row, and `vmap`ped over labels where they are enumerated.

    Args:
        decoder: The networks.
        y: One-hot labels, of shape `(K, 1, K)`, `(K, B, K)` or `(B, K)`.
        z: Latents, of shape `(K, B, Z)` or `(B, Z)`.
        noise: What is drawn at random for `output_operands`, as in `seqssvae.noise`.
        memory: What the decoder knows of the source, if there is one.
    """

    def __init__(
        self,
        decoder: Decoder,
        y: Float[Array, "*#B L"],
        z: Float[Array, "*B Z"],
        noise: Noise,
        memory: Memory | None = None,
    ) -> None:
        self.decoder, self.y, self.z, self.noise, self.memory = decoder, y, z, noise, memory
        self.batch_shape = z.shape[:-1]

    def initial_states(self) -> list[State]:
        """First states, a tuple per layer; of batch shape `(1, B)` or `(B,)` where they do not depend on y and z."""
        decoder, rows, before = self.decoder, self.z.shape[-2], [1] * (self.z.ndim - 2)
        if decoder.seen is not None:
            return [(jnp.zeros((*before, rows, decoder.seen * decoder.embedding_size), self.z.dtype),)]
        source = self._of_source()
        if decoder.conditioning == "output":
            assert decoder.initial_state is not None
            flat = jnp.broadcast_to(decoder.initial_state[...], (rows, decoder.initial_state.size)) + source
            flat = flat.reshape(*before, *flat.shape)
        else:
            flat = self._each_label(lambda y, z: decoder.initial(z, y, source))
        parts = jnp.split(tanh(flat), decoder.state_kinds * len(decoder.layers), -1)
        return [tuple(parts[layer :: len(decoder.layers)]) for layer in range(len(decoder.layers))]

    def step(self, symbols: Int[Array, "*B"], states: list[State]) -> tuple[Float[Array, "*B V"], list[State]]:
        """Logits of the symbol that follows `symbols`, and the states after reading them."""
        inputs, constant, context = self._embedded(symbols), self._constant(), self.decoder.context
        new_states: list[State] = []
        if context is not None:
            seen = jnp.concatenate([states[0][0], inputs], -1)[..., self.decoder.embedding_size :]
            new_states, inputs = [(seen,)], context(seen, self._of_source())
            states = []
        for layer, state in zip(self.decoder.layers, states, strict=True):
            new_states.append(layer.step(inputs, constant, state))
            inputs, constant = new_states[-1][0], None
        hidden = self._conditioned(inputs[..., None, :])[..., 0, :]
        logits, label_bias = self.decoder.output(hidden), self._label_bias()
        return logits if label_bias is None else logits + label_bias, new_states

    def output_operands(self, x: Int[Array, "B T"]) -> Operands:
        """What the output layer turns into `p(x_t | x_<t, y, z)` of every symbol of x: teacher forcing."""
        if len(self.batch_shape) == 1:  # an observed label is an enumeration of one
            one_label = ConditionedDecoder(self.decoder, self.y[None], self.z[None], self.noise, self.memory)
            return one_label.output_operands(x)
        decoder, output = self.decoder, self.decoder.output
        inputs = jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        if "word_dropout" in self.noise:
            inputs = jnp.where(self.noise["word_dropout"] | (inputs == START), inputs, UNK)
        outputs = self._outputs(dropped(self._embedded(inputs), self.noise, "decoder.embedding", decoder.dropout))
        assert output.bias is not None
        return self._conditioned(outputs), output.weight[...], output.bias[...], self._label_bias()

    def repeat_rows(self, times: int) -> ConditionedDecoder:
        """The same decoder with each row repeated, its copies side by side."""
        rows = jnp.repeat(jnp.arange(len(self.z)), times)
        y, memory = jnp.broadcast_to(self.y, (len(self.z), self.y.shape[-1])), self.memory and self.memory.take(rows)
        return ConditionedDecoder(self.decoder, y[rows], self.z[rows], {}, memory)

    def _each_label(self, function: Callable[[Array, Array], Array]) -> Array:
        """A function of the one-hot labels and latents of all rows, for every label where they are enumerated."""
        return function(self.y, self.z) if len(self.batch_shape) == 1 else jax.vmap(function)(self.y, self.z)

    def _embedded(self, symbols: Int[Array, "*N"]) -> Float[Array, "*N E"]:
        """Embeddings of symbols, of size 0 where the decoder reads none."""
        embedding = self.decoder.embedding
        return jnp.zeros((*symbols.shape, 0), self.z.dtype) if embedding is None else embedding[...][symbols]

    def _outputs(self, embedded: Float[Array, "B T E"]) -> Float[Array, "*#K B T H"]:
        """What the recurrence, or the context, makes of all inputs."""
        decoder = self.decoder
        if decoder.context is not None:
            source = self._of_source()
            by_step = source if isinstance(source, float) else source[:, None]
            return decoder.context(windows(embedded, max(decoder.seen or 0, 1)), by_step)[None]
        outputs, constant = embedded[None], self._constant()
        for layer, state in zip(decoder.layers, self.initial_states(), strict=True):
            outputs, constant = layer(outputs, constant, state), None
        return outputs

    def _of_source(self) -> Float[Array, "B S"] | float:
        """What the source contributes to the first states, or to each step where there are none."""
        return 0.0 if self.memory is None else self.decoder.source_state(self.memory.features)

    def _constant(self) -> Float[Array, "*B G"] | None:
        """What y, z and the source add to the gates of every step."""
        if self.decoder.conditioning != "every_step":
            return None
        constant = self._each_label(lambda y, z: self.decoder.condition(z, y))
        return constant if self.memory is None else constant + self.decoder.source_condition(self.memory.features)

    def _conditioned(self, outputs: Float[Array, "*#K B T H"]) -> Float[Array, "*#K B T H"]:
        """What the output layer reads: outputs of the recurrence, with what is attended to, y and z."""
        decoder, attention = self.decoder, self.decoder.attention
        read = None if attention is None or self.memory is None else attention(outputs, self.memory)
        if decoder.conditioning == "output":
            projected = decoder.projection(outputs)
            projected = projected if read is None else projected + read
            return tanh_of_sum(projected, self._each_label(lambda y, z: decoder.condition(z, y)))
        if read is None or attention is None or attention.output is None:
            return outputs
        return tanh(attention.output(outputs) + read)

    def _label_bias(self) -> Float[Array, "*#B V"] | None:
        """What y adds to the logits of every step."""
        if self.decoder.conditioning != "output":
            return None
        return self._each_label(lambda y, _: linear_of_labels(y, self.decoder.label_bias[...]))
