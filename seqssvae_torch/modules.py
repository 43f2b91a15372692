"""The networks: each takes tensors and returns a distribution, so that the programs read as the graphical model.

`y` enters as a one-hot vector, of shape `(K, 1, K)` where it is enumerated and `(B, K)` where it is observed; or
`(S, B, K)`, for S labels of each row.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional

from seqssvae.config import ModelConfig
from seqssvae.parameters import feature_size
from seqssvae.vocabulary import PAD
from seqssvae_torch.distributions import DiagonalNormal
from seqssvae_torch.products import Multiplies, linear
from seqssvae_torch.recurrence import RecurrentLayer, project_together, read_together

Noise = Mapping[str, Tensor]

SCALE_FLOOR = 1e-4
"""Least standard deviation of q(z|x,y), and of p(z|source,y)."""


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


class Encoding(NamedTuple):
    """What an encoder makes of sequences.

    Args:
        features: Of each row; zeros for filler rows.
        states: Of each symbol.
        mask: True for real symbols.
    """

    features: Float[Tensor, "B F"]
    states: Float[Tensor, "B S F"]
    mask: Bool[Tensor, "B S"]


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

    def forward(self, x: Int[Tensor, "B T"], keep_embedding: Bool[Tensor, "B T E"] | None, rate: float) -> Encoding:
        """Features of each row, and what they are made of."""
        mask = x != PAD
        lengths = mask.sum(1)
        states = functional.embedding(x, self.embedding)
        if keep_embedding is not None:
            states = states * keep_embedding / (1.0 - rate)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            states = self._read(layer, states, lengths)
        return Encoding(self._pool(states, mask, lengths), states, mask)

    @staticmethod
    def _read(
        layer: nn.ModuleDict, states: Float[Tensor, "B T I"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B T F"]:
        cells = [cell for cell in layer.values() if isinstance(cell, RecurrentLayer)]
        inputs = [reverse_rows(states, lengths) if name == "right_to_left" else states for name in layer]
        gates = project_together(cells, torch.stack(inputs))
        zeros = tuple(zero.expand(len(cells), -1, -1) for zero in cells[0].zero_state(1, len(states)))
        found = zip(layer, read_together(cells, gates, None, zeros), strict=True)
        return torch.cat([reverse_rows(of, lengths) if name == "right_to_left" else of for name, of in found], -1)

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
                tower(x, noise.get(f"encoder.embedding.{index}"), self.dropout).features,
                noise,
                f"features.{index}",
                self.dropout,
            )
            for index, tower in enumerate(self.towers)
        )


class SourceEncoder(nn.Module):
    """Reads the source once per row, for model and guide."""

    def __init__(self, model: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = model.dropout
        self.tower = EncoderTower(model, vocabulary_size)

    def forward(self, source: Int[Tensor, "B S"], noise: Noise | None = None) -> Encoding:
        """Features of each row, and the states that a decoder may attend to."""
        noise = noise or {}
        found = self.tower(source, noise.get("source.embedding"), self.dropout)
        return found._replace(features=dropped(found.features, noise, "source.features", self.dropout))


class Classifier(Multiplies):
    """q(y|x)."""

    def __init__(self, features: int, label_count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(label_count, features))
        self.bias = nn.Parameter(torch.zeros(label_count))

    def forward(self, features: tuple[Float[Tensor, "B F"], ...]) -> dist.Categorical:
        """A Categorical of batch shape `(B,)` over K labels, from the first features."""
        return dist.Categorical(logits=linear(features[0], self.weight, self.bias, self.rounding))


class LatentEncoder(nn.Module):
    """q(z|x,y); and, of the features of a source, p(z|source,y)."""

    def __init__(self, model: ModelConfig, features: int, label_count: int) -> None:
        super().__init__()
        hidden = model.encoder.hidden_size
        self.hidden = JointLinear(features, label_count, hidden)
        self.loc = Linear(hidden, model.latent_size)
        self.scale = Linear(hidden, model.latent_size)

    def forward(
        self, features: tuple[Float[Tensor, "B F"], ...], y: Float[Tensor, "*#B L"], noise: Noise | None = None
    ) -> DiagonalNormal:
        """A diagonal Normal of batch shape `(K, B)` or `(B,)` over Z, from the last features and noise `z`, if any."""
        hidden = torch.tanh(self.hidden(features[-1], y))
        scale = functional.softplus(self.scale(hidden)) + SCALE_FLOOR
        return DiagonalNormal(self.loc(hidden), scale, noise=noise_of_label((noise or {}).get("z"), y))
