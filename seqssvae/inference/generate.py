"""New sequences for a label."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend, DecodingMethod
from seqssvae.config import Config, ObjectiveConfig
from seqssvae.config.checks import check_integer, check_literal, check_number
from seqssvae.data.vocabulary import END, Vocabulary
from seqssvae.errors import ConfigurationError
from seqssvae.noise import batch_seed

GENERATION_BATCH = 256
"""Most sequences generated at once."""
MOST_SYMBOLS = 10_000
"""Most symbols of a generated sequence where no number is given, however great `data.max_length` is."""
LABEL_STREAM = 0x1ABE
"""The random stream of labels, apart from that of z and symbols."""
LONGEST_SEARCH, MOST_CANDIDATES = 100_000, 1000
"""Most symbols of a generated sequence that may be asked for, and most candidates of a beam search."""


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
        log_p: log p(x|y,z), END included.
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
    max_length: int,
    seed: int = 0,
    method: DecodingMethod = "sample",
    beam_width: int = 5,
    source: Int[np.ndarray, " S"] | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[Generated]:
    """Generate sequences of one label, each from a z of its own drawn from p(z), or p(z|source,y).

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        label: Index of the label, or of the label of each.
        count: The number of sequences.
        max_length: Most symbols of a sequence, without END.
        seed: Seed of z, and of the symbols where they are drawn.
        method: Draw each symbol, take the most probable one, or search the most probable sequence.
        beam_width: The number of candidates kept by `beam`.
        source: Symbol ids, with END, of what the sequences are made from, for a model that has sources.
        temperature: Of `sample`: divides the logits of each symbol.
        top_p: Of `sample`: the most probable symbols that have this probability together are drawn from.

    Raises:
        ConfigurationError: If the count is below 0, or the method or a number of the search is wrong.
    """
    check_integer("the number of sequences", count, 0)
    sources = None if source is None else np.broadcast_to(source, (count, len(source)))
    y, search = np.full(count, label, np.int32), (max_length, seed, method, beam_width)
    return decode(backend, vocabulary, y, None, *search, sources, temperature, top_p)


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
        ConfigurationError: If the count or the seed is below 0.
    """
    check_integer("the number of sequences", count, 0)
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
    max_length: int,
    seed: int = 0,
    method: DecodingMethod = "greedy",
    beam_width: int = 5,
    source: Int[np.ndarray, "N S"] | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[Generated]:
    """Generate a sequence for each label and z; other arguments are those of `generate`.

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        y: Index of each sequence's label.
        z: The latent of each; None: drawn.
        max_length: Most symbols of a sequence, without END.
        seed: Seed of what is drawn.
        method: How symbols are chosen.
        beam_width: Of `beam`.
        source: Symbol ids of each source, with END, for a model that has sources.
        temperature: Of `sample`.
        top_p: Of `sample`.

    Raises:
        ConfigurationError: If the method or a number of the search is wrong.
    """
    check_search(method, beam_width, max_length, seed, temperature, top_p)
    size, generated = min(len(y), GENERATION_BATCH), list[Generated]()
    for index, start in enumerate(range(0, len(y), max(size, 1))):
        rows = np.minimum(np.arange(start, start + size), len(y) - 1)  # batches of one size: the last row fills up
        x, log_p = backend.generate(
            y[rows],
            max_length,
            batch_seed(seed, index),
            method=method,
            beam_width=beam_width,
            z=None if z is None else z[rows],
            source=None if source is None else source[rows],
            temperature=float(temperature),
            top_p=float(top_p),
        )
        for ids, score in zip(np.asarray(x), np.asarray(log_p), strict=True):
            ended = bool(np.any(ids == END))
            generated.append(Generated(vocabulary.decode(ids)[:max_length], float(score), ended))
    return generated[: len(y)]


def greatest_length(max_length: int | None, config: Config) -> int:
    """Return the most symbols of a generated sequence: the number given, or as in training."""
    return min(config.data.max_length, MOST_SYMBOLS) if max_length is None else max_length


def check_search(
    method: str, beam_width: int, max_length: int, seed: int, temperature: float = 1.0, top_p: float = 1.0
) -> None:
    """Check how sequences are to be decoded.

    Args:
        method: One of `DecodingMethod`.
        beam_width: The number of candidates kept by `beam`.
        max_length: Most symbols of a sequence, without END.
        seed: Seed of what is drawn.
        temperature: Of `sample`.
        top_p: Of `sample`.

    Raises:
        ConfigurationError: If one of them is wrong.
    """
    check_literal("method", method, DecodingMethod)
    check_integer("beam_width", beam_width, 1, MOST_CANDIDATES)
    check_integer("max_length", max_length, 1, LONGEST_SEARCH)
    check_integer("seed", seed, 0)
    check_steering(method, temperature, top_p)


def check_steering(
    method: str, temperature: float, top_p: float, names: tuple[str, str] = ("temperature", "top_p")
) -> None:
    """Check temperature and `top_p`, which are of use where symbols are drawn.

    Args:
        method: One of `DecodingMethod`.
        temperature: Above 0.
        top_p: Above 0, at most 1.
        names: What the two are called in messages.

    Raises:
        ConfigurationError: If one is out of its bounds, or is other than 1 where no symbol is drawn.
    """
    check_number(names[0], temperature, 0, open_low=True)
    check_number(names[1], top_p, 0, 1, open_low=True)
    for name, value in zip(names, (temperature, top_p), strict=True):
        if value != 1 and method != "sample":
            raise ConfigurationError(f"{name} is for the method sample alone; leave it out with {method}.")
