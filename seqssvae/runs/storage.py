"""Files that are written whole or not at all, and the formats of a run directory: JSON and safetensors."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from seqssvae.backend import Weights
from seqssvae.errors import RunError
from seqssvae.parameters import Shape

DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}
"""Types of arrays that a run directory may hold."""


def write_atomically(contents: Mapping[Path, bytes]) -> None:
    """Write files whole or not at all, and all of them at nearly the same instant.

    Each file is written under a temporary name beside its place, and renamed once all of them are complete. A file that
    is already there is replaced.

    Args:
        contents: What each file is to hold.

    Raises:
        OSError: If a file cannot be written. Then the old files are left as they were.
    """
    staged = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, temporary in staged.items():
            with temporary.open("wb") as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            os.replace(temporary, path)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files as `write_atomically` does, with an error that a user can read.

    Raises:
        RunError: If a file cannot be written.
    """
    try:
        write_atomically(contents)
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be written ({error.strerror}).") from error


def to_json(value: Any) -> bytes:
    """Return a value as a JSON document that ends with a line break."""
    return (json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def read_bytes(path: Path, remedy: str = "") -> bytes:
    """Return the content of a file of a run directory.

    Args:
        path: The file.
        remedy: What the error says behind the file's name if it is missing.

    Raises:
        RunError: If the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path.parent} is not a complete run directory: it has no {path.name}{remedy}.") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}).") from error


def read_json(path: Path, remedy: str = "") -> dict[str, Any]:
    """Return the object that a JSON file of a run directory holds.

    Args:
        path: The file.
        remedy: What the error says behind the file's name if it is missing.

    Raises:
        RunError: If the file is missing, is not JSON, or holds something else than an object.
    """
    try:
        value = json.loads(read_bytes(path, remedy).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: must hold a JSON object.")
    return value


def to_safetensors(arrays: Mapping[str, np.ndarray], step: int) -> bytes:
    """Return named arrays as a safetensors file that notes the training step they are from."""
    return save({name: np.asarray(value, order="C") for name, value in arrays.items()}, metadata={"step": str(step)})


def read_safetensors(path: Path, expected: Mapping[str, Shape] | None = None) -> tuple[Weights, int]:
    """Read named arrays from a safetensors file.

    Args:
        path: The file.
        expected: Names and shapes that it must have, which are checked before anything is loaded; None for any.

    Returns:
        The arrays, and the training step they are from (-1 if the file does not say).

    Raises:
        RunError: If the file is missing or damaged, has other names, shapes or types, or has values that are not
            finite.
    """
    if not path.is_file():
        read_bytes(path)
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            entries = {name: file.get_slice(name) for name in names}
            if expected is not None:
                _check_shapes(path, {name: tuple(entry.get_shape()) for name, entry in entries.items()}, expected)
            for name, entry in entries.items():
                if entry.get_dtype() not in DTYPES:
                    known = ", ".join(DTYPES)
                    raise RunError(f"{path}: {name} is of type {entry.get_dtype()}; must be one of {known}.")
            arrays = {name: np.asarray(file.get_tensor(name)) for name in entries}
            step = (file.metadata() or {}).get("step", "")
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error}).") from error
    for name, value in arrays.items():
        if not np.all(np.isfinite(value)):
            raise RunError(f"{path}: {name} holds values that are not finite.")
    return arrays, int(step) if step.isdecimal() else -1


def _check_shapes(path: Path, shapes: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    for name, shape in expected.items():
        if name not in shapes:
            raise RunError(f"{path}: {name} is missing, which config.yaml and vocabulary.json beside it ask for.")
        if shapes[name] != shape:
            asked = f"but config.yaml and vocabulary.json beside it ask for {shape}"
            raise RunError(f"{path}: {name} has shape {shapes[name]}, {asked}.")
    for name in shapes:
        if name not in expected:
            raise RunError(f"{path}: {name} is unknown to the config.yaml beside it.")
