"""The networks: each takes tensors and returns a distribution, so that the programs read as the graphical model.

`y` enters as a one-hot vector, of shape `(K, 1, K)` where it is enumerated and `(B, K)` where it is observed; or
`(S, B, K)`, for S labels of each row.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional

from seqssvae.config import ModelConfig
from seqssvae.parameters import GATES, STATES, feature_size
from seqssvae.vocabulary import PAD, START, UNK
from seqssvae_torch.distributions import AutoregressiveCategorical, DiagonalNormal
from seqssvae_torch.likelihood import symbol_log_probs, tanh_of_sum
from seqssvae_torch.products import Multiplies, linear
from seqssvae_torch.recurrence import RecurrentLayer, State

Noise = Mapping[str, Tensor]

SCALE_FLOOR = 1e-4
"""Least standard deviation of q(z|x,y)."""


def dropped(values: Tensor, noise: Noise, name: str, rate: float) -> Tensor:
    """Inverted dropout with the mask of that name; without one (as in evaluation), the values as they are."""
    return values * noise[name] / (1.0 - rate) if name in noise else values


def noise_of_label(noise: Tensor | None, y: Float[Tensor, "*#B L"]) -> Tensor | None:
    """The noise of z for these labels, of shape `(*B, Z)`: theirs, where it is given for every label, as `(K, B, Z)`.

    So noise is indexed by label, whether labels are enumerated, chosen, taken one after the other, or observed.
    """
    if noise is None or noise.ndim == 2:
        return noise
    return noise[y.argmax(-1), torch.arange(noise.shape[1], device=noise.device)]


class Linear(Multiplies):
    """`W a + b`, with the weights of `seqssvae.parameters`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight, self.bias, self.rounding)


class JointLinear(Multiplies):
    """`W a + U y + b`: a linear map of `[a, y]` that never concatenates, so that each part keeps its own shape.

    Args:
        inputs: Size of a.
        label_count: K.
        outputs: Size of the result.
        bias: Whether there is a b.
    """

    def __init__(self, inputs: int, label_count: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.label_weight = nn.Parameter(torch.zeros(outputs, label_count))
        if bias:
            self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Float[Tensor, "*#N I"], y: Float[Tensor, "*#N L"]) -> Float[Tensor, "*#N O"]:
        """The two products, broadcast against each other: `(B, I)` with `(K, 1, K)` gives `(K, B, O)`."""
        result = linear(inputs, self.weight, None, self.rounding) + functional.linear(y, self.label_weight)
        return result + self.bias if hasattr(self, "bias") else result


def reverse_rows(values: Float[Tensor, "B T F"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B T F"]:
    """Reverse the real positions of each row and leave the padding behind them: its own inverse."""
    positions = torch.arange(values.shape[1], device=values.device)
    mirrored = lengths[:, None] - 1 - positions
    index = torch.where(mirrored >= 0, mirrored, positions)
    return values.gather(1, index[:, :, None].expand_as(values))


class EncoderTower(nn.Module):
    """Embedding and recurrent layers that turn a row into its features."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        encoder = model.encoder
        self.pooling = encoder.pooling
        self.hidden_size = encoder.hidden_size
        directions = ("left_to_right", "right_to_left") if encoder.bidirectional else ("left_to_right",)
        self.embedding = nn.Parameter(torch.zeros(vocabulary_size, encoder.embedding_size))
        sizes = [encoder.embedding_size] + [feature_size(model)] * (encoder.layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: RecurrentLayer(model.cell, size, encoder.hidden_size) for name in directions})
            for size in sizes
        )

    def forward(
        self, x: Int[Tensor, "B T"], keep_embedding: Bool[Tensor, "B T E"] | None, rate: float
    ) -> Float[Tensor, "B F"]:
        """Features of each row; zeros for filler rows."""
        mask = x != PAD
        lengths = mask.sum(1)
        states = functional.embedding(x, self.embedding)
        if keep_embedding is not None:
            states = states * keep_embedding / (1.0 - rate)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            states = torch.cat([self._read(cell, name, states, lengths) for name, cell in layer.items()], -1)
        return self._pool(states, mask, lengths)

    @staticmethod
    def _read(
        layer: nn.Module, direction: str, states: Float[Tensor, "B T I"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B T H"]:
        assert isinstance(layer, RecurrentLayer)
        backwards = direction == "right_to_left"
        gates = layer.project(reverse_rows(states, lengths) if backwards else states)
        outputs = layer(gates, None, layer.zero_state(1, len(states)))[0]
        return reverse_rows(outputs, lengths) if backwards else outputs

    def _pool(
        self, states: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B F"]:
        real = (lengths > 0)[:, None]
        if self.pooling == "mean":
            return (states * mask[:, :, None]).sum(1) / lengths.clamp(min=1)[:, None]
        if self.pooling == "max":
            lowest = torch.finfo(states.dtype).min
            return torch.where(real, states.masked_fill(~mask[:, :, None], lowest).amax(1), 0.0)
        size = self.hidden_size
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, size)
        ends = [states[..., :size].gather(1, last)[:, 0]]
        if states.shape[-1] > size:
            ends.append(states[:, 0, size:])
        return torch.where(real, torch.cat(ends, -1), 0.0)


class Encoder(nn.Module):
    """Reads x once per row, whatever the number of labels.

    With separate encoders there are two sets of features, one for q(y|x) and one for q(z|x,y).
    """

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = model.dropout
        towers = 2 if model.encoder.separate else 1
        self.towers = nn.ModuleList(EncoderTower(model, vocabulary_size) for _ in range(towers))

    def forward(self, x: Int[Tensor, "B T"], noise: Noise | None = None) -> tuple[Float[Tensor, "B F"], ...]:
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
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(label_count, feature_size(model)))
        self.bias = nn.Parameter(torch.zeros(label_count))

    def forward(self, features: tuple[Float[Tensor, "B F"], ...]) -> dist.Categorical:
        """A Categorical of batch shape `(B,)` over K labels, from the first features."""
        return dist.Categorical(logits=linear(features[0], self.weight, self.bias, self.rounding))


class LatentEncoder(nn.Module):
    """q(z|x,y)."""

    def __init__(self, model: ModelConfig, label_count: int) -> None:
        super().__init__()
        hidden = model.encoder.hidden_size
        self.hidden = JointLinear(feature_size(model), label_count, hidden)
        self.loc = Linear(hidden, model.latent_size)
        self.scale = Linear(hidden, model.latent_size)

    def forward(
        self, features: tuple[Float[Tensor, "B F"], ...], y: Float[Tensor, "*#B L"], noise: Noise | None = None
    ) -> DiagonalNormal:
        """A diagonal Normal of batch shape `(K, B)` or `(B,)` over Z, from the last features and noise `z`, if any."""
        hidden = torch.tanh(self.hidden(features[-1], y))
        scale = functional.softplus(self.scale(hidden)) + SCALE_FLOOR
        return DiagonalNormal(self.loc(hidden), scale, noise=noise_of_label((noise or {}).get("z"), y))


class InitialState(nn.Module):
    """The first state of the decoder as a function of y and z: a perceptron with one hidden layer."""

    def __init__(self, latent_size: int, label_count: int, hidden: int, states: int) -> None:
        super().__init__()
        self.hidden = JointLinear(latent_size, label_count, hidden)
        self.output = Linear(hidden, states)

    def forward(self, z: Float[Tensor, "*#B Z"], y: Float[Tensor, "*#B L"]) -> Float[Tensor, "*#B S"]:
        """All states, one behind the other, before their last non-linearity."""
        return self.output(torch.tanh(self.hidden(z, y)))


class Projection(Multiplies):
    """`W a`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))

    def forward(self, inputs: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight, None, self.rounding)


