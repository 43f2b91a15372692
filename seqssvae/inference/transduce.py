"""Sequences made from sources, with a given label (as in inflection) or with the most probable one."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Backend, DecodingMethod
from seqssvae.config import Config
from seqssvae.data.batches import pad_sequences
from seqssvae.data.buckets import bounded_size, choose_buckets
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import END, Vocabulary
from seqssvae.inference.generate import check_search, greatest_length
from seqssvae.noise import batch_seed


class Transduced(NamedTuple):
    """The sequence made from one source.

    Args:
        symbols: Its symbols.
        label: The index of its label: the one given, or the most probable one of p(y|source).
        log_p: log p(x|source,y,z), END included.
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
    method: DecodingMethod = "greedy",
    beam_width: int = 5,
    max_length: int | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[Transduced]:
    """Make a sequence from each source.

    z is the mean of p(z|source,y), unless symbols are drawn: then it is drawn as well.

    Args:
        backend: The model.
        vocabulary: Names the symbols of sequences.
        sources: Symbol ids of each source, with END.
        y: The label of each, `NO_LABEL` where it is to be predicted.
        config: The model's configuration (batch size, buckets, greatest length).
        method: Take the most probable symbol at each step, search for the most probable sequence, or draw each symbol.
        beam_width: The number of candidates kept by `beam`.
        max_length: Most symbols of a sequence, without END; None: `data.max_length`.
        seed: Seed of what is drawn.
        temperature: Of `sample`: divides the logits of each symbol.
        top_p: Of `sample`: the most probable symbols that have this probability together are drawn from.

    Returns:
        The sequences, in the order of their sources.

    Raises:
        ConfigurationError: If the method or a number of the search is wrong.
    """
    longest = greatest_length(max_length, config)
    check_search(method, beam_width, longest, seed, temperature, top_p)
    size = bounded_size(config.training.batch_size, len(sources))
    transduced: dict[int, Transduced] = {}
    buckets = choose_buckets(sources.lengths, min(config.training.buckets, len(sources))) if len(sources) else ()
    for number, (low, high) in enumerate(zip((0, *buckets), buckets, strict=False)):
        rows = np.flatnonzero((sources.lengths > low) & (sources.lengths <= high))
        for start in range(0, len(rows), size):
            indices = rows[start : start + size]
            source = pad_sequences(sources, indices, size, high)
            labels = np.zeros(size, np.int32)
            labels[: len(indices)] = y[indices]
            if (missing := labels == NO_LABEL).any():
                labels[missing] = backend.classify_source(source).argmax(1)[missing]
            batch = labels, longest, batch_seed(seed, number, start)
            options: dict[str, Any] = {"source": source, "use_mean": method != "sample"}
            options |= {"temperature": float(temperature), "top_p": float(top_p)}
            x, log_p = backend.generate(*batch, method, beam_width, **options)
            for index, ids, label, score in zip(indices, x, labels, log_p, strict=False):  # without filler rows
                symbols = vocabulary.decode(ids)[:longest]
                transduced[int(index)] = Transduced(symbols, int(label), float(score), bool(np.any(ids == END)))
    return [transduced[index] for index in range(len(sources))]
