"""How the process treats the memory that a training step frees and the next one allocates again."""

import ctypes
import os
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8
"""Names of glibc's `mallopt` parameters (malloc.h)."""

_kept = False


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next allocation instead of returning it to the kernel.

    A training step allocates and frees the same large arrays every time. By default glibc returns arrays of over 32 MiB
    (or more than lies at the heap's end) at once, and the kernel then hands out every page anew and zeroed, which takes
    a fifth of a step on a CPU. The peak memory of the process stays the same, but it holds more between steps. Threads
    no longer get heaps of their own: such heaps return every large array in any case, and a framework whose threads
    allocate (JAX) would gain nothing.

    The setting is for the whole process, so call this in processes of your own, before a framework is loaded. The
    library never does so by itself; the command line does.

    Returns:
        Whether the memory is kept: only if the C library is glibc, and unless the environment has `SEQSSVAE_MALLOC=0`.
    """
    global _kept
    if not sys.platform.startswith("linux") or os.environ.get("SEQSSVAE_MALLOC") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_ARENA_MAX, 1)
    _kept = all([bool(mallopt(*setting)) for setting in settings])
    return _kept


def return_freed_memory() -> None:
    """Return to the kernel what the C library keeps since `keep_freed_memory`; without that, nothing is done.

    A compiler frees hundreds of megabytes in small pieces, among which a step's arrays find no place, nor does what the
    next compilation allocates.
    """
    if _kept:
        ctypes.CDLL(None).malloc_trim(0)
