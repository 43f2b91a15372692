"""Which rows are held out, and which labels are kept: seeded choices of rows."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL
from seqssvae.errors import ConfigurationError

SPLIT_STREAM, LABEL_STREAM = 1, 2
"""Each choice has a random stream of its own, so that one seed can serve both."""
MOST_PASSES = 10


def split(
    y: Int[np.ndarray, " N"], groups: Sequence[str | None] | None, fraction: float, seed: int
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " L"]]:
    """Hold out rows: about `fraction` of each label (and of the rows without one), and only whole groups.

    Groups are gone through in random order, again and again. One changes sides if that brings the held-out counts
    nearer to what is wanted (the sum over labels of squared distances, each divided by the number of rows), unless no
    row of some label would remain. Without groups this holds out the rounded share of each label, at least one of every
    label of two rows.

    Args:
        y: Label ids, `NO_LABEL` where missing.
        groups: Group of each row; rows with None, or all rows where `groups` is None, are a group each.
        fraction: Share held out.
        seed: Seed of the order.

    Returns:
        Indices of the rows that remain and of those held out, both ascending.
    """
    if fraction <= 0 or len(y) == 0:
        return np.arange(len(y)), np.arange(0)
    _, stratum = np.unique(y, return_inverse=True)
    totals = np.bincount(stratum)
    wanted = np.clip(fraction * totals, np.minimum(1, totals - 1), totals - 1)
    members = _members(len(y), groups)
    members = [members[place] for place in np.random.default_rng([seed, SPLIT_STREAM]).permutation(len(members))]
    sizes = [Counter(stratum[rows].tolist()) for rows in members]
    held_out = np.zeros(len(y), dtype=bool)
    for rows, chosen in zip(members, _choose(sizes, totals.tolist(), wanted.tolist()), strict=True):
        held_out[rows] = chosen
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _choose(sizes: list[Counter[int]], totals: list[int], wanted: list[float]) -> list[bool]:
    """Which groups, given their rows of each stratum, to hold out."""
    chosen = [False] * len(sizes)
    so_far = [0] * len(totals)
    for _ in range(MOST_PASSES):
        before = list(chosen)
        for group, size in enumerate(sizes):
            sign = -1 if chosen[group] else 1
            some_remain = all(so_far[s] + sign * n < totals[s] for s, n in size.items())
            change = sum(n * (n + sign * 2 * (so_far[s] - wanted[s])) / totals[s] for s, n in size.items())
            if some_remain and change < 0:  # change is that of the sum of squared distances
                chosen[group] = not chosen[group]
                for s, n in size.items():
                    so_far[s] += sign * n
        if chosen == before:
            break
    return chosen


def _members(count: int, groups: Sequence[str | None] | None) -> list[list[int]]:
    if groups is None:
        return [[row] for row in range(count)]
    members: list[list[int]] = []
    named: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        if group in named:
            named[group].append(row)
            continue
        members.append([row])
        if group is not None:
            named[group] = members[-1]
    return members


def keep_labels_per_class(
    y: Int[np.ndarray, " N"], count: int, names: Sequence[str], seed: int
) -> Int[np.ndarray, " N"]:
    """Hide all labels but `count` of each class. With the same seed a greater count keeps the same ones, and more.

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
    """Indices, ascending, of labelled rows: all rows of a class, or this many of them chosen by the seed."""
    generator = np.random.default_rng([seed, 0x7E57])
    chosen = [generator.permutation(np.flatnonzero(y == label))[:count] for label in np.unique(y[y != NO_LABEL])]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))
