"""Which symbol stands at which place of a row, counted from its start and from its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from jaxtyping import Int

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.ngrams import LEAST_ROWS, positions, row_numbers

MOST_WEIGHTS = 1 << 22
"""Most symbols at places times labels; of more, the most frequent are taken."""
MOST_PLACES = 64
"""Places that are told apart from either end; further inside a row there are none."""
SHARE_OF_ONE_LENGTH = 0.9
"""Where so many rows have the same length, places from the end are those from the start, and not counted again."""


@dataclass(frozen=True, eq=False)
class Places:
    """Symbols at places, of which enough rows have each.

    Args:
        size: V.
        from_end: Whether places are counted from the end as well.
        codes: Sorted numbers `place V + symbol`; those from the end have places from `MOST_PLACES` on.
    """

    size: int
    from_end: bool
    codes: Int[np.ndarray, " G"]

    @classmethod
    def learn(cls, rows: RaggedArray, size: int, label_count: int) -> "Places":
        """Collect the symbols at places that two rows or more have.

        Args:
            rows: Symbol ids.
            size: V.
            label_count: K, by which there are more weights than symbols at places.
        """
        from_end = len(rows) > 0 and np.unique(rows.lengths, return_counts=True)[1].max() < SHARE_OF_ONE_LENGTH * len(
            rows
        )
        _, codes = _at_places(rows, size, bool(from_end))
        distinct, counts = np.unique(codes, return_counts=True)  # a row has each once
        distinct, counts = distinct[counts >= LEAST_ROWS], counts[counts >= LEAST_ROWS]
        frequent = np.argsort(-counts, kind="stable")[: MOST_WEIGHTS // label_count]
        return cls(size, bool(from_end), distinct[np.sort(frequent)])

    @cached_property
    def place(self) -> Int[np.ndarray, " G"]:
        """The number of the place of each symbol, from 0 without gaps."""
        return np.unique(self.codes // self.size, return_inverse=True)[1]

    def count(self, rows: RaggedArray) -> scipy.sparse.csr_matrix:
        """Which row has which symbol at which place: a sparse matrix of ones, of shape `(N, G)`."""
        numbers, codes = _at_places(rows, self.size, self.from_end)
        column = np.searchsorted(self.codes, codes)
        known = np.append(self.codes, -1)[column] == codes
        shape = len(rows), len(self.codes)
        return scipy.sparse.csr_matrix((np.ones(int(known.sum())), (numbers[known], column[known])), shape=shape)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The places as arrays."""
        return {"codes": self.codes, "vocabulary_size": np.array(self.size), "from_end": np.array(int(self.from_end))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Places":
        """The places that these arrays are of."""
        return cls(int(arrays["vocabulary_size"]), bool(arrays["from_end"]), arrays["codes"])


def _at_places(rows: RaggedArray, size: int, from_end: bool) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Row and code of each symbol at a place; END is none."""
    number, start = row_numbers(rows), positions(rows)
    end = np.repeat(rows.lengths, rows.lengths) - 2 - start  # END is at -1
    values, kept = rows.values.astype(np.int64), (end >= 0) & (start < MOST_PLACES)
    numbers, codes = [number[kept]], [start[kept] * size + values[kept]]
    if from_end:
        kept = (end >= 0) & (end < MOST_PLACES)
        numbers.append(number[kept])
        codes.append((MOST_PLACES + end[kept]) * size + values[kept])
    return np.concatenate(numbers), np.concatenate(codes)
