"""Configurations for the data sets of the demonstration. They were chosen on rows that are never test rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from seqssvae.config import (
    BetaConfig,
    Config,
    ConsistencyConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainingConfig,
)


def peptides() -> Config:
    """Return the configuration for peptides, antimicrobial or not, with 50 labels of each class.

    Sequences are cut at 50 symbols, since those of one class are never longer. What best explains the sequences (their
    composition) is not what the classes are. So q(y|x) learns from labels alone, while an informative z (a small beta,
    and a decoder from which half of the symbols are hidden) trains the encoder. The consistency term asks q(y|x) to say
    of a row with hidden symbols what it says of the whole row, and its alignment keeps q(y|x) from drifting towards one
    class. Rows of all lengths share a batch: on development rows that did better than batches of one length. A hundred
    validation rows cannot tell the evaluations apart, so the last weights are kept unless earlier ones are better by
    more than a standard error.
    """
    return Config(
        data=_cut_at(max_length=50),
        model=ModelConfig(
            latent_size=32,
            encoder=EncoderConfig(embedding_size=32, hidden_size=64, pooling="last", word_dropout=0.15),
            decoder=DecoderConfig(embedding_size=16, hidden_size=32, conditioning="output"),
            dropout=0.5,
            word_dropout=0.5,
        ),
        objective=ObjectiveConfig(
            alpha=50.0,
            beta=BetaConfig(schedule="constant", maximum=0.1),
            labelled_ratio=0.2,
            label_gradient=0.0,
            consistency=ConsistencyConfig(weight=8.0, aligned=True),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="cosine", clip_norm=5.0),
        training=TrainingConfig(
            epochs=20,
            max_steps=600,
            batch_size=64,
            labelled_batch_size=50,
            evaluation_interval=200,
            patience=0,
            standard_errors=1.0,
            buckets=1,
        ),
    )


def languages() -> Config:
    """Return the configuration for words of twelve languages, with 50 labels of each language."""
    return Config(
        data=_cut_at(max_length=20),
        model=ModelConfig(
            latent_size=16,
            encoder=EncoderConfig(embedding_size=32, hidden_size=64, pooling="max"),
            decoder=DecoderConfig(embedding_size=16, hidden_size=64, conditioning="output"),
            dropout=0.3,
        ),
        objective=ObjectiveConfig(alpha=50.0, beta=BetaConfig(schedule="constant")),
        optimizer=OptimizerConfig(learning_rate=1e-2, clip_norm=5.0),
        training=TrainingConfig(
            max_steps=600, batch_size=128, evaluation_interval=50, patience=0, buckets=2, standard_errors=0.0
        ),
    )


def _cut_at(max_length: int) -> DataConfig:
    return DataConfig(
        max_length=max_length,
        too_long="truncate",
        validation_fraction=0.05,
    )


def peptides_classifier() -> Config:
    """Return the configuration with whose dropout and optimiser the classifier on the peptides' labels does best."""
    config = peptides()
    encoder = replace(config.model.encoder, word_dropout=0.2)
    return replace(
        config,
        model=replace(config.model, encoder=encoder, dropout=0.8),
        optimizer=replace(config.optimizer, name="adamw", learning_rate=0.0155, weight_decay=0.1),
    )


class Preset(NamedTuple):
    """The configurations of both models that the demonstration compares, each with the settings that did best for it.

    Args:
        ssvae: Returns the configuration of the semi-supervised model.
        classifier: Returns the configuration from which the classifier on labels alone takes dropout and optimiser.
    """

    ssvae: Callable[[], Config]
    classifier: Callable[[], Config]


PRESETS = {"peptides": Preset(peptides, peptides_classifier), "languages": Preset(languages, languages)}
"""The presets, by name of the data set."""
