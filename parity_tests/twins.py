"""Both twins behind one face: NumPy arrays in, NumPy arrays out, all noise given."""

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from parity_tests.problems import Arrays, Problem, Step
from seqssvae.backend import Derivatives, GivenRows
from seqssvae.config import Config, DecodingOptions, Precision
from seqssvae.data.vocabulary import UNK
from seqssvae_jax.backend import JaxBackend
from seqssvae_jax.rows import Rows as JaxRows
from seqssvae_torch.backend import TorchBackend
from seqssvae_torch.rows import Rows as TorchRows


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


Found = tuple[np.ndarray, np.ndarray]
"""Symbols, and the log-probability of each sequence."""


def device_of(name: str) -> str | None:
    """The device that a twin is to run on, as `make parity DEVICE=cuda` says; None: the twin's default.

    PyTorch has no TPU: there, only the JAX twin is on it.
    """
    device = os.environ.get("SEQSSVAE_DEVICE") or None
    return None if name == "torch" and device == "tpu" else device


class _Twin:
    """What both have in common."""

    name: str
    backend: Any

    def __init__(self, problem: Problem, precision: Precision = "float64") -> None:
        self.problem, self.precision = problem, precision
        config = _in(precision, problem)
        kind = TorchBackend if self.name == "torch" else JaxBackend
        self.backend = kind(config, problem.dimensions, device_of(self.name))
        self._first = self.backend.get_optimizer_state()
        self.restart()

    def restart(self) -> None:
        """Back to the problem's weights, with an optimiser that has seen nothing."""
        self.backend.set_weights(self.problem.weights)
        self.backend.set_optimizer_state(self._first)

    def solve(self) -> Solution:
        """Loss, terms and gradients."""
        with self.backend.exact_products():
            derivatives = self.backend.differentiate(*self.given(), self.problem.beta)
        return solution(derivatives)

    def given(self) -> tuple[GivenRows | None, GivenRows | None]:
        """The problem's rows and noise, as a backend takes them."""
        kinds = self.problem.labelled, self.problem.unlabelled
        labelled, unlabelled = (None if step is None else GivenRows(step.batch, step.noise) for step in kinds)
        return labelled, unlabelled

    def train(self, steps: int, learning_rate: float) -> Arrays:
        """Weights after so many optimiser steps, all on the problem's rows and noise."""
        labelled, unlabelled = self.rows(self.problem.labelled, True), self.rows(self.problem.unlabelled, False)
        with self.backend.exact_products():
            for _ in range(steps):
                self.backend.train_on(labelled, unlabelled, self.problem.beta, learning_rate)
        return self.backend.get_weights()

    def rows(self, step: Step | None, observed: bool) -> Any:
        """A batch with its noise, on the device."""
        return None if step is None else self.backend.rows(step.batch, observed, step.noise)


class TorchTwin(_Twin):
    """The PyTorch twin of a problem."""

    name = "torch"
    backend: TorchBackend

    def rows(self, step: Step | None, observed: bool) -> TorchRows | None:
        """A batch with its noise, on the device."""
        return super().rows(step, observed)

    @torch.no_grad()
    def outputs(self, x: np.ndarray, z: np.ndarray, source: np.ndarray | None = None) -> Outputs:
        """What the networks return for rows x, each label, and z of shape `(K, B, Z)`."""
        ssvae, device = self.backend.ssvae, self.backend.device
        rows, latent = torch.from_numpy(x).long().to(device), torch.from_numpy(z.astype(self.precision)).to(device)
        y = ssvae.one_hot(torch.arange(ssvae.label_count, device=device)[:, None])
        encoding = ssvae.encode_source(None if source is None else torch.from_numpy(source).long().to(device))
        read = ssvae.encode(rows, encoding)
        posterior = ssvae.latent_encoder(read, y)
        log_probs = ssvae.decoder(y, latent, x.shape[1], source=encoding).log_prob_steps(rows)
        tensors = (ssvae.classifier(read).logits, posterior.loc, posterior.scale, log_probs)
        return Outputs(tuple(part.cpu().numpy() for part in read.features), *(part.cpu().numpy() for part in tensors))

    def search(
        self, y: np.ndarray, z: np.ndarray, max_length: int, width: int, source: np.ndarray | None = None
    ) -> tuple[Found, Found]:
        """Greedy decoding, one sequence a row, and all sequences of a beam search."""
        latents = z.astype(self.precision)
        greedy = self.backend.generate(y, DecodingOptions(max_length, "greedy"), 0, z=latents, source=source)
        ssvae, device = self.backend.ssvae, self.backend.device
        one_hot = ssvae.one_hot(torch.from_numpy(y).long().to(device))
        latent = torch.from_numpy(latents).to(device)
        encoding = ssvae.encode_source(None if source is None else torch.from_numpy(source).long().to(device))
        sequences, scores = ssvae.decoder(one_hot, latent, max_length + 1, source=encoding).beam_search(width, (UNK,))
        return greedy, (sequences.cpu().numpy(), scores.cpu().numpy())


