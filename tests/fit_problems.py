"""Small problems for the training loop: rows of two classes, their configuration, the double that learns them."""

import dataclasses

import numpy as np
from fake_backend import FakeBackend

from seqssvae.backend import NO_LABEL, Dimensions
from seqssvae.config import Config, DecoderConfig, EncoderConfig, ModelConfig, OptimizerConfig
from seqssvae.data.corpus import Corpus

DIMENSIONS = Dimensions(vocabulary_size=8, label_prior=(0.5, 0.5))

MODEL = ModelConfig(latent_size=2, encoder=EncoderConfig(embedding_size=3, hidden_size=2), decoder=DecoderConfig(3, 2))


def make_corpus(rows: int, labelled: int, seed: int = 0) -> Corpus:
    """Rows of two classes: class 0 is mostly of the symbols 4 and 5, class 1 of 6 and 7."""
    generator = np.random.default_rng(seed)
    y = np.arange(rows, dtype=np.int32) % 2
    sequences = []
    for label in y:
        own, other = ((4, 5), (6, 7)) if label == 0 else ((6, 7), (4, 5))
        symbols = np.where(generator.random((generator.integers(3, 9), 1)) < 0.75, own, other)
        sequences.append(np.array([*symbols[np.arange(len(symbols)), generator.integers(0, 2, len(symbols))], 3]))
    y[labelled:] = NO_LABEL
    return Corpus.from_sequences(sequences, y)


def make_config(**training: object) -> Config:
    settings = {
        "epochs": 4,
        "batch_size": 8,
        "labelled_batch_size": 4,
        "buckets": 2,
        "patience": 0,
        "min_steps": 0,
        **training,
    }
    config = Config(model=MODEL, optimizer=OptimizerConfig(learning_rate=0.05))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **settings))


def with_objective(config: Config, **fields: object) -> Config:
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, **fields))


def build(config: Config) -> FakeBackend:
    return FakeBackend(config, DIMENSIONS)


TRAINING, VALIDATION = make_corpus(60, 12), make_corpus(20, 20, seed=1)


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
