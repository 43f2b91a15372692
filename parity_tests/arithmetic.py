"""Elementary functions of the oracle, analytic, so that they serve float64 and complex128 alike.

The complex step (Squire & Trapp 1998) needs functions that are analytic near the real axis: no absolute value, and
every comparison and every shift made on real parts alone.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Inexact

Vector = Inexact[np.ndarray, " N"]

LOG_TWO_PI = float(np.log(2.0 * np.pi))


def sigmoid(a: Vector) -> Vector:
    """`1 / (1 + exp(-a))`, written with tanh, which does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def relu(a: Vector) -> Vector:
    """`max(a, 0)`."""
    return np.where(a.real > 0, a, 0.0)


def softplus(a: Vector) -> Vector:
    """`log(1 + exp(a))`, in the form `a + log(1 + exp(-a))` where the real part is positive."""
    positive = a.real > 0
    return np.where(positive, a, 0.0) + np.log1p(np.exp(np.where(positive, -a, a)))


def log_softmax(logits: Vector, excluded: Sequence[int] = ()) -> Vector:
    """Log-probabilities proportional to `exp(logits)`; excluded entries have probability 0, log-probability -inf."""
    possible = np.array([i not in excluded for i in range(len(logits))])
    shift = logits[possible].real.max()
    log_total = shift + np.log(np.exp(logits[possible] - shift).sum())
    return np.where(possible, logits - log_total, -np.inf)


def maximum(rows: Inexact[np.ndarray, "T N"]) -> Vector:
    """The greatest entry of each column, by real part."""
    return np.array([column[column.real.argmax()] for column in rows.T])


def log_normal(value: Vector, loc: Vector, scale: Vector) -> np.inexact:
    """Log-density of independent normal variables."""
    return (-0.5 * ((value - loc) / scale) ** 2 - np.log(scale) - 0.5 * LOG_TWO_PI).sum()
