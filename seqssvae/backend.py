"""The only seam between the shared code and a twin: the `Backend` protocol, and how a twin is found.

A third twin needs a class of this shape and the entry point `seqssvae.backends`; nothing here would change.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from seqssvae.config import Config, DecodingOptions
from seqssvae.errors import BackendError

Weights = dict[str, np.ndarray]

NO_LABEL = -1
"""The entry of `Batch.y` where the label is missing."""


@dataclass(frozen=True)
class Batch:
    """Rows padded to one length.

    Args:
        x: Symbol ids, each row ending with END and then PAD; filler rows are all PAD.
        y: Label ids, `NO_LABEL` where missing and for filler rows.
        row_mask: True for real rows, False for filler rows, which weigh nothing.
        rows: Index of each row in the corpus it comes from, -1 for filler rows.
        source: Symbol ids of the sources, where the model has them: as x, with END, and PAD alone for filler rows.
        posterior: Probabilities of the labels of each row, where they are given.
    """

    x: Int[np.ndarray, "B T"]
    y: Int[np.ndarray, " B"]
    row_mask: Bool[np.ndarray, " B"]
    rows: Int[np.ndarray, " B"]
    source: Int[np.ndarray, "B S"] | None = None
    posterior: Float[np.ndarray, "B K"] | None = None

    def take(self, indices: Int[np.ndarray, " R"]) -> "Batch":
        """The batch of these of its rows."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return Batch(**{name: value[indices] for name, value in fields.items()})

    @property
    def source_steps(self) -> int:
        """S; 0 without sources."""
        return 0 if self.source is None else self.source.shape[1]


@dataclass(frozen=True)
class TrainingStep:
    """All that one step of the optimiser depends on, beside weights and optimiser state.

    Args:
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is summed out, or None. At least one of the two is given.
        beta: Weight of the KL of z.
        learning_rate: Step size.
        step: Number of the step, from 0; with the seed it determines the noise.
        temperature: Of `gumbel_softmax`.
        consistency: Weight of the consistency term, if the run's objective has one; None: its greatest.
    """

    labelled: Batch | None
    unlabelled: Batch | None
    beta: float
    learning_rate: float
    step: int
    temperature: float = 1.0
    consistency: float | None = None


class GivenRows(NamedTuple):
    """A batch with all that would be drawn at random for it.

    Args:
        batch: The rows.
        noise: Arrays by name, as in `seqssvae.noise`.
    """

    batch: Batch
    noise: Mapping[str, np.ndarray]


class ELBOTerms(NamedTuple):
    """The parts of the objective, apart: nats a row, 0 for filler rows.

    ELBO = reconstruction - beta * kl_z - kl_y. In a twin the entries are that framework's arrays. Where there is a
    source, all of these distributions are given it as well.

    Args:
        reconstruction: log p(x|y,z) at the drawn z, for a missing label averaged over q(y|x).
        kl_z: log q(z|x,y) - log p(z) at the drawn z, for a missing label averaged over q(y|x).
        kl_y: KL(q(y|x) || p(y)) for a missing label, -log p(y) for an observed one.
        classification: -log q(y|x) of an observed label, 0 for a missing one.
        consistency: For a missing label, in training and where the objective has that term: the cross entropy of
            q(y|x) with dropout from q(y|x) without, sharpened; otherwise 0.
        distillation: For a missing label, in training and where labels are weighted by another posterior r than q(y|x):
            the cross entropy of q(y|x) from r, which the terms above are averaged over then; otherwise 0.
    """

    reconstruction: Any
    kl_z: Any
    kl_y: Any
    classification: Any
    consistency: Any
    distillation: Any


class Derivatives(NamedTuple):
    """What a training step minimises on given rows, its parts, and its gradient: a function of its arguments alone.

    Args:
        loss: What is minimised.
        labelled: Terms of each labelled row, or None where there were none.
        unlabelled: Terms of each unlabelled row, or None where there were none.
        gradients: Of the loss, for every weight, by its name.
    """

    loss: Float[np.ndarray, ""]
    labelled: ELBOTerms | None
    unlabelled: ELBOTerms | None
    gradients: Weights


