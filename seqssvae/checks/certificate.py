"""The certificate of a run: every comparison of the twins, and what follows from them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from seqssvae.config import Precision

TWINS = ("torch", "jax")
"""Names of the twins that are compared, in the order of `Comparison.values`."""
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
"""Floating-point types in which they are compared, in order."""


class Comparison(NamedTuple):
    """One line of a certificate.

    Args:
        precision: Floating-point type of both twins.
        term: What was compared.
        values: The number that each twin computed: of a term the mean over rows, of a gradient the Euclidean norm.
        absolute: Greatest difference of an entry.
        relative: Greatest difference of an entry, divided by the greatest entry of the first twin.
        bound: Greatest relative difference allowed.
    """

    precision: Precision
    term: str
    values: tuple[float, float]
    absolute: float
    relative: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound (and not NaN)."""
        return self.relative <= self.bound


class Certificate(NamedTuple):
    """The result of `verify`.

    Args:
        run: The run directory.
        step: Training step of its weights.
        origin: Where the rows are from.
        rows: Number of rows whose label was summed out.
        labelled_rows: Number of rows whose label was observed.
        terms: Comparisons of loss, terms and predictions.
        gradients: Comparisons of the gradient of every weight.
    """

    run: str
    step: int
    origin: str
    rows: int
    labelled_rows: int
    terms: tuple[Comparison, ...]
    gradients: tuple[Comparison, ...]

    @property
    def failures(self) -> list[Comparison]:
        """The comparisons whose difference is beyond the bound."""
        return [comparison for comparison in (*self.terms, *self.gradients) if not comparison.holds]

    @property
    def agrees(self) -> bool:
        """Whether all comparisons hold."""
        return not self.failures

    def worst(self, precision: Precision) -> Comparison:
        """Return the comparison whose difference is greatest beside its bound; NaN is greater than any number."""
        return _worst(one for one in (*self.terms, *self.gradients) if one.precision == precision)

    def worst_gradient(self, precision: Precision) -> Comparison:
        """Return the comparison of the gradient that differs most."""
        return _worst(one for one in self.gradients if one.precision == precision)

    @property
    def verdict(self) -> str:
        """The result in one line."""
        count = len(self.terms) + len(self.gradients)
        if self.agrees:
            parts = [f"{self.worst(p).relative:.1e} in {p} (bound {self.worst(p).bound:.0e})" for p in PRECISIONS]
            return f"The twins agree in all {count} comparisons; the worst relative difference is {', '.join(parts)}."
        worst = _worst(self.failures)
        return (
            f"The twins DIFFER in {len(self.failures)} of {count} comparisons; the worst is {worst.term} in "
            f"{worst.precision}: {worst.relative:.1e}, where {worst.bound:.0e} is allowed."
        )


def _worst(comparisons: Iterable[Comparison]) -> Comparison:
    def excess(comparison: Comparison) -> float:
        if comparison.bound == 0:
            return 0.0 if comparison.relative == 0 else np.inf
        return np.inf if np.isnan(comparison.relative) else comparison.relative / comparison.bound

    return max(comparisons, key=excess)
