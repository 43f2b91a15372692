"""The embedding of a fitted estimator, and which sequences are near to each other in it."""

import sys
from importlib import import_module
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from seqssvae.errors import ConfigurationError, MissingPackageError
from seqssvae.estimator.fitted import FittedMixin, Sequences
from seqssvae.inference.evaluate import encode
from seqssvae.inference.neighbors import Neighbors, nearest

CONTAINERS = ("default", "pandas", "polars")


class EmbeddingMixin(FittedMixin):
    """Mixin of an estimator that has an embedding."""

    def transform(self, X: Sequences, source: Sequences | None = None, features: bool = False) -> Any:
        """Return the embedding of each sequence, the sum over y of q(y|x) loc(x, y).

        Args:
            X: Sequences: texts, or lists of symbols.
            source: The source of each, if the estimator was fitted with sources.
            features: Whether the features that q(y|x) reads are returned instead. z leaves out what the label explains,
                and a model may leave it unused: `diagnose` tells.

        Returns:
            An array of shape `(N, D)`, or a frame where `set_output` says so.
        """
        return self._in_container(self._embedding(X, source, features), X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of `transform`, as scikit-learn has them: the class's, and a number.

        Args:
            input_features: Has no effect, since sequences have no columns; scikit-learn passes it.
        """
        return self._feature_names(self._get_fitted().config.model.latent_size)

    def set_output(self, *, transform: str | None = None) -> Self:
        """Say what `transform` and `fit_transform` return.

        Args:
            transform: `default` for an array, `pandas` or `polars` for a frame; None to leave it as it is. Without any,
                scikit-learn's own setting counts (`sklearn.set_config`).

        Returns:
            The estimator itself.

        Raises:
            ConfigurationError: If it is something else.
        """
        if transform is not None:
            _check_container(transform)
            self._sklearn_output_config = {"transform": transform}  # scikit-learn's name, so that copies have it too
        return self

    def _embedding(self, X: Sequences, source: Sequences | None, features: bool) -> Float[np.ndarray, "N D"]:
        fitted = self._get_fitted()
        return encode(fitted.backend, fitted.encode(X, source), fitted.config, features)

    def _feature_names(self, size: int) -> np.ndarray:
        return np.array([f"{type(self).__name__.lower()}{number}" for number in range(size)], dtype=object)

    def _in_container(self, embedding: Float[np.ndarray, "N D"], X: Sequences) -> Any:
        kind = getattr(self, "_sklearn_output_config", {}).get("transform") or _global_container()
        if kind == "default":
            return embedding
        _check_container(kind)
        try:
            library = import_module(kind)
        except ModuleNotFoundError as error:
            text = f"Frames of {kind} need {kind}, which is not installed: pip install {kind}."
            raise MissingPackageError(text) from error
        names = self._feature_names(embedding.shape[1])
        if kind == "polars":
            return library.DataFrame(embedding, schema=names.tolist(), orient="row")
        index = X.index if isinstance(X, (library.Series, library.DataFrame)) else None
        return library.DataFrame(embedding, columns=names, index=index)

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
        return nearest(self._embedding(X, source, features), self._embedding(among, among_source, features), n)


def _global_container() -> str:
    """What scikit-learn is set to have transformers return; whoever set it has loaded it."""
    sklearn = sys.modules.get("sklearn")
    return "default" if sklearn is None else sklearn.get_config()["transform_output"]


def _check_container(kind: Any) -> None:
    if kind not in CONTAINERS:
        raise ConfigurationError(f"transform must be one of {', '.join(CONTAINERS)}, not {kind!r}.")