class JaxTwin(_Twin):
    """The JAX twin of a problem."""

    name = "jax"
    backend: JaxBackend

    def __init__(self, problem: Problem, precision: Precision = "float64") -> None:
        super().__init__(problem, precision)
        self._outputs = jax.jit(self._network_outputs)
        self._beam = jax.jit(self._beam_search, static_argnames=("time_steps", "width"))

    def rows(self, step: Step | None, observed: bool) -> JaxRows | None:
        """A batch with its noise, on the device."""
        return super().rows(step, observed)

    def outputs(self, x: np.ndarray, z: np.ndarray, source: np.ndarray | None = None) -> Outputs:
        """What the networks return for rows x, each label, and z of shape `(K, B, Z)`."""
        with self._exact():
            features, *arrays = self._outputs(self.backend.state.weights, x, z.astype(self.precision), source)
        return Outputs(tuple(map(np.asarray, features)), *map(np.asarray, arrays))

    def search(
        self, y: np.ndarray, z: np.ndarray, max_length: int, width: int, source: np.ndarray | None = None
    ) -> tuple[Found, Found]:
        """Greedy decoding, one sequence a row, and all sequences of a beam search."""
        latent = z.astype(self.precision)
        with self._exact():
            greedy = self.backend.generate(y, DecodingOptions(max_length, "greedy"), 0, z=latent, source=source)
            beam = self._beam(self.backend.state.weights, y, latent, source, time_steps=max_length + 1, width=width)
        return greedy, (np.asarray(beam[0]), np.asarray(beam[1]))

    def _exact(self) -> Any:
        stack = ExitStack()
        stack.enter_context(jax.enable_x64(self.precision == "float64"))
        stack.enter_context(jax.default_device(self.backend.device))
        stack.enter_context(self.backend.exact_products())
        return stack

    def _network_outputs(
        self, weights: dict[str, jax.Array], x: jax.Array, z: jax.Array, source: jax.Array | None
    ) -> tuple[Any, ...]:
        ssvae = self.backend.bound(weights)
        y = ssvae.one_hot(jnp.arange(ssvae.label_count)[:, None])
        encoding = ssvae.encode_source(source)
        read = ssvae.encode(x, encoding)
        posterior = ssvae.latent_encoder(read, y)
        log_probs = ssvae.decoder(y, z, x.shape[1], source=encoding).log_prob_steps(x)
        return read.features, ssvae.classifier(read).logits, posterior.loc, posterior.scale, log_probs

    def _beam_search(
        self,
        weights: dict[str, jax.Array],
        y: jax.Array,
        z: jax.Array,
        source: jax.Array | None,
        time_steps: int,
        width: int,
    ) -> tuple[jax.Array, jax.Array]:
        ssvae = self.backend.bound(weights)
        encoding = ssvae.encode_source(source)
        return ssvae.decoder(ssvae.one_hot(y), z, time_steps, source=encoding).beam_search(width, (UNK,))


TWINS = {"torch": TorchTwin, "jax": JaxTwin}


def solution(derivatives: Derivatives) -> Solution:
    """What a backend returns, with its terms by name."""
    kinds = {"labelled": derivatives.labelled, "unlabelled": derivatives.unlabelled}
    terms = {
        f"{kind}.{name}": values
        for kind, of_kind in kinds.items()
        if of_kind is not None
        for name, values in of_kind._asdict().items()
    }
    return Solution(derivatives.loss, terms, derivatives.gradients)


def _in(precision: Precision, problem: Problem) -> Config:
    return replace(problem.config, training=replace(problem.config.training, precision=precision))
