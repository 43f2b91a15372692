"""The oracle: the model's objective once more, in NumPy, as plain loops over labels and rows.

    p(y) = Categorical(prior)         p(z) = N(0, I)         p(x | y, z) = prod_t Categorical(x_t | x_<t, y, z)
    q(y | x) = Categorical(classifier(x))                    q(z | x, y) = N(loc(x, y), scale(x, y))

    labelled row      L(x, y) = E_q(z|x,y)[ log p(x|y,z) ] + log p(y) - beta * KL(q(z|x,y) || p(z))
    unlabelled row    U(x)    = sum_y q(y|x) * L(x, y) + H(q(y|x))
    minimised         -( sum L + sum U ) / rows  +  alpha * mean over labelled rows of -log q(y|x)
                      +  consistency * mean over unlabelled rows of -sum_y r(y) log q(y|x), where there is this term:
                         r is proportional to q(y|x)^(1/temperature) without dropout, and held fixed; aligned, to
                         (q(y|x) p / (sum of q(y|x) over these rows + p))^(1/temperature), p the mean of p(y) over them;
                         realigned, r p / (sum of r over these rows + p) after that; shifted, with q(y|x) exp(shift) and
                         p(y) exp(shift), normalised, for q(y|x) and p(y)

Of r held fixed, which is given or proportional to exp(L(x, y) / temperature), there stands for U(x)
    sum_y r(y) * L(x, y) + H(r) - distillation * ( -sum_y r(y) log q(y|x) )

Where rows have a source s, all of these are given it: p(y|s), p(z|s,y), p(x|s,y,z), q(y|s,x), q(z|s,x,y).

It shares no code with a twin. In float64 it is the reference for values; with weights in complex128 it gives
gradients by the complex step (`parity_tests.derivatives`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Inexact, Int

from parity_tests.arithmetic import log_normal, log_softmax
from parity_tests.networks import Networks, Noise, Source, Weights, length_of
from parity_tests.oracle_rows import LabelledTerms, Rows, UnlabelledTerms, of_row, real_rows
from seqssvae.config import ConsistencyConfig, ModelConfig, ObjectiveConfig
from seqssvae.data.vocabulary import NEVER_GENERATED, START

AMORTISED = ObjectiveConfig()
NO_CONSISTENCY = ConsistencyConfig()


@dataclass(frozen=True)
class Oracle:
    """The model with given weights.

    Args:
        model: The networks.
        weights: All weights, in float64 or complex128.
        label_prior: p(y).
        never_generated: Symbols of probability 0.
    """

    model: ModelConfig
    weights: Weights
    label_prior: Sequence[float]
    never_generated: Sequence[int] = NEVER_GENERATED

    @cached_property
    def networks(self) -> Networks:
        """The networks of one row and one label."""
        return Networks(self.model, self.weights, self.never_generated)

    @property
    def label_count(self) -> int:
        """K, the number of labels."""
        return len(self.label_prior)

    def objective(
        self,
        labelled: Rows | None,
        unlabelled: Rows | None,
        alpha: float,
        beta: float,
        generative: bool = True,
        label_gradient: float = 1.0,
        consistency: ConsistencyConfig = NO_CONSISTENCY,
        posterior: ObjectiveConfig = AMORTISED,
        fixed: "Oracle | None" = None,
    ) -> Inexact[np.ndarray, ""]:
        """What a training step minimises; with `generative=False` without the ELBO, and classification with weight 1.

        Under the complex step, q(y|x) of unlabelled rows passes on the share `label_gradient` of its derivative. What
        consistency asks for is what `fixed` says, whose weights do not move; None: this oracle itself.
        """
        total = np.asarray(0.0)
        batches = [batch for batch in (labelled, unlabelled) if batch is not None]
        rows = sum(real_rows(batch.x) for batch in batches)
        if labelled is not None:
            terms, weight = self.labelled_terms(labelled, beta), alpha if generative else 1.0
            total = total + weight * terms.classification.sum() / real_rows(labelled.x)
            total = total - (terms.elbo.sum() / rows if generative else 0.0)
        if unlabelled is not None:
            of_unlabelled = self.unlabelled_terms(unlabelled, beta, label_gradient, posterior, fixed)
            total = total - (of_unlabelled.elbo.sum() / rows if generative else 0.0)
            total = total + posterior.distillation * of_unlabelled.distillation.sum() / rows
        if unlabelled is not None and consistency.weight:
            of_rows = self.inconsistency(unlabelled, consistency, fixed)
            total = total + consistency.weight * of_rows.sum() / real_rows(unlabelled.x)
        return total

    def inconsistency(
        self, rows: Rows, term: ConsistencyConfig, fixed: "Oracle | None" = None
    ) -> Inexact[np.ndarray, " B"]:
        """The cross entropy of q(y|x) with the rows' noise from what it is without, sharpened; 0 for filler rows.

        Aligned, each label's share is first divided by its sum over the rows and one more that is as p(y) says they are
        in the mean, and multiplied by the latter.
        """
        real, wise = [b for b in range(len(rows.x)) if length_of(rows.x[b]) > 0], fixed or self
        shift = np.zeros(self.label_count) if term.label_shift is None else np.array(term.label_shift)
        sources = [wise.source(rows.source, None, b) for b in real]
        encoded = [wise.networks.encoder(rows.x[b], {}, source) for b, source in zip(real, sources, strict=True)]
        q = np.array([np.exp(log_softmax(wise.networks.classifier(features).real + shift)) for features in encoded])
        p = np.mean([np.exp(log_softmax(wise._log_prior(source).real + shift)) for source in sources], 0)
        r = (_aligned(q, p) if term.aligned else q) ** (1 / term.temperature)
        r = r / r.sum(1, keepdims=True)
        r = _aligned(r, p) if term.realigned else r
        result: list[Any] = [0.0] * len(rows.x)
        for wanted, b in zip(r, real, strict=True):
            source = self.source(rows.source, rows.noise, b)
            log_q = self.networks.classifier(self.networks.encoder(rows.x[b], of_row(rows.noise, b), source))
            result[b] = -(wanted * log_softmax(log_q + shift)).sum()
        return np.array(result)

    def labelled_terms(self, rows: Rows, beta: float) -> LabelledTerms:
        """L of every row, and its parts."""
        x, y, noise, sources = rows.x, rows.y, rows.noise, rows.source
        if y is None:
            raise ValueError("labelled_terms needs the labels y of its rows.")
        of_rows: list[list[Any]] = []
        for b in range(len(x)):
            if length_of(x[b]) == 0:
                of_rows.append([0.0] * 5)
                continue
            label = int(y[b])
            source = self.source(sources, noise, b)
            features = self.networks.encoder(x[b], of_row(noise, b), source)
            reconstruction, kl_z = self._at_drawn_z(features, x[b], label, noise["z"][b], of_row(noise, b), source)
            kl_y = -self._log_prior(source)[label]
            elbo = reconstruction - beta * kl_z - kl_y
            of_rows.append([reconstruction, kl_z, kl_y, elbo, -self.networks.classifier(features)[label]])
        return LabelledTerms(*np.array(of_rows).T)

    def unlabelled_terms(
        self,
        rows: Rows,
        beta: float,
        label_gradient: float = 1.0,
        posterior: ObjectiveConfig = AMORTISED,
        fixed: "Oracle | None" = None,
    ) -> UnlabelledTerms:
        """U of every row, and its parts. An observed y is passed over, as in evaluation.

        The objective says by which posterior labels are weighted; the exact one is that of `fixed`, as of `objective`.
        """
        x, noise, sources = rows.x, rows.noise, rows.source
        r = self._fixed_posterior(rows, beta, posterior, fixed or self)
        of_rows: list[list[Any]] = []
        of_labels: list[list[list[Any]]] = []
        for b in range(len(x)):
            if length_of(x[b]) == 0:
                of_rows.append([0.0] * 5)
                of_labels.append([[0.0] * 2] * self.label_count)
                continue
            source = self.source(sources, noise, b)
            features = self.networks.encoder(x[b], of_row(noise, b), source)
            log_q_y, log_prior = self.networks.classifier(features), self._log_prior(source)
            log_q_y = log_q_y.real + label_gradient * (log_q_y - log_q_y.real)
            reconstruction, kl_z, kl_y, distillation = 0.0, 0.0, 0.0, 0.0
            of_labels.append([])
            for k in range(self.label_count):
                log_p_x, log_ratio = self._at_drawn_z(features, x[b], k, noise["z"][k, b], of_row(noise, b), source)
                q, log_q = np.exp(log_q_y[k]), log_q_y[k]
                if r is not None:
                    distillation = distillation - r[b, k] * log_q
                    q, log_q = r[b, k], np.log(r[b, k]) if r[b, k] > 0 else 0.0
                reconstruction = reconstruction + q * log_p_x
                kl_z = kl_z + q * log_ratio
                kl_y = kl_y + q * (log_q - log_prior[k])
                of_labels[-1].append([log_p_x, log_ratio])
            of_rows.append([reconstruction, kl_z, kl_y, reconstruction - beta * kl_z - kl_y, distillation])
        return UnlabelledTerms(*np.array(of_rows).T, *np.array(of_labels).T)

    def _fixed_posterior(
        self, rows: Rows, beta: float, posterior: ObjectiveConfig, fixed: "Oracle"
    ) -> Float[np.ndarray, "B K"] | None:
        """By what the labels of each row are weighted, if not by q(y|x)."""
        if posterior.posterior == "amortised":
            return None
        if posterior.posterior == "given":
            return rows.posterior
        terms, result = fixed.unlabelled_terms(rows, beta), np.zeros((len(rows.x), self.label_count))
        for b in range(len(rows.x)):
            log_prior = fixed._log_prior(fixed.source(rows.source, rows.noise, b))
            of_labels = terms.label_reconstruction[:, b] - beta * terms.label_kl_z[:, b] + log_prior
            temperature = posterior.posterior_temperature or float(np.sqrt(max(length_of(rows.x[b]), 1)))
            result[b] = np.exp(log_softmax(of_labels.real / temperature))
        return result

    def _at_drawn_z(
        self,
        features: tuple[np.ndarray, ...],
        row: np.ndarray,
        label: int,
        epsilon: np.ndarray,
        noise: Noise,
        source: Source | None,
    ) -> tuple[np.inexact, np.inexact]:
        """log p(x|y,z) and log q(z|x,y) - log p(z), at z = loc + scale * epsilon."""
        loc, scale = self.networks.latent_encoder(features, label)
        z = loc + scale * epsilon
        log_p_x = self.networks.log_probabilities(row, label, z, noise, source).sum()
        prior = (np.zeros_like(z), np.ones_like(z))
        if source is not None:
            prior = self.networks.latent_predictor(source, label)
        return log_p_x, log_normal(z, loc, scale) - log_normal(z, *prior)

    def source(self, sources: Int[np.ndarray, "B S"] | None, noise: Noise | None, b: int) -> Source | None:
        """What is made of a row's source, if it has one."""
        return None if sources is None else self.networks.source_encoder(sources[b], of_row(noise, b))

    def _log_prior(self, source: Source | None) -> Inexact[np.ndarray, " K"]:
        """log p(y), or log p(y|source)."""
        if source is None:
            return np.log(self.label_prior)
        return self.networks.label_predictor(source, self.label_prior)

    def log_p_y(self, sources: Int[np.ndarray, "B S"]) -> Inexact[np.ndarray, "B K"]:
        """log p(y|source), without dropout."""
        return np.array([self._log_prior(self.source(sources, None, b)) for b in range(len(sources))])

    def _features(
        self, x: Int[np.ndarray, "B T"], noise: Noise | None, sources: Int[np.ndarray, "B S"] | None
    ) -> list[tuple[np.ndarray, ...]]:
        return [self.networks.encoder(x[b], of_row(noise, b), self.source(sources, noise, b)) for b in range(len(x))]

    def features(
        self,
        x: Int[np.ndarray, "B T"],
        noise: Noise | None = None,
        source: Int[np.ndarray, "B S"] | None = None,
    ) -> tuple[Inexact[np.ndarray, "B F"], ...]:
        """Features of every row by each tower, the features' dropout included."""
        return tuple(np.array(tower) for tower in zip(*self._features(x, noise, source), strict=True))

    def log_q_y(
        self,
        x: Int[np.ndarray, "B T"],
        noise: Noise | None = None,
        source: Int[np.ndarray, "B S"] | None = None,
    ) -> Inexact[np.ndarray, "B K"]:
        """log q(y|x)."""
        return np.array([self.networks.classifier(of_one) for of_one in self._features(x, noise, source)])

    def posterior(
        self,
        x: Int[np.ndarray, "B T"],
        noise: Noise | None = None,
        source: Int[np.ndarray, "B S"] | None = None,
    ) -> tuple[Inexact[np.ndarray, "K B Z"], Inexact[np.ndarray, "K B Z"]]:
        """loc and scale of q(z|x,y), of every label."""
        features = self._features(x, noise, source)
        pairs = [[self.networks.latent_encoder(of_one, k) for of_one in features] for k in range(self.label_count)]
        return tuple(np.moveaxis(np.array(pairs), 2, 0))

    def embedding(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Inexact[np.ndarray, "B Z"]:
        """The sum over y of q(y|x) loc(x, y), without dropout."""
        result = []
        for features in self._features(x, None, source):
            q_y = np.exp(self.networks.classifier(features))
            result.append(sum(q_y[k] * self.networks.latent_encoder(features, k)[0] for k in range(self.label_count)))
        return np.array(result)

    def step_log_probabilities(
        self,
        x: Int[np.ndarray, "B T"],
        z: Inexact[np.ndarray, "K B Z"],
        noise: Noise | None = None,
        source: Int[np.ndarray, "B S"] | None = None,
    ) -> Inexact[np.ndarray, "K B T"]:
        """log p(x_t|x_<t,y,z) under every label, each with its own z; 0 at PAD."""
        sources = [self.source(source, noise, b) for b in range(len(x))]
        return np.array(
            [
                [self.networks.log_probabilities(x[b], k, z[k, b], of_row(noise, b), sources[b]) for b in range(len(x))]
                for k in range(self.label_count)
            ]
        )

    def log_prob(
        self,
        x: Int[np.ndarray, "B T"],
        y: Int[np.ndarray, " B"],
        z: Inexact[np.ndarray, "B Z"],
        source: Int[np.ndarray, "B S"] | None = None,
    ) -> Inexact[np.ndarray, " B"]:
        """log p(x|y,z) of each row under its own label, without dropout."""
        sources = [self.source(source, None, b) for b in range(len(x))]
        of_rows = zip(x, y, z, sources, strict=True)
        return np.array([self.networks.log_probabilities(row, int(k), z_, {}, s).sum() for row, k, z_, s in of_rows])

    def next_log_probabilities(
        self,
        prefix: Sequence[int],
        y: int,
        z: Inexact[np.ndarray, " Z"],
        source: Int[np.ndarray, " S"] | None = None,
    ) -> Inexact[np.ndarray, " V"]:
        """log p(x_t|x_<t,y,z) of every symbol behind the prefix x_<t, without dropout."""
        encoded = None if source is None else self.networks.source_encoder(source, {})
        return self.networks.decoder(y, z, [START, *prefix], source=encoded)[-1]


def _aligned(q: Float[np.ndarray, "N K"], p: Float[np.ndarray, " K"]) -> Float[np.ndarray, "N K"]:
    """Rows of probabilities, each label's multiplied by p over their sum and p."""
    moved = q * p / (q.sum(0) + p)
    return moved / moved.sum(1, keepdims=True)
