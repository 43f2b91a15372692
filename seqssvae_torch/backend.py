"""The PyTorch twin behind the `Backend` protocol: noise, training steps, evaluation, generation, state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from jaxtyping import Float, Int
from pyro import validation_enabled
from torch import Tensor

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
from seqssvae_torch import baselines, objectives
from seqssvae_torch.model import SSVAE
from seqssvae_torch.modules import Noise
from seqssvae_torch.objectives import Consistency, Estimator, Rows
from seqssvae_torch.optimizers import Optimizer
from seqssvae_torch.products import deterministic

_TRAINING, _EVALUATION, _GENERATION, _BOUND = range(4)
"""What noise is for: keeps the streams of one seed apart."""


class TorchModel:
    """One model in PyTorch and Pyro, without an optimiser: for `TorchBackend`, and for trainers of others.

    Args:
        config: The run's configuration.
        dimensions: Sizes taken from the data.
        device: PyTorch's name of a device; None: the CPU.

    Raises:
        ConfigurationError: If there is no such device.
    """

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None) -> None:
        self.config = config
        self.device = _device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.ssvae = SSVAE(
            config.model,
            dimensions.vocabulary_size,
            dimensions.label_prior,
            config.training.seed,
            name=None,
            precision=config.training.precision,
            source_vocabulary_size=dimensions.source_vocabulary_size,
        ).to(self.device)
        shapes = baseline_shapes(config.objective, dimensions.vocabulary_size)
        self.baseline = {name: self.ssvae.log_prior.new_zeros(shape) for name, shape in shapes.items()}

    def loss(
        self,
        labelled: Rows | None,
        unlabelled: Rows | None,
        beta: float,
        temperature: float = 1.0,
        consistency: float | None = None,
        alpha: float | None = None,
    ) -> tuple[Float[Tensor, ""], tuple[ELBOTerms, ...]]:
        """The run's objective on rows whose noise is given, and the terms of each row; weights if not the run's own."""
        config, estimator = self.config.objective, self._estimator(unlabelled, temperature)
        generative, term = config.name == "ssvae", None
        if has_consistency(config):
            weight = config.consistency.weight if consistency is None else consistency
            term = Consistency(weight, config.consistency.temperature, config.consistency.aligned)
        return objectives.objective(
            self.ssvae,
            labelled,
            unlabelled,
            config.alpha if alpha is None else alpha,
            beta,
            generative,
            config.label_gradient,
            estimator,
            term,
        )

    def learn_baseline(self, unlabelled: Rows | None, terms: tuple[ELBOTerms, ...], beta: float) -> None:
        """Have `score_function` learn from a step's terms what to expect of rows."""
        if unlabelled is not None and self.baseline:
            signal, decay = terms[-1].reconstruction - beta * terms[-1].kl_z, self.config.objective.baseline_decay
            self.baseline = baselines.updated(self.baseline, unlabelled.x, signal, unlabelled.row_mask, decay)

    def drawn(self, labelled: Batch | None, unlabelled: Batch | None, number: int) -> tuple[Rows | None, Rows | None]:
        """The batches of a training step on the device, with the noise of that number."""
        generator, objective = self._generator(_TRAINING, number), self.config.objective
        return (
            self._rows(labelled, generator, True, objective=objective) if labelled else None,
            self._rows(unlabelled, generator, False, objective=objective) if unlabelled else None,
        )

    def _estimator(self, unlabelled: Rows | None, temperature: float) -> Estimator:
        """What this step does with missing labels."""
        config, baseline = self.config.objective, None
        if unlabelled is None or config.name != "ssvae":
            return Estimator(particles=config.num_particles)
        if self.baseline:
            baseline = baselines.expected(self.baseline, unlabelled.x)
        return Estimator(config.estimator, self._k(unlabelled), temperature, baseline, config.num_particles)

    def _k(self, unlabelled: Rows) -> int:
        """How many labels are summed out."""
        config, label_count = self.config.objective, self.ssvae.label_count
        if config.estimator != "top_k" or config.k:
            return config.k
        rest = objectives.rest_masses(self.ssvae, unlabelled, candidates(label_count))
        return least_k(label_count, _numpy(rest), config.rest_mass)

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
        loss, terms = self.loss(*given, beta, temperature, consistency)
        named = dict(self.ssvae.named_parameters())
        gradients = [torch.zeros_like(weight) for weight in named.values()]
        if loss.requires_grad:  # not where a classifier's objective is given unlabelled rows alone
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
            gradients = list(found)
        by_kind = iter(ELBOTerms(*(_numpy(term) for term in of_kind)) for of_kind in terms)
        return Derivatives(
            _numpy(loss.detach()),
            next(by_kind) if labelled else None,
            next(by_kind) if unlabelled else None,
            {name: _numpy(gradient) for name, gradient in zip(named, gradients, strict=True)},
        )

    @contextmanager
    def exact_products(self) -> Iterator[None]:
        """A context in which no matrix product is rounded to less than the run's precision, whatever the device."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def evaluate(self, batch: Batch, seed: int) -> Evaluation:
        """ELBO terms and q(y|x) of every row, at beta 1 and without dropout."""
        rows = self._rows(batch, self._generator(_EVALUATION, seed), observed=False, training=False)
        terms, log_q_y = objectives.evaluate(self.ssvae, rows)
        return Evaluation(ELBOTerms(*(_numpy(term) for term in terms)), _numpy(log_q_y))

    def importance_bound(self, batch: Batch, seed: int, particles: int) -> Float[np.ndarray, "B"]:
        """A lower bound of log p(x) from so many draws of z, y summed out, without dropout."""
        generator = self._generator(_BOUND, seed)
        objective = ObjectiveConfig(num_particles=particles)
        rows = self._rows(batch, generator, observed=False, training=False, objective=objective)
        return _numpy(objectives.importance_bound(self.ssvae, rows, particles))

    @torch.no_grad()
    def classify(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log q(y|x), or log q(y|source,x)."""
        return _numpy(self.ssvae.classifier(self._features(x, source)).logits)

    @torch.no_grad()
    def classify_source(self, source: Int[np.ndarray, "B S"]) -> Float[np.ndarray, "B K"]:
        """log p(y|source)."""
        return _numpy(self.ssvae.label_prior(self.ssvae.encode_source(self._tensor(source))).logits)

    @torch.no_grad()
    def encode(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B Z"]:
        """The embedding of each row: sum over y of q(y|x) loc(x, y)."""
        features = self._features(x, source)
        labels = torch.arange(self.ssvae.label_count, device=self.device)[:, None]
        loc = self.ssvae.latent_encoder(features, self.ssvae.one_hot(labels)).loc
        return _numpy(torch.einsum("bk,kbz->bz", self.ssvae.classifier(features).probs, loc))

    def _features(self, x: np.ndarray, source: np.ndarray | None) -> tuple[Float[Tensor, "B F"], ...]:
        return self.ssvae.read(self._tensor(x), None if source is None else self._tensor(source))

    @torch.no_grad()
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
        generator, one_hot = self._generator(_GENERATION, seed), self.ssvae.one_hot(self._tensor(y))
        encoding = self.ssvae.encode_source(None if source is None else self._tensor(source))
        if z is None:
            prior, shape = self.ssvae.latent_prior(encoding, one_hot), (len(y), self.config.model.latent_size)
            drawn = self._draw(NoiseSpec("normal", shape), generator)
            latent = prior.loc + prior.scale * (torch.zeros_like(drawn) if typical else drawn)
        else:
            latent = self._tensor(z).to(one_hot.dtype)
        decoder = self.ssvae.decoder(one_hot, latent, max_length + 1, source=encoding)
        if method == "beam":
            sequences, scores = decoder.beam_search(beam_width)
            return _numpy(sequences[:, 0]).astype(np.int32), _numpy(scores[:, 0])
        x = decoder.greedy() if method == "greedy" else decoder.sample(generator=generator)
        return _numpy(x).astype(np.int32), _numpy(decoder.log_prob(x))

    def get_weights(self) -> Weights:
        """Copies of all weights."""
        return self.ssvae.get_weights()

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace all weights. Raises ValueError on a wrong name or shape."""
        self.ssvae.set_weights(weights)

    def rows(self, batch: Batch, observed: bool, noise: Mapping[str, np.ndarray]) -> Rows:
        """A batch on the device with the noise given, in the run's precision."""
        dtype = self.ssvae.log_prior.dtype
        moved = {name: self._tensor(values) for name, values in noise.items()}
        moved = {name: value.to(dtype) if value.is_floating_point() else value for name, value in moved.items()}
        return self._with_noise(batch, observed, moved)

    def _rows(
        self,
        batch: Batch,
        generator: torch.Generator,
        observed: bool,
        training: bool = True,
        objective: ObjectiveConfig | None = None,
    ) -> Rows:
        labels = None if observed else self.ssvae.label_count
        size, time_steps = batch.x.shape
        specs = noise_specs(self.config.model, labels, size, time_steps, training, objective, batch.source_steps)
        return self._with_noise(batch, observed, {name: self._draw(spec, generator) for name, spec in specs.items()})

    def _with_noise(self, batch: Batch, observed: bool, noise: Noise) -> Rows:
        y = self._tensor(np.maximum(batch.y, 0)) if observed else None  # filler rows: any label will do
        source = None if batch.source is None else self._tensor(batch.source)
        return Rows(self._tensor(batch.x), y, self._tensor(batch.row_mask), noise, source)

    def _draw(self, spec: NoiseSpec, generator: torch.Generator) -> Tensor:
        dtype = self.ssvae.log_prior.dtype
        if spec.kind == "normal":
            return torch.randn(spec.shape, generator=generator, device=self.device, dtype=dtype)
        if spec.kind == "gumbel":
            values = torch.empty(spec.shape, device=self.device, dtype=dtype)
            return -values.exponential_(generator=generator).log()
        return torch.rand(spec.shape, generator=generator, device=self.device, dtype=dtype) < spec.keep

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        """A stream of random numbers of its own for each seed, purpose and number."""
        words = np.random.SeedSequence([self.config.training.seed, purpose, number]).generate_state(2)
        return torch.Generator(self.device).manual_seed(int(words[0]) << 31 ^ int(words[1]))

    def _tensor(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
        return tensor.long() if not tensor.is_floating_point() and tensor.dtype != torch.bool else tensor


class TorchBackend(TorchModel):
    """One model and its optimiser in PyTorch and Pyro; arguments as of `TorchModel`."""

    name = "torch"

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None) -> None:
        super().__init__(config, dimensions, device)
        self.optimizer = Optimizer(config.optimizer, self.ssvae)

    def train(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        """Take these steps in order. What is returned still lies on the device."""
        totals = []
        # every check of values would wait for the device
        with validation_enabled(False), self._in_one_order():
            for step in steps:
                rows = self.drawn(step.labelled, step.unlabelled, step.step)
                totals.append(self.train_on(*rows, step.beta, step.learning_rate, step.temperature, step.consistency))
        return totals

    def _in_one_order(self) -> AbstractContextManager[None]:
        return deterministic(self.device) if self.config.training.deterministic else nullcontext()

    def announce_to(self, listener: Callable[[str], None]) -> None:
        """Have a listener told what is about to be compiled: here, nothing."""

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
        loss, terms = self.loss(labelled, unlabelled, beta, temperature, consistency)
        norm = self.optimizer.step(loss, learning_rate)
        self.learn_baseline(unlabelled, terms, beta)
        return step_totals(loss.detach(), norm, labelled, unlabelled, terms)

    def get_optimizer_state(self) -> Weights:
        """Copies of the optimiser's state."""
        baseline = {name: _numpy(value).copy() for name, value in self.baseline.items()}
        return {**self.optimizer.get_state(), **baseline}

    def set_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the optimiser's state. Raises ValueError on a wrong name or shape."""
        shapes = {name: tuple(value.shape) for name, value in self.baseline.items()}
        check_weights(state, {**self.optimizer.shapes, **shapes})
        self.optimizer.set_state({name: state[name] for name in self.optimizer.shapes})
        dtype = self.ssvae.log_prior.dtype
        self.baseline = {name: torch.tensor(state[name], dtype=dtype, device=self.device) for name in shapes}


def step_totals(
    loss: Tensor, norm: Tensor, labelled: Rows | None, unlabelled: Rows | None, terms: tuple[ELBOTerms, ...]
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


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or "cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"PyTorch has no device {name!r} here ({reason}): try cpu.") from error
    return device


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
