"""A run's model in JAX, with NumPy arrays in and out: its objective, evaluation, generation and weights."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from seqssvae.backend import (
    Batch,
    Derivatives,
    Dimensions,
    ELBOTerms,
    Evaluation,
    GivenRows,
    Latents,
    Weights,
)
from seqssvae.config import Config, DecodingOptions, ObjectiveConfig, has_consistency
from seqssvae.noise import NoiseSpec, noise_specs
from seqssvae.parameters import baseline_shapes
from seqssvae.top_k import candidates, least_k
from seqssvae_jax import baselines, inference, objectives
from seqssvae_jax.compilation import Announcer, compiler_options, device_named, set_up_compilation
from seqssvae_jax.model import SSVAE
from seqssvae_jax.modules import symbols_of
from seqssvae_jax.objectives import Consistency, GradientEstimator, Posterior
from seqssvae_jax.optimizers import OptimizerState
from seqssvae_jax.precision import in_precision
from seqssvae_jax.rows import Arrays, Rows, arrays_of, draw, draw_noise, rows_of
from seqssvae_jax.sharing import Sharing

_TRAINING, _EVALUATION, _GENERATION, _BOUND = range(4)
"""What noise is for: keeps the streams of one seed apart."""


class TrainState(NamedTuple):
    """What a training step takes and returns; its buffers are given away.

    Args:
        weights: All weights by name.
        optimizer: The optimiser's state; None without an optimiser.
        baseline: What `score_function` has learned to expect; empty for other estimators.
    """

    weights: dict[str, Array]
    optimizer: OptimizerState | None
    baseline: baselines.State


class JaxModel:
    """One model in JAX and NumPyro: all of a backend but its optimiser.

    Args:
        config: The run's configuration.
        dimensions: Sizes taken from the data.
        device: JAX's name of a platform (`cpu`, `gpu`, `tpu`), maybe with a number (`gpu:1`); None: JAX's default.
        devices: How many devices of the platform share each batch in training and evaluation.

    Raises:
        ConfigurationError: If there is no such device, or there are not so many.
    """

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None, devices: int = 1) -> None:
        self.config = config
        self.device, self.sharing = device_named(device), Sharing(devices, device)
        set_up_compilation()
        self.announce = Announcer()
        with self.x64_mode(), jax.default_device(self.device):
            self._model = SSVAE(
                config.model,
                dimensions.vocabulary_size,
                dimensions.label_prior,
                config.training.seed,
                precision=config.training.precision,
                source_vocabulary_size=dimensions.source_vocabulary_size,
            )
            shapes = baseline_shapes(config.objective, dimensions.vocabulary_size)
            baseline = {name: jnp.zeros(shape, self._model.precision) for name, shape in shapes.items()}
            self.state = self.sharing.everywhere(TrainState(self._model.take_parameters(), None, baseline))
        self.options = compiler_options(self.platform, config.training.deterministic)
        jit, whole = partial(jax.jit, compiler_options=self.options), self.sharing.options
        self._differentiate = jit(self.sharing.value_and_grad(self.loss), static_argnames="k", **whole)
        self._rest_masses = jit(self._rest, **whole)
        self._log_weights = jit(self._drawn_log_weights, static_argnames="particles")
        self._latents = jit(lambda weights, *given: inference.latents(self.bound(weights), *given))
        self._log_likelihood = jit(lambda weights, *given: inference.log_likelihood(self.bound(weights), *given))
        self._evaluate = jit(self._drawn_evaluation, **whole)
        self._classify = jit(lambda weights, *given: inference.classify(self.bound(weights), *given))
        self._classify_source = jit(lambda weights, *given: inference.classify_source(self.bound(weights), *given))
        self._encode = jit(lambda weights, *given: inference.embed(self.bound(weights), *given), static_argnums=3)
        self._generate = jit(self._generated, static_argnames=("options", "use_mean"))

    @property
    def ssvae(self) -> SSVAE:
        """The model with its weights as they are now."""
        return self.bound(self.state.weights)

    def bound(self, weights: dict[str, Array]) -> SSVAE:
        """The model with these weights."""
        return self._model.bind(weights)

    def loss(
        self,
        weights: dict[str, Array],
        labelled: Rows | None,
        unlabelled: Rows | None,
        beta: Float[Array, ""] | float,
        temperature: Float[Array, ""] | float = 1.0,
        consistency: Float[Array, ""] | float | None = None,
        baseline: baselines.State | None = None,
        k: int | None = None,
    ) -> tuple[Float[Array, ""], tuple[ELBOTerms, ...]]:
        """The run's objective on rows whose noise is given, and the terms of each row: a pure function."""
        config, term = self.config.objective, None
        expected = baselines.expected(baseline, symbols_of(unlabelled.x)) if baseline and unlabelled else None
        name, k = config.gradient_estimator, k or config.k
        if has_consistency(config):
            weight, given = self.consistency_weight(consistency), config.consistency
            term = Consistency(weight, given.temperature, given.aligned, given.realigned, given.label_shift)
        return objectives.objective(
            self.bound(weights),
            labelled,
            unlabelled,
            config.alpha if config.name == "ssvae" else 1.0,
            beta,
            config.name == "ssvae",
            config.label_gradient,
            GradientEstimator(name, k, temperature, expected, config.num_particles),
            term,
            Posterior(config.posterior, config.posterior_temperature, config.distillation),
        )

    def consistency_weight(self, weight: Float[Array, ""] | float | None) -> Float[Array, ""] | float:
        """The weight of the consistency term: the one given, or its greatest."""
        return self.config.objective.consistency.weight if weight is None else weight

    @property
    def chooses_k(self) -> bool:
        """Whether each batch has a k of its own."""
        config = self.config.objective
        return config.gradient_estimator == "top_k" and config.k == 0 and config.name == "ssvae"

    def k_of(self, unlabelled: Rows | None) -> int:
        """How many labels are summed out in a step."""
        if unlabelled is None or not self.chooses_k:
            return self.config.objective.k
        return self.least_k(self._rest_masses(self.state.weights, unlabelled))

    def least_k(self, rest: Float[Array, " C"]) -> int:
        """How many labels are summed out where so much probability is left to the others."""
        return least_k(self._model.label_count, np.asarray(rest), self.config.objective.rest_mass)

    def _rest(self, weights: dict[str, Array], unlabelled: Rows) -> Float[Array, " C"]:
        masses, known = objectives.rest_masses, candidates(self._model.label_count)
        return self.sharing.summed(lambda given, rows: masses(self.bound(given), rows, known), weights, unlabelled)

    @in_precision
    def differentiate(
        self,
        labelled: GivenRows | None,
        unlabelled: GivenRows | None,
        beta: float,
        temperature: float = 1.0,
        consistency: float | None = None,
    ) -> Derivatives:
        """The objective of a training step and its gradient, at the weights as they are, which it does not move."""
        given = (
            self.rows(labelled.batch, True, labelled.noise) if labelled else None,
            self.rows(unlabelled.batch, False, unlabelled.noise) if unlabelled else None,
        )
        numbers, state = (beta, temperature, self.consistency_weight(consistency)), self.state
        arguments = state.weights, *given, *numbers, state.baseline
        (loss, terms), gradients = self._differentiate(*arguments, k=self.k_of(given[1]))
        by_kind = iter(ELBOTerms(*map(np.asarray, of_kind)) for of_kind in terms)
        return Derivatives(
            np.asarray(loss),
            next(by_kind) if labelled else None,
            next(by_kind) if unlabelled else None,
            {name: np.asarray(gradients[name]) for name in self._model.shapes},
        )

    def exact_products(self) -> AbstractContextManager[Any]:
        """A context in which no matrix product is rounded to less than the run's precision, whatever the device."""
        return jax.default_matmul_precision("highest")

    @in_precision
    def evaluate(self, batch: Batch, seed: int) -> Evaluation:
        """ELBO terms and q(y|x) of every row, at beta 1 and without dropout."""
        self.announce("an evaluation", batch)
        terms, log_q_y = self._evaluate(self.state.weights, arrays_of(batch), self.stream(seed))
        return Evaluation(ELBOTerms(*map(np.asarray, terms)), np.asarray(log_q_y))

    @in_precision
    def log_weights(self, batch: Batch, seed: int, particles: int) -> Float[np.ndarray, "P B K"]:
        """Importance weights of so many draws of z, without dropout."""
        self.announce("a bound", batch)
        given = self.state.weights, arrays_of(batch), self.stream(seed)
        return np.asarray(self._log_weights(*given, particles=particles))

    @in_precision
    def latents(self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None) -> Latents:
        """q(z|x,y) and p(z) of every label."""
        return Latents(*map(np.asarray, self._latents(self.state.weights, x, source)))

    @in_precision
    def log_likelihood(
        self, x: Int[np.ndarray, "B T"], z: Float[np.ndarray, "B K Z"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log p(x|y,z) of every label at the z given for it."""
        latent = jnp.asarray(z, self._model.precision)
        return np.asarray(self._log_likelihood(self.state.weights, x, latent, source))

    @in_precision
    def classify(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log q(y|x), or log q(y|source,x)."""
        return np.asarray(self._classify(self.state.weights, x, source))

    @in_precision
    def classify_source(self, source: Int[np.ndarray, "B S"]) -> Float[np.ndarray, "B K"]:
        """log p(y|source)."""
        return np.asarray(self._classify_source(self.state.weights, source))

    @in_precision
    def encode(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None, features: bool = False
    ) -> Float[np.ndarray, "B D"]:
        """The embedding of each row: sum over y of q(y|x) loc(x, y), or the features that q(y|x) reads."""
        return np.asarray(self._encode(self.state.weights, x, source, features))

    @in_precision
    def generate(
        self,
        y: Int[np.ndarray, " N"],
        options: DecodingOptions,
        seed: int,
        z: Float[np.ndarray, "N Z"] | None = None,
        source: Int[np.ndarray, "N S"] | None = None,
        use_mean: bool = False,
    ) -> tuple[Int[np.ndarray, "N T"], Float[np.ndarray, " N"]]:
        """One sequence per given label (and source), z drawn from its prior, or its mean, unless it is given."""
        given = self.state.weights, y, z, source, self.stream(seed)
        steering = float(options.temperature), float(options.top_p)  # arguments, so that no other is compiled anew
        fixed = replace(options, max_length=options.longest(self.config.data), temperature=1.0, top_p=1.0)
        x, log_prob = self._generate(*given, *steering, options=fixed, use_mean=use_mean)
        return np.asarray(x, np.int32), np.asarray(log_prob)

    @in_precision
    def get_weights(self) -> Weights:
        """Copies of all weights."""
        return {name: np.array(self.state.weights[name]) for name in self._model.shapes}

    @in_precision
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace all weights. Raises ValueError on a wrong name or shape."""
        self.state = self.state._replace(weights=self.sharing.everywhere(self._model.to_parameters(weights)))

    @in_precision
    def rows(self, batch: Batch, observed: bool, noise: Mapping[str, np.ndarray]) -> Rows:
        """A batch on the device with the noise given, in the run's precision."""
        dtypes = {name: bool if values.dtype == bool else self._model.precision for name, values in noise.items()}
        moved = {name: jnp.array(values, dtypes[name]) for name, values in noise.items()}
        return rows_of(jax.tree.map(jnp.asarray, arrays_of(batch)), observed, moved)

    def drawn(
        self, labelled: Arrays | None, unlabelled: Arrays | None, stream: Int[Array, "2"]
    ) -> tuple[Rows | None, Rows | None]:
        """The batches of a training step with the noise of that stream."""
        keys, objective = jax.random.split(_key(stream, _TRAINING)), self.config.objective
        return (
            self._drawn_rows(labelled, keys[0], True, objective=objective) if labelled else None,
            self._drawn_rows(unlabelled, keys[1], False, objective=objective) if unlabelled else None,
        )

    def _drawn_rows(
        self,
        batch: Arrays,
        key: PRNGKeyArray,
        observed: bool,
        training: bool = True,
        objective: ObjectiveConfig | None = None,
    ) -> Rows:
        labels = None if observed else self._model.label_count
        source_steps = 0 if batch.source is None else batch.source.shape[1]
        size, time_steps = batch.x.shape
        specs = noise_specs(self.config.model, labels, size, time_steps, training, objective, source_steps)
        return rows_of(batch, observed, draw_noise(specs, key, self._model.precision))

    def _drawn_log_weights(
        self, weights: dict[str, Array], batch: Arrays, stream: Int[Array, "2"], particles: int
    ) -> Float[Array, "P B K"]:
        key, objective = _key(stream, _BOUND), ObjectiveConfig(num_particles=particles)
        rows = self._drawn_rows(batch, key, observed=False, training=False, objective=objective)
        return inference.log_weights(self.bound(weights), rows, particles)

    def _drawn_evaluation(
        self, weights: dict[str, Array], batch: Arrays, stream: Int[Array, "2"]
    ) -> tuple[ELBOTerms, Float[Array, "B K"]]:
        rows = self._drawn_rows(batch, _key(stream, _EVALUATION), False, training=False)
        return self.sharing.per_row(lambda given, own: inference.evaluate(self.bound(given), own), weights, rows)

    def _generated(
        self,
        weights: dict[str, Array],
        y: Int[Array, " N"],
        z: Float[Array, "N Z"] | None,
        source: Int[Array, "N S"] | None,
        stream: Int[Array, "2"],
        temperature: Float[Array, ""],
        top_p: Float[Array, ""],
        options: DecodingOptions,
        use_mean: bool,
    ) -> tuple[Int[Array, "N T"], Float[Array, " N"]]:
        latent_key, key = jax.random.split(_key(stream, _GENERATION))
        precision = self._model.precision
        noise = draw(NoiseSpec("normal", (len(y), self.config.model.latent_size)), latent_key, precision)
        noise, latent = jnp.zeros_like(noise) if use_mean else noise, None if z is None else z.astype(precision)
        given = y, latent, noise, source, options.longest(self.config.data) + 1, options, key
        return inference.generate(self.bound(weights), *given, temperature, top_p)

    def stream(self, number: int) -> Int[np.ndarray, "2"]:
        """The run's seed and a number: an argument, so that no seed is compiled anew."""
        return np.array([self.config.training.seed, number], np.int32)

    def x64_mode(self) -> AbstractContextManager:
        """A context in which JAX computes in float64 where the run does."""
        return jax.enable_x64(self.config.training.precision == "float64")

    @staticmethod
    def check_device(device: str | None) -> None:
        """Raise a ConfigurationError if there is no such device here."""
        device_named(device)

    @property
    def platform(self) -> str:
        """JAX's name of the kind of the run's device."""
        return jax.default_backend() if self.device is None else self.device.platform


def _key(stream: Int[Array, "2"], purpose: int) -> PRNGKeyArray:
    """A stream of random numbers of its own for each seed, number and purpose."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(stream[0]), purpose), stream[1])
