"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from seqssvae.data.directories import sync_directory
from seqssvae.errors import RunError

UNFINISHED = ".seqssvae-"
"""How the name of a file begins that is not complete yet."""

_PSEUDO = ("/dev/", "/proc/")
"""Where names stand for what a process has open."""


def write_new(path: Path, chunks: Iterable[bytes], mode: int | None = None) -> None:
    """Write a file that is not there yet, down to the disk.

    Args:
        path: The file.
        chunks: What it is to hold, piece by piece.
        mode: Its permissions; None: the usual ones.

    Raises:
        OSError: If it cannot be written. What was written of it stays.
    """
    with path.open("xb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file whole or not at all: beside its place, and then renamed.

    A link is followed, and a file that is replaced keeps its permissions. What is not a regular file (a pipe, a device)
    is written into.

    Args:
        path: The file.
        chunks: What it is to hold, piece by piece.

    Raises:
        OSError: If it cannot be written. Then the old file is left as it was, and nothing beside it.
    """
    if is_stream(path):
        with open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:
            file.writelines(chunks)
        return
    target = Path(os.path.realpath(path))
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    temporary = target.with_name(f"{UNFINISHED}{secrets.token_hex(6)}.tmp")
    try:
        write_new(temporary, chunks, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def is_stream(path: Path) -> bool:
    """Return whether a path names something to write into, such as a pipe or a terminal, rather than a file."""
    if os.path.abspath(path).startswith(_PSEUDO):
        return os.path.exists(path)
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a failure to write something into an error that a user can read.

    Args:
        path: What is written.

    Raises:
        RunError: If it cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}).") from error
