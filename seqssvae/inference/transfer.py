"""Sequences made of rows' latents: a row with its label changed, and what lies between two rows.

z is held at a mean of q(z|x,y), so that what is decoded differs from the row, or from its neighbour, in what the label
says alone, or in a step of z.
"""

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import NO_LABEL, Backend
from seqssvae.config import Config, DecodingOptions
from seqssvae.config.checks import check_integer
from seqssvae.data.corpus import Corpus
from seqssvae.data.padding import pad_sequences
from seqssvae.data.vocabulary import Vocabulary
from seqssvae.errors import NonFiniteError
from seqssvae.inference.evaluate import corpus_batches, predict_proba
from seqssvae.inference.generate import Generated, decode
from seqssvae.inference.per_row import latent_means

MOST_STEPS = 10_000
"""Most sequences between two rows."""


def relabel(
    backend: Backend,
    vocabulary: Vocabulary,
    corpus: Corpus,
    label: int,
    config: Config,
    options: DecodingOptions,
    seed: int = 0,
) -> list[Generated]:
    """Decode each row's z under another label: z is the mean of q(z|x,y) at the row's own y.

    Where z holds what the label does not say, the result is what the row would be, were it of that label (Kingma et al.
    2014, Semi-supervised Learning with Deep Generative Models, section 4.2 and figure 1, "analogies",
    https://arxiv.org/abs/1406.5298).

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        corpus: The rows, with their own labels; where one is missing, the most probable label by q(y|x) is taken.
        label: Index of the other label.
        config: The model's configuration.
        options: How sequences are chosen.
        seed: Seed of what is drawn.

    Returns:
        A sequence for each row, in the order of the corpus.

    Raises:
        ConfigurationError: If the seed is below 0.
        NonFiniteError: If the model gives a row a z that is not finite.
    """
    z = own_latents(backend, corpus, config)
    y = np.full(len(corpus), label, np.int32)
    return decode(backend, vocabulary, y, z, options, seed, _sources(corpus))


def interpolate(
    backend: Backend,
    vocabulary: Vocabulary,
    ends: Corpus,
    label: int,
    count: int,
    config: Config,
    options: DecodingOptions,
    seed: int = 0,
) -> list[Generated]:
    """Decode, under one label, points at equal distances on the straight line from one row's z to another's.

    The line is straight, as of Bowman et al. 2016 (Generating Sentences from a Continuous Space,
    https://arxiv.org/abs/1511.06349). A spherical one (White 2016, Sampling Generative Networks,
    https://arxiv.org/abs/1609.04468) keeps to the shell where *draws* of a Normal of many dimensions are; the ends here
    are *means* of q(z|x,y), which lie within it, all at 0 where z says nothing, and where no angle is defined.

    Args:
        backend: The model.
        vocabulary: Names the symbols.
        ends: Two rows; of their labels no use is made. A model that has sources decodes all with the first one's.
        label: Index of the label under which both rows are encoded, and all is decoded.
        count: The number of sequences, those of the ends included.
        config: The model's configuration.
        options: How sequences are chosen.
        seed: Seed of what is drawn.

    Returns:
        The sequences, from that of the first row's z to that of the second's.

    Raises:
        ConfigurationError: If the count is below 2, or the seed below 0.
        NonFiniteError: If the model gives a row a z that is not finite.
    """
    check_integer("the number of sequences between two rows, both included,", count, 2, MOST_STEPS)
    first, last = own_latents(backend, ends.with_labels(np.full(2, label)), config)
    share = np.linspace(0, 1, count, dtype=first.dtype)[:, None]
    source = None if (sources := _sources(ends)) is None else np.broadcast_to(sources[0], (count, sources.shape[1]))
    y, z = np.full(count, label, np.int32), (1 - share) * first + share * last
    return decode(backend, vocabulary, y, z, options, seed, source)


def own_latents(backend: Backend, corpus: Corpus, config: Config) -> Float[np.ndarray, "N Z"]:
    """The mean of q(z|x,y) of each row at its label, or at its most probable one where that is missing.

    Raises:
        NonFiniteError: If it is not finite.
    """
    y = corpus.y.copy()
    if (missing := y == NO_LABEL).any():
        y[missing] = predict_proba(backend, corpus, config).argmax(axis=1)[missing]
    z = latent_means(backend, corpus_batches(corpus, config), y)
    if len(rows := np.flatnonzero(~np.isfinite(z).all(axis=1))):
        raise NonFiniteError(f"the mean of q(z|x,y) is not finite in rows {corpus.places(rows)}")
    return z


def _sources(corpus: Corpus) -> Int[np.ndarray, "N S"] | None:
    """All sources, padded to one length."""
    if corpus.sources is None:
        return None
    sources = corpus.sources.loaded()
    return pad_sequences(sources, len(sources), int(sources.lengths.max(initial=0)))
