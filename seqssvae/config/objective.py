"""The section `objective`: the loss, and the schedules of its weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from seqssvae.config.checks import check_flag, check_integer, check_literal, check_number, check_numbers
from seqssvae.errors import ConfigurationError

Objective = Literal["ssvae", "classifier"]
Batching = Literal["alternate", "joint"]
BetaSchedule = Literal["constant", "linear", "cyclical"]
PosteriorName = Literal["amortised", "exact", "given"]
GradientEstimatorName = Literal["enumerate", "sequential", "top_k", "gumbel_softmax", "score_function"]
BaselineName = Literal["none", "average", "input"]

MOST_LABELLED_BATCHES, MOST_PARTICLES = 1000, 1000
"""Greatest `labelled_ratio` and `num_particles`: more would be a slip, and a single step would not end."""


@dataclass(frozen=True)
class BetaConfig:
    """The weight beta of the KL of z over training steps.

    Args:
        schedule: `constant` (always `maximum`), `linear` (from `floor` up to `maximum` in `steps` steps), or `cyclical`
            (in each period of `steps` steps up to `maximum` in the first half, then constant; Fu et al. 2019).
        floor: The least value, above 0 (Pyro refuses a scale of 0, and NumPyro silently ignores z with it).
        maximum: The greatest value.
        steps: Length of the rise, or of a period, in training steps.
    """

    schedule: BetaSchedule = "linear"
    floor: float = 0.01
    maximum: float = 1.0
    steps: int = 500

    def __post_init__(self) -> None:
        check_literal("objective.beta.schedule", self.schedule, BetaSchedule)
        check_number("objective.beta.floor", self.floor, 0.0, open_low=True)
        check_number("objective.beta.maximum", self.maximum, self.floor)
        check_integer("objective.beta.steps", self.steps, 1)


@dataclass(frozen=True)
class TemperatureConfig:
    """The temperature of `gumbel_softmax` over training steps: it falls by a constant factor a step, then is constant.

    Args:
        maximum: The temperature of the first step.
        floor: The temperature after `steps` steps, above 0 (Jang et al. 2017, section 3, end at .5).
        steps: Length of the fall, in training steps.
    """

    maximum: float = 1.0
    floor: float = 0.5
    steps: int = 1000

    def __post_init__(self) -> None:
        check_number("objective.temperature.floor", self.floor, 0.0, open_low=True)
        check_number("objective.temperature.maximum", self.maximum, self.floor)
        check_integer("objective.temperature.steps", self.steps, 1)


@dataclass(frozen=True)
class ConsistencyConfig:
    """The consistency term, which asks q(y|x) to be the same with dropout as without, on rows whose label is missing.

    The term is `weight` times the mean over these rows of `-sum_y r(y) log q(y|x)`. Here q(y|x) is computed with the
    step's dropout and word dropout, and r, proportional to `q(y|x)^(1/temperature)`, without them and with a stopped
    gradient.

    Args:
        weight: Weight of the term beside the ELBO per row; with 0 there is no such term.
        temperature: Temperature of r; below 1, r is more certain than q(y|x) (Xie et al. 2020, section 2.3).
        steps: Training steps over which the weight rises linearly from 0, so that q(y|x) learns from labels before it
            learns from itself; with 0 the weight is constant.
        aligned: Whether each label is weighted such that, over the rows of a batch, r has about the shares of p(y)
            (distribution alignment; Berthelot et al. 2020, section 3.1). Then q(y|x) does not drift towards one label,
            but p(y) must be the distribution of labels in these rows, and a batch must have several rows of each label.
        realigned: Whether r is aligned once more after the temperature has made it more certain, by which it loses some
            of these shares; goes with `aligned`.
        label_shift: One number for each label, which this term adds to the logits of q(y|x): the logarithm of how much
            more frequent the label is among rows without label than among those with one, up to a constant. `aligned`
            then aligns to the shares of `p(y) exp(shift)`. None: labels are as frequent in both.
    """

    weight: float = 0.0
    temperature: float = 0.5
    steps: int = 200
    aligned: bool = False
    realigned: bool = False
    label_shift: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_number("objective.consistency.weight", self.weight, 0.0)
        check_number("objective.consistency.temperature", self.temperature, 0.0, open_low=True)
        check_integer("objective.consistency.steps", self.steps, 0)
        for name in ("aligned", "realigned"):
            check_flag(f"objective.consistency.{name}", getattr(self, name))
        if self.realigned and not self.aligned:
            raise ConfigurationError("objective.consistency.realigned goes with objective.consistency.aligned: true.")
        if self.label_shift is not None:
            numbers = check_numbers("objective.consistency.label_shift", self.label_shift)
            object.__setattr__(self, "label_shift", tuple(float(number) for number in numbers))


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss that is minimised.

    Args:
        name: `ssvae` is minus the ELBO per row plus the classification term; `classifier` is the classification term
            alone, with weight 1, on the labelled rows alone (the supervised baseline), and the consistency term on the
            others if it has a weight, or with posteriors that are `given` those of the latter.
        alpha: Weight of the classification term, the mean of -log q(y|x) over labelled rows, beside the ELBO.
        beta: Weight of the KL of z.
        batching: Whether labelled and unlabelled batches are steps in turn (`alternate`) or share a step (`joint`).
        labelled_ratio: Labelled batches per unlabelled batch; at most 1 with `joint`, and 1000 with `alternate`.
        label_gradient: Share of the unlabelled rows' ELBO gradient that reaches q(y|x), from 0 to 1; the loss stays the
            same. 1 is the exact gradient. With 0, q(y|x) learns from labels alone, while the encoder it shares with
            q(z|x,y) learns from all rows: the ELBO pulls q(y|x) towards whatever best explains the sequences, which
            need not be your classes.
        posterior: By what the labels of a row are weighted where its label is missing. `amortised` is q(y|x), as above.
            `exact` is the best there is, r proportional to `exp(L(x, y))`, held fixed: the loss of such a row is minus
            `sum_y r(y) L(x, y) + H(r)`, at `posterior_temperature` 1 minus `log sum_y exp L(x, y)`, the tightest bound,
            and q(y|x) learns to be like r by the term of `distillation`. So what generates x is not led by a q(y|x)
            that knows little. `given` takes for r what came with the rows (`Corpus.posterior`).
        posterior_temperature: Temperature of `exact`: r is proportional to `exp(L(x, y) / temperature)`; None: the
            square root of the row's number of symbols, since a sum over many symbols is surer than it should be.
        distillation: Weight, per row, of `-sum_y r(y) log q(y|x)` with `exact` and `given`.
        consistency: The consistency term, on rows whose label is missing.
        gradient_estimator: How a missing label is treated in training. `enumerate` sums out all K labels at once,
            exactly. `sequential` does so one label after the other, in the memory of one. `top_k` sums out the `k` most
            probable labels of each row and draws one of the others; it is unbiased. `score_function` draws one label
            (REINFORCE); it is unbiased. `gumbel_softmax` draws one label and passes a gradient through it as if it were
            a mixture; it is biased.
        k: Number of labels that `top_k` sums out; 0 takes, for each batch, the least of 1, 2, 4, 8, ... that leaves to
            the others at most `rest_mass`.
        rest_mass: Probability that q(y|x) may leave to the labels that are not summed out, in the mean over a batch.
        temperature: Temperature of `gumbel_softmax`.
        baseline: What `score_function` subtracts from the objective of a row: nothing (`none`), an exponential moving
            average over the steps before (`average`), or that and a linear function of the row's symbols (`input`).
        baseline_decay: Decay of the baseline's moving average at each step.
        num_particles: Draws of z (and of a sampled y) for each row of a step, whose objectives are averaged; at most
            1000.
    """

    name: Objective = "ssvae"
    alpha: float = 10.0
    beta: BetaConfig = field(default_factory=BetaConfig)
    batching: Batching = "joint"
    labelled_ratio: float = 1.0
    label_gradient: float = 1.0
    posterior: PosteriorName = "amortised"
    posterior_temperature: float | None = 1.0
    distillation: float = 1.0
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    gradient_estimator: GradientEstimatorName = "enumerate"
    k: int = 4
    rest_mass: float = 0.05
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    baseline: BaselineName = "input"
    baseline_decay: float = 0.95
    num_particles: int = 1

    def __post_init__(self) -> None:
        check_literal("objective.name", self.name, Objective)
        check_number("objective.alpha", self.alpha, 0.0)
        check_literal("objective.batching", self.batching, Batching)
        high = 1.0 if self.batching == "joint" else MOST_LABELLED_BATCHES
        check_number(
            f"objective.labelled_ratio (with {self.batching} batching)", self.labelled_ratio, 0.0, high, open_low=True
        )
        check_number("objective.label_gradient", self.label_gradient, 0.0, 1.0)
        check_literal("objective.gradient_estimator", self.gradient_estimator, GradientEstimatorName)
        check_integer("objective.k", self.k, 0)
        check_number("objective.rest_mass", self.rest_mass, 0.0, 1.0, open_low=True)
        check_literal("objective.baseline", self.baseline, BaselineName)
        check_number("objective.baseline_decay", self.baseline_decay, 0.0, 0.9999)
        check_integer("objective.num_particles", self.num_particles, 1, MOST_PARTICLES)
        check_literal("objective.posterior", self.posterior, PosteriorName)
        check_number("objective.distillation", self.distillation, 0.0)
        if self.posterior_temperature is not None:
            check_number("objective.posterior_temperature", self.posterior_temperature, 0.0, open_low=True)
        if self.posterior != "amortised" and self.gradient_estimator != "enumerate":
            raise ConfigurationError(
                f"objective.posterior: {self.posterior} goes with objective.gradient_estimator: enumerate."
            )
        if self.posterior == "exact" and self.name == "classifier":
            raise ConfigurationError("objective.posterior: exact goes with objective.name: ssvae, which has an ELBO.")


def has_consistency(objective: ObjectiveConfig) -> bool:
    """Return whether the loss of rows whose label is missing has the consistency term."""
    return objective.consistency.weight > 0


def has_distillation(objective: ObjectiveConfig) -> bool:
    """Return whether q(y|x) of rows whose label is missing learns to be like another posterior."""
    return objective.posterior != "amortised"


def uses_unlabelled(objective: ObjectiveConfig) -> bool:
    """Return whether rows whose label is missing take part in training."""
    return objective.name == "ssvae" or has_consistency(objective) or has_distillation(objective)