class StepTotals(NamedTuple):
    """What one training step reports: sums over its real rows. Entries may be on the device; `float` fetches them.

    Args:
        loss: What was minimised (not a sum).
        gradient_norm: Euclidean norm of its gradient before clipping (not a sum).
        terms: Sums of the terms over all rows.
        rows: Number of real rows.
        labelled_rows: How many of them were labelled.
        symbols: Number of symbols they have, END included.
        finite: For each batch of the step, labelled before unlabelled, whether all terms of each row are finite; empty
            where a backend does not say.
    """

    loss: Any
    gradient_norm: Any
    terms: ELBOTerms
    rows: Any
    labelled_rows: Any
    symbols: Any
    finite: Any = ()


class Evaluation(NamedTuple):
    """Rows evaluated with beta 1 and without dropout, y summed out for every row.

    Args:
        terms: Terms of each row; classification is 0 here: `log_q_y` has it.
        log_q_y: log q(y|x) of every label.
    """

    terms: ELBOTerms
    log_q_y: Float[np.ndarray, "B K"]


class Latents(NamedTuple):
    """Diagonal Normals for every label of some rows, of shape `(B, K, Z)`: q(z|x,y), and p(z) or p(z|source,y)."""

    loc: Any
    scale: Any
    prior_loc: Any
    prior_scale: Any


class Dimensions(NamedTuple):
    """What the model must know of the data.

    Args:
        vocabulary_size: V, special symbols included.
        label_prior: p(y), one probability per label.
        source_vocabulary_size: V of the sources; 0 where there are none.
    """

    vocabulary_size: int
    label_prior: tuple[float, ...]
    source_vocabulary_size: int = 0


