"""The networks: each takes tensors and returns a distribution, so that the programs read as the graphical model.

`y` enters as a one-hot vector, of shape `(K, 1, K)` where it is enumerated and `(B, K)` where it is observed; or
`(S, B, K)`, for S labels of each row.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn import functional

from seqssvae.config import ModelConfig
from seqssvae.parameters import feature_size
from seqssvae.vocabulary import PAD, SPECIALS, UNK
from seqssvae_torch.distributions import DiagonalNormal
from seqssvae_torch.products import Multiplies, linear
from seqssvae_torch.recurrence import RecurrentLayer, project_together, read_together, tanh

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
        features_first: Whether the first product is made with features first, as recurrent layers read it.
    """

    def __init__(
        self, inputs: int, label_count: int, outputs: int, bias: bool = True, features_first: bool = False
    ) -> None:
        super().__init__()
        self.features_first = features_first
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.label_weight = nn.Parameter(torch.zeros(outputs, label_count))
        if bias:
            self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Float[Tensor, "*#N I"], y: Float[Tensor, "*#N L"]) -> Float[Tensor, "*#N O"]:
        """The two products, broadcast against each other: `(B, I)` with `(K, 1, K)` gives `(K, B, O)`."""
        result = linear(inputs, self.weight, None, self.rounding, self.features_first)
        result = result + functional.linear(y, self.label_weight)
        return result + self.bias if hasattr(self, "bias") else result


def reverse_rows(values: Shaped[Tensor, "B T *F"], lengths: Int[Tensor, "B"]) -> Shaped[Tensor, "B T *F"]:
    """Reverse the real positions of each row and leave the padding behind them: its own inverse."""
    positions = torch.arange(values.shape[1], device=values.device)
    mirrored = lengths[:, None] - 1 - positions
    index = torch.where(mirrored >= 0, mirrored, positions)
    return torch.take_along_dim(values, index.reshape(*index.shape, *[1] * (values.dim() - 2)), 1)


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
        self.directions = ("left_to_right", "right_to_left") if encoder.bidirectional else ("left_to_right",)
        self.embedding = nn.Parameter(torch.zeros(vocabulary_size, encoder.embedding_size))
        sizes = [encoder.embedding_size] + [feature_size(model)] * (encoder.layers - 1)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: RecurrentLayer(model.cell, size, encoder.hidden_size) for name in self.directions})
            for size in sizes
        )

    def forward(self, x: Int[Tensor, "B T"], keep_embedding: Bool[Tensor, "B T E"] | None, rate: float) -> Encoding:
        """Features of each row, and what they are made of."""
        lengths = (x != PAD).sum(1)
        outputs = self._outputs(x, lengths, keep_embedding, rate)
        return Encoding(self._pool(outputs, lengths), self._joined(outputs, lengths), x != PAD)

    def features(
        self, x: Int[Tensor, "B T"], keep_embedding: Bool[Tensor, "B T E"] | None, rate: float
    ) -> Float[Tensor, "B F"]:
        """Features of each row, without the states in the order of the symbols: no direction is turned back."""
        lengths = (x != PAD).sum(1)
        return self._pool(self._outputs(x, lengths, keep_embedding, rate), lengths)

    def _outputs(
        self,
        x: Int[Tensor, "B T"],
        lengths: Int[Tensor, "B"],
        keep_embedding: Bool[Tensor, "B T E"] | None,
        rate: float,
    ) -> Float[Tensor, "D B T H"]:
        """States of the top layer, of each direction in the order in which it reads."""
        states = functional.embedding(self._as_read(x, lengths), self.embedding)
        if keep_embedding is not None:
            states = states * self._as_read(keep_embedding, lengths) / (1.0 - rate)
        for place, layer in enumerate(self.layers):
            assert isinstance(layer, nn.ModuleDict)
            cells = [cell for cell in layer.values() if isinstance(cell, RecurrentLayer)]
            if place:
                states = self._as_read(self._joined(states, lengths), lengths)
            states = read_together(cells, project_together(cells, states), None, None)
        return states

    def _as_read(self, values: Shaped[Tensor, "B T *F"], lengths: Int[Tensor, "B"]) -> Shaped[Tensor, "D B T *F"]:
        """Rows as each direction reads them."""
        return torch.stack(
            [reverse_rows(values, lengths) if name == "right_to_left" else values for name in self.directions]
        )

    def _joined(self, outputs: Float[Tensor, "D B T H"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B T F"]:
        """States of all directions, in the order of the symbols."""
        named = zip(self.directions, outputs, strict=True)
        return torch.cat([reverse_rows(of, lengths) if name == "right_to_left" else of for name, of in named], -1)

    def _pool(self, outputs: Float[Tensor, "D B T H"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B F"]:
        by_step = outputs.permute(2, 0, 3, 1)  # as it lies in memory, where its gradient is to lie as well
        mask = (torch.arange(len(by_step), device=lengths.device)[:, None] < lengths)[:, None, None]
        if self.pooling == "mean":
            pooled = (by_step * mask).sum(0) / lengths.clamp(min=1)
        elif self.pooling == "max":
            pooled = by_step.masked_fill(~mask, torch.finfo(by_step.dtype).min).amax(0)
        else:
            last = (lengths - 1).clamp(min=0).expand(1, *by_step.shape[1:])
            pooled = by_step.gather(0, last)[0]
        return torch.where(lengths > 0, pooled, 0.0).permute(2, 0, 1).flatten(1)


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
        noise, found = noise or {}, []
        if "encoder.word_dropout" in noise:
            x = torch.where(noise["encoder.word_dropout"] | (x < len(SPECIALS)), x, UNK)
        for index, tower in enumerate(self.towers):
            assert isinstance(tower, EncoderTower)
            features = tower.features(x, noise.get(f"encoder.embedding.{index}"), self.dropout)
            found.append(dropped(features, noise, f"features.{index}", self.dropout))
        return tuple(found)


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
        hidden = tanh(self.hidden(features[-1], y))
        scale = functional.softplus(self.scale(hidden)) + SCALE_FLOOR
        return DiagonalNormal(self.loc(hidden), scale, noise=noise_of_label((noise or {}).get("z"), y))
