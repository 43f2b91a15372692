"""The section `optimizer`: the gradient method, its step size and clipping."""

from dataclasses import dataclass
from typing import Literal

from seqssvae.config.checks import check_integer, check_literal, check_number
from seqssvae.errors import ConfigurationError

OptimizerName = Literal["adam", "adamw", "sgd"]
LearningRateSchedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser. Gradients are scaled by clip_norm / max(norm, clip_norm), with one norm over all weights.

    Args:
        name: `adam`, `adamw` (decoupled weight decay; Loshchilov & Hutter 2019), or `sgd`.
        learning_rate: The greatest step size.
        schedule: `constant`, or falling to 0 over the training steps, `linear` or as a `cosine`.
        schedule_steps: Training steps over which the step size falls, at least as many as are taken; 0 for all that
            the run takes. A run that is resumed keeps its length unless it is given here.
        warmup_steps: Steps over which the step size rises from 0.
        clip_norm: The greatest Euclidean norm of the gradient; 0 for no clipping.
        weight_decay: Decoupled weight decay (`adamw` only).
        beta1: Decay of Adam's mean of gradients; the momentum of `sgd`.
        beta2: Decay of Adam's mean of squared gradients.
        epsilon: Added to the root of the mean of squared gradients, against division by zero.
    """

    name: OptimizerName = "adam"
    learning_rate: float = 5e-3
    schedule: LearningRateSchedule = "constant"
    schedule_steps: int = 0
    warmup_steps: int = 0
    clip_norm: float = 5.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_literal("optimizer.name", self.name, OptimizerName)
        check_number("optimizer.learning_rate", self.learning_rate, 0.0, open_low=True)
        check_literal("optimizer.schedule", self.schedule, LearningRateSchedule)
        check_integer("optimizer.schedule_steps", self.schedule_steps, 0)
        check_integer("optimizer.warmup_steps", self.warmup_steps, 0)
        check_number("optimizer.clip_norm", self.clip_norm, 0.0)
        check_number("optimizer.weight_decay", self.weight_decay, 0.0)
        if self.weight_decay and self.name != "adamw":
            raise ConfigurationError("optimizer.weight_decay is for optimizer.name: adamw, and only for it.")
        check_number("optimizer.beta1", self.beta1, 0.0, 0.9999)
        check_number("optimizer.beta2", self.beta2, 0.0, 0.999999)
        check_number("optimizer.epsilon", self.epsilon, 0.0, open_low=True)
