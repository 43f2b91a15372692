"""The embedding of a fitted estimator, and which sequences are near to each other in it."""

import numpy as np
from jaxtyping import Float

from seqssvae.estimator.fitted import FittedMixin, Sequences
from seqssvae.inference.evaluate import encode
from seqssvae.inference.neighbors import Neighbors, nearest


class EmbeddingMixin(FittedMixin):
    """Mixin of an estimator that has an embedding."""

    def transform(
        self, X: Sequences, source: Sequences | None = None, features: bool = False
    ) -> Float[np.ndarray, "N D"]:
        """Return the embedding of each sequence, the sum over y of q(y|x) loc(x, y).

        Args:
            X: Sequences: texts, or lists of symbols.
            source: The source of each, if the estimator was fitted with sources.
            features: Whether the features that q(y|x) reads are returned instead. z leaves out what the label explains,
                and a model may leave it unused: `diagnose` tells.
        """
        fitted = self._get_fitted()
        return encode(fitted.backend, fitted.encode(X, source), fitted.config, features)

    def neighbors(
        self,
        X: Sequences,
        among: Sequences,
        n: int = 5,
        source: Sequences | None = None,
        among_source: Sequences | None = None,
        features: bool = False,
    ) -> Neighbors:
        """Return the nearest of some sequences to each of others, by Euclidean distance in the embedding.

        Args:
            X: Sequences: texts, or lists of symbols.
            among: The sequences that neighbours are sought among.
            n: Number of neighbours of each.
            source: The source of each of X, if the estimator was fitted with sources.
            among_source: That of each of `among`.
            features: As of `transform`.

        Returns:
            Indices into `among` and distances, both of shape `(len(X), n)`, the nearest first.

        Raises:
            ConfigurationError: If `n` is not from 1 to the number of sequences that are sought among.
        """
        return nearest(self.transform(X, source, features), self.transform(among, among_source, features), n)
