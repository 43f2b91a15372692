"""New sequences for a label."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend
from seqssvae.config import DecodingOptions, ObjectiveConfig
from seqssvae.config.checks import check_integer
from seqssvae.data.vocabulary import END, Vocabulary
from seqssvae.errors import ConfigurationError
from seqssvae.noise import batch_seed

GENERATION_BATCH = 256
"""Most sequences generated at once."""
MOST_SEQUENCES = 10**8
"""Greatest number of sequences that are generated at once: they are kept in memory."""
LABEL_STREAM = 0x1ABE
"""The random stream of labels, apart from that of z and symbols."""


def check_generator(objective: ObjectiveConfig) -> None:
    """Check that a model has a generator.

    Raises:
        ConfigurationError: If it was trained as a classifier alone.
    """
    if objective.name == "classifier":
        raise ConfigurationError("objective.name: classifier has no generator: its decoder and z were not trained.")


class Generated(NamedTuple):
    """One generated sequence.

    Args:
        symbols: Its symbols.
        log_p: log p(x|y,z), END included: the model's own, whatever was kept from being chosen.
        ended: Whether it came to its END before the greatest length.
    """

    symbols: list[str]
    log_p: float
    ended: bool


def generate(
    backend: Backend,
    vocabulary: Vocabulary,
    label: int | Int[np.ndarray, " N"],
    count: int,
    options: DecodingOptions,
    seed: int = 0,
    source: Int[np.ndarray, " S"] | None = None,
) -> list[Generated]:
    """Generate sequences of one label, each from a z of its own drawn from p(z), or p(z|source,y).

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        label: Index of the label, or of the label of each.
        count: The number of sequences.
        options: How sequences are chosen.
        seed: Seed of z, and of the symbols where they are drawn.
        source: Symbol ids, with END, of what the sequences are made from, for a model that has sources.

    Raises:
        ConfigurationError: If the count or the seed is below 0, or the count is too large.
    """
    check_integer("the number of sequences", count, 0, MOST_SEQUENCES)
    sources = None if source is None else np.broadcast_to(source, (count, len(source)))
    return decode(backend, vocabulary, np.full(count, label, np.int32), None, options, seed, sources)


def draw_labels(
    backend: Backend,
    label_prior: Sequence[float],
    count: int,
    seed: int,
    source: Int[np.ndarray, " S"] | None = None,
) -> Int[np.ndarray, " N"]:
    """Draw labels from p(y), or from p(y|source).

    Args:
        backend: The model.
        label_prior: p(y).
        count: The number of labels.
        seed: Seed of the draw.
        source: Symbol ids, with END, of a model that has sources.

    Raises:
        ConfigurationError: If the count or the seed is below 0, or the count is too large.
    """
    check_integer("the number of sequences", count, 0, MOST_SEQUENCES)
    check_integer("seed", seed, 0)
    log_p = np.log(label_prior) if source is None else backend.classify_source(source[None])[0]
    shares = np.exp(np.asarray(log_p, float))
    generator = np.random.default_rng([seed, LABEL_STREAM])
    return generator.choice(len(shares), count, p=shares / shares.sum()).astype(np.int32)


def decode(
    backend: Backend,
    vocabulary: Vocabulary,
    y: Int[np.ndarray, " N"],
    z: Float[np.ndarray, "N Z"] | None,
    options: DecodingOptions,
    seed: int = 0,
    source: Int[np.ndarray, "N S"] | None = None,
) -> list[Generated]:
    """Generate a sequence for each label and z.

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        y: Index of each sequence's label.
        z: The latent of each; None: drawn.
        options: How sequences are chosen.
        seed: Seed of what is drawn.
        source: Symbol ids of each source, with END, for a model that has sources.

    Raises:
        ConfigurationError: If the seed is below 0.
    """
    check_integer("seed", seed, 0)
    size, generated = min(len(y), GENERATION_BATCH), list[Generated]()
    for index, start in enumerate(range(0, len(y), max(size, 1))):
        rows = np.minimum(np.arange(start, start + size), len(y) - 1)  # batches of one size: the last row fills up
        latents, sources = (None if given is None else given[rows] for given in (z, source))
        x, log_p = backend.generate(y[rows], options, batch_seed(seed, index), z=latents, source=sources)
        generated += [Generated(*shown(vocabulary, ids, score)) for ids, score in zip(x, log_p, strict=True)]
    return generated[: len(y)]


def shown(vocabulary: Vocabulary, ids: Int[np.ndarray, " T"], log_p: float) -> tuple[list[str], float, bool]:
    """The symbols of a sequence that a backend generated, its log-probability, and whether it came to its END."""
    ended = bool(np.any(ids == END))
    return vocabulary.decode(ids)[: len(ids) - 1], float(log_p), ended
