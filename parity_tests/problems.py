"""Problems: one training step of a small model, with all its weights, rows and noise, and the oracle's solution.

Sizes that could be confused differ from each other, no weight is zero, and random streams play no part once a problem
is made: all that is random is in its arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from parity_tests.oracle import Oracle
from parity_tests.oracle_rows import Rows
from seqssvae.backend import NO_LABEL, Batch, Dimensions
from seqssvae.config import (
    CellName,
    Conditioning,
    Config,
    ConsistencyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderKind,
    LabelPrior,
    ModelConfig,
    Objective,
    ObjectiveConfig,
    OptimizerConfig,
    Pooling,
    PosteriorName,
    TrainingConfig,
)
from seqssvae.data.vocabulary import END, PAD, SPECIALS, UNK
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.parameters import parameter_shapes

VOCABULARY_SIZE = 9
SOURCE_VOCABULARY_SIZE = 8
SOURCE_STEPS = 7
LATENT_SIZE = 2
ENCODER_SIZES = {"embedding_size": 3, "hidden_size": 4}
CONVOLUTION_SIZES: dict[str, Any] = {"widths": (1, 3), "channels": 7}
DECODER_SIZES = {"embedding_size": 6, "hidden_size": 5}
LABELLED_SHAPE = (3, 5)
UNLABELLED_SHAPE = (4, 6)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Options:
    """What a problem is to be like.

    Args:
        cell: Recurrent cell.
        encoder_layers: Recurrent layers of the encoder.
        decoder_layers: Recurrent layers of the decoder.
        bidirectional: Whether the encoder reads in both directions.
        conditioning: How y and z enter the decoder.
        pooling: How states become features.
        separate: Whether q(y|x) and q(z|x,y) have an encoder each.
        label_count: K.
        prior: p(y): `uniform`, or `given` at random.
        beta: Weight of the KL of z.
        dropout: Rate of dropout.
        word_dropout: Rate of word dropout.
        kind: Which rows the step has: labelled, unlabelled, or both.
        filler: Whether the last row of each batch is a filler row.
        label_gradient: Share of the unlabelled ELBO's gradient that reaches q(y|x).
        shortest: Length, END included, of the first row of each batch; 1: END alone.
        source: Whether rows have a source.
        attention: Whether the decoder attends to it.
        encoder_word_dropout: Rate at which symbols are hidden from the encoder.
        consistency: Weight of the consistency term.
        aligned: Whether it has the labels' shares of p(y).
        realigned: Whether it has them once more behind the temperature.
        shifted: Whether labels are more or less frequent among rows without label.
        encoder: What makes the features of a row.
        name: Of the objective.
        context: How many symbols each step of the decoder sees; None: all before it.
        posterior: By what labels are weighted where they are missing.
        posterior_temperature: Of the exact one.
    """

    cell: CellName = "gru"
    encoder_layers: int = 1
    decoder_layers: int = 1
    bidirectional: bool = True
    conditioning: Conditioning = "output"
    pooling: Pooling = "last"
    separate: bool = False
    label_count: int = 3
    prior: LabelPrior = "given"
    beta: float = 0.3
    dropout: float = 0.0
    word_dropout: float = 0.0
    kind: Literal["labelled", "unlabelled", "mixed"] = "mixed"
    filler: bool = True
    shortest: int = 2
    label_gradient: float = 1.0
    source: bool = False
    attention: bool = True
    encoder_word_dropout: float = 0.0
    consistency: float = 0.0
    aligned: bool = False
    realigned: bool = False
    shifted: bool = False
    encoder: EncoderKind = "recurrent"
    name: Objective = "ssvae"
    context: int | None = None
    posterior: PosteriorName = "amortised"
    posterior_temperature: float | None = 1.0


class Step(NamedTuple):
    """The rows of one kind in a training step.

    Args:
        batch: The rows.
        noise: All that is drawn for them in training, named as in `seqssvae.noise`.
    """

    batch: Batch
    noise: Arrays

    def rows(self, training: bool = True) -> Rows:
        """As the oracle takes them, with or without dropout."""
        labels = None if (self.batch.y == NO_LABEL).all() else self.batch.y
        return Rows(
            self.batch.x,
            labels,
            self.noise if training else {"z": self.noise["z"]},
            self.batch.source,
            self.batch.posterior,
        )


@dataclass(frozen=True)
class Problem:
    """One training step of a small model.

    Args:
        name: A short name, for messages.
        options: What it is like.
        config: The configuration, in float64.
        dimensions: V and p(y).
        weights: All weights, in float64.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is summed out, or None. At least one of the two is given.
        beta: Weight of the KL of z.
    """

    name: str
    options: Options
    config: Config
    dimensions: Dimensions
    weights: Arrays
    labelled: Step | None
    unlabelled: Step | None
    beta: float

    @property
    def alpha(self) -> float:
        """Weight of the classification term."""
        return self.config.objective.alpha

    def oracle(self, weights: Mapping[str, np.ndarray] | None = None) -> Oracle:
        """The oracle of this model, with its own weights or others."""
        return Oracle(self.config.model, self.weights if weights is None else weights, self.dimensions.label_prior)

    def objective(
        self, weights: Mapping[str, np.ndarray] | None = None, rows: Sequence[Rows | None] | None = None
    ) -> np.ndarray:
        """What the step minimises, by the oracle; with its own weights and rows (labelled, unlabelled) or others."""
        if rows is None:
            rows = [None if step is None else step.rows() for step in (self.labelled, self.unlabelled)]
        objective = self.config.objective
        return self.oracle(weights).objective(
            *rows,
            self.alpha,
            self.beta,
            generative=objective.name == "ssvae",
            label_gradient=objective.label_gradient,
            consistency=objective.consistency,
            posterior=objective,
            fixed=self.oracle(),
        )

    def steps(self) -> list[Step]:
        """The rows of either kind that there are, labelled first."""
        return [step for step in (self.labelled, self.unlabelled) if step is not None]


def make_problem(
    options: Options, seed: int, name: str = "problem", optimizer: OptimizerConfig | None = None
) -> Problem:
    """A problem with these options; all that is random depends on the seed alone."""
    generator = np.random.default_rng([seed, 0xF1])
    label_prior = _label_prior(options, generator)
    config = _config(options, label_prior, alpha=float(generator.uniform(0.5, 5.0)))
    sources = SOURCE_VOCABULARY_SIZE if options.source else 0
    shapes = parameter_shapes(config.model, VOCABULARY_SIZE, options.label_count, sources)
    weights = {name: generator.normal(0.0, 0.7, shape) for name, shape in shapes.items()}
    labelled = _step(options, config.model, True, generator) if options.kind != "unlabelled" else None
    unlabelled = _step(options, config.model, False, generator) if options.kind != "labelled" else None
    dimensions = Dimensions(VOCABULARY_SIZE, label_prior, sources)
    config = replace(config, optimizer=optimizer or config.optimizer)
    return Problem(name, options, config, dimensions, weights, labelled, unlabelled, options.beta)


def _label_prior(options: Options, generator: np.random.Generator) -> tuple[float, ...]:
    if options.prior == "uniform":
        return (1.0 / options.label_count,) * options.label_count
    shares = generator.permutation(np.arange(1.0, options.label_count + 1.0))
    return tuple(float(share) for share in shares / shares.sum())


def _config(options: Options, label_prior: tuple[float, ...], alpha: float) -> Config:
    filters = {} if options.encoder == "recurrent" else CONVOLUTION_SIZES
    encoder = EncoderConfig(
        **ENCODER_SIZES,
        **filters,
        kind=options.encoder,
        layers=options.encoder_layers,
        bidirectional=options.bidirectional,
        pooling=options.pooling,
        word_dropout=options.encoder_word_dropout,
        separate=options.separate,
    )
    decoder = DecoderConfig(
        **DECODER_SIZES,
        layers=options.decoder_layers,
        conditioning=options.conditioning,
        context=options.context,
        attention=options.attention,
    )
    model = ModelConfig(
        cell=options.cell,
        latent_size=LATENT_SIZE,
        encoder=encoder,
        decoder=decoder,
        dropout=options.dropout,
        word_dropout=options.word_dropout,
        label_prior=options.prior,
        label_prior_probabilities=label_prior if options.prior == "given" else None,
    )
    shift = tuple(0.9 - 0.7 * label for label in range(options.label_count)) if options.shifted else None
    consistency = ConsistencyConfig(options.consistency, 0.4, 200, options.aligned, options.realigned, shift)
    return Config(
        model=model,
        objective=ObjectiveConfig(
            name=options.name,
            alpha=alpha,
            label_gradient=options.label_gradient,
            posterior=options.posterior,
            posterior_temperature=options.posterior_temperature,
            distillation=1.0 if options.posterior == "amortised" else 0.8,
            consistency=consistency if options.consistency else ConsistencyConfig(),
        ),
        training=TrainingConfig(precision="float64"),
    )


def _step(options: Options, model: ModelConfig, observed: bool, generator: np.random.Generator) -> Step:
    batch = _batch(options, observed, generator)
    labels = None if observed else options.label_count
    specs = noise_specs(model, labels, *batch.x.shape, source_steps=batch.source_steps)
    return Step(batch, draw_noise(specs, generator))


def _batch(options: Options, observed: bool, generator: np.random.Generator) -> Batch:
    """Ragged rows: the first as short as asked for, the second as long as the batch or one less, others between."""
    size, time_steps = LABELLED_SHAPE if observed else UNLABELLED_SHAPE
    row_mask = np.ones(size, dtype=bool)
    row_mask[-1] = not options.filler
    x = _ragged(row_mask, time_steps, options.shortest, VOCABULARY_SIZE, generator)
    y = generator.integers(options.label_count, size=size) if observed else np.full(size, NO_LABEL)
    y = np.where(row_mask, y, NO_LABEL).astype(np.int32)
    rows = np.where(row_mask, np.arange(size), -1).astype(np.int32)
    source = None
    if options.source:
        source = _ragged(row_mask, SOURCE_STEPS, options.shortest, SOURCE_VOCABULARY_SIZE, generator)
    posterior = None
    if options.posterior == "given":
        posterior = generator.dirichlet(np.ones(options.label_count), size)
        posterior[0] = np.eye(options.label_count)[0]
    return Batch(x, y, row_mask, rows, source, posterior)


def _ragged(
    row_mask: np.ndarray, time_steps: int, shortest: int, vocabulary_size: int, generator: np.random.Generator
) -> np.ndarray:
    lengths = generator.integers(shortest, time_steps + 1, len(row_mask))
    lengths[:2] = shortest, time_steps - int(generator.integers(2))
    symbols = [UNK, *range(len(SPECIALS), vocabulary_size)]
    x = np.full((len(row_mask), time_steps), PAD, dtype=np.int32)
    for b in np.flatnonzero(row_mask):
        x[b, : lengths[b] - 1] = generator.choice(symbols, lengths[b] - 1)
        x[b, lengths[b] - 1] = END
    return x
