"""The rows that a recipe learns from: few with a label, many without."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import SPECIALS, UNK

MOST_FOLDS = 5
FOLD_STREAM = 0xF01D
SYMBOL_LIKE_A_WORD = 60.0
"""Perplexity of the symbols from which each of them says something by itself, as a word does and a letter does not."""


@dataclass(frozen=True, eq=False)
class LearningRows:
    """Rows to learn labels from.

    Args:
        labelled: Symbol ids of the rows that have a label, with END.
        y: Their labels.
        unlabelled: Symbol ids of the rows that have none, with END.
        label_count: K.
        vocabulary_size: V, special symbols included.
        folds: Number of the part of the cross-validation that each labelled row is held out in, from 0.
        seed: Seed of whatever a member draws.
    """

    labelled: RaggedArray
    y: Int[np.ndarray, " N"]
    unlabelled: RaggedArray
    label_count: int
    vocabulary_size: int
    folds: Int[np.ndarray, " N"]
    seed: int = 0

    @property
    def fold_count(self) -> int:
        """The number of parts of the cross-validation."""
        return int(self.folds.max()) + 1

    def without_fold(self, fold: int) -> "LearningRows":
        """The rows less those that are held out in a fold."""
        kept = np.flatnonzero(self.folds != fold)
        return replace(self, labelled=self.labelled.take(kept), y=self.y[kept], folds=self.folds[kept])

    def in_fold(self, fold: int) -> RaggedArray:
        """The labelled rows that are held out in a fold."""
        return self.labelled.take(np.flatnonzero(self.folds == fold))

    @cached_property
    def all_rows(self) -> RaggedArray:
        """The labelled rows, and those without label behind them."""
        values = np.concatenate([self.labelled.values, self.unlabelled.values])
        return RaggedArray.from_lengths(values, np.concatenate([self.labelled.lengths, self.unlabelled.lengths]))

    @cached_property
    def label_shares(self) -> Float[np.ndarray, " K"]:
        """The shares of the labels among labelled rows, each with a row more than it has."""
        counts = np.bincount(self.y, minlength=self.label_count) + 1.0
        return counts / counts.sum()

    @cached_property
    def one_hot(self) -> Float[np.ndarray, "N K"]:
        """The labels, one-hot."""
        return np.eye(self.label_count)[self.y]

    @cached_property
    def symbol_counts(self) -> Int[np.ndarray, " V"]:
        """How often each symbol occurs in all rows."""
        both = (np.bincount(rows.values, minlength=self.vocabulary_size) for rows in (self.labelled, self.unlabelled))
        return sum(both, np.zeros(self.vocabulary_size, np.int64))

    @cached_property
    def symbols_are_words(self) -> bool:
        """Whether each symbol says something by itself: then n-grams are short, else longer ones are needed."""
        return perplexity(self.symbol_counts[len(SPECIALS) :]) > SYMBOL_LIKE_A_WORD

    @cached_property
    def known(self) -> Bool[np.ndarray, " V"]:
        """Which symbols occur twice or more; to a member, the others are UNK."""
        known = self.symbol_counts >= 2
        known[: len(SPECIALS)] = True
        return known


def known_only(rows: RaggedArray, known: Bool[np.ndarray, " V"]) -> RaggedArray:
    """Copy rows with UNK in place of symbols that are not known."""
    return RaggedArray(np.where(known[rows.values], rows.values, UNK), rows.offsets)


def perplexity(counts: Int[np.ndarray, " V"]) -> float:
    """The perplexity of symbols with these counts: as many equally frequent ones would be as hard to guess."""
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def stratified_folds(y: Int[np.ndarray, " N"], groups: Int[np.ndarray, " N"], seed: int) -> Int[np.ndarray, " N"]:
    """Deal labelled rows into at most five parts, those of each label evenly, and groups whole.

    Args:
        y: Labels.
        groups: The number of each row's group, below 0 where it has none.
        seed: Seed of the order.

    Returns:
        The number of each row's part. A label of fewer than five rows is missing in some parts.
    """
    generator = np.random.default_rng([seed, FOLD_STREAM])
    alone = -1 - np.arange(len(y))
    _, first, group = np.unique(np.where(groups < 0, alone, groups), return_index=True, return_inverse=True)
    folds, dealt = np.zeros(len(first), np.int64), 0
    count = max(2, min(MOST_FOLDS, int(np.bincount(y).max()), len(first)))
    for label in np.unique(y[first]):
        members = generator.permutation(np.flatnonzero(y[first] == label))
        folds[members] = (np.arange(len(members)) + dealt) % count
        dealt += len(members)
    return np.unique(folds[group], return_inverse=True)[1]


class Learned(NamedTuple):
    """What a member learned, and how it did on rows that it had not seen.

    Args:
        out_of_fold: log p(y|x) of each labelled row, by what was learned without the row's fold.
        member: What was learned from all rows.
    """

    out_of_fold: Float[np.ndarray, "N K"]
    member: Any


def log_normalised(scores: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """Subtract the log-sum-exp of each row."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
