"""What a fitted estimator writes: new sequences of a label, and sequences made of sources."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from seqssvae.backend import NO_LABEL, DecodingMethod
from seqssvae.data.in_memory import read_labels
from seqssvae.errors import DataError, RunError
from seqssvae.estimator.fitted import FittedModel, Sequences
from seqssvae.inference.evaluate import generate, greatest_length
from seqssvae.inference.transduce import transduce


class GenerationMixin:
    """Mixin of an estimator that has a generator.

    Attributes:
        classes_: The labels, sorted, as they were given.
        fitted_: What training left.
    """

    classes_: np.ndarray
    fitted_: FittedModel
    missing: Hashable

    def transduce(
        self,
        source: Sequences,
        y: Iterable[Any] | None = None,
        method: DecodingMethod = "greedy",
        beam_width: int = 5,
        max_length: int | None = None,
        seed: int = 0,
    ) -> list[Any]:
        """Return the sequence that is made of each source, in the form in which X was given to `fit`.

        Args:
            source: Sources: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one, for which the most probable label is taken.
            method: Take the most probable symbol at each step (`greedy`), search for the most probable sequence
                (`beam`), or draw each symbol (`sample`).
            beam_width: Number of candidates kept by `beam`.
            max_length: Greatest number of symbols; None for the greatest length of training.
            seed: Seed of what `sample` draws.

        Raises:
            DataError: If a label is unknown, or the estimator was fitted without sources.
        """
        fitted, classes = self._get_fitted(), self.classes_.tolist()
        sources = fitted.encode_sources(source)
        values = read_labels(y, len(sources), self.missing)
        for value in values:
            if value is not None:
                _check_label(value, classes)
        indices = np.array([NO_LABEL if value is None else classes.index(value) for value in values], np.int32)
        search = method, beam_width, max_length, seed
        sequences = transduce(fitted.backend, fitted.schema.vocabulary, sources, indices, fitted.config, *search)
        return [fitted.decode(sequence.symbols) for sequence in sequences]

    def sample(
        self,
        label: Any,
        n: int = 1,
        seed: int = 0,
        method: DecodingMethod = "sample",
        beam_width: int = 5,
        max_length: int | None = None,
        source: str | Sequence[str] | None = None,
    ) -> list[Any]:
        """Generate new sequences of a label, in the form (texts, or lists of symbols) in which X was given to `fit`.

        Args:
            label: One of `classes_`.
            n: Number of sequences.
            seed: Seed of z and of the symbols.
            method: Draw each symbol (`sample`), take the most probable one (`greedy`), or search for the most probable
                sequence (`beam`).
            beam_width: Number of candidates kept by `beam`.
            max_length: Greatest number of symbols; None for the greatest length of training.
            source: The source that they are made from, if the estimator was fitted with sources.

        Raises:
            DataError: If there is no such label.
        """
        fitted, classes = self._get_fitted(), self.classes_.tolist()
        _check_label(label, classes)
        fitted.check_source(source)
        source_ids = None if source is None else fitted.encode_sources([source])[0]
        search = n, greatest_length(max_length, fitted.config), seed, method, beam_width
        vocabulary = fitted.schema.vocabulary
        sequences = generate(fitted.backend, vocabulary, classes.index(label), *search, source=source_ids)
        return [fitted.decode(sequence.symbols) for sequence in sequences]

    def _get_fitted(self) -> FittedModel:
        if not hasattr(self, "fitted_"):
            raise RunError("This SequenceSSVAE is not fitted yet; call fit first, or load a run.")
        return self.fitted_


def _check_label(label: Any, classes: list[Any]) -> None:
    if label not in classes:
        raise DataError(f"There is no label {label!r}; known are {', '.join(map(repr, classes))}.")
