"""Directories that outlast a power failure and that one process at a time writes to, where the system can do that."""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy takes the name for the module, which Windows has not


def sync_directory(path: Path) -> None:
    """See to it that a file, or names made or changed in a directory, outlast a power failure."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(descriptor: int) -> None:
    """Lock an open directory until it is closed; BlockingIOError if another process has it."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
