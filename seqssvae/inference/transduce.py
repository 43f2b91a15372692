"""From sources to the sequences made of them: with a given label (inflection), or with the most probable one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL, Backend, DecodingMethod
from seqssvae.config import Config
from seqssvae.data.batches import buckets, padded
from seqssvae.data.vocabulary import END, Vocabulary


class Transduced(NamedTuple):
    """What was made of one source.

    Args:
        symbols: The sequence.
        label: Index of its label: the one given, or the most probable one, of p(y|source).
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
    sources: Sequence[Int[np.ndarray, " _"]],
    y: Int[np.ndarray, " N"],
    config: Config,
    method: DecodingMethod = "greedy",
    beam_width: int = 5,
    max_length: int | None = None,
    seed: int = 0,
) -> list[Transduced]:
    """A sequence for each source, in their order.

    z is the mean of p(z|source,y), unless symbols are drawn: then it is drawn as well.

    Args:
        backend: The model.
        vocabulary: Names the symbols of sequences.
        sources: Ids of each source, with END.
        y: Label of each, `NO_LABEL` where it is to be predicted.
        config: The model's configuration (batch size, buckets, greatest length).
        method: Take the most probable symbol at each step, search for the most probable sequence, or draw each symbol.
        beam_width: Number of candidates kept by `beam`.
        max_length: Most symbols of a sequence, without END; None: `data.max_length`.
        seed: Of what is drawn.
    """
    lengths = np.array([len(source) for source in sources])
    size, longest = config.training.batch_size, max_length or config.data.max_length
    found: dict[int, Transduced] = {}
    steps = buckets(lengths, min(config.training.buckets, len(sources))) if len(sources) else ()
    for number, (low, high) in enumerate(zip((0, *steps), steps, strict=False)):
        rows = np.flatnonzero((lengths > low) & (lengths <= high))
        for start in range(0, len(rows), size):
            indices = rows[start : start + size]
            source = padded(sources, indices, size, high)
            labels = np.zeros(size, np.int32)
            labels[: len(indices)] = y[indices]
            if (missing := labels == NO_LABEL).any():
                labels[missing] = backend.classify_source(source).argmax(1)[missing]
            batch_seed = int(np.random.SeedSequence([seed, number, start]).generate_state(1)[0] >> 1)
            drawn = method == "sample"
            x, log_p = backend.generate(
                labels, longest, batch_seed, method, beam_width, source=source, use_mean=not drawn
            )
            for index, ids, label, score in zip(indices, x, labels, log_p, strict=False):  # without filler rows
                symbols = vocabulary.decode(ids)[:longest]
                found[int(index)] = Transduced(symbols, int(label), float(score), bool(np.any(ids == END)))
    return [found[index] for index in range(len(sources))]
