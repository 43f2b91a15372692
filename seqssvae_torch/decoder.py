"""The decoder: a distribution over sequences for given y and z, and for a given source where there is one.

`y` enters as a one-hot vector, as in `modules`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from seqssvae.config import ModelConfig
from seqssvae.parameters import GATES, STATES, feature_size
from seqssvae.vocabulary import START, UNK
from seqssvae_torch.distributions import AutoregressiveCategorical
from seqssvae_torch.likelihood import symbol_log_probs, tanh_of_sum
from seqssvae_torch.modules import Encoding, JointLinear, Linear, Noise, dropped
from seqssvae_torch.products import Multiplies, linear
from seqssvae_torch.recurrence import RecurrentLayer, State, project_together, tanh


class InitialState(nn.Module):
    """The first state of the decoder as a function of y and z: a perceptron with one hidden layer."""

    def __init__(self, latent_size: int, label_count: int, hidden: int, states: int) -> None:
        super().__init__()
        self.hidden = JointLinear(latent_size, label_count, hidden)
        self.output = Linear(hidden, states)

    def forward(
        self, z: Float[Tensor, "*#B Z"], y: Float[Tensor, "*#B L"], source: Float[Tensor, "B H"] | float = 0.0
    ) -> Float[Tensor, "*#B S"]:
        """All states, one behind the other, before their last non-linearity; `source` is what a source contributes."""
        return self.output(tanh(self.hidden(z, y) + source))


class Projection(Multiplies):
    """`W a`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))

    def forward(self, inputs: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight, None, self.rounding)


class Memory(NamedTuple):
    """What the decoder knows of the source: all that does not depend on label or step is computed once per row.

    Args:
        features: Of each row.
        keys: With which the states of the decoder are compared; None without attention.
        values: What is attended to, as it contributes to the output; None without attention.
        mask: True for real symbols.
    """

    features: Float[Tensor, "B F"]
    keys: Float[Tensor, "B S H"] | None
    values: Float[Tensor, "B S H"] | None
    mask: Bool[Tensor, "B S"]

    def take(self, rows: Int[Tensor, "N"]) -> "Memory":
        """The memory of these rows."""
        keys, values = (None if part is None else part[rows] for part in (self.keys, self.values))
        return Memory(self.features[rows], keys, values, self.mask[rows])


class Attention(nn.Module):
    """What each step of the decoder reads in the source: a mean of its states, weighted by how they fit the step's.

    Args:
        model: The networks.
        combines: Whether the layer that joins it with the step's state is its own.

    References:
        Luong et al. 2015, Effective Approaches to Attention-based Neural Machine Translation, equations 5, 7 and 8
        ("general"), https://arxiv.org/abs/1508.04025.
    """

    def __init__(self, model: ModelConfig, combines: bool) -> None:
        super().__init__()
        hidden = model.decoder.hidden_size
        self.key = Projection(feature_size(model), hidden)
        self.context = Projection(feature_size(model), hidden)
        self.output = Linear(hidden, hidden) if combines else None

    def forward(self, states: Float[Tensor, "#K B T H"], memory: Memory) -> Float[Tensor, "#K B T H"]:
        """What is read at each step, as it contributes to the output."""
        assert memory.keys is not None
        assert memory.values is not None
        scores = torch.einsum("kbth,bsh->kbts", states, memory.keys)
        # not minus infinity: a filler row has nothing to attend to
        scores = scores.masked_fill(~memory.mask[:, None], torch.finfo(scores.dtype).min)
        return torch.einsum("kbts,bsh->kbth", scores.softmax(-1), memory.values)


