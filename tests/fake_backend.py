"""A trivial but real learner behind the `Backend` protocol: a fast double for tests of the shared code.

q(y|x) is a softmax over bags of symbols, p(x|y) a unigram model with a bias per label. It moves three of the weights of
`seqssvae.parameters` (conditioning `output`) by Adam, and its steps depend on the seed and the step's number as a
twin's do, so that tests of resuming and of seeds can fail.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from seqssvae.backend import (
    Batch,
    Dimensions,
    ELBOTerms,
    Evaluation,
    Latents,
    StepTotals,
    TrainingStep,
    Weights,
    rebuild,
)
from seqssvae.config import Config, DecodingOptions, weight_type
from seqssvae.data.vocabulary import UNK
from seqssvae.errors import ConfigurationError
from seqssvae.parameters import check_weights, initial_weights, parameter_shapes

END = 3
BIAS, BAG, UNIGRAM = "classifier.bias", "decoder.label_bias", "decoder.output.bias"
"""Shapes `(K,)`, `(V, K)` and `(V,)`."""
CONSISTENCY = 0.25
"""What it says of every row whose label is missing."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class FakeBackend:
    """See the module."""

    name = "fake"

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None) -> None:
        assert config.model.decoder.conditioning == "output"
        self.config, self.dimensions, self.device = config, dimensions, device
        self.prior = np.log(np.asarray(dimensions.label_prior))
        self.shapes = parameter_shapes(config.model, dimensions.vocabulary_size, len(dimensions.label_prior))
        seed, precision = config.training.seed, weight_type(config.training.precision)
        counts = dimensions.vocabulary_size, len(dimensions.label_prior)
        self.weights = initial_weights(config.model, *counts, seed, precision)
        self.moments = {
            f"{name}.{kind}": np.zeros_like(value)
            for name, value in self.weights.items()
            for kind in ("exp_avg", "exp_avg_sq")
        }
        self.step = 0
        self.train_calls: list[int] = []

    @staticmethod
    def check_device(device: str | None) -> None:
        if device == "abacus":
            raise ConfigurationError("Fake has no device 'abacus' here.")

    # Networks

    def _counts(self, x: np.ndarray) -> np.ndarray:
        counts = np.stack([(x == symbol).sum(axis=1) for symbol in range(self.dimensions.vocabulary_size)], axis=1)
        counts[:, 0] = 0
        return counts.astype(float)

    def _log_q_y(self, counts: np.ndarray) -> np.ndarray:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return log_softmax(4 * shares @ self.weights[BAG] + self.weights[BIAS])

    def _reconstruction(self, counts: np.ndarray) -> np.ndarray:
        logits = self.weights[UNIGRAM].astype(float).copy()
        logits[[0, 2]] = -np.inf
        with np.errstate(invalid="ignore"):
            return np.nansum(np.where(counts > 0, counts * log_softmax(logits), 0.0), axis=1)

    # Protocol

    def __reduce__(self):
        given = self.config, self.dimensions, self.device
        return rebuild, (type(self), *given, self.get_weights(), self.get_optimizer_state())

    def announce_to(self, listener):
        self.listener = listener

    platform = "cpu"

    def load(self, step: TrainingStep) -> TrainingStep:
        return step

    def train(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        self.train_calls.append(len(steps))
        return [self._train_step(step) for step in steps]

    def _train_step(self, step: TrainingStep) -> StepTotals:
        noise = np.random.default_rng([self.config.training.seed, step.step])
        gradients = {name: np.zeros(self.shapes[name]) for name in (BIAS, BAG, UNIGRAM)}
        sums = np.zeros(6)
        rows = labelled_rows = symbols = 0
        for batch in (step.labelled, step.unlabelled):
            if batch is None:
                continue
            counts = self._counts(batch.x)
            log_q_y, reconstruction = self._log_q_y(counts), self._reconstruction(counts)
            real = batch.row_mask
            labelled = real & (batch.y >= 0)
            error = np.exp(log_q_y) - np.eye(log_q_y.shape[1])[batch.y]
            error[~labelled] = 0.0
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            gradients[BIAS] += error.mean(axis=0)
            gradients[BAG] += 4 * shares.T @ error / max(labelled.sum(), 1)
            probabilities = np.exp(log_softmax(self.weights[UNIGRAM].astype(float)))
            total = counts[real].sum(axis=0)
            gradients[UNIGRAM] += (total.sum() * probabilities - total) / max(total.sum(), 1)
            rows += int(real.sum())
            labelled_rows += int(labelled.sum())
            symbols += int((batch.x[real] != 0).sum())
            classification = -log_q_y[np.arange(len(real)), batch.y][labelled].sum()
            kl_y = (np.exp(log_q_y) * (log_q_y - self.prior)).sum(axis=1)[real].sum()
            consistency = CONSISTENCY * (real & ~labelled).sum()
            sums += [reconstruction[real].sum(), 0.0, kl_y, classification, consistency, 0.0]
        norm = float(np.sqrt(sum((gradient**2).sum() for gradient in gradients.values())))
        terms = ELBOTerms(*sums)
        loss = terms.classification / max(labelled_rows, 1)
        if self.config.objective.name == "ssvae":
            loss *= self.config.objective.alpha
            loss -= (terms.reconstruction - step.beta * terms.kl_z - terms.kl_y) / rows
        self._adam(gradients, step.learning_rate, noise)
        return StepTotals(loss, norm, terms, rows, labelled_rows, symbols)

    def _adam(self, gradients: Mapping[str, np.ndarray], learning_rate: float, noise: np.random.Generator) -> None:
        optimizer = self.config.optimizer
        self.step += 1
        for name, gradient in gradients.items():
            gradient = gradient + 1e-3 * noise.normal(size=gradient.shape)
            mean, square = self.moments[f"{name}.exp_avg"], self.moments[f"{name}.exp_avg_sq"]
            mean[...] = optimizer.beta1 * mean + (1 - optimizer.beta1) * gradient
            square[...] = optimizer.beta2 * square + (1 - optimizer.beta2) * gradient**2
            step = mean / (1 - optimizer.beta1**self.step)
            scale = np.sqrt(square / (1 - optimizer.beta2**self.step)) + optimizer.epsilon
            self.weights[name] -= (learning_rate * step / scale).astype(self.weights[name].dtype)

    def evaluate(self, batch: Batch, seed: int) -> Evaluation:
        counts = self._counts(batch.x)
        log_q_y = self._log_q_y(counts)
        z = np.random.default_rng([seed, *batch.x.shape]).normal(size=len(batch.x))
        kl_y = (np.exp(log_q_y) * (log_q_y - self.prior)).sum(axis=1)
        terms = (self._reconstruction(counts), 0.1 * z**2, kl_y, *np.zeros((3, len(z))))
        return Evaluation(ELBOTerms(*(np.where(batch.row_mask, term, 0.0) for term in terms)), log_q_y)

    def log_weights(self, batch: Batch, seed: int, particles: int) -> np.ndarray:
        terms, log_q_y = self.evaluate(batch, seed)
        bound = (terms.reconstruction - terms.kl_z / particles - terms.kl_y)[:, None] + log_q_y
        return np.tile(bound, (particles, 1, 1))

    def latents(self, x: np.ndarray, source: np.ndarray | None = None) -> Latents:
        shape = len(x), len(self.prior), self.config.model.latent_size
        loc = np.broadcast_to(self.encode(x)[:, None], shape)
        return Latents(loc, np.full(shape, 0.5), np.zeros(shape), np.ones(shape))

    def log_likelihood(self, x: np.ndarray, z: np.ndarray, source: np.ndarray | None = None) -> np.ndarray:
        counts = self._counts(x)
        return self._reconstruction(counts)[:, None] + self._log_q_y(counts)

    def classify(self, x: np.ndarray, source: np.ndarray | None = None) -> np.ndarray:
        return self._log_q_y(self._counts(x))

    def classify_source(self, source: np.ndarray) -> np.ndarray:
        raise ValueError("this model has no sources")

    def encode(self, x: np.ndarray, source: np.ndarray | None = None, features: bool = False) -> np.ndarray:
        counts = self._counts(x)
        embedding = counts @ self.weights["encoder.towers.0.embedding"] / np.maximum(counts.sum(axis=1), 1)[:, None]
        return embedding if features else embedding[:, : self.config.model.latent_size]

    def generate(
        self,
        y: np.ndarray,
        options: DecodingOptions,
        seed: int,
        z: np.ndarray | None = None,
        source: np.ndarray | None = None,
        use_mean: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        logits = self.weights[UNIGRAM] + 4 * self.weights[BAG].T[y]
        logits[:, [0, 2]] = -np.inf
        log_p = log_softmax(logits.astype(float))
        allowed = log_p.copy()
        if not options.allow_unknown:
            allowed[:, UNK] = -np.inf
        max_length, top_p = options.longest(self.config.data), options.top_p
        drawn_from = np.exp(log_softmax(allowed / options.temperature))
        if top_p < 1:  # kept are symbols such that all more probable ones have less than top_p together
            more = (drawn_from[:, None, :] > drawn_from[:, :, None]) @ drawn_from[:, :, None]
            drawn_from = np.where(more[:, :, 0] < top_p, drawn_from, 0.0)
            drawn_from /= drawn_from.sum(axis=1, keepdims=True)
        x = np.zeros((len(y), max_length + 1), np.int32)
        scores = np.zeros(len(y))
        for row in range(len(y)):
            for t in range(max_length + 1):
                if options.method == "sample":
                    symbol = generator.choice(len(log_p[row]), p=drawn_from[row])
                else:
                    symbol = allowed[row].argmax()
                x[row, t] = symbol
                scores[row] += log_p[row, symbol]
                if symbol == END:
                    break
        return x, scores

    def get_weights(self) -> Weights:
        return {name: value.copy() for name, value in self.weights.items()}

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        check_weights(weights, self.shapes)
        self.weights = {name: np.array(value) for name, value in weights.items()}

    def get_optimizer_state(self) -> Weights:
        state = {name: value.copy() for name, value in self.moments.items()}
        return {"step": np.array(self.step, np.int32), **state}

    def set_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        check_weights(state, {"step": (), **{name: value.shape for name, value in self.moments.items()}})
        self.step = int(state["step"])
        self.moments = {name: np.array(state[name]) for name in self.moments}
