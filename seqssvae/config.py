"""Configuration: frozen dataclasses, validated on construction.

Every class checks its own fields and names the offending one by its full path (`model.latent_size`), so
that an error means the same from Python, from YAML and from the command line. Sizes are counts, rates and
probabilities are fractions of 1, and lengths count symbols without END.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from seqssvae.errors import ConfigurationError

CellName = Literal["gru", "lstm"]
Conditioning = Literal["init", "every_step", "output"]
Pooling = Literal["last", "mean", "max"]
TooLong = Literal["skip", "truncate"]
LabelPrior = Literal["uniform", "empirical", "given"]
Objective = Literal["ssvae", "classifier"]
Batching = Literal["alternate", "joint"]
BetaSchedule = Literal["constant", "linear", "cyclical"]
EstimatorName = Literal["enumerate", "sequential", "top_k", "gumbel_softmax", "score_function"]
BaselineName = Literal["none", "average", "input"]
OptimizerName = Literal["adam", "adamw", "sgd"]
LearningRateSchedule = Literal["constant", "linear", "cosine"]
StoppingMetric = Literal["accuracy", "classification", "elbo", "loss"]
Precision = Literal["float32", "float64", "bf16"]


def weight_type(precision: Precision) -> str:
    """NumPy's name of the type of weights, sums and results in a precision."""
    return "float32" if precision == "bf16" else precision


def _check(condition: bool, path: str, expected: str, found: object) -> None:
    if not condition:
        raise ConfigurationError(f"{path} must be {expected}, not {found!r}.")


def _check_integer(path: str, value: int, minimum: int) -> None:
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    _check(valid, path, f"a whole number of at least {minimum}", value)


