"""The networks: each takes tensors and returns a distribution, so that the programs read as the graphical model.

`y` enters as a one-hot vector: of shape `(K, 1, K)` where it is enumerated, `(B, K)` where it is observed, or
`(S, B, K)` for S labels of each row.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional

from seqssvae.config import EncoderKind, ModelConfig
from seqssvae.data.vocabulary import PAD, SPECIALS, UNK
from seqssvae.parameters import GATES, source_feature_size
from seqssvae_torch.distributions import DiagonalNormal
from seqssvae_torch.ops import (
    CellWeights,
    State,
    cell_step,
    linear,
    linear_of_labels,
    max_over_windows,
    pool,
    recurrence,
)

Noise = Mapping[str, Tensor]

SCALE_FLOOR = 1e-4
"""Least standard deviation of q(z|x,y), and of p(z|source,y)."""


def dropped(values: Tensor, noise: Noise, name: str, rate: float) -> Tensor:
    """Inverted dropout with the mask of that name; without one, as in evaluation, the values as they are."""
    return values * noise[name] / (1.0 - rate) if name in noise else values


def noise_of_label(noise: Tensor | None, y: Float[Tensor, "*#B L"]) -> Tensor | None:
    """The noise of z for these labels, of shape `(*B, Z)`.

    Where noise is given for every label, as `(K, B, Z)`, each label has its own: noise is indexed by label, whether
    labels are enumerated, chosen, taken one after the other, or observed.
    """
    if noise is None or noise.ndim == 2:
        return noise
    return noise[y.argmax(-1), torch.arange(noise.shape[1], device=noise.device)]


class Linear(nn.Module):
    """`W a + b`, or `W a`, with the weights of `seqssvae.parameters`."""

    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)

    def forward(self, inputs: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Apply it to the last dimension."""
        return linear(inputs, self.weight, self.bias)


class JointLinear(nn.Module):
    """`W a + U y + b`: a linear map of `[a, y]` that never concatenates, so that each part keeps its own shape."""

    bias: Tensor | None

    def __init__(self, inputs: int, label_count: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.label_weight = nn.Parameter(torch.zeros(outputs, label_count))
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)

    def forward(self, inputs: Float[Tensor, "*#N I"], y: Float[Tensor, "*#N L"]) -> Float[Tensor, "*#N O"]:
        """The two products, broadcast against each other: `(B, I)` with `(K, 1, K)` gives `(K, B, O)`."""
        result = linear(inputs, self.weight) + linear_of_labels(y, self.label_weight)
        return result if self.bias is None else result + self.bias


class RecurrentLayer(nn.Module):
    """One recurrent layer in one direction.

    Args:
        cell: `gru` or `lstm`.
        input_size: Size of what it reads.
        hidden_size: H.
    """

    bias_n: Tensor | None

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        gates = GATES[cell] * hidden_size
        self.weight_ih = nn.Parameter(torch.zeros(gates, input_size))
        self.weight_hh = nn.Parameter(torch.zeros(gates, hidden_size))
        self.bias = nn.Parameter(torch.zeros(gates))
        self.register_parameter("bias_n", nn.Parameter(torch.zeros(hidden_size)) if cell == "gru" else None)

    @property
    def weights(self) -> CellWeights:
        """The weights, as the operations take them."""
        return CellWeights(self.weight_ih, self.weight_hh, self.bias, self.bias_n)

    def forward(
        self, inputs: Float[Tensor, "#K B T I"], constant: Float[Tensor, "K B G"] | None, state: State
    ) -> Float[Tensor, "K B T H"]:
        """Outputs of every step; arguments as of `seqssvae_torch.ops.recurrence`."""
        return recurrence([self.weights], [inputs], constant, state)[0]

    def step(self, inputs: Float[Tensor, "*#N I"], constant: Float[Tensor, "*#N G"] | None, state: State) -> State:
        """The state after one more input; its first entry is the output."""
        gates = linear(inputs, self.weight_ih, self.bias)
        return cell_step(self.weights, gates if constant is None else gates + constant, state)


