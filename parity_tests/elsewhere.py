"""Models for the tests of what would go wrong on a device that is not here."""

from dataclasses import replace
from functools import cache

import numpy as np

from parity_tests.problems import VOCABULARY_SIZE, Options, Problem, make_problem
from seqssvae.backend import NO_LABEL, Batch
from seqssvae.config import OptimizerConfig
from seqssvae.data.corpus import Corpus
from seqssvae.data.padding import pad
from seqssvae.data.vocabulary import END, SPECIALS

Case = tuple[str, str, int]
"""Cell, conditioning (with or without `WITH_SOURCE` behind it), layers."""
WITH_SOURCE = " with a source"
METHODS = ("sample", "greedy", "beam")


@cache
def problem_of(case: Case, optimizer: str = "adamw") -> Problem:
    """Labelled and unlabelled rows with all kinds of noise, in float32."""
    cell, conditioning, layers = case
    options = Options(
        cell=cell,
        conditioning=conditioning.removesuffix(WITH_SOURCE),
        source=conditioning.endswith(WITH_SOURCE),
        encoder_layers=layers,
        decoder_layers=layers,
        dropout=0.3,
        word_dropout=0.4,
        encoder_word_dropout=0.4,
        consistency=0.7,
        aligned=True,
    )
    problem = make_problem(options, seed=13, name="elsewhere", optimizer=OptimizerConfig(name=optimizer))
    training = replace(problem.config.training, precision="float32")
    return replace(problem, config=replace(problem.config, training=training))


def random_sequences(lengths: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A sequence of each of these lengths, END included."""
    return tuple(np.append(generator.integers(len(SPECIALS), VOCABULARY_SIZE, n - 1), END) for n in lengths)


def random_batch(
    size: int, time_steps: int, generator: np.random.Generator, observed: bool = False, source: bool = False
) -> Batch:
    """Any number of rows of any lengths, with any labels, in a batch of this shape."""
    lengths = generator.integers(1, time_steps + 1, generator.integers(1, size + 1))
    y = generator.integers(3, size=len(lengths)) if observed else np.full(len(lengths), NO_LABEL)
    sequences = random_sequences(lengths, generator)
    corpus = Corpus.from_sequences(sequences, y, sequences[::-1] if source else None)
    return pad(corpus, np.arange(len(lengths)), size, time_steps)
