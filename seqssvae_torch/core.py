"""A run's model in PyTorch, with NumPy arrays in and out: its objective, evaluation, generation and weights."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
from seqssvae.errors import ConfigurationError
from seqssvae.noise import NoiseSpec, noise_specs
from seqssvae.parameters import baseline_shapes
from seqssvae.top_k import candidates, least_k
from seqssvae_torch import baselines, inference, objectives
from seqssvae_torch.model import SSVAE
from seqssvae_torch.modules import Noise, symbols_of
from seqssvae_torch.objectives import Consistency, GradientEstimator, Posterior
from seqssvae_torch.ops.products import exact_products
from seqssvae_torch.precision import in_precision
from seqssvae_torch.rows import Number, Rows, draw, draw_noise, rows_of, to_tensor
from seqssvae_torch.sharing import ALONE, Sharing, total

_TRAINING, _EVALUATION, _GENERATION, _BOUND = range(4)
"""What noise is for: keeps the streams of one seed apart."""


class TorchModel:
    """One model in PyTorch and Pyro: all of a backend but its optimiser.

    Args:
        config: The run's configuration.
        dimensions: Sizes taken from the data.
        device: PyTorch's name of a device, maybe with a number (`cuda:1`, or `gpu:1` as in JAX); None: the CPU.

    Raises:
        ConfigurationError: If there is no such device.
    """

    sharing: Sharing = ALONE
    """The processes of which each computes its rows of a batch in training and evaluation."""

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None) -> None:
        self.config = config
        self.device = _device(device)
        self.ssvae = SSVAE(
            config.model,
            dimensions.vocabulary_size,
            dimensions.label_prior,
            config.training.seed,
            precision=config.training.precision,
            source_vocabulary_size=dimensions.source_vocabulary_size,
            name=None,
        ).to(self.device)
        shift, like = config.objective.consistency.label_shift, self.ssvae.log_prior
        self.label_shift = None if shift is None else like.new_tensor(shift)  # copied to the device once
        shapes = baseline_shapes(config.objective, dimensions.vocabulary_size)
        self.baseline = {name: self.ssvae.log_prior.new_zeros(shape) for name, shape in shapes.items()}

    @staticmethod
    def check_device(device: str | None) -> None:
        """Raise a ConfigurationError if there is no such device here."""
        _device(device)

    @property
    def platform(self) -> str:
        """What kind of device the model is on, by JAX's names: `cpu`, `gpu` or another."""
        return "gpu" if self.device.type == "cuda" else self.device.type

    @in_precision
    def loss(
        self,
        labelled: Rows | None,
        unlabelled: Rows | None,
        beta: Number,
        temperature: Number = 1.0,
        consistency: Number | None = None,
        alpha: float | None = None,
    ) -> tuple[Float[Tensor, ""], tuple[ELBOTerms, ...]]:
        """The run's objective on rows whose noise is given, and the terms of each row; weights if not the run's own.

        Where processes share the rows, its gradient is that of the rows of this one.
        """
        config, term = self.config.objective, None
        if has_consistency(config):
            given = config.consistency
            weight = given.weight if consistency is None else consistency
            term = Consistency(weight, given.temperature, given.aligned, given.realigned, self.label_shift)
        if alpha is None:
            alpha = config.alpha if config.name == "ssvae" else 1.0
        own = [None if rows is None else self.sharing.take(rows) for rows in (labelled, unlabelled)]
        with self.sharing.summed():
            loss, terms = objectives.objective(
                self.ssvae,
                own[0],
                own[1],
                alpha,
                beta,
                config.name == "ssvae",
                config.label_gradient,
                self._gradient_estimator(own[1], temperature),
                term,
                Posterior(config.posterior, config.posterior_temperature, config.distillation),
            )
            batches = [rows for rows in (labelled, unlabelled) if rows is not None]
            return total(loss), tuple(self._of_all(*given) for given in zip(terms, batches, strict=True))

    def _of_all(self, terms: ELBOTerms, rows: Rows) -> ELBOTerms:
        """The terms of all rows, of which this process may have computed some."""
        if self.sharing.count == 1:
            return terms
        return ELBOTerms(*self.sharing.whole(torch.stack(tuple(terms)), len(rows.row_mask)))

    def learn_baseline(
        self, unlabelled: Rows | None, terms: tuple[ELBOTerms, ...], beta: float, moved: Bool[Tensor, ""] | bool = True
    ) -> None:
        """Have `score_function` learn from the terms of a step what to expect of rows, if the step moved anything."""
        if unlabelled is not None and self.baseline:
            signal, decay = terms[-1].reconstruction - beta * terms[-1].kl_z, self.config.objective.baseline_decay
            x = symbols_of(unlabelled.x)
            baseline = baselines.updated(self.baseline, x, signal, unlabelled.row_mask, decay)
            if not isinstance(moved, bool):
                baseline = {name: torch.where(moved, value, self.baseline[name]) for name, value in baseline.items()}
            self.baseline = baseline

    def drawn(self, labelled: Batch | None, unlabelled: Batch | None, number: int) -> tuple[Rows | None, Rows | None]:
        """The batches of a training step on the device, with the noise of that number."""
        noise = self.drawn_noise(labelled, unlabelled, number)
        return (
            rows_of(labelled, True, noise[0], self.device) if labelled else None,
            rows_of(unlabelled, False, noise[1], self.device) if unlabelled else None,
        )

    def drawn_noise(self, labelled: Batch | None, unlabelled: Batch | None, number: int) -> tuple[Noise, Noise]:
        """The noise of that number for the batches of a training step."""
        generator, objective = self._generator(_TRAINING, number), self.config.objective
        return (
            self._drawn_noise(labelled, generator, True, objective=objective) if labelled else {},
            self._drawn_noise(unlabelled, generator, False, objective=objective) if unlabelled else {},
        )

    def _gradient_estimator(self, unlabelled: Rows | None, temperature: Number) -> GradientEstimator:
        """What this step does with missing labels."""
        config, baseline = self.config.objective, None
        if unlabelled is None or config.name != "ssvae":
            return GradientEstimator(particles=config.num_particles)
        if self.baseline:
            baseline = baselines.expected(self.baseline, symbols_of(unlabelled.x))
        name, k = config.gradient_estimator, self._k(unlabelled)
        return GradientEstimator(name, k, temperature, baseline, config.num_particles)

    def _k(self, unlabelled: Rows) -> int:
        """How many labels are summed out."""
        config, label_count = self.config.objective, self.ssvae.label_count
        if config.gradient_estimator != "top_k" or config.k:
            return config.k
        rest = objectives.rest_masses(self.ssvae, unlabelled, candidates(label_count))
        return least_k(label_count, to_numpy(rest), config.rest_mass)

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
        loss, terms = self.loss(*given, beta, temperature, consistency)
        named = dict(self.ssvae.named_parameters())
        gradients = [torch.zeros_like(weight) for weight in named.values()]
        if loss.requires_grad:  # not where a classifier's objective is given unlabelled rows alone
            gradients = list(torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True))
            self.sharing.add_up(gradients)
        by_kind = iter(ELBOTerms(*(to_numpy(term) for term in of_kind)) for of_kind in terms)
        return Derivatives(
            to_numpy(loss.detach()),
            next(by_kind) if labelled else None,
            next(by_kind) if unlabelled else None,
            {name: to_numpy(gradient) for name, gradient in zip(named, gradients, strict=True)},
        )

    def exact_products(self) -> AbstractContextManager[None]:
        """A context in which no matrix product is rounded to less than the run's precision, whatever the device."""
        return exact_products()

    @in_precision
    def evaluate(self, batch: Batch, seed: int) -> Evaluation:
        """ELBO terms and q(y|x) of every row, at beta 1 and without dropout."""
        rows = self._drawn_rows(batch, self._generator(_EVALUATION, seed), observed=False, training=False)
        terms, log_q_y = inference.evaluate(self.ssvae, self.sharing.take(rows))
        terms, log_q_y = self._of_all(terms, rows), self.sharing.whole(log_q_y.T, len(batch.x)).T
        return Evaluation(ELBOTerms(*(to_numpy(term) for term in terms)), to_numpy(log_q_y))

    @in_precision
    def log_weights(self, batch: Batch, seed: int, particles: int) -> Float[np.ndarray, "P B K"]:
        """Importance weights of so many draws of z, without dropout."""
        generator, objective = self._generator(_BOUND, seed), ObjectiveConfig(num_particles=particles)
        rows = self._drawn_rows(batch, generator, observed=False, training=False, objective=objective)
        return to_numpy(inference.log_weights(self.ssvae, rows, particles))

    @in_precision
    def latents(self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None) -> Latents:
        """q(z|x,y) and p(z) of every label."""
        return Latents(*map(to_numpy, inference.latents(self.ssvae, *self._tensors(x, source))))

    @in_precision
    def log_likelihood(
        self, x: Int[np.ndarray, "B T"], z: Float[np.ndarray, "B K Z"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log p(x|y,z) of every label at the z given for it."""
        symbols, of_source = self._tensors(x, source)
        latent = self._tensor(z).to(self.ssvae.log_prior.dtype)
        return to_numpy(inference.log_likelihood(self.ssvae, symbols, latent, of_source))

    @in_precision
    def classify(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log q(y|x), or log q(y|source,x)."""
        return to_numpy(inference.classify(self.ssvae, *self._tensors(x, source)))

    @in_precision
    def classify_source(self, source: Int[np.ndarray, "B S"]) -> Float[np.ndarray, "B K"]:
        """log p(y|source)."""
        return to_numpy(inference.classify_source(self.ssvae, self._tensor(source)))

    @in_precision
    def encode(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None, features: bool = False
    ) -> Float[np.ndarray, "B D"]:
        """The embedding of each row: sum over y of q(y|x) loc(x, y), or the features that q(y|x) reads."""
        return to_numpy(inference.embed(self.ssvae, *self._tensors(x, source), features))

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
        generator, like = self._generator(_GENERATION, seed), self.ssvae.log_prior
        noise = draw(NoiseSpec("normal", (len(y), self.config.model.latent_size)), generator, like)
        latent = None if z is None else self._tensor(z).to(like.dtype)
        x, log_prob = inference.generate(
            self.ssvae,
            self._tensor(y),
            latent,
            torch.zeros_like(noise) if use_mean else noise,
            None if source is None else self._tensor(source),
            options.longest(self.config.data) + 1,
            options,
            generator,
        )
        return to_numpy(x).astype(np.int32), to_numpy(log_prob)

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
        return rows_of(batch, observed, moved, self.device)

    def _drawn_rows(
        self,
        batch: Batch,
        generator: torch.Generator,
        observed: bool,
        training: bool = True,
        objective: ObjectiveConfig | None = None,
    ) -> Rows:
        noise = self._drawn_noise(batch, generator, observed, training, objective)
        return rows_of(batch, observed, noise, self.device)

    def _drawn_noise(
        self,
        batch: Batch,
        generator: torch.Generator,
        observed: bool,
        training: bool = True,
        objective: ObjectiveConfig | None = None,
    ) -> Noise:
        labels = None if observed else self.ssvae.label_count
        size, time_steps = batch.x.shape
        specs = noise_specs(self.config.model, labels, size, time_steps, training, objective, batch.source_steps)
        return draw_noise(specs, generator, self.ssvae.log_prior)

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        """A stream of random numbers of its own for each seed, purpose and number."""
        words = np.random.SeedSequence([self.config.training.seed, purpose, number]).generate_state(2)
        return torch.Generator(self.device).manual_seed(int(words[0]) << 31 ^ int(words[1]))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return to_tensor(values, self.device)

    def _tensors(self, x: np.ndarray, source: np.ndarray | None) -> tuple[Tensor, Tensor | None]:
        return self._tensor(x), None if source is None else self._tensor(source)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device((name or "cpu").replace("gpu", "cuda"))
        _use(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ConfigurationError(f"PyTorch has no device {name!r} here ({reason}): try cpu.") from error
    return device


def _use(device: torch.device) -> None:
    """Raise an error if a device is not there, or if, as `meta`, it holds no values."""
    torch.zeros(1, device=device).tolist()


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor, fetched from its device."""
    return tensor.cpu().numpy()
