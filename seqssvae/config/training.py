"""The section `training`: how long training takes, its batches, evaluations, precision and seed."""

from dataclasses import dataclass
from typing import Literal

from seqssvae.config.checks import check, check_flag, check_integer, check_literal, check_number

StoppingMetric = Literal["accuracy", "classification", "elbo", "loss"]
OnNonfinite = Literal["stop", "skip"]
Precision = Literal["float32", "float64", "bf16"]
MatmulPrecision = Literal["highest", "high"]

LEAST_BUDGET, MOST_BUDGET = 0.01, 1000.0
MOST_STEPS_PER_DISPATCH = 10_000
"""Their batches are in memory together."""


def weight_type(precision: Precision) -> str:
    """Return NumPy's name of the type that weights, sums and results have in a precision."""
    return "float32" if precision == "bf16" else precision


@dataclass(frozen=True)
class TrainingConfig:
    """How training proceeds.

    Args:
        epochs: The greatest number of passes over the unlabelled rows (over the labelled ones if there are no others).
        max_steps: The greatest number of training steps; 0 for no limit but `epochs`, or, by the recipe `auto`, for as
            many as its budget allows.
        budget: How much computing the recipe `auto` may take, as a multiple of some minutes of two cores: so many times
            the steps of its candidates, and of the network unless `max_steps` is given. Nothing to other recipes.
        batch_size: B, rows of an unlabelled batch.
        labelled_batch_size: B, rows of a labelled batch.
        batch_symbols: The greatest number of symbols of an unlabelled batch, padding included but not sources, so that
            batches of long rows have fewer rows; 0 for `batch_size` rows whatever their length.
        buckets: Number of lengths to which batches are padded (each is a shape, and costs JAX a compilation).
        steps_per_dispatch: Training steps of one shape that follow each other; JAX hands them to the device at once.
        evaluation_interval: Training steps between evaluations; 0 for one at the end of each epoch.
        checkpoint_minutes: Minutes after which the state is kept between evaluations, too; 0 for evaluations only.
        metric: What decides the best weights and when to stop, on the validation rows: `accuracy` or `elbo` (per
            symbol), which are to be great, or `classification` (the mean of -log q(y|x)) or `loss`, which are to be
            small.
        patience: Evaluations without a better metric after which training stops; with 0 it never stops early.
        min_steps: Training steps before which no evaluation decides anything: its weights are not kept, and `patience`
            does not begin. Few labelled rows may all be right by chance when hardly anything was learned. Training that
            ends before keeps its last weights.
        standard_errors: How far a metric may be from the best, in standard errors of the best over the validation rows,
            for another evaluation's weights to be kept: few rows cannot tell evaluations apart. Of those the ELBO
            decides if `metric` is of labels and there is a generator; else the last is kept, which is trained further.
            1 is the one-standard-error rule (Breiman et al. 1984, Classification and Regression Trees, section 3.4.3);
            with 0 the weights of the best evaluation are kept.
        seed: Seed of everything that is drawn: split, first weights, order of rows, noise.
        precision: Floating-point type. With `bf16` the operands of matrix products are rounded to bfloat16; weights,
            sums, attention weights and the log-likelihood stay in float32.
        matmul_precision: How exact products of float32 are on a GPU or TPU: `highest` takes them as they are; with
            `high` they may be rounded to TF32, which is faster.
        on_nonfinite: What is done when a step's loss or gradient is not finite: `stop` ends training with an error;
            with `skip` the step moves nothing, and training goes on unless no step since the last evaluation was
            finite.
        deterministic: Whether the same seed gives the same run, bit for bit, on a GPU too, where that takes time. On a
            CPU it always does, with the same number of threads.
    """

    epochs: int = 50
    max_steps: int = 0
    budget: float = 1.0
    batch_size: int = 64
    labelled_batch_size: int = 64
    batch_symbols: int = 0
    buckets: int = 3
    steps_per_dispatch: int = 1
    evaluation_interval: int = 0
    checkpoint_minutes: float = 10.0
    metric: StoppingMetric = "accuracy"
    patience: int = 10
    min_steps: int = 100
    standard_errors: float = 1.0
    seed: int = 0
    precision: Precision = "float32"
    matmul_precision: MatmulPrecision = "highest"
    on_nonfinite: OnNonfinite = "stop"
    deterministic: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "labelled_batch_size", "buckets"):
            check_integer(f"training.{name}", getattr(self, name), 1)
        check_integer("training.steps_per_dispatch", self.steps_per_dispatch, 1, MOST_STEPS_PER_DISPATCH)
        for name in ("max_steps", "batch_symbols", "evaluation_interval", "patience", "min_steps", "seed"):
            check_integer(f"training.{name}", getattr(self, name), 0)
        for name in ("checkpoint_minutes", "standard_errors"):
            check_number(f"training.{name}", getattr(self, name), 0)
        check_number("training.budget", self.budget, LEAST_BUDGET, MOST_BUDGET)
        check(self.seed < 2**31, "training.seed", "below 2^31", self.seed)
        check_literal("training.metric", self.metric, StoppingMetric)
        check_literal("training.precision", self.precision, Precision)
        check_literal("training.matmul_precision", self.matmul_precision, MatmulPrecision)
        check_literal("training.on_nonfinite", self.on_nonfinite, OnNonfinite)
        check_flag("training.deterministic", self.deterministic)
