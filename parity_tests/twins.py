"""Both twins behind one face: NumPy arrays in, NumPy arrays out, all noise given."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from parity_tests.problems import Arrays, Problem, Step
from seqssvae.config import Config, Precision
from seqssvae_jax.backend import JaxBackend
from seqssvae_jax.objectives import Rows as JaxRows
from seqssvae_torch.backend import TorchBackend
from seqssvae_torch.objectives import Rows as TorchRows


class Solution(NamedTuple):
    """What a twin makes of a problem.

    Args:
        loss: What the step minimises.
        terms: Per kind of rows (`labelled`, `unlabelled`) and term, one number per row: `labelled.kl_z`.
        gradients: Of the loss, per weight.
    """

    loss: np.ndarray
    terms: Arrays
    gradients: Arrays


class Outputs(NamedTuple):
    """What a twin's networks return for one batch, in evaluation.

    Args:
        features: Per tower, `(B, F)`.
        log_q_y: log q(y|x), `(B, K)`.
        loc: Mean of q(z|x,y), `(K, B, Z)`.
        scale: Standard deviation of q(z|x,y), `(K, B, Z)`.
        log_prob_steps: log p(x_t | x_<t, y, z), `(K, B, T)`.
    """

    features: tuple[np.ndarray, ...]
    log_q_y: np.ndarray
    loc: np.ndarray
    scale: np.ndarray
    log_prob_steps: np.ndarray


def _in(precision: Precision, problem: Problem) -> Config:
    return replace(problem.config, training=replace(problem.config.training, precision=precision))


def _arrays(values: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(value) for name, value in values.items()}


class TorchTwin:
    """The PyTorch twin of a problem."""

    name = "torch"

    def __init__(self, problem: Problem, precision: Precision = "float64") -> None:
        self.problem, self.precision = problem, precision
        self.backend = TorchBackend(_in(precision, problem), problem.dimensions)
        self.backend.set_weights(problem.weights)

    def rows(self, step: Step | None, observed: bool) -> TorchRows | None:
        """A batch with its noise."""
        return None if step is None else self.backend.rows(step.batch, observed, _cast(step.noise, self.precision))

    def solve(self) -> Solution:
        """Loss, terms and gradients."""
        labelled, unlabelled = self.rows(self.problem.labelled, True), self.rows(self.problem.unlabelled, False)
        weights = dict(self.backend.ssvae.named_parameters())
        loss, terms = self.backend.loss(labelled, unlabelled, self.problem.beta)
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
        return Solution(
            loss.detach().numpy(),
            _named_terms(self.problem, terms),
            {name: gradient.numpy() for name, gradient in zip(weights, gradients, strict=True)},
        )

    @torch.no_grad()
    def outputs(self, x: np.ndarray, z: np.ndarray) -> Outputs:
        """What the networks return for rows x, each label, and z of shape `(K, B, Z)`."""
        ssvae = self.backend.ssvae
        rows, latent = torch.from_numpy(x).long(), torch.from_numpy(z.astype(self.precision))
        y = ssvae.one_hot(torch.arange(ssvae.label_count)[:, None])
        features = ssvae.encoder(rows)
        posterior = ssvae.latent_encoder(features, y)
        log_probs = ssvae.decoder(y, latent, x.shape[1]).log_prob_steps(rows)
        found = (ssvae.classifier(features).logits, posterior.loc, posterior.scale, log_probs)
        return Outputs(tuple(part.numpy() for part in features), *(part.numpy() for part in found))

    def train(self, steps: int, learning_rate: float) -> Arrays:
        """Weights after so many optimiser steps, all on the problem's rows and noise."""
        labelled, unlabelled = self.rows(self.problem.labelled, True), self.rows(self.problem.unlabelled, False)
        for _ in range(steps):
            self.backend.train_on(labelled, unlabelled, self.problem.beta, learning_rate)
        return self.backend.get_weights()


class JaxTwin:
    """The JAX twin of a problem."""

    name = "jax"

    def __init__(self, problem: Problem, precision: Precision = "float64") -> None:
        self.problem, self.precision = problem, precision
        self.backend = JaxBackend(_in(precision, problem), problem.dimensions)
        self.backend.set_weights(problem.weights)
        self._solve = jax.jit(jax.value_and_grad(self.backend.loss, has_aux=True))
        self._outputs = jax.jit(self._network_outputs)

    def rows(self, step: Step | None, observed: bool) -> JaxRows | None:
        """A batch with its noise."""
        return None if step is None else self.backend.rows(step.batch, observed, _cast(step.noise, self.precision))

    def solve(self) -> Solution:
        """Loss, terms and gradients."""
        labelled, unlabelled = self.rows(self.problem.labelled, True), self.rows(self.problem.unlabelled, False)
        with jax.enable_x64(self.precision == "float64"), jax.default_matmul_precision("highest"):
            (loss, terms), gradients = self._solve(self.backend.state.weights, labelled, unlabelled, self.problem.beta)
        return Solution(np.asarray(loss), _named_terms(self.problem, terms), _arrays(gradients))

    def outputs(self, x: np.ndarray, z: np.ndarray) -> Outputs:
        """What the networks return for rows x, each label, and z of shape `(K, B, Z)`."""
        with jax.enable_x64(self.precision == "float64"), jax.default_matmul_precision("highest"):
            features, *found = self._outputs(self.backend.state.weights, x, z.astype(self.precision))
        return Outputs(tuple(map(np.asarray, features)), *map(np.asarray, found))

    def _network_outputs(self, weights: dict[str, jax.Array], x: jax.Array, z: jax.Array) -> tuple[Any, ...]:
        ssvae = self.backend.ssvae.bind(weights)
        y = ssvae.one_hot(jnp.arange(ssvae.label_count)[:, None])
        features = ssvae.encoder(x)
        posterior = ssvae.latent_encoder(features, y)
        log_probs = ssvae.decoder(y, z, x.shape[1]).log_prob_steps(x)
        return features, ssvae.classifier(features).logits, posterior.loc, posterior.scale, log_probs

    def train(self, steps: int, learning_rate: float) -> Arrays:
        """Weights after so many optimiser steps, all on the problem's rows and noise."""
        labelled, unlabelled = self.rows(self.problem.labelled, True), self.rows(self.problem.unlabelled, False)
        with jax.default_matmul_precision("highest"):
            for _ in range(steps):
                self.backend.train_on(labelled, unlabelled, self.problem.beta, learning_rate)
        return self.backend.get_weights()


TWINS = {"torch": TorchTwin, "jax": JaxTwin}


def _cast(noise: Arrays, precision: Precision) -> Arrays:
    return {name: values if values.dtype == bool else values.astype(precision) for name, values in noise.items()}


def _named_terms(problem: Problem, terms: tuple[Any, ...]) -> Arrays:
    kinds = [kind for kind in ("labelled", "unlabelled") if getattr(problem, kind) is not None]
    return {
        f"{kind}.{name}": np.asarray(values)
        for kind, of_kind in zip(kinds, terms, strict=True)
        for name, values in of_kind._asdict().items()
    }
