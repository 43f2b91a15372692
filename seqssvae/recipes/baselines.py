"""What a generator must be better than: symbols by their frequency, and each symbol by the one before it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqssvae.data.ragged import Rows
from seqssvae.recipes.markov import STRENGTH, Markov, NgramTree
from seqssvae.recipes.ngrams import ngram_codes
from seqssvae.recipes.rows import perplexity

ORDERS = {"unigram": 1, "bigram": 2}


class Baselines(NamedTuple):
    """Models of the training rows' symbols, whatever their labels.

    Args:
        unigram: Symbols by their frequency.
        bigram: Symbols by the one before, smoothed by the former (MacKay and Peto 1995).
    """

    unigram: Markov
    bigram: Markov

    @classmethod
    def learn(cls, rows: Rows, vocabulary_size: int) -> "Baselines":
        """Count the n-grams of training rows."""
        return cls(*(_count(rows, vocabulary_size, order) for order in ORDERS.values()))

    def nats_per_symbol(self, rows: Rows) -> dict[str, float]:
        """The mean log-probability of the symbols of rows, END included, by model."""
        totals = np.sum([[model.log_likelihood(part).sum() for model in self] for part in rows.parts()], axis=0)
        return dict(zip(self._fields, (totals / int(rows.lengths.sum())).tolist(), strict=True))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What was counted, by name."""
        return {
            f"{name}.{key}": array for name, model in self._asdict().items() for key, array in model.to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Baselines":
        """The models that these arrays are of."""
        parts = (
            {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{name}.")}
            for name in ORDERS
        )
        return cls(*(Markov.from_arrays(part) for part in parts))


SMALL = 1 << 20
"""So many n-grams are counted each in a place of its own, which is faster than sorting them."""


def _distinct(codes: Int[np.ndarray, " S"], size: int) -> tuple[Int[np.ndarray, " G"], Int[np.ndarray, " G"]]:
    """The different numbers below a size, sorted, and how often each occurs."""
    if size > SMALL:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)
    return (occurring := np.flatnonzero(counts)), counts[occurring]


def _count(rows: Rows, size: int, order: int) -> Markov:
    counts_by_part = [_distinct(ngram_codes(part, size, order), size**order) for part in rows.parts()]
    codes, place = np.unique(np.concatenate([codes for codes, _ in counts_by_part]), return_inverse=True)
    counts = np.bincount(place, np.concatenate([part for _, part in counts_by_part]), len(codes))
    symbol_counts = rows.counts(size)
    background = (symbol_counts + 0.5) / (symbol_counts + 0.5).sum()
    tree, known = NgramTree(codes, size, order), np.ones(size, bool)
    strength = STRENGTH * perplexity(symbol_counts)
    return Markov(tree, counts[:, None], background, strength, known, np.ones(1))
