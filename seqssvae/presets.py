"""Configurations for the data of the demonstration, chosen on rows that are never test rows."""

from collections.abc import Callable, Mapping

from seqssvae.config import (
    BetaConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainingConfig,
)


def peptides() -> Config:
    """Peptides, antimicrobial or not, with 50 labels of each class; cut at 50 symbols, as the other class is."""
    return Config(
        data=_few_labels(max_length=50),
        model=ModelConfig(
            latent_size=4,
            encoder=EncoderConfig(embedding_size=32, hidden_size=64, pooling="max"),
            decoder=DecoderConfig(embedding_size=16, hidden_size=32, conditioning="output"),
            dropout=0.3,
        ),
        objective=ObjectiveConfig(alpha=50.0, beta=BetaConfig(schedule="constant")),
        optimizer=OptimizerConfig(learning_rate=1e-2, clip_norm=5.0),
        training=TrainingConfig(max_steps=300, batch_size=128, evaluation_interval=30, patience=0, buckets=2),
    )


def languages() -> Config:
    """Words of twelve languages, with 50 labels of each."""
    return Config(
        data=_few_labels(max_length=20),
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


def _few_labels(max_length: int) -> DataConfig:
    return DataConfig(
        max_length=max_length,
        too_long="truncate",
        labels_per_class=50,
        validation_fraction=0.05,
        validation_labels_per_class=50,
    )


PRESETS: Mapping[str, Callable[[], Config]] = {"peptides": peptides, "languages": languages}
"""By the data set's name."""
