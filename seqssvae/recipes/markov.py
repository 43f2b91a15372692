"""A Markov model of the sequences of each label, which learns from all rows by EM."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.mixture import Mixture, in_groups
from seqssvae.recipes.ngrams import longest_order, ngram_codes, row_numbers
from seqssvae.recipes.rows import Learned, LearningRows, known_only, log_normalised, perplexity

ORDER_OF_WORDS, ORDER_OF_LETTERS = 2, 3
"""Symbols of an n-gram: how many a symbol's probability depends on, and the symbol."""
STRENGTH = 2.0
"""Of the prior that an n-gram's probability has from the shorter one, in multiples of the symbols' perplexity."""


@dataclass(frozen=True, eq=False)
class _Level:
    """The n-grams of one order.

    Args:
        shorter: For each, the index of the n-gram without its first symbol among those of the order below.
        context: For each, the number of what stands before its last symbol.
        shorten: Sums counts of these over those that are equal without their first symbol.
        add_up: Sums counts over the last symbol.
    """

    shorter: Int[np.ndarray, " G"]
    context: Int[np.ndarray, " G"]
    shorten: scipy.sparse.csr_matrix
    add_up: scipy.sparse.csr_matrix


@dataclass(frozen=True, eq=False)
class NgramTree:
    """n-grams, and the shorter ones that they end with.

    Args:
        codes: Sorted codes of n-grams of the highest order.
        size: V.
        order: The highest order.
    """

    codes: Int[np.ndarray, " G"]
    size: int
    order: int

    @cached_property
    def levels(self) -> list[_Level]:
        """The orders from 1 up."""
        codes, levels = self.codes, []
        for order in range(self.order, 0, -1):
            below, shorter = np.unique(codes % self.size ** (order - 1), return_inverse=True)
            context = np.unique(codes // self.size, return_inverse=True)[1]
            levels.append(_Level(shorter, context, _summing(shorter), _summing(context)))
            codes = below
        return levels[::-1]

    @property
    def symbols(self) -> Int[np.ndarray, " G1"]:
        """The n-grams of order 1."""
        return np.unique(self.codes % self.size)

    def log_probabilities(
        self, counts: Float[np.ndarray, "G K"], background: Float[np.ndarray, " G1"], strength: float
    ) -> Float[np.ndarray, "G K"]:
        """log p(last symbol | those before, label) of each n-gram of the highest order.

        `p_n(x | c) = (count(c, x) + s p_{n-1}(x | c without its first symbol)) / (count(c) + s)`: the mean of a
        Dirichlet posterior whose prior is the shorter n-gram's distribution (MacKay and Peto 1995, A hierarchical
        Dirichlet language model).

        Args:
            counts: How often each stands in rows of each label.
            background: The distribution of symbols under which all this starts.
            strength: s.
        """
        by_order = [counts]
        for level in self.levels[:0:-1]:
            by_order.insert(0, level.shorten @ by_order[0])
        probability = background[:, None]
        for level, count in zip(self.levels, by_order, strict=True):
            prior = probability if level is self.levels[0] else probability[level.shorter]
            probability = (count + strength * prior) / ((level.add_up @ count)[level.context] + strength)
        return np.log(probability)

    def count(self, rows: RaggedArray) -> scipy.sparse.csr_matrix:
        """How often each row has each n-gram of the highest order, all of which the tree must have."""
        columns = np.searchsorted(self.codes, ngram_codes(rows, self.size, self.order))
        shape = len(rows), len(self.codes)
        return scipy.sparse.csr_matrix((np.ones(len(columns)), (row_numbers(rows), columns)), shape=shape)


@dataclass(frozen=True, eq=False)
class Markov:
    """For each label, the probability of each symbol given those before it.

    Args:
        tree: The n-grams of all rows that it learned from.
        counts: How often each stands in rows of each label.
        background: By symbol id, the distribution of symbols in all rows.
        strength: Of the prior from shorter n-grams.
        known: Which symbols it knows; the others are UNK.
        label_shares: p(y).
    """

    tree: NgramTree
    counts: Float[np.ndarray, "G K"]
    background: Float[np.ndarray, " V"]
    strength: float
    known: Bool[np.ndarray, " V"]
    label_shares: Float[np.ndarray, " K"]

    @classmethod
    def learn(cls, rows: LearningRows, unlabelled_shares: Float[np.ndarray, " K"]) -> Learned:
        """Learn from all rows, and without each fold of the labelled ones."""
        size, sequences = rows.vocabulary_size, known_only(rows.all_rows, rows.known)
        order = longest_order(size, ORDER_OF_WORDS if rows.symbols_are_words else ORDER_OF_LETTERS)
        tree = NgramTree(np.unique(ngram_codes(sequences, size, order)), size, order)
        symbol_counts = np.bincount(sequences.values, minlength=size)
        background = (symbol_counts + 0.5) / (symbol_counts + 0.5).sum()
        strength = STRENGTH * perplexity(symbol_counts)

        def log_probabilities(counts: Float[np.ndarray, "G K"]) -> Float[np.ndarray, "G K"]:
            return tree.log_probabilities(counts, background[tree.symbols], strength)

        counted = in_groups(tree.count(sequences), rows)
        mixture = Mixture(counted, rows.one_hot, rows.label_shares, unlabelled_shares, log_probabilities)
        counts = mixture.learn(np.arange(len(rows.y)))
        member = cls(tree, counts, background, strength, rows.known, rows.label_shares)
        return Learned(mixture.cross_validate(rows.folds), member)

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x)."""
        return log_normalised(self.log_likelihood(rows) + np.log(self.label_shares))

    def log_likelihood(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(x|y), in nats a row."""
        size, rows = self.tree.size, known_only(rows, self.known)
        codes = np.union1d(self.tree.codes, ngram_codes(rows, size, self.tree.order))
        wider = NgramTree(codes, size, self.tree.order)
        counts = np.zeros((len(codes), self.counts.shape[1]))
        counts[np.searchsorted(codes, self.tree.codes)] = self.counts
        log_p = wider.log_probabilities(counts, self.background[wider.symbols], self.strength)
        return wider.count(rows) @ log_p

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        kept = self.counts.any(axis=1)
        return {
            "codes": self.tree.codes[kept],
            "counts": self.counts[kept],
            "order": np.array(self.tree.order),
            "background": self.background,
            "strength": np.array(self.strength),
            "known": self.known.astype(np.int32),
            "label_shares": self.label_shares,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Markov":
        """The member that these arrays are of."""
        tree = NgramTree(arrays["codes"], len(arrays["background"]), int(arrays["order"]))
        own = arrays["counts"], arrays["background"], float(arrays["strength"])
        return cls(tree, *own, arrays["known"].astype(bool), arrays["label_shares"])


def _summing(index: Int[np.ndarray, " G"]) -> scipy.sparse.csr_matrix:
    """A matrix that sums the entries with an equal index."""
    ones = np.ones(len(index))
    return scipy.sparse.csr_matrix((ones, (index, np.arange(len(index)))), shape=(int(index.max()) + 1, len(index)))
