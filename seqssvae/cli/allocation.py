"""How the process treats memory that a training step gives back, and the next one asks for again."""

import ctypes
import os
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8
"""Names of glibc's `mallopt` parameters (malloc.h)."""


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed for the next allocation instead of returning it to the kernel.

    A training step allocates and frees the same large arrays every time. By default glibc returns arrays of over 32 MiB
    (or more than lies at the heap's end) at once, and the kernel then hands out every page anew and zeroed, which takes
    a fifth of a step on a CPU. The process's peak is the same; what it holds between steps is more. Threads get no
    heaps of their own from then on: those give every large array back whatever they are told, and a framework whose
    threads allocate (JAX) would gain nothing.

    Returns:
        Whether it was done: only where the C library is glibc, and not where the environment has `SEQSSVAE_MALLOC=0`.
    """
    if not sys.platform.startswith("linux") or os.environ.get("SEQSSVAE_MALLOC") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_ARENA_MAX, 1)
    return all([bool(mallopt(*setting)) for setting in settings])
