"""n-grams of symbol ids, as numbers that can be sorted and looked up, and how often each row has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Int

from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import END, START

LEAST_ROWS = 2
"""An n-gram that fewer rows have says nothing about other rows."""


def ngram_codes(rows: RaggedArray, vocabulary_size: int, order: int) -> Int[np.ndarray, " S"]:
    """The n-gram that ends at each symbol, as the number `sum_k x[t - k] V^k`; START stands before each row.

    Args:
        rows: Symbol ids.
        vocabulary_size: V.
        order: n.

    Raises:
        OverflowError: If V^n is more than 64 bits hold.
    """
    if vocabulary_size**order >= 2**63:
        raise OverflowError(f"{order}-grams of {vocabulary_size} symbols have no 64-bit code.")
    values, position = rows.values.astype(np.int64), positions(rows)
    codes = values.copy()
    for back in range(1, order):
        before = np.where(position >= back, np.roll(values, back), START)
        codes += before * vocabulary_size**back
    return codes


def positions(rows: RaggedArray) -> Int[np.ndarray, " S"]:
    """The place of each symbol in its row, from 0."""
    return np.arange(len(rows.values)) - np.repeat(rows.offsets[:-1], rows.lengths)


def row_numbers(rows: RaggedArray) -> Int[np.ndarray, " S"]:
    """The number of the row of each symbol."""
    return np.repeat(np.arange(len(rows)), rows.lengths)


def longest_order(vocabulary_size: int, wanted: int) -> int:
    """The greatest order, at most `wanted`, whose n-grams have a code."""
    return max(n for n in range(1, wanted + 1) if vocabulary_size**n < 2**63)


@dataclass(frozen=True, eq=False)
class NgramVocabulary:
    """The n-grams, of several orders, that enough rows have.

    Args:
        size: V.
        codes: For each order from 1, sorted codes.
    """

    size: int
    codes: Sequence[Int[np.ndarray, " _"]]

    @classmethod
    def learn(cls, rows: RaggedArray, size: int, order: int) -> "NgramVocabulary":
        """Collect the n-grams of orders 1 to `order` that two rows or more have."""
        kept = []
        for n in range(1, longest_order(size, order) + 1):
            numbers, codes = _of_rows(rows, size, n)
            pairs = np.unique(np.stack([codes, numbers]), axis=1)[0]
            ngrams, counts = np.unique(pairs, return_counts=True)
            kept.append(ngrams[counts >= LEAST_ROWS])
        return cls(size, kept)

    def count(self, rows: RaggedArray) -> scipy.sparse.csr_matrix:
        """How often each row has each n-gram: a sparse matrix of shape `(N, G)`."""
        all_numbers, all_columns, before = [], [], 0
        for n, known in enumerate(self.codes, start=1):
            if len(known):
                numbers, codes = _of_rows(rows, self.size, n)
                column = np.minimum(np.searchsorted(known, codes), len(known) - 1)
                hits = known[column] == codes
                all_numbers.append(numbers[hits])
                all_columns.append(column[hits] + before)
            before += len(known)
        numbers, columns = np.concatenate([[], *all_numbers]), np.concatenate([[], *all_columns])
        return scipy.sparse.csr_matrix((np.ones(len(numbers)), (numbers, columns)), shape=(len(rows), before))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The n-grams as arrays."""
        codes = {f"codes.{n}": codes for n, codes in enumerate(self.codes, start=1)}
        return {"vocabulary_size": np.array(self.size), **codes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "NgramVocabulary":
        """The n-grams that these arrays are of."""
        orders = range(1, 1 + sum(name.startswith("codes.") for name in arrays))
        return cls(int(arrays["vocabulary_size"]), [arrays[f"codes.{n}"] for n in orders])


def _of_rows(rows: RaggedArray, size: int, order: int) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Row and code of each n-gram; of what stands before a row they hold one START at most, and END alone is none."""
    codes, whole = ngram_codes(rows, size, order), positions(rows) >= order - 2
    if order == 1:
        whole = rows.values != END
    return row_numbers(rows)[whole], codes[whole]
