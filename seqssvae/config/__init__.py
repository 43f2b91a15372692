"""The configuration: frozen dataclasses, which are validated on construction.

Every class checks its own fields and names a wrong one by its full path (`model.latent_size`), so that an error means
the same from Python, from YAML and from the command line. Sizes are counts, rates and probabilities are fractions of 1,
and lengths count symbols without END.
"""

from dataclasses import dataclass, field

from seqssvae.config.data import DataConfig, FileFormat, TooLong
from seqssvae.config.decoding import DecodingMethod, DecodingOptions
from seqssvae.config.model import (
    CellName,
    Conditioning,
    DecoderConfig,
    EncoderConfig,
    EncoderKind,
    LabelPrior,
    ModelConfig,
    Pooling,
)
from seqssvae.config.objective import (
    BaselineName,
    Batching,
    BetaConfig,
    BetaSchedule,
    ConsistencyConfig,
    GradientEstimatorName,
    Objective,
    ObjectiveConfig,
    PosteriorName,
    TemperatureConfig,
    has_consistency,
    has_distillation,
    uses_unlabelled,
)
from seqssvae.config.optimizer import LearningRateSchedule, OptimizerConfig, OptimizerName
from seqssvae.config.training import Precision, StoppingMetric, TrainingConfig, weight_type

__all__ = [
    "BaselineName",
    "Batching",
    "BetaConfig",
    "BetaSchedule",
    "CellName",
    "Conditioning",
    "Config",
    "ConsistencyConfig",
    "DataConfig",
    "DecoderConfig",
    "DecodingMethod",
    "DecodingOptions",
    "EncoderConfig",
    "EncoderKind",
    "FileFormat",
    "GradientEstimatorName",
    "LabelPrior",
    "LearningRateSchedule",
    "ModelConfig",
    "Objective",
    "ObjectiveConfig",
    "OptimizerConfig",
    "OptimizerName",
    "Pooling",
    "PosteriorName",
    "Precision",
    "StoppingMetric",
    "TemperatureConfig",
    "TooLong",
    "TrainingConfig",
    "has_consistency",
    "has_distillation",
    "uses_unlabelled",
    "weight_type",
]


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run.

    Args:
        data: Where the rows are and how they are read.
        model: The networks.
        objective: The loss that is minimised.
        optimizer: The optimiser.
        training: How training proceeds.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
