"""Files written whole or not at all, and named arrays in safetensors files."""

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


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files whole or not at all, all of them at nearly the same instant: each beside its place, then renamed.

    Raises:
        RunError: If one cannot be written.
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
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be written ({error.strerror}).") from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def to_json(value: Any) -> bytes:
    """A JSON document, ending with a line break."""
    return (json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def read_bytes(path: Path, remedy: str = "") -> bytes:
    """The content of a file of a run directory.

    Raises:
        RunError: If it is missing (what to do about it follows), or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path.parent} is not a complete run directory: it has no {path.name}{remedy}.") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}).") from error


def read_json(path: Path, remedy: str = "") -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        RunError: If it is missing, or is not JSON, or no object.
    """
    try:
        value = json.loads(read_bytes(path, remedy).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: must hold a JSON object.")
    return value


def to_safetensors(arrays: Mapping[str, np.ndarray], step: int) -> bytes:
    """Named arrays as a safetensors file that notes the training step they are from."""
    return save({name: np.asarray(value, order="C") for name, value in arrays.items()}, metadata={"step": str(step)})


def read_safetensors(path: Path, expected: Mapping[str, Shape] | None = None) -> tuple[Weights, int]:
    """Named arrays, and the training step they are from.

    Args:
        path: A safetensors file.
        expected: Names and shapes it must have, looked at before anything is loaded; None: any.

    Raises:
        RunError: If it is missing, no safetensors file, holds other names, shapes or types, or values not finite.
    """
    if not path.is_file():
        read_bytes(path)
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            found = {name: file.get_slice(name) for name in names}
            if expected is not None:
                _check_shapes(path, {name: tuple(entry.get_shape()) for name, entry in found.items()}, expected)
            for name, entry in found.items():
                if entry.get_dtype() not in DTYPES:
                    known = ", ".join(DTYPES)
                    raise RunError(f"{path}: {name} is of type {entry.get_dtype()}; must be one of {known}.")
            arrays = {name: np.asarray(file.get_tensor(name)) for name in found}
            step = (file.metadata() or {}).get("step", "")
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error}).") from error
    for name, value in arrays.items():
        if not np.all(np.isfinite(value)):
            raise RunError(f"{path}: {name} holds values that are not finite.")
    return arrays, int(step) if step.isdecimal() else -1


def _check_shapes(path: Path, found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    for name, shape in expected.items():
        if name not in found:
            raise RunError(f"{path}: {name} is missing, which config.yaml and vocabulary.json beside it ask for.")
        if found[name] != shape:
            asked = f"but config.yaml and vocabulary.json beside it ask for {shape}"
            raise RunError(f"{path}: {name} has shape {found[name]}, {asked}.")
    for name in found:
        if name not in expected:
            raise RunError(f"{path}: {name} is unknown to the config.yaml beside it.")
