"""Keeps two processes from writing to one run directory."""

import contextlib
import os
from pathlib import Path

from seqssvae.data.directories import lock
from seqssvae.errors import RunError


class DirectoryLock:
    """A lock on a directory, where the system has such; it ends with the process at the latest.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock.

        Raises:
            RunError: If another process has it.
        """
        with contextlib.suppress(OSError):
            self._descriptor = os.open(self._path, os.O_RDONLY)
            try:
                lock(self._descriptor)
            except BlockingIOError:
                self.release()
                raise RunError(f"Another process is training {self._path}; wait for it, or stop it.") from None

    def release(self) -> None:
        """Give the lock back, if it was taken."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
