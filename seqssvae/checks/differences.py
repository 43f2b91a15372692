"""How equal two results are: relative differences, and what they may be at most.

A difference is `max|a - b| / max|a|` of an array, not of each entry: an entry that is small beside its neighbours
because large parts of it cancel cannot be more exact than they are.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from seqssvae.config import Precision

BOUNDS: dict[Precision, float] = {"float64": 1e-9, "float32": 1e-5}
"""Greatest relative difference allowed for values and gradients."""


class Finding(NamedTuple):
    """One comparison.

    Args:
        rung: What was compared, in general: a row of a summary.
        what: What was compared, in particular.
        difference: `max|a - b| / max|a|`.
        bound: What it may be at most.
    """

    rung: str
    what: str
    difference: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound (and not NaN)."""
        return self.difference <= self.bound


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """`max|a - b| / max|a|`; where a is all zeros, `max|b|`. Infinite where shapes differ."""
    if np.shape(a) != np.shape(b):
        return np.inf
    largest = np.max(np.abs(a), initial=0.0)
    return float(np.max(np.abs(np.asarray(a) - b), initial=0.0) / (largest if largest > 0 else 1.0))


def compare(
    rung: str, where: str, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], bound: float
) -> list[Finding]:
    """Compare arrays by name; a name that only one side has is a finding that does not hold."""
    findings = [
        Finding(rung, f"{where}: {name}", relative_difference(expected[name], found[name]), bound)
        for name in expected
        if name in found
    ]
    odd = set(expected) ^ set(found)
    return findings + [Finding(rung, f"{where}: {name} on one side only", np.inf, bound) for name in sorted(odd)]


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """What does not hold."""
    return [finding for finding in findings if not finding.holds]
