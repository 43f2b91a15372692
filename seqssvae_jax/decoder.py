"""The decoder: a distribution over sequences for given y and z, and for a given source where there is one.

`y` enters as a one-hot vector, as in `modules`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from seqssvae.config import ModelConfig
from seqssvae.parameters import GATES, STATES, feature_size
from seqssvae.vocabulary import START, UNK
from seqssvae_jax.distributions import AutoregressiveCategorical
from seqssvae_jax.likelihood import symbol_log_probs
from seqssvae_jax.modules import Encoding, JointLinear, Linear, Noise, dropped
from seqssvae_jax.products import Multiplies, linear
from seqssvae_jax.recurrence import RecurrentLayer, State, project_together


class InitialState(nnx.Module):
    """The first state of the decoder as a function of y and z: a perceptron with one hidden layer."""

    def __init__(self, latent_size: int, label_count: int, hidden: int, states: int) -> None:
        self.hidden = JointLinear(latent_size, label_count, hidden)
        self.output = Linear(hidden, states)

    def __call__(
        self, z: Float[Array, "*#B Z"], y: Float[Array, "*#B L"], source: Float[Array, "B H"] | float = 0.0
    ) -> Float[Array, "*#B S"]:
        """All states, one behind the other, before their last non-linearity; `source` is what a source contributes."""
        return self.output(jnp.tanh(self.hidden(z, y) + source))


class Projection(Multiplies):
    """`W a`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight = nnx.Param(jnp.zeros((outputs, inputs)))

    def __call__(self, inputs: Float[Array, "*N I"]) -> Float[Array, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight[...], None, self.rounding)


class Memory(NamedTuple):
    """What the decoder knows of the source: all that does not depend on label or step is computed once per row.

    Args:
        features: Of each row.
        keys: With which the states of the decoder are compared; None without attention.
        values: What is attended to, as it contributes to the output; None without attention.
        mask: True for real symbols.
    """

    features: Float[Array, "B F"]
    keys: Float[Array, "B S H"] | None
    values: Float[Array, "B S H"] | None
    mask: Bool[Array, "B S"]

    def take(self, rows: Int[Array, "N"]) -> "Memory":
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
        self.key = Projection(feature_size(model), hidden)
        self.context = Projection(feature_size(model), hidden)
        self.output = Linear(hidden, hidden) if combines else None

    def __call__(self, states: Float[Array, "#K B T H"], memory: Memory) -> Float[Array, "#K B T H"]:
        """What is read at each step, as it contributes to the output."""
        scores = jnp.einsum("kbth,bsh->kbts", states, memory.keys)
        # not minus infinity: a filler row has nothing to attend to
        scores = jnp.where(memory.mask[:, None], scores, jnp.finfo(scores.dtype).min)
        return jnp.einsum("kbts,bsh->kbth", jax.nn.softmax(scores), memory.values)


