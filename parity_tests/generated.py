"""Problems with everything random but the architecture: what a failing example shrinks to and prints.

A `Draw` is plain numbers, and its repr is the expression that makes it again: paste it into
`problem_of(Draw(...))` to have the problem at hand, and into `save_problem` to keep it as a file.
"""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from parity_tests.problems import (
    LABELLED_SHAPE,
    UNLABELLED_SHAPE,
    VOCABULARY_SIZE,
    Options,
    Problem,
    Step,
    make_problem,
)
from seqssvae.backend import NO_LABEL, Batch
from seqssvae.data.vocabulary import END, PAD, SPECIALS, UNK

SYMBOLS = (UNK, *range(len(SPECIALS), VOCABULARY_SIZE))

ARCHITECTURES = (
    Options(cell="gru", conditioning="init", pooling="last", label_count=2, posterior="exact"),
    Options(cell="gru", conditioning="every_step", pooling="mean", bidirectional=False, dropout=0.3),
    Options(
        cell="gru",
        conditioning="output",
        pooling="max",
        label_count=5,
        separate=True,
        word_dropout=0.4,
        encoder_word_dropout=0.4,
        consistency=0.7,
        aligned=True,
    ),
    Options(cell="gru", conditioning="every_step", pooling="max", encoder_layers=2, decoder_layers=2, prior="uniform"),
    Options(cell="lstm", conditioning="init", pooling="mean", decoder_layers=2, dropout=0.3, word_dropout=0.4),
    Options(cell="lstm", conditioning="every_step", pooling="last", separate=True, label_count=2, dropout=0.3),
    Options(cell="lstm", conditioning="output", pooling="last", encoder_layers=2, label_count=4, word_dropout=0.4),
    Options(
        encoder="convolution",
        bidirectional=False,
        dropout=0.3,
        prior="uniform",
        consistency=0.7,
        shifted=True,
        context=3,
    ),
)
"""Each is compiled once; all steps hold labelled and unlabelled rows."""

Row = tuple[int, ...] | None
"""Symbols before END; None is a filler row."""


@dataclass(frozen=True)
class Draw:
    """What is random in a problem.

    Args:
        architecture: Number of its options.
        seed: Of the values of weights and noise.
        scale: Standard deviation of the weights.
        beta: Weight of the KL of z.
        keep: Share of entries that dropout and word dropout keep.
        labelled: Rows whose label is observed.
        labels: Their labels; those of filler rows do not count.
        unlabelled: Rows whose label is summed out.
    """

    architecture: int
    seed: int
    scale: float
    beta: float
    keep: float
    labelled: tuple[Row, ...]
    labels: tuple[int, ...]
    unlabelled: tuple[Row, ...]


def draws(architecture: int) -> st.SearchStrategy[Draw]:
    """All draws of an architecture, the simplest first: END alone, first label, seed 0."""
    labels = ARCHITECTURES[architecture].label_count
    return st.builds(
        Draw,
        architecture=st.just(architecture),
        seed=st.integers(0, 2**32 - 1),
        scale=st.sampled_from((0.5, 0.1, 1.0)),  # beyond, gates saturate and 1 - tanh^2 is all rounding
        beta=st.floats(0.01, 1.0),
        keep=st.sampled_from((1.0, 0.7, 0.5, 0.0)),
        labelled=_rows(*LABELLED_SHAPE),
        labels=st.tuples(*[st.integers(0, labels - 1)] * LABELLED_SHAPE[0]),
        unlabelled=_rows(*UNLABELLED_SHAPE),
    )


def _rows(size: int, time_steps: int) -> st.SearchStrategy[tuple[Row, ...]]:
    """At least one real row."""
    symbols = st.lists(st.sampled_from(SYMBOLS), max_size=time_steps - 1).map(tuple)
    return st.tuples(symbols, *[st.one_of(symbols, st.none())] * (size - 1))


def problem_of(draw: Draw) -> Problem:
    """The problem that a draw describes."""
    options = ARCHITECTURES[draw.architecture]
    base = make_problem(options, draw.architecture, f"generated-{draw.architecture}")
    generator = np.random.default_rng([draw.seed, 0x6E])
    weights = {name: generator.normal(0.0, draw.scale, value.shape) for name, value in base.weights.items()}
    assert base.labelled is not None
    assert base.unlabelled is not None
    labelled = _step(base.labelled, draw.labelled, draw.labels, draw.keep, generator)
    unlabelled = _step(base.unlabelled, draw.unlabelled, None, draw.keep, generator)
    return replace(base, weights=weights, labelled=labelled, unlabelled=unlabelled, beta=draw.beta)


def _step(
    base: Step, rows: tuple[Row, ...], labels: tuple[int, ...] | None, keep: float, generator: np.random.Generator
) -> Step:
    x = np.full_like(base.batch.x, PAD)
    for b, row in enumerate(rows):
        if row is not None:
            x[b, : len(row) + 1] = (*row, END)
    row_mask = np.array([row is not None for row in rows])
    y = np.where(row_mask, NO_LABEL if labels is None else labels, NO_LABEL).astype(np.int32)
    indices = np.where(row_mask, np.arange(len(rows)), -1).astype(np.int32)
    noise = {
        name: generator.random(v.shape) < keep if v.dtype == bool else generator.normal(size=v.shape)
        for name, v in base.noise.items()
    }
    return Step(Batch(x, y, row_mask, indices, posterior=base.batch.posterior), noise)
