"""What is drawn at random in one evaluation of the objective, and in which shape.

Noise is data: a twin draws it on its device from the run's seed, a test or the other twin may inject it. It is indexed
by label, never by the place that a label has in a computation, and the masks of the decoder's input are shared by all
labels.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from seqssvae.config import ModelConfig, ObjectiveConfig
from seqssvae.parameters import feature_size, source_feature_size

SAMPLED = ("top_k", "gumbel_softmax", "score_function")
"""Estimators that draw labels."""


class NoiseSpec(NamedTuple):
    """How one entry of the noise is drawn.

    Args:
        kind: Standard normal values, standard Gumbel values, or booleans that are True (keep) with probability `keep`.
        shape: Shape of the array.
        keep: Probability of True; 1 for the others.
    """

    kind: Literal["normal", "gumbel", "keep"]
    shape: tuple[int, ...]
    keep: float = 1.0


def noise_specs(
    model: ModelConfig,
    label_count: int | None,
    rows: int,
    time_steps: int,
    training: bool = True,
    objective: ObjectiveConfig | None = None,
    source_steps: int = 0,
) -> dict[str, NoiseSpec]:
    """Name, shape and distribution of all that is drawn for one batch.

    Args:
        model: The networks.
        label_count: K where y is missing, None where it is observed.
        rows: B.
        time_steps: T.
        training: Whether dropout and word dropout are on.
        objective: Says whether labels are drawn, and how many draws there are of each row; None: none, and one.
        source_steps: S, time steps of the sources; 0 where there are none.

    Returns:
        `z`, of shape `(K, B, Z)` or `(B, Z)`; where missing labels are drawn `y`, of shape `(B, K)`: with this noise
        added to log q(y|x), the greatest is the label drawn (Gumbel 1954); `P` draws (`num_particles`) of these two
        have a dimension of theirs in front; with dropout `features.0` (and `.1` for separate encoders) of shape
        `(B, F)`, `encoder.embedding.0` (and `.1`) of shape `(B, T, E)` unless the encoder is a convolution,
        `decoder.embedding` of shape `(B, T, E)`, and of sources `source.embedding` of shape `(B, S, E)` and
        `source.features` of the size of its features; with word dropout `word_dropout`, and with that of the encoder
        `encoder.word_dropout`, of shape `(B, T)`. An entry whose rate is 0 is left out.
    """
    labels = () if label_count is None else (label_count,)
    particles = () if objective is None or objective.num_particles == 1 else (objective.num_particles,)
    specs = {"z": NoiseSpec("normal", (*particles, *labels, rows, model.latent_size))}
    if label_count is not None and objective is not None and objective.gradient_estimator in SAMPLED:
        specs["y"] = NoiseSpec("gumbel", (*particles, rows, label_count))
    if training and model.dropout > 0:
        keep = 1.0 - model.dropout
        for tower in range(2 if model.encoder.separate else 1):
            shape = (rows, time_steps, model.encoder.embedding_size)
            if model.encoder.kind != "convolution":
                specs[f"encoder.embedding.{tower}"] = NoiseSpec("keep", shape, keep)
            specs[f"features.{tower}"] = NoiseSpec("keep", (rows, feature_size(model)), keep)
        if model.decoder.context != 0:
            specs["decoder.embedding"] = NoiseSpec("keep", (rows, time_steps, model.decoder.embedding_size), keep)
        if source_steps:
            shape = (rows, source_steps, model.encoder.embedding_size)
            specs["source.embedding"] = NoiseSpec("keep", shape, keep)
            specs["source.features"] = NoiseSpec("keep", (rows, source_feature_size(model)), keep)
    if training and model.word_dropout > 0 and model.decoder.context != 0:
        specs["word_dropout"] = NoiseSpec("keep", (rows, time_steps), 1.0 - model.word_dropout)
    if training and model.encoder.word_dropout > 0:
        specs["encoder.word_dropout"] = NoiseSpec("keep", (rows, time_steps), 1.0 - model.encoder.word_dropout)
    return specs


def row_axis(name: str, dimensions: int) -> int:
    """Which dimension of an entry of the noise, of so many dimensions, is that of the rows."""
    return dimensions - 2 if name in ("z", "y") else 0


def draw_noise(specs: Mapping[str, NoiseSpec], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw with NumPy what `noise_specs` lists, in float64, to give it to a twin or to both."""
    noise: dict[str, np.ndarray] = {}
    for name, spec in specs.items():
        if spec.kind == "keep":
            noise[name] = generator.random(spec.shape) < spec.keep
        else:
            noise[name] = (
                generator.normal(size=spec.shape) if spec.kind == "normal" else generator.gumbel(size=spec.shape)
            )
    return noise


def batch_seed(seed: int, *place: int) -> int:
    """Compute the seed of one batch's noise, since a backend's noise depends on a seed and the batch's shape alone.

    Args:
        seed: The seed of all batches.
        place: Where the batch stands among them: one number, or several that are counted separately.

    Returns:
        A number of 31 bits.
    """
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0] >> 1)
