"""Which rows are held out, and which labels are kept: seeded choices of rows."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from seqssvae.backend import NO_LABEL
from seqssvae.data.ragged import ROWS_OF_A_PART, occurrences, shuffled, where
from seqssvae.errors import ConfigurationError

SPLIT_STREAM, LABEL_STREAM = 1, 2
"""Each choice has a random stream of its own, so that one seed can serve both."""
MOST_PASSES = 10
"""How often `split` goes through all groups at most."""


def split(
    y: Int[np.ndarray, " N"], groups: Int[np.ndarray, " N"] | None, fraction: float, seed: int
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " L"]]:
    """Hold out rows: about `fraction` of each label (and of the rows without one), and only whole groups.

    Groups are gone through in random order, again and again. One changes sides if that brings the held-out counts
    nearer to what is wanted (the sum over labels of squared distances, each divided by the number of rows), unless no
    row of some label would remain. Without groups this holds out the rounded share of each label, at least one of every
    label of two rows.

    Args:
        y: Label ids, `NO_LABEL` where missing.
        groups: The number of each row's group; rows with a number below 0, or all rows where `groups` is None, are a
            group each.
        fraction: The share that is held out.
        seed: Seed of the order.

    Returns:
        Indices of the rows that remain and of those held out, both ascending.
    """
    if fraction <= 0 or len(y) == 0:
        return np.arange(len(y)), np.arange(0)
    stratum = _strata(y)
    totals = occurrences(stratum)
    wanted = np.clip(fraction * totals, np.minimum(1, totals - 1), totals - 1)
    generator = np.random.default_rng([seed, SPLIT_STREAM])
    if groups is None or not (groups >= 0).any():
        held_out = _choose_rows(shuffled(len(y), generator), stratum, totals, wanted)
    else:
        held_out = _choose_groups(_places(_group_of_row(groups), generator), stratum, totals, wanted)
    return where(~held_out), where(held_out)


def _strata(y: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The number of each row's label among those that there are, sorted."""
    low = int(y.min())
    present = occurrences(y - y.dtype.type(low)) > 0
    kind = np.int16 if np.count_nonzero(present) < 2**15 else np.int32
    return (np.cumsum(present) - 1).astype(kind)[y - y.dtype.type(low)]


def _group_of_row(groups: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The number of each row's group, from 0 in the order of their first rows."""
    own = np.where(groups < 0, -1 - np.arange(len(groups)), groups)
    _, first, group = np.unique(own, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[group]


def _places(group: Int[np.ndarray, " N"], generator: np.random.Generator) -> Int[np.ndarray, " N"]:
    """The place of each row's group in a random order of the groups."""
    count = int(group.max()) + 1
    place_of_group = np.empty(count, np.int64)
    place_of_group[generator.permutation(count)] = np.arange(count)
    return place_of_group[group]


def _choose_rows(
    order: Int[np.ndarray, " N"],
    stratum: Int[np.ndarray, " N"],
    totals: Int[np.ndarray, " S"],
    wanted: Float[np.ndarray, " S"],
) -> Bool[np.ndarray, " N"]:
    """Hold out rows each of which is a group: of each stratum the first ones, until one more would be too many.

    This is what `_choose_groups` would do; in its second pass no row changes sides. The order says which row comes
    first, second, and so on.
    """
    needed = np.array([_how_many(*pair) for pair in zip(totals.tolist(), wanted.tolist(), strict=True)])
    chosen = np.zeros(len(order), bool)
    for first in range(0, len(order), ROWS_OF_A_PART):
        rows = order[first : first + ROWS_OF_A_PART]
        by_stratum = rows[np.argsort(stratum[rows], kind="stable")]
        counts = np.bincount(stratum[rows], minlength=len(totals))
        starts, taken = np.cumsum(counts) - counts, np.minimum(counts, needed)
        for s in np.flatnonzero(taken):
            chosen[by_stratum[starts[s] : starts[s] + taken[s]]] = True
        needed -= taken
    return chosen


def _how_many(total: int, wanted: float) -> int:
    """The least number of rows of a stratum to which another one is not added."""
    count = max(0, int(wanted - 0.5) - 1)
    while count + 1 < total and 1 + 2 * (count - wanted) < 0:
        count += 1
    return count


def _choose_groups(
    place: Int[np.ndarray, " N"],
    stratum: Int[np.ndarray, " N"],
    totals: Int[np.ndarray, " S"],
    wanted: Float[np.ndarray, " S"],
) -> Bool[np.ndarray, " N"]:
    """Hold out whole groups, which are gone through in the order of their places."""
    sizes = _group_sizes(place, stratum)
    chosen = [False] * len(sizes)
    so_far, limit, target = [0] * len(totals), totals.tolist(), wanted.tolist()
    for _ in range(MOST_PASSES):
        before = list(chosen)
        for group, size in enumerate(sizes):
            sign = -1 if chosen[group] else 1
            # lists, since generators of one or two entries take longer
            some_remain = all([so_far[s] + sign * n < limit[s] for s, n in size])
            change = sum([n * (n + sign * 2 * (so_far[s] - target[s])) / limit[s] for s, n in size])
            if some_remain and change < 0:  # change is that of the sum of squared distances
                chosen[group] = not chosen[group]
                for s, n in size:
                    so_far[s] += sign * n
        if chosen == before:
            break
    return np.array(chosen)[place]


def _group_sizes(place: Int[np.ndarray, " N"], stratum: Int[np.ndarray, " N"]) -> list[list[tuple[int, int]]]:
    """For each group its strata, in the order of their first rows, and how many rows it has of each."""
    strata = int(stratum.max()) + 1
    keys, first, counts = np.unique(place * strata + stratum, return_index=True, return_counts=True)
    order = np.lexsort((first, keys // strata))
    pairs = list(zip((keys % strata)[order].tolist(), counts[order].tolist(), strict=True))
    starts = np.searchsorted((keys // strata)[order], np.arange(int(place.max()) + 2)).tolist()
    return [pairs[start:end] for start, end in pairwise(starts)]


def keep_labels_per_class(
    y: Int[np.ndarray, " N"], count: int, names: Sequence[str], seed: int
) -> Int[np.ndarray, " N"]:
    """Hide all labels but `count` of each class; with the same seed a greater count keeps the same ones and more.

    Args:
        y: Label ids, `NO_LABEL` where missing.
        count: Labels to keep of each class.
        names: Names of the labels, of which there are K.
        seed: Seed of the choice.

    Returns:
        A copy of `y` with `NO_LABEL` for the other rows.

    Raises:
        ConfigurationError: If a class has fewer labels.
    """
    kept = np.full_like(y, NO_LABEL)
    for label, name in enumerate(names):
        rows = np.flatnonzero(y == label)
        if len(rows) < count:
            raise ConfigurationError(f"Only {len(rows)} rows are labelled {name!r}, fewer than the {count} to keep.")
        kept[np.random.default_rng([seed, LABEL_STREAM, label]).permutation(rows)[:count]] = label
    return kept


def at_most_per_class(y: Int[np.ndarray, " N"], count: int, seed: int) -> Int[np.ndarray, " M"]:
    """Choose labelled rows: all rows of a class, or `count` of them.

    Args:
        y: Label ids, `NO_LABEL` where missing.
        count: Most rows of each class.
        seed: Seed of the choice.

    Returns:
        Indices of the rows, ascending.
    """
    generator = np.random.default_rng([seed, 0x7E57])
    chosen = [generator.permutation(np.flatnonzero(y == label))[:count] for label in np.unique(y[y != NO_LABEL])]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))
