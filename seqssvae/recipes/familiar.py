"""Which rows without a label have the symbols of labelled rows, and which come from elsewhere."""

import numpy as np
from jaxtyping import Bool, Float, Int

from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import END

LEAST_UNKNOWN = 0.5
"""Rows with no greater share of symbols that labelled rows lack are like these, whatever the labelled rows are."""
LIKE_LABELLED = 0.95
"""The share of labelled rows that another row must differ from by more than they do from each other."""
LEAST_SHARE = 0.2
"""The least share of rows from elsewhere that something is done about: each set has some odd rows."""


def are_familiar(labelled: RaggedArray, unlabelled: RaggedArray, vocabulary_size: int) -> Bool[np.ndarray, " N"]:
    """Whether each row without label may come from where the labelled rows come from.

    A row that consists for the most part of symbols that no labelled row has, and more so than a labelled row does of
    symbols that no other labelled row has, says nothing of the labels: it may be in another script or of another kind.
    Where these are few, all rows are taken as familiar.

    Args:
        labelled: Symbol ids of the labelled rows, with END.
        unlabelled: Symbol ids of N rows that have no label, with END.
        vocabulary_size: V.
    """
    rows_with = np.zeros(vocabulary_size, np.int64)
    pairs = np.unique(_row_numbers(labelled) * vocabulary_size + labelled.values)
    np.add.at(rows_with, pairs % vocabulary_size, 1)
    among_labelled = np.quantile(_shares(labelled, rows_with < 2), LIKE_LABELLED, method="higher")
    familiar = _shares(unlabelled, rows_with < 1) <= max(LEAST_UNKNOWN, among_labelled)
    return familiar if np.sum(~familiar) >= LEAST_SHARE * len(familiar) else np.ones_like(familiar)


def _row_numbers(rows: RaggedArray) -> Int[np.ndarray, " S"]:
    return np.repeat(np.arange(len(rows.lengths)), rows.lengths)


def _shares(rows: RaggedArray, unknown: Bool[np.ndarray, " V"]) -> Float[np.ndarray, " N"]:
    """The share of each row's symbols, without END, that are unknown."""
    of_symbols = unknown[rows.values] & (rows.values != END)
    counts = np.bincount(_row_numbers(rows), weights=of_symbols, minlength=len(rows))
    return counts / np.maximum(rows.lengths - 1, 1)
