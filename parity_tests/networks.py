"""The networks of the model for one row and one label, in NumPy, step by step.

No function here sees more than one row or one label, so that none can leak into another. Weights and noise are named
as in `seqssvae.parameters` and `seqssvae.noise`; the masks in the noise are those of the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Inexact, Int

from parity_tests.arithmetic import log_softmax, maximum, relu, sigmoid, softplus
from seqssvae.config import EncoderKind, ModelConfig
from seqssvae.data.vocabulary import NEVER_GENERATED, PAD, SPECIALS, START, UNK
from seqssvae.parameters import feature_size, source_feature_size

Row = Int[np.ndarray, " T"]
Vector = Inexact[np.ndarray, "..."]
Weights = Mapping[str, np.ndarray]
Noise = Mapping[str, np.ndarray]

LEAST_SCALE = 1e-4
"""Added to the softplus that gives the scale of q(z|x,y)."""


class Source(NamedTuple):
    """What the encoder of sources makes of one row's source.

    Args:
        features: Its features.
        states: The top layer's outputs, one a symbol.
    """

    features: Vector
    states: list[Vector]


@dataclass(frozen=True)
class Networks:
    """The networks with given weights.

    Args:
        model: Their configuration.
        weights: All weights, in float64 or complex128.
        never_generated: Symbols of probability 0.
    """

    model: ModelConfig
    weights: Weights
    never_generated: Sequence[int] = NEVER_GENERATED

    def encoder(self, row: Row, noise: Noise, source: Source | None = None) -> tuple[Vector, ...]:
        """Features of the row by each tower: the first is for the classifier, the last for the latent encoder.

        Where there is a source, its features stand behind those of the row.
        """
        towers = range(2 if self.model.encoder.separate else 1)
        names = [(f"encoder.towers.{tower}", f"encoder.embedding.{tower}", f"features.{tower}") for tower in towers]
        kept = noise.get("encoder.word_dropout", np.ones(len(row), dtype=bool))
        row = np.array([s if keep or s < len(SPECIALS) else UNK for s, keep in zip(row, kept, strict=True)])
        features = [self._tower(row, noise, *of_tower, kind=self.model.encoder.kind)[0] for of_tower in names]
        return tuple(features if source is None else [np.concatenate([part, source.features]) for part in features])

    def source_encoder(self, row: Row, noise: Noise) -> Source:
        """Features and states of a source."""
        return Source(*self._tower(row, noise, "source_encoder.tower", "source.embedding", "source.features"))

    def label_predictor(self, source: Source, label_prior: Sequence[float]) -> Vector:
        """log p(y|source) of every label."""
        return log_softmax(np.log(label_prior) + self._affine("label_predictor", source.features))

    def latent_predictor(self, source: Source, label: int) -> tuple[Vector, Vector]:
        """loc and scale of p(z|source,y)."""
        return self._normal("latent_predictor", source.features, label)

    def classifier(self, features: tuple[Vector, ...]) -> Vector:
        """log q(y|x) of every label."""
        return log_softmax(self._affine("classifier", features[0]))

    def latent_encoder(self, features: tuple[Vector, ...], label: int) -> tuple[Vector, Vector]:
        """loc and scale of q(z|x,y)."""
        return self._normal("latent_encoder", features[-1], label)

    def log_probabilities(
        self, row: Row, label: int, z: Vector, noise: Noise, source: Source | None = None
    ) -> Inexact[np.ndarray, " T"]:
        """log p(x_t|x_<t,y,z) at every step, teacher-forced; 0 at PAD."""
        length = length_of(row)
        inputs = [START]
        for t in range(1, length):
            kept = "word_dropout" not in noise or noise["word_dropout"][t]
            inputs.append(int(row[t - 1]) if kept else UNK)
        result = np.zeros(len(row), dtype=np.result_type(*self.weights.values(), z))
        if length > 0:
            of_symbols = self.decoder(label, z, inputs, noise.get("decoder.embedding"), source)
            for t in range(length):
                result[t] = of_symbols[t][row[t]]
        return result

    def decoder(
        self,
        label: int,
        z: Vector,
        inputs: Sequence[int],
        mask: Bool[np.ndarray, "T E"] | None = None,
        source: Source | None = None,
    ) -> list[Vector]:
        """Behind each input, START being the first, the log-probabilities of every symbol."""
        if self.model.decoder.context == 0:
            xs = [np.tanh(self.weights["decoder.context.bias"] + self._of_source(source))] * len(inputs)
        else:
            embedding = self.weights["decoder.embedding"]
            xs = [self._drop(embedding[symbol], None if mask is None else mask[t]) for t, symbol in enumerate(inputs)]
            xs = self._context(xs, source) if self.model.decoder.context else self._recurrent(xs, label, z, source)
        logits = [self._output(hidden, label, z, source) for hidden in xs]
        return [log_softmax(of_step, excluded=self.never_generated) for of_step in logits]

    def _recurrent(self, xs: list[Vector], label: int, z: Vector, source: Source | None) -> list[Vector]:
        """Recurrent layers of the decoder."""
        decoder, initial = self.model.decoder, self._initial_states(label, z, source)
        condition = self._condition(label, z, source) if decoder.conditioning == "every_step" else None
        for layer in range(decoder.layers):
            xs = self._recurrence(f"decoder.layers.{layer}", xs, initial[layer], condition if layer == 0 else None)
        return xs

    def _context(self, xs: list[Vector], source: Source | None) -> list[Vector]:
        """A layer over the last inputs, as many as the context has."""
        count, layers = self.model.decoder.context or 0, []
        for t in range(len(xs)):
            last = [xs[place] if place >= 0 else np.zeros_like(xs[0]) for place in range(t - count + 1, t + 1)]
            layers.append(np.tanh(self._affine("decoder.context", np.concatenate(last)) + self._of_source(source)))
        return layers

    def _of_source(self, source: Source | None) -> Any:
        """What a source contributes to the first state, or to every step's where there are no states."""
        return 0.0 if source is None else self.weights["decoder.source_state.weight"] @ source.features

    def _tower(
        self, row: Row, noise: Noise, prefix: str, of_embedding: str, of_features: str, kind: EncoderKind = "recurrent"
    ) -> tuple[Vector, list[Vector]]:
        """Features of a row, and the states of its symbols. Masks are named."""
        length, parts, states = length_of(row), [], []
        if length == 0:
            size = feature_size if prefix.startswith("encoder") else source_feature_size
            return np.zeros(size(self.model)), []
        embedding, mask = self.weights[f"{prefix}.embedding"], noise.get(of_embedding)
        xs = [self._drop(embedding[row[t]], None if mask is None else mask[t]) for t in range(length)]
        if kind != "convolution":
            pooled, states = self._recurrent_features(xs, prefix)
            parts.append(pooled)
        if kind != "recurrent":
            parts.extend(self._convolution(xs, f"{prefix}.convolutions.{w}", w) for w in self.model.encoder.widths)
        return self._drop(np.concatenate(parts), noise.get(of_features)), states

    def _convolution(self, xs: Sequence[Vector], prefix: str, width: int) -> Vector:
        """For each filter the greatest activation over all windows, one a symbol: that and those before it."""
        before = [np.zeros_like(xs[0])] * (width - 1)
        padded = [*before, *xs]
        windows = [np.concatenate(padded[t : t + width]) for t in range(len(xs))]
        return maximum(np.array([relu(self._affine(prefix, window)) for window in windows]))

    def _recurrent_features(self, xs: list[Vector], prefix: str) -> tuple[Vector, list[Vector]]:
        """Recurrent layers, pooling over the symbols; and what was pooled."""
        encoder, length = self.model.encoder, len(xs)
        for layer in range(encoder.layers):
            before = xs
            forward = self._recurrence(f"{prefix}.layers.{layer}.left_to_right", before)
            xs, last = forward, forward[-1]
            if encoder.bidirectional:
                backward = self._recurrence(f"{prefix}.layers.{layer}.right_to_left", before[::-1])[::-1]
                xs = [np.concatenate([forward[t], backward[t]]) for t in range(length)]
                last = np.concatenate([forward[-1], backward[0]])
        pooled = {"last": last, "mean": np.array(xs).mean(0), "max": maximum(np.array(xs))}[encoder.pooling]
        return pooled, xs

    def _normal(self, prefix: str, features: Vector, label: int) -> tuple[Vector, Vector]:
        hidden = np.tanh(self._joint(f"{prefix}.hidden", features, label))
        loc = self._affine(f"{prefix}.loc", hidden)
        return loc, softplus(self._affine(f"{prefix}.scale", hidden)) + LEAST_SCALE

    def _attended(self, hidden: Vector, source: Source) -> Vector:
        """The mean of the source's states, weighted by how they fit, as it contributes to the output."""
        key, context = (self.weights[f"decoder.attention.{name}.weight"] for name in ("key", "context"))
        scores = np.array([hidden @ (key @ state) for state in source.states])
        shares = np.exp(log_softmax(scores))
        return context @ sum(share * state for share, state in zip(shares, source.states, strict=True))

    def _output(self, hidden: Vector, label: int, z: Vector, source: Source | None) -> Vector:
        """Logits of every symbol."""
        attends = source is not None and self.model.decoder.attention
        attended = self._attended(hidden, source) if attends else 0.0
        if self.model.decoder.conditioning != "output":
            combined = np.tanh(self._affine("decoder.attention.output", hidden) + attended) if attends else hidden
            return self._affine("decoder.output", combined)
        projected = self.weights["decoder.projection.weight"] @ hidden + attended
        conditioned = np.tanh(projected + self._joint("decoder.condition", z, label))
        return self._affine("decoder.output", conditioned) + self.weights["decoder.label_bias"][:, label]

    def _condition(self, label: int, z: Vector, source: Source | None) -> Vector:
        """What y, z and the source add to the gates of the first layer at every step."""
        weight, label_weight = (self.weights[f"decoder.condition.{name}"] for name in ("weight", "label_weight"))
        of_source = 0.0 if source is None else self.weights["decoder.source_condition.weight"] @ source.features
        return weight @ z + label_weight[:, label] + of_source

    def _initial_states(self, label: int, z: Vector, source: Source | None) -> list[list[Vector]]:
        """Per layer, the state vectors (h, and c for LSTM); stored as h of all layers, then c of all layers."""
        of_source = self._of_source(source)
        if self.model.decoder.conditioning == "output":
            flat = np.tanh(self.weights["decoder.initial_state"] + of_source)
        else:
            hidden = np.tanh(self._joint("decoder.initial.hidden", z, label) + of_source)
            flat = np.tanh(self._affine("decoder.initial.output", hidden))
        layers, size = self.model.decoder.layers, self.model.decoder.hidden_size
        kinds = 2 if self.model.cell == "lstm" else 1
        pieces = [flat[i * size : (i + 1) * size] for i in range(kinds * layers)]
        return [[pieces[kind * layers + layer] for kind in range(kinds)] for layer in range(layers)]

    def _recurrence(
        self, prefix: str, xs: Sequence[Vector], initial: Sequence[Vector] = (), condition: Vector | None = None
    ) -> list[Vector]:
        """A recurrent layer: h after each input, in the order of the inputs, from zero states unless they are given."""
        size = self.weights[f"{prefix}.weight_hh"].shape[1]
        h, c = [*initial, np.zeros(size), np.zeros(size)][:2]
        outputs = []
        for x in xs:
            gates = self.weights[f"{prefix}.weight_ih"] @ x + self.weights[f"{prefix}.bias"]
            if condition is not None:
                gates = gates + condition
            if self.model.cell == "gru":
                h = self._gru(prefix, gates, h)
            else:
                h, c = self._lstm(prefix, gates, h, c)
            outputs.append(h)
        return outputs

    def _gru(self, prefix: str, gates: Vector, h: Vector) -> Vector:
        a_r, a_u, a_n = gates.reshape(3, -1)
        g_r, g_u, g_n = (self.weights[f"{prefix}.weight_hh"] @ h).reshape(3, -1)
        r = sigmoid(a_r + g_r)
        u = sigmoid(a_u + g_u)
        n = np.tanh(a_n + r * (g_n + self.weights[f"{prefix}.bias_n"]))
        return (1.0 - u) * n + u * h

    def _lstm(self, prefix: str, gates: Vector, h: Vector, c: Vector) -> tuple[Vector, Vector]:
        i, f, g, o = (gates + self.weights[f"{prefix}.weight_hh"] @ h).reshape(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def _affine(self, prefix: str, value: Vector) -> Vector:
        return self.weights[f"{prefix}.weight"] @ value + self.weights[f"{prefix}.bias"]

    def _joint(self, prefix: str, value: Vector, label: int) -> Vector:
        return self._affine(prefix, value) + self.weights[f"{prefix}.label_weight"][:, label]

    def _drop(self, value: Vector, keep: Bool[np.ndarray, " N"] | None) -> Vector:
        return value if keep is None else value * keep / (1.0 - self.model.dropout)


def length_of(row: Row) -> int:
    """Number of real symbols of a row, END included; 0 for a filler row."""
    return int((row != PAD).sum())