class Decoder(nnx.Module):
    """p(x|y,z): a recurrent network, conditioned on y and z in one of three ways (`DecoderConfig.conditioning`).

    Where there is a source, it is p(x|source,y,z): the source's features enter the first state, and with `every_step`
    every step's input, and each step may attend to it.
    """

    def __init__(self, model: ModelConfig, vocabulary_size: int, label_count: int, has_source: bool = False) -> None:
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
            gates = GATES[model.cell] * hidden
            self.condition = JointLinear(model.latent_size, label_count, gates, bias=False, features_first=True)
        self.output = Linear(hidden, vocabulary_size)
        if has_source:
            features = feature_size(model)
            self.source_state = Projection(features, states if decoder.conditioning == "output" else hidden)
            if decoder.conditioning == "every_step":
                self.source_condition = Projection(features, GATES[model.cell] * hidden)
        attends = has_source and decoder.attention
        self.attention = Attention(model, decoder.conditioning != "output") if attends else None

    def __call__(
        self,
        y: Float[Array, "*#B L"],
        z: Float[Array, "*B Z"],
        time_steps: int,
        noise: Noise | None = None,
        weights: Float[Array, "..."] | None = None,
        source: Encoding | None = None,
    ) -> AutoregressiveCategorical:
        """p(x|y,z) of batch shape `(K, B)` or `(B,)` over sequences of at most `time_steps` symbols.

        `weights` are those that an objective will give to log p(x|y,z), if they are known (`symbol_log_probs`); where
        they are of every label, `(K, B)`, but there is one a row, its own; of any other shape they are passed over.
        """
        if weights is not None and z.ndim == 2 == weights.ndim:  # of every label, but this is one
            weights = (jax.lax.stop_gradient(y).T * weights).sum(0)
        weights = weights if weights is not None and weights.shape == z.shape[:-1] else None

        memory = self.memory(source)

        def conditioned(y: Float[Array, "#B L"], z: Float[Array, "B Z"]) -> ConditionedDecoder:
            return ConditionedDecoder(self, y, z, memory)

        return AutoregressiveCategorical(self, conditioned, y, z, time_steps, noise or {}, weights, memory)

    def memory(self, source: Encoding | None) -> Memory | None:
        """What it will need of the source."""
        if source is None:
            return None
        keys, values = None, None
        if self.attention is not None:
            keys, values = self.attention.key(source.states), self.attention.context(source.states)
        return Memory(source.features, keys, values, source.mask)

    def first_state(self, rows: int, memory: Memory | None) -> Float[Array, "B S"]:
        """All first states, one behind the other, where they do not depend on label and z."""
        flat = self.initial_state[...]
        if memory is not None:
            return flat + self.source_state(memory.features)
        return jnp.broadcast_to(flat, (rows, flat.size))

    def read(self, hidden: Float[Array, "#K B T H"], memory: Memory | None) -> Float[Array, "#K B T H"] | None:
        """What each step attends to, if it does."""
        return None if self.attention is None or memory is None else self.attention(hidden, memory)

    def joined(self, hidden: Float[Array, "*N H"], read: Float[Array, "*N H"] | None) -> Float[Array, "*N H"]:
        """With `output` conditioning, what is added to label and z: projected outputs and what was attended to."""
        projected = self.projection(hidden)
        return projected if read is None else projected + read

    def combined(self, hidden: Float[Array, "*N H"], read: Float[Array, "*N H"] | None) -> Float[Array, "*N H"]:
        """With other conditionings, what the output layer reads: outputs, with what was attended to."""
        if read is None:
            return hidden
        assert self.attention is not None
        assert self.attention.output is not None
        return jnp.tanh(self.attention.output(hidden) + read)

    def log_prob_steps(
        self,
        x: Int[Array, "B T"],
        conditions: "Conditions",
        noise: Noise,
        weights: Float[Array, "K B"] | None,
        memory: Memory | None = None,
    ) -> Float[Array, "K B T"]:
        """`log p(x_t | x_<t, y, z)` of every symbol of x, 0 at padding: what is called teacher forcing.

        Args:
            x: Symbol ids.
            conditions: What y and z contribute, with a dimension of labels in front.
            noise: As in `seqssvae.noise`.
            weights: As in `symbol_log_probs`.
            memory: What it knows of the source.
        """
        inputs = jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        if "word_dropout" in noise:
            inputs = jnp.where(noise["word_dropout"] | (inputs == START), inputs, UNK)
        embedded = dropped(self.embedding[...][inputs], noise, "decoder.embedding", self.dropout)
        hidden = self._recurrence(embedded, conditions, memory)
        read = self.read(hidden, memory)
        if conditions.output is not None:
            hidden = jnp.tanh(self.joined(hidden, read) + conditions.output[:, :, None])
        else:
            hidden = self.combined(hidden, read)
        weight, bias = self.output.weight[...], self.output.bias[...]
        return symbol_log_probs(hidden, weight, bias, conditions.label_bias, x, weights, self.output.rounding)

    def _recurrence(
        self, embedded: Float[Array, "B T E"], conditions: "Conditions", memory: Memory | None
    ) -> Float[Array, "#K B T H"]:
        """Outputs of the top layer, once per row with `output` conditioning and once per label otherwise."""
        states = conditions.states
        if states is None:
            states = self.split_states(self.first_state(len(embedded), memory)[None])
        first, *higher = zip(self.layers, states, strict=True)
        layer, state = first
        outputs = layer(project_together((layer,), (embedded,))[0], conditions.constant, state)
        for layer, state in higher:  # a higher layer reads what depends on the label: fold labels into rows
            labels, rows = outputs.shape[:2]
            (gates,) = project_together((layer,), (outputs.reshape(labels * rows, embedded.shape[1], -1),))
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

    def __init__(
        self, decoder: Decoder, y: Float[Array, "#B L"], z: Float[Array, "B Z"], memory: Memory | None = None
    ) -> None:
        self.decoder = decoder
        self.y = y
        self.z = z
        self.memory = memory

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
            return decoder.split_states(decoder.first_state(len(self.z), self.memory))
        source = 0.0 if self.memory is None else decoder.source_state(self.memory.features)
        return decoder.split_states(decoder.initial(self.z, self.y, source))

    def _constant(self) -> Float[Array, "B G"] | None:
        if self.decoder.conditioning != "every_step":
            return None
        constant = self.decoder.condition(self.z, self.y)
        return constant if self.memory is None else constant + self.decoder.source_condition(self.memory.features)

    def _logits(self, outputs: Float[Array, "B H"]) -> Float[Array, "B V"]:
        decoder, found = self.decoder, self.decoder.read(outputs[None, :, None], self.memory)
        read = None if found is None else found[0, :, 0]
        if decoder.conditioning != "output":
            return decoder.output(decoder.combined(outputs, read))
        hidden = jnp.tanh(decoder.joined(outputs, read) + decoder.condition(self.z, self.y))
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
        rows = jnp.repeat(jnp.arange(len(self.z)), times)
        y, memory = jnp.broadcast_to(self.y, (len(self.z), self.y.shape[-1])), self.memory and self.memory.take(rows)
        return ConditionedDecoder(self.decoder, y[rows], self.z[rows], memory)
