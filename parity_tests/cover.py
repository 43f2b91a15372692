"""Covers of options: few combinations in which every pair of values occurs together."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

Factors = Mapping[str, Sequence[Any]]
Setting = tuple[str, int]
"""An option, and which of its values (by position)."""


def cover(factors: Factors, joint: Iterable[Sequence[str]] = (), seed: int = 0) -> list[dict[str, Any]]:
    """A greedy pairwise cover, the same at every call (after Cohen et al. 1997, "The AETG system", section 4).

    Each combination starts from the first group of values that has not occurred yet; then each other option, in turn,
    takes the value that completes the most new groups with those already taken, any of equals.

    Args:
        factors: The values of every option.
        joint: Sets of options of which not the pairs alone but all combinations of values are to occur.
        seed: Decides among equals.

    Example:
        >>> len(cover({"a": (0, 1), "b": (0, 1), "c": (0, 1)}))  # of 8 combinations
        4
    """
    generator = np.random.default_rng(seed)
    missing = groups_to_cover(factors, joint)
    result = []
    while missing:
        chosen = set(missing[0])
        for name in sorted(set(factors) - set(dict(chosen)), key=list(factors).index):
            settings = [(name, int(i)) for i in generator.permutation(len(factors[name]))]
            gains = [_gain(setting, chosen, missing) for setting in settings]
            chosen.add(settings[gains.index(max(gains))])
        missing = [group for group in missing if not group <= chosen]
        positions = dict(chosen)
        result.append({name: factors[name][positions[name]] for name in factors})
    return result


def groups_to_cover(factors: Factors, joint: Iterable[Sequence[str]] = ()) -> list[frozenset[Setting]]:
    """Every combination of values of the options in `joint`, then every pair of values of two options."""
    groups: list[frozenset[Setting]] = []
    for names in [*joint, *combinations(factors, 2)]:
        settings = [[(name, i) for i in range(len(factors[name]))] for name in names]
        groups.extend(frozenset(group) for group in product(*settings))
    return groups


def uncovered(
    factors: Factors, covering: Sequence[Mapping[str, Any]], joint: Iterable[Sequence[str]] = ()
) -> list[frozenset[Setting]]:
    """The groups of values that occur in none of the combinations that cover."""
    settings = [{(name, factors[name].index(combination[name])) for name in factors} for combination in covering]
    return [group for group in groups_to_cover(factors, joint) if not any(group <= chosen for chosen in settings)]


def representatives(
    candidates: Sequence[Mapping[str, Any]],
    costs: Sequence[float],
    pairs: Sequence[str] = (),
    first: Sequence[int] = (),
) -> list[int]:
    """Positions of a few of the combinations that have all their values, greedily, in order.

    Args:
        candidates: Combinations of the same options.
        costs: What each is worth avoiding.
        pairs: Options of which each pair of values that occurs together at all is to be among those few as well.
        first: Positions of some that are taken anyhow.
    """
    has = [
        {*one.items(), *combinations([(name, one[name]) for name in pairs], 2)}  # values, and pairs of them
        for one in candidates
    ]
    chosen = list(first)
    missing = set[Any]().union(*has).difference(*(has[place] for place in chosen))
    while missing:
        gains = [len(values & missing) / cost for values, cost in zip(has, costs, strict=True)]
        chosen.append(gains.index(max(gains)))
        missing -= has[chosen[-1]]
    return sorted(chosen)


def _gain(setting: Setting, chosen: set[Setting], missing: Sequence[frozenset[Setting]]) -> int:
    return sum(setting in group and group <= chosen | {setting} for group in missing)
