"""Which labelled rows a run was trained on: how many of each label, and how to know them again."""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from seqssvae.data.corpus import Corpus
from seqssvae.data.ragged import RaggedArray, Rows
from seqssvae.inference.agreement import Agreement, agreement
from seqssvae.recipes.rows import LearningRows, stratified_folds

LEAST_REFERENCE_ROWS, MOST_REFERENCE_ROWS = 20, 2000
"""Labelled rows over which another method is cross-validated."""


class TrainedOn(NamedTuple):
    """The rows of a training, in short.

    Args:
        labelled: The number of labelled rows of each label.
        unlabelled: The number of rows without label.
        digests: Of the labelled rows' sequences, sorted.
        reference: How far logistic regression on n-grams agrees with the labels in cross-validation; None where there
            were too few rows, or the labels were learned otherwise.
    """

    labelled: Int[np.ndarray, " K"]
    unlabelled: int
    digests: Int[np.ndarray, " D"]
    reference: Agreement | None = None

    @classmethod
    def of(cls, labelled: Corpus, unlabelled: int, label_count: int) -> "TrainedOn":
        """What is to be known of a training, but for the cross-validation.

        Args:
            labelled: The labelled rows.
            unlabelled: The number of rows without label.
            label_count: K.
        """
        counts = np.bincount(labelled.y, minlength=label_count)
        return cls(counts, unlabelled, np.unique(_digests(labelled.sequences)))

    def with_reference(self, labelled: Corpus, vocabulary_size: int, seed: int) -> "TrainedOn":
        """The same with logistic regression on n-grams cross-validated over the labelled rows.

        Args:
            labelled: The labelled rows; of very many, some are drawn.
            vocabulary_size: V.
            seed: Seed of the folds.
        """
        drawn = np.random.default_rng(seed).permutation(len(labelled))[:MOST_REFERENCE_ROWS]
        labelled = labelled.take(np.sort(drawn))
        if len(labelled) < LEAST_REFERENCE_ROWS or len(np.unique(labelled.y)) < 2:
            return self
        folds = stratified_folds(labelled.y, labelled.groups, seed)
        if folds.max() == 0:
            return self
        from seqssvae.recipes.references import cross_validate, logistic_regression  # loads much of scikit-learn

        none = labelled.sequences.take(np.zeros(0, np.int64))
        learning = LearningRows(
            labelled.sequences.loaded(), labelled.y, none, len(self.labelled), vocabulary_size, folds, seed
        )
        predicted, size = cross_validate(logistic_regression, learning), len(self.labelled)
        observed, given = (np.bincount(part, minlength=size) for part in (labelled.y, predicted))
        return self._replace(reference=agreement(observed, given, int(np.sum(predicted == labelled.y))))

    def seen(self, corpus: Corpus) -> Bool[np.ndarray, " N"]:
        """Which rows of a corpus have the sequence of a labelled row that was trained on."""
        return np.isin(_digests(corpus.sequences), self.digests)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The values as arrays, by name."""
        return {
            "labelled": self.labelled.astype(np.int64),
            "unlabelled": np.array([self.unlabelled], np.int64),
            "digests": self.digests,
            "reference": np.array(self.reference or (), np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], label_count: int) -> "TrainedOn":
        """The values that `to_arrays` returned.

        Raises:
            ValueError: If there is not a number for each label.
        """
        if arrays["labelled"].shape != (label_count,) or arrays["digests"].ndim != 1:
            raise ValueError(f"there must be {label_count} numbers of labelled rows")
        reference = arrays["reference"].tolist()
        observed_agreement = Agreement(int(reference[0]), *reference[1:]) if reference else None
        return cls(arrays["labelled"], int(arrays["unlabelled"][0]), arrays["digests"], observed_agreement)


def _digests(sequences: Rows) -> Int[np.ndarray, " N"]:
    return np.concatenate([np.zeros(0, np.int64), *map(_digests_of_part, sequences.parts())])


def _digests_of_part(rows: RaggedArray) -> Int[np.ndarray, " N"]:
    digests = (hashlib.blake2b(np.asarray(row, np.int32).tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(digests), np.int64)