def reversal(lengths: Int[Tensor, " B"], steps: int) -> Int[Tensor, "B T"]:
    """Which symbol of each row takes each place if rows are reversed and the padding stays behind them."""
    positions = torch.arange(steps, device=lengths.device)
    mirrored = lengths[:, None] - 1 - positions
    return torch.where(mirrored >= 0, mirrored, positions)


def reverse_rows(values: Shaped[Tensor, "B T *F"], reversal: Int[Tensor, "B T"]) -> Shaped[Tensor, "B T *F"]:
    """Reverse the symbols of each row: its own inverse."""
    places = reversal.reshape(*reversal.shape, *[1] * (values.dim() - 2))
    return _Reversed.apply(values, places.expand(-1, -1, *values.shape[2:]))


class _Reversed(torch.autograd.Function):
    """`values.gather(1, places)` of places that are their own inverse: its gradient is the same again."""

    @staticmethod
    def forward(context: Any, values: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(places)
        return values.gather(1, places)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].gather(1, *context.saved_tensors), None


class Encoding(NamedTuple):
    """What an encoder makes of sequences.

    Args:
        symbols: The sequences.
        features: Of each row, zeros for filler rows: one set, or with separate encoders one for q(y|x) and one for
            q(z|x,y).
        states: Of each symbol, where a decoder attends to them.
    """

    symbols: Int[Tensor, "B T"]
    features: tuple[Float[Tensor, "B F"], ...]
    states: Float[Tensor, "B T F"] | None = None


def symbols_of(x: Int[Tensor, "B T"] | Encoding) -> Int[Tensor, "B T"]:
    """The sequences, which may have been encoded before."""
    return x.symbols if isinstance(x, Encoding) else x


def real_rows(x: Int[Tensor, "B T"]) -> Bool[Tensor, " B"]:
    """True for rows with symbols; rows that fill up a batch are all PAD."""
    return (x != PAD).any(1)


class EncoderTower(nn.Module):
    """Embedding, and recurrent layers or a convolution or both, that turn a row into its features."""

    def __init__(self, model: ModelConfig, vocabulary_size: int, kind: EncoderKind = "recurrent") -> None:
        super().__init__()
        encoder = model.encoder
        self.pooling = encoder.pooling
        self.directions = ("left_to_right", "right_to_left") if encoder.bidirectional else ("left_to_right",)
        self.embedding = nn.Parameter(torch.zeros(vocabulary_size, encoder.embedding_size))
        sizes = [encoder.embedding_size] + [source_feature_size(model)] * (encoder.layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: RecurrentLayer(model.cell, size, encoder.hidden_size) for name in self.directions})
            for size in (sizes if kind != "convolution" else ())
        )
        self.convolutions = nn.ModuleDict(
            {str(width): Linear(width * encoder.embedding_size, encoder.channels) for width in encoder.widths}
            if kind != "recurrent"
            else {}
        )

    def forward(
        self, x: Int[Tensor, "B T"], noise: Noise, name: str, rate: float, with_states: bool = False
    ) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B T F"] | None]:
        """Features of each row, and the states of its symbols if they are asked for.

        Args:
            x: Symbol ids.
            noise: Which entries of the embedding are kept, under that name.
            name: Of the entry of the noise.
            rate: Share of entries that are not.
            with_states: Whether the states of the symbols are wanted.
        """
        lengths = (x != PAD).sum(1)
        places = reversal(lengths, x.shape[1]) if len(self.directions) > 1 else None
        embedded = functional.embedding(torch.stack(self._as_read(x, places)), self.embedding)
        if name in noise:
            embedded = embedded * torch.stack(self._as_read(noise[name], places)) / (1.0 - rate)
        inputs = embedded.unbind()
        read = inputs[0]  # from left to right
        states: tuple[Tensor, ...] = ()
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleDict)
            if number:
                inputs = self._as_read(self._joined(states, places), places)
            cells = [cell.weights for cell in layer.values() if isinstance(cell, RecurrentLayer)]
            states = tuple(of_cell.squeeze(0) for of_cell in recurrence(cells, [values[None] for values in inputs]))
        parts = [pool(of_direction, lengths, self.pooling) for of_direction in states]
        filters = (filters for filters in self.convolutions.values() if isinstance(filters, Linear))
        parts += [max_over_windows(read, lengths, of.weight, of.bias) for of in filters if of.bias is not None]
        return torch.cat(parts, -1), self._joined(states, places) if with_states else None

    def _as_read(self, values: Shaped[Tensor, "B T *F"], places: Int[Tensor, "B T"] | None) -> tuple[Tensor, ...]:
        """Rows as each direction reads them."""
        return (values,) if places is None else (values, reverse_rows(values, places))

    def _joined(
        self, states: tuple[Float[Tensor, "B T H"], ...], places: Int[Tensor, "B T"] | None
    ) -> Float[Tensor, "B T F"]:
        """States of all directions, in the order of the symbols."""
        return states[0] if places is None else torch.cat([states[0], reverse_rows(states[1], places)], -1)


