"""What the proof compares: one finding for each pair of arrays, and those that do not hold."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from seqssvae.checks.tolerances import relative_difference


class Finding(NamedTuple):
    """The result of one comparison.

    Args:
        rung: What was compared, in general: a row of a summary.
        what: What was compared, in particular.
        difference: `max|a - b| / max|a|`.
        bound: The greatest difference allowed.
    """

    rung: str
    what: str
    difference: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound (and not NaN)."""
        return self.difference <= self.bound


def compare(
    rung: str, where: str, expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray], bound: float
) -> list[Finding]:
    """Compare arrays by name; a name that only one side has is a finding that does not hold.

    Args:
        rung: What is compared, in general.
        where: What the names belong to, such as a problem.
        expected: Arrays of one side, by whose greatest entry a difference is divided.
        actual: Arrays of the other side.
        bound: The greatest difference allowed.
    """
    findings = [
        Finding(rung, f"{where}: {name}", relative_difference(expected[name], actual[name]), bound)
        for name in expected
        if name in actual
    ]
    one_sided = set(expected) ^ set(actual)
    return findings + [Finding(rung, f"{where}: {name} on one side only", np.inf, bound) for name in sorted(one_sided)]


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that do not hold."""
    return [finding for finding in findings if not finding.holds]
