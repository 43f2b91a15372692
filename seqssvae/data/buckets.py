"""Buckets: the few lengths that batches are padded to, and how many rows a batch of each has."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from seqssvae.data.ragged import ROWS_OF_A_PART, occurrences

MOST_CANDIDATES = 256
"""Most lengths that are considered as buckets; where there are more different ones, so many quantiles are."""


def choose_buckets(lengths: Int[np.ndarray, " N"], count: int) -> tuple[int, ...]:
    """Choose the lengths with which all rows together are padded least.

    Args:
        lengths: The number of symbols of each row, END included; at least one row.
        count: Most lengths.

    Returns:
        Ascending lengths, the last of which is the greatest of all.
    """
    up_to = np.cumsum(occurrences(lengths))  # rows that each length is long enough for
    candidates = np.flatnonzero(np.diff(up_to, prepend=0))
    if len(candidates) > MOST_CANDIDATES:
        places = np.ceil((len(lengths) - 1) * (np.arange(1, MOST_CANDIDATES + 1) / MOST_CANDIDATES))
        candidates = np.unique(np.searchsorted(up_to, places, side="right"))
    up_to = up_to[candidates]
    size = len(candidates)
    # symbols that rows longer than candidate i (all, for i = -1) and not than j take when padded to j
    symbols = np.where(
        np.arange(-1, size)[:, None] < np.arange(size), (up_to - np.concatenate([[0], up_to])[:, None]) * candidates, 0
    ).astype(float)
    symbols[np.arange(-1, size)[:, None] >= np.arange(size)] = np.inf
    least, choices = symbols[0], []
    for _ in range(min(count, size) - 1):
        totals = least[:, None] + symbols[1:]
        choices.append(totals.argmin(0))
        fewer, least = least, totals.min(0)
        if fewer[-1] <= least[-1]:  # no further bucket saves anything
            choices.pop()
            break
    place = size - 1
    chosen = [place]
    for choice in reversed(choices):
        place = int(choice[place])
        chosen.append(place)
    return tuple(int(length) for length in candidates[chosen[::-1]])


LEAST_BOUND = 1024
"""Batches of so many rows are filled up, however few rows there are, so that shapes do not depend on the data."""


def bounded_size(batch_size: int, rows: int) -> int:
    """Bound B by the number of rows that there are: to the next power of two, or `LEAST_BOUND` if that is more."""
    return min(batch_size, max(LEAST_BOUND, 1 << max(rows - 1, 0).bit_length()))


def rows_per_batch(batch_size: int, batch_symbols: int, time_steps: int) -> int:
    """Compute B of the batches that are padded to one length.

    Args:
        batch_size: The greatest B.
        batch_symbols: Most symbols of a batch, padding included; 0: any number.
        time_steps: T.
    """
    return min(batch_size, max(1, batch_symbols // time_steps)) if batch_symbols else batch_size


def bucket_of_rows(lengths: Int[np.ndarray, " R"], buckets: Sequence[int]) -> Int[np.ndarray, " R"]:
    """Find the least bucket that each row fits into; for a row longer than all, the last is doubled until it fits."""
    sizes = doubled_buckets(int(lengths.max(initial=0)), buckets)
    return np.array(sizes)[np.searchsorted(sizes, lengths)]


def number_of_bucket(lengths: Int[np.ndarray, " R"], sizes: Sequence[int]) -> Int[np.ndarray, " R"]:
    """Find the number of the least bucket that each row fits into, counted from 0, in a byte or two each."""
    kind = np.int8 if len(sizes) < 2**7 else np.int16
    parts = (lengths[first : first + ROWS_OF_A_PART] for first in range(0, len(lengths), ROWS_OF_A_PART))
    numbers = (np.searchsorted(sizes, part).astype(kind) for part in parts)
    return np.concatenate([np.zeros(0, kind), *numbers])


def doubled_buckets(longest: int, buckets: Sequence[int]) -> list[int]:
    """The buckets, and the last one doubled as often as it takes for the longest row."""
    sizes = list(buckets)
    while sizes[-1] < longest:
        sizes.append(2 * sizes[-1])
    return sizes
