"""How equal two results are: relative differences, and how great they may be.

A difference is `max|a - b| / max|a|` of an array, not of each entry: an entry that is small beside its neighbours
because large parts of it cancel cannot be more exact than they are.
"""

import numpy as np

from seqssvae.config import Precision

BOUNDS: dict[Precision, float] = {"float64": 1e-9, "float32": 1e-5}
"""Greatest relative difference allowed for values and gradients."""


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return `max|a - b| / max|a|`, or `max|b|` if a is all zeros; it is infinite if the shapes differ."""
    if np.shape(a) != np.shape(b):
        return np.inf
    largest = np.max(np.abs(a), initial=0.0)
    return float(np.max(np.abs(np.asarray(a) - b), initial=0.0) / (largest if largest > 0 else 1.0))
