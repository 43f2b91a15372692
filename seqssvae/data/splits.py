"""Which rows are held out, and which labels are kept: seeded choices of rows."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from seqssvae.backend import NO_LABEL
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
    _, stratum = np.unique(y, return_inverse=True)
    totals = np.bincount(stratum)
    wanted = np.clip(fraction * totals, np.minimum(1, totals - 1), totals - 1)
    place, count = _places(_group_of_row(len(y), groups), seed)
    choose = _choose_rows if count == len(y) else _choose_groups
    held_out = choose(place, stratum, totals, wanted)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _group_of_row(count: int, groups: Int[np.ndarray, " N"] | None) -> Int[np.ndarray, " N"]:
    """The number of each row's group, from 0 in the order of their first rows."""
    rows = np.arange(count)
    if groups is None or not (groups >= 0).any():
        return rows
    _, first, group = np.unique(np.where(groups < 0, -1 - rows, groups), return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[group]


def _places(group: Int[np.ndarray, " N"], seed: int) -> tuple[Int[np.ndarray, " N"], int]:
    """The place of each row's group in a random order of the groups, and how many groups there are."""
    count = int(group.max()) + 1
    place_of_group = np.empty(count, np.int64)
    place_of_group[np.random.default_rng([seed, SPLIT_STREAM]).permutation(count)] = np.arange(count)
    return place_of_group[group], count


def _choose_rows(
    place: Int[np.ndarray, " N"],
    stratum: Int[np.ndarray, " N"],
    totals: Int[np.ndarray, " S"],
    wanted: Float[np.ndarray, " S"],
) -> Bool[np.ndarray, " N"]:
    """Hold out rows each of which is a group: of each stratum the first ones, until one more would be too many.

    This is what `_choose_groups` would do; in its second pass no row changes sides.
    """
    rows = np.lexsort((place, stratum))
    chosen = np.zeros(len(place), bool)
    for s, (first, total) in enumerate(zip(np.cumsum(totals) - totals, totals, strict=True)):
        so_far = np.arange(total)
        too_many = (so_far + 1 >= total) | (1 + 2 * (so_far - wanted[s]) >= 0)
        chosen[rows[first : first + too_many.argmax()]] = True
    return chosen


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