class Encoder(nn.Module):
    """Reads x once per row, whatever the number of labels; separate encoders read it once each."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = model.dropout
        towers = 2 if model.encoder.separate else 1
        self.towers = nn.ModuleList(EncoderTower(model, vocabulary_size, model.encoder.kind) for _ in range(towers))

    def forward(self, x: Int[Tensor, "B T"], noise: Noise | None = None) -> Encoding:
        """Features of each row, from each tower."""
        noise, features_of_towers, read = noise or {}, [], x
        if "encoder.word_dropout" in noise:
            read = torch.where(noise["encoder.word_dropout"] | (x < len(SPECIALS)), x, UNK)
        for index, tower in enumerate(self.towers):
            features, _ = tower(read, noise, f"encoder.embedding.{index}", self.dropout)
            features_of_towers.append(dropped(features, noise, f"features.{index}", self.dropout))
        return Encoding(x, tuple(features_of_towers))


class SourceEncoder(nn.Module):
    """Reads the source once per row, for model and guide."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = model.dropout
        self.tower = EncoderTower(model, vocabulary_size)

    def forward(self, source: Int[Tensor, "B S"], noise: Noise | None = None) -> Encoding:
        """Features of each row, and the states that a decoder may attend to."""
        noise = noise or {}
        features, states = self.tower(source, noise, "source.embedding", self.dropout, with_states=True)
        return Encoding(source, (dropped(features, noise, "source.features", self.dropout),), states)


class Classifier(nn.Module):
    """q(y|x)."""

    def __init__(self, features: int, label_count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(label_count, features))
        self.bias = nn.Parameter(torch.zeros(label_count))

    def forward(self, encoding: Encoding) -> dist.Categorical:
        """A Categorical of batch shape `(B,)` over K labels, from the first features."""
        return dist.Categorical(logits=linear(encoding.features[0], self.weight, self.bias))


class LatentEncoder(nn.Module):
    """q(z|x,y); and, of the features of a source, p(z|source,y)."""

    def __init__(self, model: ModelConfig, features: int, label_count: int) -> None:
        super().__init__()
        hidden = model.encoder.hidden_size
        self.hidden = JointLinear(features, label_count, hidden)
        self.loc = Linear(hidden, model.latent_size)
        self.scale = Linear(hidden, model.latent_size)

    def forward(self, encoding: Encoding, y: Float[Tensor, "*#B L"], noise: Noise | None = None) -> DiagonalNormal:
        """A diagonal Normal of batch shape `(K, B)` or `(B,)` over Z, from the last features and noise `z`, if any."""
        hidden = torch.tanh(self.hidden(encoding.features[-1], y))  # exact where it is small, and computed once
        scale = functional.softplus(self.scale(hidden)) + SCALE_FLOOR
        return DiagonalNormal(self.loc(hidden), scale, noise=noise_of_label((noise or {}).get("z"), y))
