"""Configurations for the data of the demonstration, chosen on rows that are never test rows."""

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
    """Peptides, antimicrobial or not, with 50 labels of each class; cut at 50 symbols, as the other class is.

    What best explains the sequences (their composition) is not what the classes are, so labels alone teach q(y|x), and
    an informative z (small beta, a decoder that is not shown half of the symbols) teaches the encoder what it reads.
    Beside it, q(y|x) is to say of a row that is read in part what it says of the whole, but not to drift towards one
    class while it teaches itself. Rows of all lengths share a batch: on development rows that did better than batches
    of one length. A hundred validation rows cannot tell the evaluations apart, so the last weights are kept unless
    earlier ones are better by more than a standard error.
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
    """Words of twelve languages, with 50 labels of each."""
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
        training=TrainingConfig(max_steps=600, batch_size=128, evaluation_interval=50, patience=0, buckets=2),
    )


def _cut_at(max_length: int) -> DataConfig:
    return DataConfig(
        max_length=max_length,
        too_long="truncate",
        validation_fraction=0.05,
    )


def peptides_classifier() -> Config:
    """Dropout and optimiser with which the classifier on the labels alone does best."""
    config = peptides()
    encoder = replace(config.model.encoder, word_dropout=0.2)
    return replace(
        config,
        model=replace(config.model, encoder=encoder, dropout=0.8),
        optimizer=replace(config.optimizer, name="adamw", learning_rate=0.0155, weight_decay=0.1),
    )


class Preset(NamedTuple):
    """Both sides of the comparison, each with the settings that did best for it.

    Args:
        ssvae: Makes the semi-supervised side's configuration.
        classifier: Makes the one from which the classifier on the labels alone takes dropout and optimiser.
    """

    ssvae: Callable[[], Config]
    classifier: Callable[[], Config]


PRESETS = {"peptides": Preset(peptides, peptides_classifier), "languages": Preset(languages, languages)}
"""By the data set's name."""
