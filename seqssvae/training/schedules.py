"""Schedules: weights of terms, a temperature and the step size as functions of the training step."""

import math

from seqssvae.config import BetaConfig, ConsistencyConfig, OptimizerConfig, TemperatureConfig


def beta_at(beta: BetaConfig, step: int) -> float:
    """Compute the weight of the KL of z, between `beta.floor` and `beta.maximum`.

    With p = step / steps (linear) or p = 2 (step mod steps) / steps (cyclical), floor + (maximum - floor) min(p, 1).

    Args:
        beta: The schedule.
        step: The number of the training step, from 0.

    References:
        Bowman et al. 2016, Generating Sentences from a Continuous Space, section 3.1, https://arxiv.org/abs/1511.06349;
        Fu et al. 2019, Cyclical Annealing Schedule, equation 6, https://arxiv.org/abs/1903.10145.

    Example:
        >>> beta_at(BetaConfig(schedule="linear", floor=0.5, maximum=1.0, steps=4), step=2)
        0.75
    """
    if beta.schedule == "constant":
        return beta.maximum
    progress = step / beta.steps if beta.schedule == "linear" else 2 * (step % beta.steps) / beta.steps
    return min(beta.floor + (beta.maximum - beta.floor) * min(progress, 1.0), beta.maximum)


def temperature_at(temperature: TemperatureConfig, step: int) -> float:
    """Compute the temperature of `gumbel_softmax`: `maximum (floor / maximum)^(step / steps)`, and at least `floor`.

    Args:
        temperature: The schedule.
        step: The number of the training step, from 0.

    References:
        Jang et al. 2017, Categorical Reparameterization with Gumbel-Softmax, section 4, https://arxiv.org/abs/1611.01144.

    Example:
        >>> temperature_at(TemperatureConfig(maximum=1.0, floor=0.25, steps=2), step=1)
        0.5
    """
    progress = min(step / temperature.steps, 1.0)
    return max(temperature.maximum * (temperature.floor / temperature.maximum) ** progress, temperature.floor)


def consistency_at(consistency: ConsistencyConfig, step: int) -> float:
    """Compute the weight of the consistency term: `weight min(step / steps, 1)`.

    Args:
        consistency: The schedule.
        step: The number of the training step, from 0.

    References:
        Laine & Aila 2017, Temporal Ensembling, section 2.1 (who ramp up otherwise), https://arxiv.org/abs/1610.02242.

    Example:
        >>> consistency_at(ConsistencyConfig(weight=4.0, steps=8), step=2)
        1.0
    """
    return consistency.weight * (min(step / consistency.steps, 1.0) if consistency.steps else 1.0)


def learning_rate_at(optimizer: OptimizerConfig, step: int, schedule_steps: int) -> float:
    """Compute the step size of a training step.

    It rises in a straight line over the warm-up (0 would be the step before the first), is `learning_rate` at the step
    `warmup_steps`, and then is constant or falls to 0, which is reached at `schedule_steps`, after the last step.

    Args:
        optimizer: The schedule.
        step: The number of the training step, from 0.
        schedule_steps: The length of the schedule.
    """
    if step < optimizer.warmup_steps:
        return optimizer.learning_rate * (step + 1) / (optimizer.warmup_steps + 1)
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    remaining = max(schedule_steps - optimizer.warmup_steps, 1)
    progress = min((step - optimizer.warmup_steps) / remaining, 1.0)
    if optimizer.schedule == "linear":
        return optimizer.learning_rate * (1.0 - progress)
    return optimizer.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
