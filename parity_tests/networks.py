"""The networks of the model for one row and one label, in NumPy, step by step.

No function here sees more than one row or one label, so that none can leak into another. Weights and noise are named
as in `seqssvae.parameters` and `seqssvae.noise`; the masks in the noise are those of the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Inexact, Int

from parity_tests.arithmetic import log_softmax, maximum, sigmoid, softplus
from seqssvae.config import ModelConfig
from seqssvae.vocabulary import NEVER_GENERATED, PAD, START, UNK

Row = Int[np.ndarray, "T"]
Vector = Inexact[np.ndarray, "..."]
Weights = Mapping[str, np.ndarray]
Noise = Mapping[str, np.ndarray]

LEAST_SCALE = 1e-4
"""Added to the softplus that gives the scale of q(z|x,y)."""


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

    def encoder(self, row: Row, noise: Noise) -> tuple[Vector, ...]:
        """Features of the row by each tower: the first is for the classifier, the last for the latent encoder."""
        return tuple(self._tower(tower, row, noise) for tower in range(2 if self.model.encoder.separate else 1))

    def classifier(self, features: tuple[Vector, ...]) -> Vector:
        """log q(y|x) of every label."""
        return log_softmax(self._affine("classifier", features[0]))

    def latent_encoder(self, features: tuple[Vector, ...], label: int) -> tuple[Vector, Vector]:
        """loc and scale of q(z|x,y)."""
        hidden = np.tanh(self._joint("latent_encoder.hidden", features[-1], label))
        loc = self._affine("latent_encoder.loc", hidden)
        return loc, softplus(self._affine("latent_encoder.scale", hidden)) + LEAST_SCALE

    def log_probabilities(self, row: Row, label: int, z: Vector, noise: Noise) -> Inexact[np.ndarray, "T"]:
        """log p(x_t|x_<t,y,z) at every step, teacher-forced; 0 at PAD."""
        length = length_of(row)
        inputs = [START]
        for t in range(1, length):
            kept = "word_dropout" not in noise or noise["word_dropout"][t]
            inputs.append(int(row[t - 1]) if kept else UNK)
        result = np.zeros(len(row), dtype=np.result_type(*self.weights.values(), z))
        if length > 0:
            of_symbols = self.decoder(label, z, inputs, noise.get("decoder.embedding"))
            for t in range(length):
                result[t] = of_symbols[t][row[t]]
        return result

    def decoder(
        self, label: int, z: Vector, inputs: Sequence[int], mask: Bool[np.ndarray, "T E"] | None = None
    ) -> list[Vector]:
        """Behind each input, START being the first, the log-probabilities of every symbol."""
        decoder, embedding = self.model.decoder, self.weights["decoder.embedding"]
        xs = [self._drop(embedding[symbol], None if mask is None else mask[t]) for t, symbol in enumerate(inputs)]
        initial = self._initial_states(label, z)
        condition = self._condition(label, z) if decoder.conditioning == "every_step" else None
        for layer in range(decoder.layers):
            xs = self._recurrence(f"decoder.layers.{layer}", xs, initial[layer], condition if layer == 0 else None)
        logits = [self._output(hidden, label, z) for hidden in xs]
        return [log_softmax(of_step, excluded=self.never_generated) for of_step in logits]

    def _tower(self, tower: int, row: Row, noise: Noise) -> Vector:
        """Embeddings, recurrent layers, pooling over the real symbols."""
        encoder, prefix = self.model.encoder, f"encoder.towers.{tower}"
        length = length_of(row)
        if length == 0:
            return np.zeros(encoder.hidden_size * (2 if encoder.bidirectional else 1))
        embedding, mask = self.weights[f"{prefix}.embedding"], noise.get(f"encoder.embedding.{tower}")
        xs = [self._drop(embedding[row[t]], None if mask is None else mask[t]) for t in range(length)]
        for layer in range(encoder.layers):
            before = xs
            forward = self._recurrence(f"{prefix}.layers.{layer}.left_to_right", before)
            xs, last = forward, forward[-1]
            if encoder.bidirectional:
                backward = self._recurrence(f"{prefix}.layers.{layer}.right_to_left", before[::-1])[::-1]
                xs = [np.concatenate([forward[t], backward[t]]) for t in range(length)]
                last = np.concatenate([forward[-1], backward[0]])
        pooled = {"last": last, "mean": np.array(xs).mean(0), "max": maximum(np.array(xs))}[encoder.pooling]
        return self._drop(pooled, noise.get(f"features.{tower}"))

    def _output(self, hidden: Vector, label: int, z: Vector) -> Vector:
        """Logits of every symbol."""
        if self.model.decoder.conditioning != "output":
            return self._affine("decoder.output", hidden)
        projected = self.weights["decoder.projection.weight"] @ hidden
        conditioned = np.tanh(projected + self._joint("decoder.condition", z, label))
        return self._affine("decoder.output", conditioned) + self.weights["decoder.label_bias"][:, label]

    def _condition(self, label: int, z: Vector) -> Vector:
        """What y and z add to the gates of the first layer at every step."""
        return self.weights["decoder.condition.weight"] @ z + self.weights["decoder.condition.label_weight"][:, label]

    def _initial_states(self, label: int, z: Vector) -> list[list[Vector]]:
        """Per layer, the state vectors (h, and c for LSTM); stored as h of all layers, then c of all layers."""
        if self.model.decoder.conditioning == "output":
            flat = np.tanh(self.weights["decoder.initial_state"])
        else:
            hidden = np.tanh(self._joint("decoder.initial.hidden", z, label))
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

    def _drop(self, value: Vector, keep: Bool[np.ndarray, "N"] | None) -> Vector:
        return value if keep is None else value * keep / (1.0 - self.model.dropout)


def length_of(row: Row) -> int:
    """Number of real symbols of a row, END included; 0 for a filler row."""
    return int((row != PAD).sum())