class Decoder(nn.Module):
    """p(x|y,z): a recurrent network, conditioned on y and z in one of three ways (`DecoderConfig.conditioning`).

    Where there is a source, it is p(x|source,y,z): the source's features enter the first state, and with `every_step`
    every step's input, and each step may attend to it.
    """

    def __init__(self, model: ModelConfig, vocabulary_size: int, label_count: int, has_source: bool = False) -> None:
        super().__init__()
        decoder, hidden = model.decoder, model.decoder.hidden_size
        self.conditioning = decoder.conditioning
        self.dropout = model.dropout
        self.state_kinds = STATES[model.cell]
        self.embedding = nn.Parameter(torch.zeros(vocabulary_size, decoder.embedding_size))
        sizes = [decoder.embedding_size] + [hidden] * (decoder.layers - 1)
        self.layers = nn.ModuleList(RecurrentLayer(model.cell, size, hidden) for size in sizes)
        states = self.state_kinds * decoder.layers * hidden
        if decoder.conditioning == "output":
            self.initial_state = nn.Parameter(torch.zeros(states))
            self.condition = JointLinear(model.latent_size, label_count, hidden)
            self.projection = Projection(hidden, hidden)
            self.label_bias = nn.Parameter(torch.zeros(vocabulary_size, label_count))
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

    def forward(
        self,
        y: Float[Tensor, "*#B L"],
        z: Float[Tensor, "*B Z"],
        time_steps: int,
        noise: Noise | None = None,
        weights: Float[Tensor, "..."] | None = None,
        source: Encoding | None = None,
    ) -> AutoregressiveCategorical:
        """p(x|y,z) of batch shape `(K, B)` or `(B,)` over sequences of at most `time_steps` symbols.

        `weights` are those that an objective will give to log p(x|y,z), if they are known (`symbol_log_probs`); where
        they are of every label, `(K, B)`, but there is one a row, its own; of any other shape they are passed over.
        """
        if weights is not None and z.dim() == 2 == weights.dim():  # of every label, but this is one
            weights = (y.detach().t() * weights).sum(0)
        weights = weights if weights is not None and weights.shape == z.shape[:-1] else None
        conditioned = ConditionedDecoder(self, y, z, noise or {}, weights, self.memory(source))
        return AutoregressiveCategorical(conditioned, z.shape[:-1], time_steps)

    def memory(self, source: Encoding | None) -> Memory | None:
        """What it will need of the source."""
        if source is None:
            return None
        keys, values = None, None
        if self.attention is not None:
            keys, values = self.attention.key(source.states), self.attention.context(source.states)
        return Memory(source.features, keys, values, source.mask)

    def first_state(self, rows: int, memory: Memory | None) -> Float[Tensor, "B S"]:
        """All first states, one behind the other, where they do not depend on label and z."""
        if memory is not None:
            return self.initial_state + self.source_state(memory.features)
        return self.initial_state.expand(rows, -1)

    def read(self, hidden: Float[Tensor, "#K B T H"], memory: Memory | None) -> Float[Tensor, "#K B T H"] | None:
        """What each step attends to, if it does."""
        return None if self.attention is None or memory is None else self.attention(hidden, memory)

    def joined(self, hidden: Float[Tensor, "*N H"], read: Float[Tensor, "*N H"] | None) -> Float[Tensor, "*N H"]:
        """With `output` conditioning, what is added to label and z: projected outputs and what was attended to."""
        projected = self.projection(hidden)
        return projected if read is None else projected + read

    def combined(self, hidden: Float[Tensor, "*N H"], read: Float[Tensor, "*N H"] | None) -> Float[Tensor, "*N H"]:
        """With other conditionings, what the output layer reads: outputs, with what was attended to."""
        if read is None:
            return hidden
        assert self.attention is not None
        assert self.attention.output is not None
        return tanh(self.attention.output(hidden) + read)


