"""Sizes of a benchmark's model and batches."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """Of a model with a bidirectional GRU encoder and a GRU decoder, one layer each.

    Args:
        labels: K.
        rows: B, rows of an optimiser step.
        steps: T.
        vocabulary: V, special symbols included.
        hidden: H of the decoder and of each direction of the encoder.
        embedding: E.
        latent: Z.
    """

    labels: int
    rows: int
    steps: int
    vocabulary: int
    hidden: int = 256
    embedding: int = 64
    latent: int = 32