def _check_number(path: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    inside = number and (value > low if open_low else value >= low) and value <= high
    bounds = f"{'above' if open_low else 'of at least'} {low:g}" + (
        "" if high == math.inf else f" and at most {high:g}"
    )
    _check(inside, path, f"a number {bounds}", value)


def _check_flag(path: str, value: bool) -> None:
    _check(isinstance(value, bool), path, "true or false", value)


def _names(path: str, value: Sequence[str]) -> tuple[str, ...]:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    _check(listed and all(isinstance(name, str) for name in value), path, "a list of names (quote numbers)", value)
    return tuple(value)


def _check_choice(path: str, value: str, choices: object) -> None:
    names = get_args(choices)
    _check(value in names, path, "one of " + ", ".join(names), value)


@dataclass(frozen=True)
class DataConfig:
    """Where the rows are and how to read them.

    Args:
        train: TSV file (UTF-8) to learn from.
        validation: TSV file for early stopping; without one, `validation_fraction` of the training rows is held out.
        validation_fraction: Share of the training rows held out for validation, stratified by label.
        sequence_column: Column of the sequence, counted from 1.
        label_column: Column of the label, counted from 1; 0 where there is none. An empty label is a missing one.
        source_column: Column of a source, another sequence that the sequence is made from (a lemma, of its inflected
            form), counted from 1; 0 for none.
        group_column: Column of a group whose rows never straddle a split, counted from 1; 0 for none.
        separator: What separates the symbols of a sequence; empty: each character is a symbol.
        source_separator: The same for sources.
        header: Whether the first line of each file names the columns and is passed over.
        labels: The classes, in order; without it, the labels found in the training file, sorted.
        max_length: Longest sequence, and longest source, taken, in symbols without END.
        too_long: What to do with a longer one: leave its row out, or cut it.
        minimum_count: Symbols seen less often in training become UNK.
        labels_per_class: For experiments: keep this many labels of each class, chosen by the seed, and hide the others.
        validation_labels_per_class: For experiments: the same for the validation rows; the others are not used.
    """

    train: str | None = None
    validation: str | None = None
    validation_fraction: float = 0.1
    sequence_column: int = 1
    label_column: int = 2
    source_column: int = 0
    group_column: int = 0
    separator: str = ""
    source_separator: str = ""
    header: bool = False
    labels: Sequence[str] | None = None
    max_length: int = 256
    too_long: TooLong = "skip"
    minimum_count: int = 1
    labels_per_class: int | None = None
    validation_labels_per_class: int | None = None

    def __post_init__(self) -> None:
        _check_number("data.validation_fraction", self.validation_fraction, 0.0, 0.9)
        _check_integer("data.sequence_column", self.sequence_column, 1)
        _check_integer("data.label_column", self.label_column, 0)
        _check_integer("data.source_column", self.source_column, 0)
        _check_integer("data.group_column", self.group_column, 0)
        _check(
            self.label_column != self.sequence_column,
            "data.label_column",
            "another column than data.sequence_column",
            self.label_column,
        )
        _check(
            not self.source_column or self.source_column not in (self.label_column, self.sequence_column),
            "data.source_column",
            "another column than data.sequence_column and data.label_column",
            self.source_column,
        )
        _check(
            not self.group_column or self.group_column not in (self.label_column, self.sequence_column),
            "data.group_column",
            "another column than data.sequence_column and data.label_column",
            self.group_column,
        )
        for name in ("separator", "source_separator"):
            tab = "\t" in getattr(self, name)
            _check(not tab, f"data.{name}", "something else than a tab, which ends a column", "\t")
        _check_flag("data.header", self.header)
        _check_integer("data.max_length", self.max_length, 1)
        _check_choice("data.too_long", self.too_long, TooLong)
        _check_integer("data.minimum_count", self.minimum_count, 1)
        for name in ("labels_per_class", "validation_labels_per_class"):
            if getattr(self, name) is not None:
                _check_integer(f"data.{name}", getattr(self, name), 1)
        if self.labels is not None:
            names = _names("data.labels", self.labels)
            object.__setattr__(self, "labels", names)
            _check(len(names) >= 2, "data.labels", "a list of at least two classes", list(names))
            _check(len(set(names)) == len(names), "data.labels", "a list without repetitions", list(names))
            _check("" not in names, "data.labels", "a list of non-empty names (empty means missing)", list(names))


@dataclass(frozen=True)
class EncoderConfig:
    """The recurrent network that reads x for q(y|x) and q(z|x,y); another of these sizes reads the source, if any.

    Args:
        embedding_size: E, size of a symbol's embedding.
        hidden_size: H, size of the state, for each direction.
        layers: Number of recurrent layers.
        bidirectional: Whether each layer reads in both directions.
        pooling: How states become the features of a row: the last of each direction, or the mean or maximum over time.
        word_dropout: Share of the symbols of x turned to UNK in training, before either encoder reads it; a source is
            read whole.
        separate: Whether q(y|x) and q(z|x,y) have an encoder each, instead of sharing one.
    """

    embedding_size: int = 32
    hidden_size: int = 128
    layers: int = 1
    bidirectional: bool = True
    pooling: Pooling = "last"
    word_dropout: float = 0.0
    separate: bool = False

    def __post_init__(self) -> None:
        for name in ("embedding_size", "hidden_size", "layers"):
            _check_integer(f"model.encoder.{name}", getattr(self, name), 1)
        _check_choice("model.encoder.pooling", self.pooling, Pooling)
        _check_number("model.encoder.word_dropout", self.word_dropout, 0.0, 1.0)
        for name in ("bidirectional", "separate"):
            _check_flag(f"model.encoder.{name}", getattr(self, name))


@dataclass(frozen=True)
class DecoderConfig:
    """The recurrent network of p(x|y,z).

    Args:
        embedding_size: E, size of a symbol's embedding.
        hidden_size: H, size of the state.
        layers: Number of recurrent layers.
        conditioning: How y and z enter: `init` (the initial state), `every_step` (that, and every step's input), or
            `output` (added to the output of a recurrence that runs on x alone, once per row).
        attention: Whether each step attends to the source, where there is one (Luong et al. 2015, the global attention
            of section 3.1 with the bilinear score; what was attended to is not fed back).
    """

    embedding_size: int = 32
    hidden_size: int = 64
    layers: int = 1
    conditioning: Conditioning = "output"
    attention: bool = True

    def __post_init__(self) -> None:
        for name in ("embedding_size", "hidden_size", "layers"):
            _check_integer(f"model.decoder.{name}", getattr(self, name), 1)
        _check_choice("model.decoder.conditioning", self.conditioning, Conditioning)
        _check_flag("model.decoder.attention", self.attention)


@dataclass(frozen=True)
class ModelConfig:
    """The graphical model's networks.

    Args:
        cell: Recurrent cell of encoder and decoder.
        latent_size: Z, size of z.
        encoder: The network that reads x.
        decoder: The network that generates x.
        dropout: Share of embedding and feature entries set to 0 in training.
        word_dropout: Share of the decoder's input symbols turned to UNK in training (Bowman et al. 2016, section 3.1).
        label_prior: p(y): uniform, the shares of the observed training labels, or `label_prior_probabilities`. Where
            there is a source, this is what p(y|source) starts from.
        label_prior_probabilities: p(y) in the order of the labels, where `label_prior` is `given`.
    """

    cell: CellName = "gru"
    latent_size: int = 16
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    dropout: float = 0.0
    word_dropout: float = 0.0
    label_prior: LabelPrior = "uniform"
    label_prior_probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_choice("model.cell", self.cell, CellName)
        _check_integer("model.latent_size", self.latent_size, 1)
        _check_number("model.dropout", self.dropout, 0.0, 0.95)
        _check_number("model.word_dropout", self.word_dropout, 0.0, 1.0)
        _check_choice("model.label_prior", self.label_prior, LabelPrior)
        given = self.label_prior_probabilities
        path = "model.label_prior_probabilities"
        if (self.label_prior == "given") != (given is not None):
            raise ConfigurationError(f"{path} goes with model.label_prior: given, and only with it.")
        if given is not None:
            listed = isinstance(given, Sequence) and not isinstance(given, str)
            _check(listed and all(isinstance(p, (int, float)) and p > 0 for p in given), path, "numbers above 0", given)
            object.__setattr__(self, "label_prior_probabilities", tuple(float(p) for p in given))
            _check(abs(sum(given) - 1) < 1e-6, path, "a list that sums to 1", list(given))


@dataclass(frozen=True)
class BetaConfig:
    """The weight beta of the KL of z over training steps.

    Args:
        schedule: `constant` (always `maximum`), `linear` (from `floor` up to `maximum` in `steps` steps), or `cyclical`
            (in each period of `steps` steps up to `maximum` in the first half, then constant; Fu et al. 2019).
        floor: Least value, above 0 (a scale of 0 is refused by Pyro and hides z from NumPyro).
        maximum: Greatest value.
        steps: Length of the rise, or of a period, in training steps.
    """

    schedule: BetaSchedule = "linear"
    floor: float = 0.01
    maximum: float = 1.0
    steps: int = 500

    def __post_init__(self) -> None:
        _check_choice("objective.beta.schedule", self.schedule, BetaSchedule)
        _check_number("objective.beta.floor", self.floor, 0.0, open_low=True)
        _check_number("objective.beta.maximum", self.maximum, self.floor)
        _check_integer("objective.beta.steps", self.steps, 1)


@dataclass(frozen=True)
class TemperatureConfig:
    """The temperature of `gumbel_softmax` over training steps: it falls by a constant factor a step, then is constant.

    Args:
        maximum: At the first step.
        floor: After `steps` steps, above 0 (Jang et al. 2017, section 3, end at .5).
        steps: Length of the fall, in training steps.
    """

    maximum: float = 1.0
    floor: float = 0.5
    steps: int = 1000

    def __post_init__(self) -> None:
        _check_number("objective.temperature.floor", self.floor, 0.0, open_low=True)
        _check_number("objective.temperature.maximum", self.maximum, self.floor)
        _check_integer("objective.temperature.steps", self.steps, 1)


@dataclass(frozen=True)
class ConsistencyConfig:
    """That q(y|x) be the same with dropout as without, on rows whose label is missing.

    The term is `weight` times the mean over these rows of `-sum_y r(y) log q(y|x)`: q(y|x) with the step's dropout and
    hidden symbols, r proportional to `q(y|x)^(1/temperature)` without them, through which no gradient is passed.

    Args:
        weight: Of the term beside the ELBO per row; 0: there is none.
        temperature: Below 1, r is more certain than q(y|x) (Xie et al. 2020, section 2.3).
        steps: Training steps over which the weight rises from 0 in a straight line, so that q(y|x) has learned from
            labels before it learns from itself; 0: the weight is constant.
        aligned: Whether each label is weighted such that, over the rows of a batch, r has about the shares of p(y)
            (distribution alignment; Berthelot et al. 2020, section 3.1): then q(y|x) does not drift towards one label,
            but p(y) must be what these rows are like, and a batch must have several rows of each label.
    """

    weight: float = 0.0
    temperature: float = 0.5
    steps: int = 200
    aligned: bool = False

    def __post_init__(self) -> None:
        _check_number("objective.consistency.weight", self.weight, 0.0)
        _check_number("objective.consistency.temperature", self.temperature, 0.0, open_low=True)
        _check_integer("objective.consistency.steps", self.steps, 0)
        _check_flag("objective.consistency.aligned", self.aligned)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Args:
        name: `ssvae`: minus the ELBO per row plus the classification term; `classifier`: the classification term
            alone, with weight 1, on the labelled rows alone (the supervised baseline).
        alpha: Weight of the classification term, the mean of -log q(y|x) over labelled rows, beside the ELBO.
        beta: Weight of the KL of z.
        batching: Labelled and unlabelled batches as steps in turn (`alternate`), or together in one step (`joint`).
        labelled_ratio: Labelled batches per unlabelled batch; at most 1 with `joint`.
        label_gradient: Share of the unlabelled rows' ELBO gradient that reaches q(y|x) (its value is the same): 1, the
            exact gradient; 0, labels alone teach q(y|x), while the encoder it shares with q(z|x,y) learns from all
            rows. A q(y|x) that follows the ELBO leaves classes that are not what best explains the sequences.
        consistency: That q(y|x) be the same with dropout as without: a further term on the rows whose label is missing.
        estimator: What is done with a missing label in training. `enumerate`: all K labels at once, exactly.
            `sequential`: the same, one label after the other, in the memory of one. `top_k`: exactly over the `k` most
            probable labels of each row, and one drawn from the others; unbiased. `score_function`: one label drawn
            (REINFORCE); unbiased. `gumbel_softmax`: one label drawn, through which a gradient is passed as if it were
            a mixture; biased.
        k: Labels of `top_k` that are summed out; 0: the least of 1, 2, 4, 8, ... that leaves to the others at most
            `rest_mass`, decided for each batch.
        rest_mass: Probability that q(y|x) may leave to the labels that are not summed out, in the mean over a batch.
        temperature: Of `gumbel_softmax`.
        baseline: What `score_function` expects of a row: nothing, the `average` of the steps before with decaying
            weights, or that and a linear function of the row's symbols (`input`).
        baseline_decay: Weight of what was known before, at each step.
        num_particles: Draws of z (and of a sampled y) for each row of a step, whose objectives are averaged.
    """

    name: Objective = "ssvae"
    alpha: float = 10.0
    beta: BetaConfig = field(default_factory=BetaConfig)
    batching: Batching = "joint"
    labelled_ratio: float = 1.0
    label_gradient: float = 1.0
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    estimator: EstimatorName = "enumerate"
    k: int = 4
    rest_mass: float = 0.05
    temperature: TemperatureConfig = field(default_factory=TemperatureConfig)
    baseline: BaselineName = "input"
    baseline_decay: float = 0.95
    num_particles: int = 1

    def __post_init__(self) -> None:
        _check_choice("objective.name", self.name, Objective)
        _check_number("objective.alpha", self.alpha, 0.0)
        _check_choice("objective.batching", self.batching, Batching)
        high = 1.0 if self.batching == "joint" else math.inf
        _check_number(
            f"objective.labelled_ratio (with {self.batching} batching)", self.labelled_ratio, 0.0, high, open_low=True
        )
        _check_number("objective.label_gradient", self.label_gradient, 0.0, 1.0)
        _check_choice("objective.estimator", self.estimator, EstimatorName)
        _check_integer("objective.k", self.k, 0)
        _check_number("objective.rest_mass", self.rest_mass, 0.0, 1.0, open_low=True)
        _check_choice("objective.baseline", self.baseline, BaselineName)
        _check_number("objective.baseline_decay", self.baseline_decay, 0.0, 0.9999)
        _check_integer("objective.num_particles", self.num_particles, 1)


def has_consistency(objective: ObjectiveConfig) -> bool:
    """Whether a training step on rows whose label is missing has the consistency term."""
    return objective.name == "ssvae" and objective.consistency.weight > 0


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move. Gradients are scaled by clip / max(norm, clip), with one norm over all weights.

    Args:
        name: `adam`, `adamw` (decay not through the gradient; Loshchilov & Hutter 2019), or `sgd`.
        learning_rate: Step size at its greatest.
        schedule: `constant`, or falling to 0 over the training steps, `linear` or as a `cosine`.
        warmup_steps: Steps over which the step size rises from 0.
        clip_norm: Greatest Euclidean norm of the gradient; 0: no clipping.
        weight_decay: Decoupled weight decay (`adamw` only).
        beta1: Decay of Adam's mean of gradients; the momentum of `sgd`.
        beta2: Decay of Adam's mean of squared gradients.
        epsilon: Added to the root of the latter.
    """

    name: OptimizerName = "adam"
    learning_rate: float = 5e-3
    schedule: LearningRateSchedule = "constant"
    warmup_steps: int = 0
    clip_norm: float = 5.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check_choice("optimizer.name", self.name, OptimizerName)
        _check_number("optimizer.learning_rate", self.learning_rate, 0.0, open_low=True)
        _check_choice("optimizer.schedule", self.schedule, LearningRateSchedule)
        _check_integer("optimizer.warmup_steps", self.warmup_steps, 0)
        _check_number("optimizer.clip_norm", self.clip_norm, 0.0)
        _check_number("optimizer.weight_decay", self.weight_decay, 0.0)
        if self.weight_decay and self.name != "adamw":
            raise ConfigurationError("optimizer.weight_decay is for optimizer.name: adamw, and only for it.")
        _check_number("optimizer.beta1", self.beta1, 0.0, 0.9999)
        _check_number("optimizer.beta2", self.beta2, 0.0, 0.999999)
        _check_number("optimizer.epsilon", self.epsilon, 0.0, open_low=True)


@dataclass(frozen=True)
class TrainingConfig:
    """How long to train, on what, from which seed.

    Args:
        epochs: Most passes over the unlabelled rows (over the labelled ones where there are none).
        max_steps: Most training steps; 0: as `epochs` says.
        batch_size: B, rows of an unlabelled batch.
        labelled_batch_size: B, rows of a labelled batch.
        batch_symbols: Most symbols of an unlabelled batch, padding included but not sources, so that batches of long
            rows have fewer rows; 0: `batch_size` rows whatever their length.
        buckets: Number of lengths to which batches are padded (each is a shape, and costs JAX a compilation).
        steps_per_dispatch: Training steps of one shape that follow each other; JAX hands them to the device at once.
        evaluation_interval: Training steps between evaluations; 0: one at the end of each epoch.
        metric: What decides the best weights and when to stop, on the validation rows: `accuracy` or `elbo` (per
            symbol), the greater the better, or `classification` (the mean of -log q(y|x)) or `loss`, the lesser.
        patience: Evaluations without a better metric after which training stops; 0: never.
        standard_errors: How far below the best a metric may be, in standard errors of the best over the validation
            rows, for a later evaluation's weights to be kept all the same: few rows cannot tell evaluations apart, and
            later weights are trained further. 1 is the one-standard-error rule (Breiman et al. 1984, Classification and
            Regression Trees, section 3.4.3); 0: the best evaluation's are kept.
        seed: Of everything drawn: split, weights, order, noise.
        precision: Floating-point type. With `bf16` the operands of matrix products are rounded to bfloat16; weights,
            sums, shares of attention and the log-likelihood stay in float32.
        deterministic: Whether the same seed gives the same run, bit for bit, on a GPU too, where that takes time; on a
            CPU it always does, with as many threads.
    """

    epochs: int = 50
    max_steps: int = 0
    batch_size: int = 64
    labelled_batch_size: int = 64
    batch_symbols: int = 0
    buckets: int = 3
    steps_per_dispatch: int = 1
    evaluation_interval: int = 0
    metric: StoppingMetric = "accuracy"
    patience: int = 10
    standard_errors: float = 0.0
    seed: int = 0
    precision: Precision = "float32"
    deterministic: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "labelled_batch_size", "buckets", "steps_per_dispatch"):
            _check_integer(f"training.{name}", getattr(self, name), 1)
        for name in ("max_steps", "batch_symbols", "evaluation_interval", "patience", "seed"):
            _check_integer(f"training.{name}", getattr(self, name), 0)
        _check_number("training.standard_errors", self.standard_errors, 0)
        _check(self.seed < 2**31, "training.seed", "below 2^31", self.seed)
        _check_choice("training.metric", self.metric, StoppingMetric)
        _check_choice("training.precision", self.precision, Precision)
        _check_flag("training.deterministic", self.deterministic)


@dataclass(frozen=True)
class Config:
    """All of a run's configuration.

    Args:
        data: Where the rows are and how to read them.
        model: The networks.
        objective: What is minimised.
        optimizer: How weights move.
        training: How long, on what, from which seed.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