class ConditionedDecoder:
    """The decoder for given y and z: all symbols at once (teacher forcing), or one at a time.

    Inside, an observed y is an enumeration of one label, so that shapes are always `(K, B, ...)`.
    """

    def __init__(
        self,
        decoder: Decoder,
        y: Float[Tensor, "*#B L"],
        z: Float[Tensor, "*B Z"],
        noise: Noise,
        weights: Float[Tensor, "*B"] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.decoder = decoder
        self.noise = noise
        self.memory = memory
        self.weights = weights if weights is None or weights.dim() == 2 else weights[None]
        self.batch_shape = z.shape[:-1]
        self.z = z if z.dim() == 3 else z[None]
        self.y = y if y.dim() == 3 else y[None]

    def log_prob_steps(self, x: Int[Tensor, "B T"]) -> Float[Tensor, "*B T"]:
        """`log p(x_t | x_<t, y, z)` of every symbol of x, 0 at padding: what is called teacher forcing."""
        decoder = self.decoder
        inputs = functional.pad(x[:, :-1], (1, 0), value=START)
        if "word_dropout" in self.noise:
            inputs = torch.where(self.noise["word_dropout"] | (inputs == START), inputs, UNK)
        embedded = functional.embedding(inputs, decoder.embedding)
        embedded = dropped(embedded, self.noise, "decoder.embedding", decoder.dropout)
        hidden, label_bias = self._recurrence(embedded), None
        read = decoder.read(hidden, self.memory)
        if decoder.conditioning == "output":
            hidden = tanh_of_sum(decoder.joined(hidden, read)[0], decoder.condition(self.z, self.y))
            label_bias = self._label_bias()
        else:
            hidden = decoder.combined(hidden, read)
        output, weights = decoder.output, self.weights
        found = symbol_log_probs(hidden, output.weight, output.bias, label_bias, x, weights, output.rounding)
        return found.reshape(*self.batch_shape, -1)

    def _recurrence(self, embedded: Float[Tensor, "B T E"]) -> Float[Tensor, "#K B T H"]:
        """Outputs of the top layer, once per row with `output` conditioning and once per label otherwise."""
        states = self.initial_states()
        constant = self._constant()
        outputs = None
        for layer, state in zip(self.decoder.layers, states, strict=True):
            assert isinstance(layer, RecurrentLayer)
            if outputs is None:
                outputs = layer(project_together((layer,), embedded[None]).squeeze(0), constant, state)
            else:  # a higher layer reads what depends on the label: fold labels into rows
                labels, rows = outputs.shape[:2]
                gates = project_together((layer,), outputs.flatten(0, 1)[None]).squeeze(0)
                folded = tuple(part.flatten(0, 1)[None] for part in state)
                outputs = layer(gates, None, folded)[0].unflatten(0, (labels, rows))
        assert outputs is not None
        return outputs

    def initial_states(self) -> list[State]:
        """First states, a tuple per layer, each of shape `(K, B, H)`, or `(1, B, H)` with `output` conditioning."""
        decoder = self.decoder
        if decoder.conditioning == "output":
            flat = decoder.first_state(self.z.shape[1], self.memory)[None]
        else:
            source = 0.0 if self.memory is None else decoder.source_state(self.memory.features)
            flat = decoder.initial(self.z, self.y, source)
        parts = tanh(flat).chunk(decoder.state_kinds * len(decoder.layers), -1)
        return [parts[layer :: len(decoder.layers)] for layer in range(len(decoder.layers))]

    def _constant(self) -> Float[Tensor, "K B G"] | None:
        if self.decoder.conditioning != "every_step":
            return None
        constant = self.decoder.condition(self.z, self.y)
        return constant if self.memory is None else constant + self.decoder.source_condition(self.memory.features)

    def _label_bias(self) -> Float[Tensor, "K #B V"]:
        return functional.linear(self.y, self.decoder.label_bias)

    def _logits(self, outputs: Float[Tensor, "#K B H"]) -> Float[Tensor, "K B V"]:
        decoder, found = self.decoder, self.decoder.read(outputs[:, :, None], self.memory)
        read = None if found is None else found[:, :, 0]
        if decoder.conditioning != "output":
            return decoder.output(decoder.combined(outputs, read))
        hidden = tanh(decoder.joined(outputs, read) + decoder.condition(self.z, self.y))
        return decoder.output(hidden) + self._label_bias()

    def step(self, symbols: Int[Tensor, "K B"], states: list[State]) -> tuple[Float[Tensor, "K B V"], list[State]]:
        """Logits of the next symbol after `symbols`, and the states after reading them."""
        inputs = functional.embedding(symbols, self.decoder.embedding)
        constant = self._constant()
        new_states: list[State] = []
        for layer, state in zip(self.decoder.layers, states, strict=True):
            assert isinstance(layer, RecurrentLayer)
            gates = layer.project(inputs)
            if constant is not None and not new_states:
                gates = gates + constant
            new_states.append(layer.step(gates, state))
            inputs = new_states[-1][0]
        return self._logits(inputs), new_states

    def repeat_rows(self, times: int) -> "ConditionedDecoder":
        """The same decoder with each row repeated, its copies side by side (for the hypotheses of a beam)."""
        rows = torch.arange(self.z.shape[1], device=self.z.device).repeat_interleave(times)
        y, memory = self.y.expand(*self.z.shape[:2], -1), self.memory and self.memory.take(rows)
        return ConditionedDecoder(self.decoder, y[:, rows], self.z[:, rows], {}, memory=memory)