class Decoder(nn.Module):
    """p(x|y,z): a recurrent network, conditioned on y and z in one of three ways (`DecoderConfig.conditioning`)."""

    def __init__(self, model: ModelConfig, vocabulary_size: int, label_count: int) -> None:
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
            self.condition = JointLinear(model.latent_size, label_count, GATES[model.cell] * hidden, bias=False)
        self.output = Linear(hidden, vocabulary_size)

    def forward(
        self,
        y: Float[Tensor, "*#B L"],
        z: Float[Tensor, "*B Z"],
        time_steps: int,
        noise: Noise | None = None,
        weights: Float[Tensor, "..."] | None = None,
    ) -> AutoregressiveCategorical:
        """p(x|y,z) of batch shape `(K, B)` or `(B,)` over sequences of at most `time_steps` symbols.

        `weights` are those that an objective will give to log p(x|y,z), if they are known (`symbol_log_probs`); where
        they are of every label, `(K, B)`, but there is one a row, its own; of any other shape they are passed over.
        """
        if weights is not None and z.dim() == 2 == weights.dim():  # of every label, but this is one
            weights = (y.detach().t() * weights).sum(0)
        weights = weights if weights is not None and weights.shape == z.shape[:-1] else None
        conditioned = ConditionedDecoder(self, y, z, noise or {}, weights)
        return AutoregressiveCategorical(conditioned, z.shape[:-1], time_steps)


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
    ) -> None:
        self.decoder = decoder
        self.noise = noise
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
        if decoder.conditioning == "output":
            hidden = tanh_of_sum(decoder.projection(hidden)[0], decoder.condition(self.z, self.y))
            label_bias = self._label_bias()
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
                outputs = layer(layer.project(embedded), constant, state)
            else:  # a higher layer reads what depends on the label: fold labels into rows
                labels, rows = outputs.shape[:2]
                gates = layer.project(outputs).flatten(0, 1)
                folded = tuple(part.flatten(0, 1)[None] for part in state)
                outputs = layer(gates, None, folded)[0].unflatten(0, (labels, rows))
        assert outputs is not None
        return outputs

    def initial_states(self) -> list[State]:
        """First states, a tuple per layer, each of shape `(K, B, H)`, or `(1, B, H)` with `output` conditioning."""
        decoder = self.decoder
        if decoder.conditioning == "output":
            flat = decoder.initial_state.expand(1, self.z.shape[1], -1)
        else:
            flat = decoder.initial(self.z, self.y)
        parts = torch.tanh(flat).chunk(decoder.state_kinds * len(decoder.layers), -1)
        return [parts[layer :: len(decoder.layers)] for layer in range(len(decoder.layers))]

    def _constant(self) -> Float[Tensor, "K B G"] | None:
        every_step = self.decoder.conditioning == "every_step"
        return self.decoder.condition(self.z, self.y) if every_step else None

    def _label_bias(self) -> Float[Tensor, "K #B V"]:
        return functional.linear(self.y, self.decoder.label_bias)

    def _logits(self, outputs: Float[Tensor, "#K B H"]) -> Float[Tensor, "K B V"]:
        decoder = self.decoder
        if decoder.conditioning != "output":
            return decoder.output(outputs)
        hidden = torch.tanh(decoder.projection(outputs) + decoder.condition(self.z, self.y))
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
        y = self.y.expand(*self.z.shape[:2], -1).repeat_interleave(times, 1)
        return ConditionedDecoder(self.decoder, y, self.z.repeat_interleave(times, 1), {})
