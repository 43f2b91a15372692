"""How many labels `top_k` sums out where q(y|x) decides it (`objective.k: 0`)."""

from collections.abc import Sequence

import numpy as np


def candidates(label_count: int) -> tuple[int, ...]:
    """List the numbers of labels that may be summed out: 1, 2, 4, 8, ... below K - 1, and K, which leaves none to draw.

    Args:
        label_count: K.

    Example:
        >>> candidates(12)
        (1, 2, 4, 8, 12)
    """
    powers = (2**exponent for exponent in range(label_count.bit_length()))
    return (*(power for power in powers if power < label_count - 1), label_count)


def least_k(label_count: int, rest: Sequence[float] | np.ndarray, bound: float) -> int:
    """Choose the least of the candidates that leaves at most so much probability to the other labels.

    Args:
        label_count: K.
        rest: The probability that each candidate leaves; that of the last one is not looked at.
        bound: The greatest probability that may be left.

    Example:
        >>> least_k(12, [0.6, 0.3, 0.04, 0.01, 0.0], bound=0.05)
        4
    """
    pairs = zip(candidates(label_count)[:-1], np.asarray(rest, float)[:-1], strict=True)
    return next((k for k, left in pairs if left <= bound), label_count)
