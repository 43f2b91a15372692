"""Which rows are nearest to others in the embedding."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.config.checks import check_integer


class Neighbors(NamedTuple):
    """The nearest rows of each row, the nearest first.

    Args:
        indices: Their indices.
        distances: How far they are: Euclidean distances of embeddings.
    """

    indices: Int[np.ndarray, "N M"]
    distances: Float[np.ndarray, "N M"]


def nearest(queries: Float[np.ndarray, "N Z"], among: Float[np.ndarray, "R Z"], count: int) -> Neighbors:
    """Find the nearest embeddings, with scikit-learn's `NearestNeighbors`.

    Args:
        queries: Embeddings of the rows whose neighbours are wanted.
        among: Embeddings of the rows that they are sought among.
        count: The number of neighbours of each.

    Raises:
        ConfigurationError: If the number is not from 1 to that of the rows.
    """
    from sklearn.neighbors import NearestNeighbors  # takes a second to import

    check_integer("the number of neighbours", count, 1, len(among))
    distances, indices = NearestNeighbors(n_neighbors=count).fit(among).kneighbors(queries)
    return Neighbors(indices, distances)
