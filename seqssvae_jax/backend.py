"""The JAX twin behind the `Backend` protocol: noise, training steps, evaluation, generation, state."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from seqssvae.allocation import keep_freed_memory
from seqssvae.backend import (
    Batch,
    DecodingMethod,
    Derivatives,
    Dimensions,
    ELBOTerms,
    Evaluation,
    GivenRows,
    StepTotals,
    TrainingStep,
    Weights,
)
from seqssvae.config import Config, ObjectiveConfig, has_consistency
from seqssvae.errors import ConfigurationError
from seqssvae.labels import candidates, least_k
from seqssvae.noise import NoiseSpec, noise_specs
from seqssvae.parameters import baseline_shapes, check_weights
from seqssvae.vocabulary import PAD
from seqssvae_jax import baselines, objectives
from seqssvae_jax.compilation import Announcer, compiler_options, use_cache
from seqssvae_jax.dispatch import entry, of_one_shape, stack
from seqssvae_jax.model import SSVAE
from seqssvae_jax.modules import Noise
from seqssvae_jax.objectives import Consistency, Estimator, Rows
from seqssvae_jax.optimizers import Optimizer, OptimizerState
from seqssvae_jax.products import products

_TRAINING, _EVALUATION, _GENERATION, _BOUND = range(4)
"""What noise is for: keeps the streams of one seed apart."""


class TrainState(NamedTuple):
    """What a training step takes and returns; its buffers are given away.

    Args:
        weights: All weights by name.
        optimizer: The optimiser's state.
        baseline: What `score_function` has learned to expect; empty for other estimators.
    """

    weights: dict[str, Array]
    optimizer: OptimizerState
    baseline: baselines.State


class _Arrays(NamedTuple):
    """A batch on the device or on its way there, without noise."""

    x: Any
    y: Any
    row_mask: Any
    source: Any = None


class _StepInputs(NamedTuple):
    """What a training step takes beside the state."""

    labelled: _Arrays | None
    unlabelled: _Arrays | None
    beta: Any
    learning_rate: Any
    temperature: Any
    consistency: Any
    stream: Any


def _in_precision(method: Any) -> Any:
    """Run a method on the run's device with its products, and in JAX's x64 mode if, and only if, it is in float64."""

    @wraps(method)
    def wrapped(self: "JaxBackend", *args: Any, **kwargs: Any) -> Any:
        with self._precision(), jax.default_device(self.device), products(self._platform):
            return method(self, *args, **kwargs)

    return wrapped


class JaxBackend:
    """One model and its optimiser in JAX and NumPyro.

    Args:
        config: The run's configuration.
        dimensions: Sizes taken from the data.
        device: JAX's name of a platform (`cpu`, `cuda`, `tpu`); None: JAX's default device.

    Raises:
        ConfigurationError: If there is no such device.
    """

    name = "jax"

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None) -> None:
        self.config = config
        if device in (None, "cpu"):
            keep_freed_memory()  # before JAX is asked for its devices: then its threads start, with heaps of their own
        self.device = _device(device)
        use_cache()
        self._announce = Announcer()
        with self._precision(), jax.default_device(self.device):
            self.ssvae = SSVAE(
                config.model,
                dimensions.vocabulary_size,
                dimensions.label_prior,
                config.training.seed,
                precision=config.training.precision,
                source_vocabulary_size=dimensions.source_vocabulary_size,
            )
            self.optimizer = Optimizer(config.optimizer)
            weights = jax.tree.map(jnp.copy, self.ssvae.parameters())  # a step gives its buffers away
            shapes = baseline_shapes(config.objective, dimensions.vocabulary_size)
            baseline = {name: jnp.zeros(shape, self.ssvae.precision) for name, shape in shapes.items()}
            self.state = TrainState(weights, self.optimizer.initial_state(weights), baseline)
        options = compiler_options(self._platform, config.training.deterministic)
        self._train = jax.jit(self._drawn_step, donate_argnums=0, static_argnames="k", compiler_options=options)
        self._train_several = jax.jit(self._drawn_steps, donate_argnums=0, compiler_options=options)
        self._train_on = jax.jit(self.step, donate_argnums=0, static_argnames="k", compiler_options=options)
        differentiate = jax.value_and_grad(self.loss, has_aux=True)
        self._differentiate = jax.jit(differentiate, static_argnames="k", compiler_options=options)
        self._rest_masses = jax.jit(self._rest)
        self._drawn_rest_masses = jax.jit(self._drawn_rest)
        self._bound = jax.jit(self._drawn_bound, static_argnames="particles")
        self._evaluate = jax.jit(self._drawn_evaluation)
        self._classify = jax.jit(lambda *given: self._features_and_classifier(*given)[1].logits)
        self._classify_source = jax.jit(self._label_prior)
        self._encode = jax.jit(self._embedding)
        self._generate = jax.jit(self._generated, static_argnames=("time_steps", "method", "beam_width", "typical"))

    @_in_precision
    def train(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        """Take these steps in order. What is returned still lies on the device."""
        totals: list[StepTotals] = []
        most = 1 if self._chooses_k else self.config.training.steps_per_dispatch  # k depends on the step before
        for group in of_one_shape(steps, most):
            inputs = [self._inputs(step) for step in group]
            self._announce("a training step", group[0].labelled, group[0].unlabelled)
            if most == 1:
                k = self._drawn_k(inputs[0])
                self.state, total = self._train(self.state, *inputs[0], k=k)
                totals.append(total)
            else:
                stacked = stack(inputs, most)
                self.state, total = self._train_several(self.state, stacked, len(inputs))
                totals.extend(entry(total, place) for place in range(len(inputs)))
        return totals

    def announce_to(self, listener: Callable[[str], None]) -> None:
        """Have a listener told, in a few words, what is about to be compiled."""
        self._announce.listener = listener

    @_in_precision
    def train_on(
        self,
        labelled: Rows | None,
        unlabelled: Rows | None,
        beta: float,
        learning_rate: float,
        temperature: float = 1.0,
        consistency: float | None = None,
    ) -> StepTotals:
        """One step of the optimiser on rows whose noise is given."""
        numbers = beta, learning_rate, temperature, self._consistency(consistency)
        self.state, total = self._train_on(self.state, labelled, unlabelled, *numbers, k=self._k(unlabelled))
        return total

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
        config, generative = self.config.objective, self.config.objective.name == "ssvae"
        expected = baselines.expected(baseline, unlabelled.x) if baseline and unlabelled else None
        estimator = Estimator(config.estimator, k or config.k, temperature, expected, config.num_particles)
        term = None
        if has_consistency(config):
            weight, given = self._consistency(consistency), config.consistency
            term = Consistency(weight, given.temperature, given.aligned)
        return objectives.objective(
            self.ssvae.bind(weights),
            labelled,
            unlabelled,
            config.alpha,
            beta,
            generative,
            config.label_gradient,
            estimator,
            term,
        )

    def step(
        self,
        state: TrainState,
        labelled: Rows | None,
        unlabelled: Rows | None,
        beta: Float[Array, ""],
        learning_rate: Float[Array, ""],
        temperature: Float[Array, ""] | float = 1.0,
        consistency: Float[Array, ""] | float | None = None,
        k: int | None = None,
    ) -> tuple[TrainState, StepTotals]:
        """One training step as a pure function."""
        differentiate = jax.value_and_grad(self.loss, has_aux=True)
        (loss, terms), gradients = differentiate(
            state.weights, labelled, unlabelled, beta, temperature, consistency, state.baseline, k
        )
        weights, optimizer, norm = self.optimizer.step(gradients, state.optimizer, state.weights, learning_rate)
        baseline = state.baseline
        if unlabelled is not None and baseline:
            signal, decay = terms[-1].reconstruction - beta * terms[-1].kl_z, self.config.objective.baseline_decay
            baseline = baselines.updated(baseline, unlabelled.x, signal, unlabelled.row_mask, decay)
        return TrainState(weights, optimizer, baseline), step_totals(loss, norm, labelled, unlabelled, terms)

    def _consistency(self, weight: Float[Array, ""] | float | None) -> Float[Array, ""] | float:
        """The weight of the consistency term: the one given, or its greatest."""
        return self.config.objective.consistency.weight if weight is None else weight

    @property
    def _chooses_k(self) -> bool:
        """Whether each batch has a k of its own."""
        config = self.config.objective
        return config.estimator == "top_k" and config.k == 0 and config.name == "ssvae"

    def _k(self, unlabelled: Rows | None) -> int:
        """How many labels are summed out in a step."""
        if unlabelled is None or not self._chooses_k:
            return self.config.objective.k
        return self._least_k(self._rest_masses(self.state.weights, unlabelled))

    def _drawn_k(self, inputs: _StepInputs) -> int:
        if inputs.unlabelled is None or not self._chooses_k:
            return self.config.objective.k
        return self._least_k(self._drawn_rest_masses(self.state.weights, inputs.unlabelled, inputs.stream))

    def _least_k(self, rest: Float[Array, "C"]) -> int:
        return least_k(self.ssvae.label_count, np.asarray(rest), self.config.objective.rest_mass)

    def _rest(self, weights: dict[str, Array], unlabelled: Rows) -> Float[Array, "C"]:
        return objectives.rest_masses(self.ssvae.bind(weights), unlabelled, candidates(self.ssvae.label_count))

    def _drawn_rest(self, weights: dict[str, Array], unlabelled: _Arrays, stream: Int[Array, "2"]) -> Float[Array, "C"]:
        rows = self._drawn_rows(None, unlabelled, stream)[1]
        assert rows is not None
        return self._rest(weights, rows)

    @_in_precision
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
        state, numbers = self.state, (beta, temperature, self._consistency(consistency))
        (loss, terms), gradients = self._differentiate(
            state.weights, *given, *numbers, state.baseline, k=self._k(given[1])
        )
        by_kind = iter(ELBOTerms(*map(np.asarray, of_kind)) for of_kind in terms)
        return Derivatives(
            np.asarray(loss),
            next(by_kind) if labelled else None,
            next(by_kind) if unlabelled else None,
            {name: np.asarray(gradients[name]) for name in self.ssvae.shapes},
        )

    def exact_products(self) -> AbstractContextManager[Any]:
        """A context in which no matrix product is rounded to less than the run's precision, whatever the device."""
        return jax.default_matmul_precision("highest")

    @_in_precision
    def evaluate(self, batch: Batch, seed: int) -> Evaluation:
        """ELBO terms and q(y|x) of every row, at beta 1 and without dropout."""
        self._announce("an evaluation", batch)
        terms, log_q_y = self._evaluate(self.state.weights, _arrays(batch), self._stream(seed))
        return Evaluation(ELBOTerms(*map(np.asarray, terms)), np.asarray(log_q_y))

    @_in_precision
    def importance_bound(self, batch: Batch, seed: int, particles: int) -> Float[np.ndarray, "B"]:
        """A lower bound of log p(x) from so many draws of z, y summed out, without dropout."""
        self._announce("a bound", batch)
        return np.asarray(self._bound(self.state.weights, _arrays(batch), self._stream(seed), particles=particles))

    @_in_precision
    def classify(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log q(y|x), or log q(y|source,x)."""
        return np.asarray(self._classify(self.state.weights, x, source))

    @_in_precision
    def classify_source(self, source: Int[np.ndarray, "B S"]) -> Float[np.ndarray, "B K"]:
        """log p(y|source)."""
        return np.asarray(self._classify_source(self.state.weights, source))

    @_in_precision
    def encode(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B Z"]:
        """The embedding of each row: sum over y of q(y|x) loc(x, y)."""
        return np.asarray(self._encode(self.state.weights, x, source))

    @_in_precision
    def generate(
        self,
        y: Int[np.ndarray, "N"],
        max_length: int,
        seed: int,
        method: DecodingMethod = "sample",
        beam_width: int = 5,
        z: Float[np.ndarray, "N Z"] | None = None,
        source: Int[np.ndarray, "N S"] | None = None,
        typical: bool = False,
    ) -> tuple[Int[np.ndarray, "N T"], Float[np.ndarray, "N"]]:
        """One sequence per given label (and source), z drawn from its prior, or its mean, unless it is given."""
        x, log_prob = self._generate(
            self.state.weights,
            y,
            z,
            source,
            self._stream(seed),
            time_steps=max_length + 1,
            method=method,
            beam_width=beam_width,
            typical=typical,
        )
        return np.asarray(x, np.int32), np.asarray(log_prob)

    @_in_precision
    def get_weights(self) -> Weights:
        """Copies of all weights."""
        return {name: np.array(self.state.weights[name]) for name in self.ssvae.shapes}

    @_in_precision
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace all weights. Raises ValueError on a wrong name or shape."""
        self.ssvae.set_weights(weights)
        self.state = self.state._replace(weights=jax.tree.map(jnp.copy, self.ssvae.parameters()))

    @_in_precision
    def get_optimizer_state(self) -> Weights:
        """Copies of the optimiser's state."""
        baseline = {name: np.array(value) for name, value in self.state.baseline.items()}
        return {**self.optimizer.get_state(self.state.optimizer), **baseline}

    @_in_precision
    def set_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the optimiser's state. Raises ValueError on a wrong name or shape."""
        own = self.optimizer.shapes(self.state.weights)
        check_weights(state, {**own, **{name: value.shape for name, value in self.state.baseline.items()}})
        optimizer = self.optimizer.set_state({name: state[name] for name in own}, self.state.weights)
        baseline = {name: jnp.array(state[name], value.dtype) for name, value in self.state.baseline.items()}
        self.state = self.state._replace(optimizer=optimizer, baseline=baseline)

    @_in_precision
    def rows(self, batch: Batch, observed: bool, noise: Mapping[str, np.ndarray]) -> Rows:
        """A batch on the device with the noise given, in the run's precision."""
        dtypes = {name: bool if values.dtype == bool else self.ssvae.precision for name, values in noise.items()}
        moved = {name: jnp.array(values, dtypes[name]) for name, values in noise.items()}
        return _with_noise(jax.tree.map(jnp.asarray, _arrays(batch)), observed, moved)

    def _inputs(self, step: TrainingStep) -> _StepInputs:
        labelled = _arrays(step.labelled) if step.labelled else None
        unlabelled = _arrays(step.unlabelled) if step.unlabelled else None
        given = step.beta, step.learning_rate, step.temperature, self._consistency(step.consistency)
        beta, learning_rate, temperature, consistency = np.array(given, self.ssvae.precision)
        stream = self._stream(step.step)
        return _StepInputs(labelled, unlabelled, beta, learning_rate, temperature, consistency, stream)

    def _drawn_steps(
        self, state: TrainState, stacked: _StepInputs, count: Int[Array, ""]
    ) -> tuple[TrainState, StepTotals]:
        """The first `count` of the steps that are stacked, and their totals, stacked as well."""

        def one(state: TrainState, place: Int[Array, ""] | int) -> tuple[TrainState, StepTotals]:
            return self._drawn_step(state, *jax.tree.map(lambda part: part[place], stacked))

        def add(place: Int[Array, ""], carried: tuple[TrainState, StepTotals]) -> tuple[TrainState, StepTotals]:
            state, totals = carried
            state, total = one(state, place)
            return state, jax.tree.map(lambda whole, part: whole.at[place].set(part), totals, total)

        shapes = jax.eval_shape(one, state, 0)[1]
        totals = jax.tree.map(lambda part: jnp.zeros((len(stacked.stream), *part.shape), part.dtype), shapes)
        return jax.lax.fori_loop(0, count, add, (state, totals))

    def _drawn_step(
        self,
        state: TrainState,
        labelled: _Arrays | None,
        unlabelled: _Arrays | None,
        beta: Float[Array, ""],
        learning_rate: Float[Array, ""],
        temperature: Float[Array, ""],
        consistency: Float[Array, ""],
        stream: Int[Array, "2"],
        k: int | None = None,
    ) -> tuple[TrainState, StepTotals]:
        rows = self._drawn_rows(labelled, unlabelled, stream)
        return self.step(state, *rows, beta, learning_rate, temperature, consistency, k)

    def _drawn_rows(
        self, labelled: _Arrays | None, unlabelled: _Arrays | None, stream: Int[Array, "2"]
    ) -> tuple[Rows | None, Rows | None]:
        keys, objective = jax.random.split(_key(stream, _TRAINING)), self.config.objective
        return (
            self._rows(labelled, keys[0], observed=True, objective=objective) if labelled else None,
            self._rows(unlabelled, keys[1], observed=False, objective=objective) if unlabelled else None,
        )

    def _drawn_bound(
        self, weights: dict[str, Array], batch: _Arrays, stream: Int[Array, "2"], particles: int
    ) -> Float[Array, "B"]:
        objective = ObjectiveConfig(num_particles=particles)
        rows = self._rows(batch, _key(stream, _BOUND), observed=False, training=False, objective=objective)
        return objectives.importance_bound(self.ssvae.bind(weights), rows, particles)

    def _drawn_evaluation(
        self, weights: dict[str, Array], batch: _Arrays, stream: Int[Array, "2"]
    ) -> tuple[ELBOTerms, Float[Array, "B K"]]:
        rows = self._rows(batch, _key(stream, _EVALUATION), observed=False, training=False)
        return objectives.evaluate(self.ssvae.bind(weights), rows)

    def _features_and_classifier(
        self, weights: dict[str, Array], x: Int[Array, "B T"], source: Int[Array, "B S"] | None
    ) -> tuple[Any, Any]:
        ssvae = self.ssvae.bind(weights)
        features = ssvae.read(x, source)
        return features, ssvae.classifier(features)

    def _label_prior(self, weights: dict[str, Array], source: Int[Array, "B S"]) -> Float[Array, "B K"]:
        ssvae = self.ssvae.bind(weights)
        return ssvae.label_prior(ssvae.encode_source(source)).logits

    def _embedding(
        self, weights: dict[str, Array], x: Int[Array, "B T"], source: Int[Array, "B S"] | None
    ) -> Float[Array, "B Z"]:
        features, classifier = self._features_and_classifier(weights, x, source)
        ssvae = self.ssvae.bind(weights)
        loc = ssvae.latent_encoder(features, ssvae.one_hot(jnp.arange(ssvae.label_count)[:, None])).loc
        return jnp.einsum("bk,kbz->bz", classifier.probs, loc)

    def _generated(
        self,
        weights: dict[str, Array],
        y: Int[Array, "N"],
        z: Float[Array, "N Z"] | None,
        source: Int[Array, "N S"] | None,
        stream: Int[Array, "2"],
        time_steps: int,
        method: DecodingMethod,
        beam_width: int,
        typical: bool,
    ) -> tuple[Int[Array, "N T"], Float[Array, "N"]]:
        ssvae, one_hot = self.ssvae.bind(weights), self.ssvae.one_hot(y)
        latent_key, key = jax.random.split(_key(stream, _GENERATION))
        encoding = ssvae.encode_source(source)
        if z is None:
            prior, shape = ssvae.latent_prior(encoding, one_hot), (len(y), self.config.model.latent_size)
            drawn = self._draw(NoiseSpec("normal", shape), latent_key)
            latent = prior.loc + prior.scale * (jnp.zeros_like(drawn) if typical else drawn)
        else:
            latent = z.astype(ssvae.precision)
        decoder = ssvae.decoder(one_hot, latent, time_steps, source=encoding)
        if method == "beam":
            sequences, scores = decoder.beam_search(beam_width)
            return sequences[:, 0], scores[:, 0]
        x = decoder.greedy() if method == "greedy" else decoder.sample(key)
        return x, decoder.log_prob(x)

    def _rows(
        self,
        batch: _Arrays,
        key: PRNGKeyArray,
        observed: bool,
        training: bool = True,
        objective: ObjectiveConfig | None = None,
    ) -> Rows:
        labels = None if observed else self.ssvae.label_count
        size, time_steps = batch.x.shape
        source_steps = 0 if batch.source is None else batch.source.shape[1]
        specs = noise_specs(self.config.model, labels, size, time_steps, training, objective, source_steps)
        keys = jax.random.split(key, len(specs))
        noise = {name: self._draw(spec, keys[index]) for index, (name, spec) in enumerate(specs.items())}
        return _with_noise(batch, observed, noise)

    def _draw(self, spec: NoiseSpec, key: PRNGKeyArray) -> Array:
        if spec.kind == "normal":
            return jax.random.normal(key, spec.shape, self.ssvae.precision)
        if spec.kind == "gumbel":
            return jax.random.gumbel(key, spec.shape, self.ssvae.precision)
        return jax.random.bernoulli(key, spec.keep, spec.shape)

    def _stream(self, number: int) -> Int[np.ndarray, "2"]:
        """The run's seed and a number: an argument, lest every seed be compiled anew."""
        return np.array([self.config.training.seed, number], np.int32)

    def _precision(self) -> AbstractContextManager:
        return jax.enable_x64(self.config.training.precision == "float64")

    @property
    def _platform(self) -> str:
        """Of the run's device."""
        return jax.default_backend() if self.device is None else self.device.platform


def _key(stream: Int[Array, "2"], purpose: int) -> PRNGKeyArray:
    """A stream of random numbers of its own for each seed, number and purpose."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(stream[0]), purpose), stream[1])


def step_totals(
    loss: Array, norm: Array, labelled: Rows | None, unlabelled: Rows | None, terms: tuple[ELBOTerms, ...]
) -> StepTotals:
    """Sums over a step's real rows."""
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    return StepTotals(
        loss=loss,
        gradient_norm=norm,
        terms=ELBOTerms(*(sum(part.sum() for part in parts) for parts in zip(*terms, strict=True))),
        rows=sum(rows.row_mask.sum() for rows in batches),
        labelled_rows=0 if labelled is None else labelled.row_mask.sum(),
        symbols=sum((rows.x != PAD).sum() for rows in batches),
    )


def _with_noise(batch: _Arrays, observed: bool, noise: Noise) -> Rows:
    y = jnp.maximum(batch.y, 0) if observed else None  # filler rows: any label will do
    return Rows(batch.x, y, batch.row_mask, noise, batch.source)


def _arrays(batch: Batch) -> _Arrays:
    source = None if batch.source is None else np.asarray(batch.source, np.int32)
    return _Arrays(np.asarray(batch.x, np.int32), np.asarray(batch.y, np.int32), np.asarray(batch.row_mask), source)


def _device(name: str | None) -> Any:
    if name is None:
        return None
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"JAX has no device {name!r} here ({reason}): try cpu.") from error