class Backend(Protocol):
    """One model with its optimiser, in one framework. All arrays are NumPy's.

    A backend is built by calling its class: `get_backend("jax")(config, dimensions, device=None, devices=1)`. Its
    weights start as `seqssvae.parameters.initial_weights` from `config.training.seed`, its optimiser state as zeros.
    `device` is the framework's name of a device, None its default (JAX) or the CPU (PyTorch); `devices` share batches.
    """

    name: str

    @staticmethod
    def check_device(device: str | None) -> None:
        """Raise a ConfigurationError if there is no such device here, before much is computed for a model on it."""

    @property
    def platform(self) -> str:
        """What kind of device the model is on: `cpu`, `gpu`, `tpu` or another."""

    def __init__(self, config: Config, dimensions: Dimensions, device: str | None = None, devices: int = 1) -> None: ...

    def announce_to(self, listener: Callable[[str], None]) -> None:
        """Have a listener told, in a few words, what is about to be compiled, for a twin that compiles."""

    def load(self, step: TrainingStep) -> TrainingStep:
        """Return a step whose batches may be on their way to the device; called ahead of `train`, in another thread."""

    def train(self, steps: Sequence[TrainingStep]) -> list[StepTotals]:
        """Take these steps in order; batches of consecutive steps may differ in shape."""

    def differentiate(
        self,
        labelled: GivenRows | None,
        unlabelled: GivenRows | None,
        beta: float,
        temperature: float = 1.0,
        consistency: float | None = None,
    ) -> Derivatives:
        """The objective of a training step and its gradient, at the weights as they are, which it does not move.

        Arguments are those of `TrainingStep`.
        """

    def exact_products(self) -> AbstractContextManager[Any]:
        """A context in which no matrix product is rounded to less than the run's precision, whatever the device."""

    def evaluate(self, batch: Batch, seed: int) -> Evaluation:
        """ELBO terms and q(y|x) of every row; the noise of z depends on `seed` and on the batch's shape alone."""

    def log_weights(self, batch: Batch, seed: int, particles: int) -> Float[np.ndarray, "P B K"]:
        """log p(x, y, z) - log q(z|x,y) of each label at each of P draws of z from q(z|x,y); 0 for filler rows.

        They are importance weights (Burda et al. 2016): over the draws, the mean of their exponential is p(x, y).
        `particles` is P, and the noise depends on `seed` and on the batch's shape alone.
        """

    def latents(self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None) -> Latents:
        """q(z|x,y) and p(z), or p(z|source,y), of every label."""

    def log_likelihood(
        self, x: Int[np.ndarray, "B T"], z: Float[np.ndarray, "B K Z"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log p(x|y,z), or log p(x|source,y,z), of every label at the z given for it."""

    def classify(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None
    ) -> Float[np.ndarray, "B K"]:
        """log q(y|x), or log q(y|source,x) of a model with sources."""

    def classify_source(self, source: Int[np.ndarray, "B S"]) -> Float[np.ndarray, "B K"]:
        """log p(y|source), of a model with sources."""

    def encode(
        self, x: Int[np.ndarray, "B T"], source: Int[np.ndarray, "B S"] | None = None, features: bool = False
    ) -> Float[np.ndarray, "B D"]:
        """The embedding of each row: sum over y of q(y|x) loc(x, y), or the features that q(y|x) reads."""

    def generate(
        self,
        y: Int[np.ndarray, " N"],
        options: DecodingOptions,
        seed: int,
        z: Float[np.ndarray, "N Z"] | None = None,
        source: Int[np.ndarray, "N S"] | None = None,
        use_mean: bool = False,
    ) -> tuple[Int[np.ndarray, "N T"], Float[np.ndarray, " N"]]:
        """One sequence per given label, and source of a model that has them.

        Args:
            y: Label ids.
            options: How sequences are chosen.
            seed: Of what is drawn.
            z: Latents; None: drawn from p(z), or from p(z|source,y).
            source: Symbol ids, with END.
            use_mean: Whether z, where it is not given, is the mean of that distribution instead of drawn from it.

        Returns:
            Ids, with END and then PAD behind it (no END where its greatest length and one step more did not
            suffice), and the sequence's log p(x|y,z): the model's own, with the probability of UNK in it, whatever the
            options are.
        """

    def get_weights(self) -> Weights:
        """Copies of all weights, named and laid out as in `seqssvae.parameters`."""

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replace all weights. Raises ValueError on a wrong name or shape."""

    def get_optimizer_state(self) -> Weights:
        """`step` (an integer array of shape `()`), and per weight `NAME.exp_avg` and `NAME.exp_avg_sq` (Adam) or
        `NAME.momentum` (sgd); and what `score_function` has learned to expect (`seqssvae.parameters`)."""

    def set_optimizer_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the optimiser's state. Raises ValueError on a wrong name or shape."""


def rebuild(
    kind: type[Backend], config: Config, dimensions: Dimensions, device: str | None, weights: Weights, state: Weights
) -> Backend:
    """Build a backend with its weights and its optimiser's state: what a pickle of one holds."""
    backend = kind(config, dimensions, device)
    backend.set_weights(weights)
    backend.set_optimizer_state(state)
    return backend


def installed_backends() -> list[str]:
    """Names of the twins whose entry points are installed, whether or not their frameworks are."""
    return sorted(point.name for point in entry_points(group="seqssvae.backends"))


def get_backend(name: str) -> type[Backend]:
    """The class of a twin, by its name.

    Args:
        name: `torch`, `jax`, or the name of another installed twin.

    Raises:
        BackendError: If there is no such twin, or its framework is not installed; the message names the extra.
    """
    points = {point.name: point for point in entry_points(group="seqssvae.backends")}
    if name not in points:
        raise BackendError(f"There is no backend {name!r}; known are {', '.join(sorted(points)) or 'none'}.")
    try:
        return points[name].load()
    except ModuleNotFoundError as error:
        missing = error.name or "a package"
        raise BackendError(
            f"The backend {name!r} needs {missing}, which is not installed: pip install 'seqssvae[{name}]'."
        ) from error
