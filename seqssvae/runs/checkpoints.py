"""The layout of a run directory: checkpoints, each whole in a folder of its own, and one file that names the latest.

    RUN/latest.json                     the name of the latest checkpoint, and the checksum of its manifest
    RUN/checkpoints/00000240/...        the files of the checkpoint at training step 240
    RUN/checkpoints/00000240/manifest.json   size and checksum (BLAKE2b) of each of them, written last

A checkpoint is written beside the others and on the disk before `latest.json` is replaced, so that whoever reads or
resumes the run finds a whole one at any moment. The one before it is kept. A folder with the files of a checkpoint
alone is a run directory too: earlier versions wrote such, without a manifest.
"""

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from seqssvae.data.directories import sync_directory
from seqssvae.errors import RunError
from seqssvae.runs.storage import parse_json, read_file, to_json
from seqssvae.runs.writing import UNFINISHED, explained, write_atomically, write_new

LATEST, CHECKPOINTS, MANIFEST = "latest.json", "checkpoints", "manifest.json"

FORMAT = 1
"""Version of this layout."""

_NAME = re.compile(r"[0-9]{8,19}b?", re.ASCII)
_LIMIT = 1 << 16
"""Most bytes of `latest.json`, and of a manifest."""


class CheckpointFiles:
    """The files of one checkpoint, as they are read.

    Args:
        run: The run directory, of which the latest checkpoint is taken.
        verify: Whether each file must have the checksum that the manifest says.

    Raises:
        RunError: If there is no run directory, or `latest.json` or the manifest is damaged.

    Attributes:
        folder: Where the files are.
    """

    def __init__(self, run: str | Path, verify: bool = True) -> None:
        run = Path(run)
        _check_directory(run)
        name, digest = _read_latest(run)
        self.folder = run if name is None else run / CHECKPOINTS / name
        self._entries = self._read_manifest(digest) if verify else None

    def __contains__(self, name: str) -> bool:
        if self._entries is not None:
            return name in self._entries
        return os.path.lexists(self.folder / name)

    def read(self, name: str, limit: int, remedy: str = "") -> bytes:
        """Return the content of a file.

        Args:
            name: Its name.
            limit: Most bytes that such a file can have.
            remedy: What the error says behind the file's name if it is missing.

        Raises:
            RunError: If it is missing, cannot be read, is not a regular file, is too large, or is not what the manifest
                says.
        """
        path = self.folder / name
        content = read_file(path, limit, remedy)
        if self._entries is not None and self._entries.get(name) != _entry(content):
            raise RunError(
                f"{path} is not the file that {MANIFEST} beside it describes: it was changed or damaged "
                "(--no-verify opens it all the same)."
            )
        return content

    def _read_manifest(self, digest: str | None) -> dict[str, Any] | None:
        path = self.folder / MANIFEST
        if digest is None and not os.path.lexists(path):
            return None
        content = read_file(path, _LIMIT)
        if digest is not None and _digest(content) != digest:
            raise RunError(f"{path} is not the one that {LATEST} names (--no-verify opens the run all the same).")
        entries = _checked_format(parse_json(content, str(path)), path).get("files")
        if not isinstance(entries, dict):
            raise RunError(f"{path}: files must be an object.")
        return entries


def write_checkpoint(run: Path, step: int, contents: Mapping[str, bytes], outdated: Iterable[str] = ()) -> str:
    """Add a checkpoint to a run directory, make it the latest, and remove all others but the one before it.

    Args:
        run: The directory.
        step: The training step of the checkpoint.
        contents: What each file is to hold.
        outdated: Names of files in the directory itself that are removed once there are two checkpoints.

    Returns:
        The name of the checkpoint.

    Raises:
        RunError: If it cannot be written. The checkpoint before it is then still the latest.
    """
    checkpoints, former = run / CHECKPOINTS, latest_name(run)
    name = f"{step:08d}"
    name = f"{name}b" if name == former else name
    staged = checkpoints / f".{name}.{os.getpid()}"
    manifest = to_json({"format": FORMAT, "files": {file: _entry(content) for file, content in contents.items()}})
    try:
        with explained(checkpoints / name):
            checkpoints.mkdir(exist_ok=True)
            _remove(staged, checkpoints / name)
            staged.mkdir()
            for file, content in [*contents.items(), (MANIFEST, manifest)]:
                write_new(staged / file, [content])
            sync_directory(staged)
            os.rename(staged, checkpoints / name)
            sync_directory(checkpoints)
            pointer = {"format": FORMAT, "checkpoint": name, "manifest": _digest(manifest)}
            write_atomically(run / LATEST, [to_json(pointer)])
    except BaseException:
        with contextlib.suppress(RunError, OSError):
            _remove(*([] if latest_name(run) == name else [checkpoints / name]), staged)
        raise
    with contextlib.suppress(OSError):
        others = [entry for entry in checkpoints.iterdir() if entry.name not in (name, former)]
        _remove(*(entry for entry in others if entry.name[0] == "." or _NAME.fullmatch(entry.name)))
        _remove(*run.glob(f"{UNFINISHED}*"))
        if former is not None:
            _remove(*(run / file for file in outdated))
    return name


def latest_name(run: Path) -> str | None:
    """Return the name of the latest checkpoint; None if a directory has none, or is one itself.

    Raises:
        RunError: If `latest.json` is damaged.
    """
    return _read_latest(run)[0] if os.path.lexists(run / LATEST) else None


def has_checkpoint(path: str | Path | None) -> bool:
    """Return whether there is a run directory that can be gone on with."""
    return path is not None and os.path.lexists(Path(path) / LATEST)


def _check_directory(run: Path) -> None:
    try:
        status = os.stat(run)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"There is no run directory {run}.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{run}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if not stat.S_ISDIR(status.st_mode):
        raise RunError(f"{run} is not a run directory but a file.")


def _read_latest(run: Path) -> tuple[str | None, str | None]:
    """Return name and manifest's checksum of the latest checkpoint; None, where the directory is one itself."""
    path = run / LATEST
    if not os.path.lexists(path) and not os.path.lexists(run / CHECKPOINTS):
        return None, None
    pointer = _checked_format(parse_json(read_file(path, _LIMIT), str(path)), path)
    name, digest = pointer.get("checkpoint"), pointer.get("manifest")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(digest, str):
        raise RunError(f"{path}: must name a checkpoint and the checksum of its manifest.")
    return name, digest


def _checked_format(stored: dict[str, Any], path: Path) -> dict[str, Any]:
    if stored.get("format") != FORMAT:
        raise RunError(f"{path}: format {str(stored.get('format'))[:20]} is not {FORMAT}, which this version reads.")
    return stored


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _entry(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "blake2b": _digest(content)}


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
