"""Sequences made from sources, with a given label (as in inflection) or with the most probable one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Backend
from seqssvae.config import Config, DecodingOptions
from seqssvae.config.checks import check_integer
from seqssvae.data.buckets import bounded_size, choose_buckets
from seqssvae.data.padding import pad_sequences
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import Vocabulary
from seqssvae.inference.generate import shown
from seqssvae.noise import batch_seed


class Transduced(NamedTuple):
    """The sequence made from one source.

    Args:
        symbols: Its symbols.
        label: The index of its label: the one given, or the most probable one of p(y|source).
        log_p: log p(x|source,y,z), END included: the model's own, whatever was kept from being chosen.
        ended: Whether it came to its END before the greatest length.
    """

    symbols: list[str]
    label: int
    log_p: float
    ended: bool


def transduce(
    backend: Backend,
    vocabulary: Vocabulary,
    sources: RaggedArray,
    y: Int[np.ndarray, " N"],
    config: Config,
    options: DecodingOptions,
    seed: int = 0,
) -> list[Transduced]:
    """Make a sequence from each source.

    z is the mean of p(z|source,y), unless symbols are drawn: then it is drawn as well.

    Args:
        backend: The model.
        vocabulary: Names the symbols of sequences.
        sources: Symbol ids of each source, with END.
        y: The label of each, `NO_LABEL` where it is to be predicted.
        config: The model's configuration (batch size, buckets, greatest length).
        options: How sequences are chosen.
        seed: Seed of what is drawn.

    Returns:
        The sequences, in the order of their sources.

    Raises:
        ConfigurationError: If the seed is below 0.
    """
    check_integer("seed", seed, 0)
    size = bounded_size(config.training.batch_size, len(sources))
    transduced: dict[int, Transduced] = {}
    buckets = choose_buckets(sources.lengths, min(config.training.buckets, len(sources))) if len(sources) else ()
    for number, (low, high) in enumerate(zip((0, *buckets), buckets, strict=False)):
        rows = np.flatnonzero((sources.lengths > low) & (sources.lengths <= high))
        for start in range(0, len(rows), size):
            indices = rows[start : start + size]
            source = pad_sequences(sources.take(indices), size, high, indices)
            labels = np.zeros(size, np.int32)
            labels[: len(indices)] = y[indices]
            if (missing := labels == NO_LABEL).any():
                labels[missing] = backend.classify_source(source).argmax(1)[missing]
            use_mean = options.method != "sample"
            given = labels, options, batch_seed(seed, number, start)
            x, log_p = backend.generate(*given, source=source, use_mean=use_mean)
            for index, ids, label, score in zip(indices, x, labels, log_p, strict=False):  # without filler rows
                symbols, of_model, ended = shown(vocabulary, ids, score)
                transduced[int(index)] = Transduced(symbols, int(label), of_model, ended)
    return [transduced[index] for index in range(len(sources))]
