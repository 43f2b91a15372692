"""How far labels agree beyond chance, and how well that is known."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

EVIDENCE = 2.33
"""Standard errors beyond which agreement is not chance: one time in a hundred."""
LITTLE = 0.3
"""An agreement that is surely below this is little."""


class Agreement(NamedTuple):
    """Agreement of predicted labels with labels: Cohen's kappa, 0 by chance and 1 where all are right.

    It does not depend on how frequent labels are: who always says the most frequent one has 0.

    Args:
        rows: The number of rows.
        kappa: Cohen's kappa; not a number where all rows have one label, or all are predicted to.
        error: Its standard error if predictions tell nothing of labels.
    """

    rows: int
    kappa: float
    error: float

    @property
    def known(self) -> bool:
        """Whether there is anything to tell."""
        return bool(np.isfinite(self.kappa) and self.error > 0)

    @property
    def learned(self) -> bool:
        """Whether predictions tell something of the labels."""
        return self.known and self.kappa > EVIDENCE * self.error

    @property
    def guessed(self) -> bool:
        """Whether predictions are no better than chance, and enough rows say so."""
        return self.known and not self.learned and self.kappa + 2 * self.error < LITTLE


def agreement(observed: Int[np.ndarray, " K"], predicted: Int[np.ndarray, " K"], hits: int) -> Agreement:
    """Compute Cohen's kappa from counts.

    Args:
        observed: The number of rows of each label.
        predicted: The number of rows predicted to have each.
        hits: The number of rows whose label is predicted.

    References:
        Cohen 1960, A coefficient of agreement for nominal scales; Fleiss, Cohen and Everitt 1969, Large sample standard
        errors of kappa and weighted kappa, equation 14, for the standard error without association.
    """
    rows = int(observed.sum())
    if not rows:
        return Agreement(0, float("nan"), float("nan"))
    p, q = observed / rows, predicted / rows
    expected = float(p @ q)
    if expected > 1 - 1e-12:
        return Agreement(rows, float("nan"), float("nan"))
    spread = expected + expected**2 - float(np.sum(p * q * (p + q)))
    kappa = (hits / rows - expected) / (1 - expected)
    return Agreement(rows, float(kappa), float(np.sqrt(max(spread, 0.0) / rows) / (1 - expected)))
