"""The formats of a run directory, JSON and safetensors: how they are written, and read without trust in what is read.

A file is regular, no larger than such a file can be, and read once.
"""

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from seqssvae.backend import Weights
from seqssvae.errors import RunError
from seqssvae.parameters import Shape

DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}
"""Types of arrays that a run directory may hold."""

_HEADER_BYTES, _HEADER_BYTES_PER_ARRAY = 1 << 16, 1 << 10
"""Most bytes of the header of a safetensors file."""


def to_json(value: Any) -> bytes:
    """Return a value as a JSON document that ends with a line break."""
    return (json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()


def read_file(path: Path, limit: int, remedy: str = "") -> bytes:
    """Return the content of a file of a run directory.

    Args:
        path: The file. A link to a regular file is followed.
        limit: Most bytes that such a file can have.
        remedy: What the error says behind the file's name if it is missing.

    Raises:
        RunError: If the file is missing, cannot be read, is not a regular file, or is larger.
    """
    try:
        _check_regular(path, os.stat(path))
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            _check_regular(path, status)
            content = b"" if status.st_size > limit else file.read(min(limit, status.st_size) + 1)
    except FileNotFoundError:
        raise RunError(f"{path.parent} is not a complete run directory: it has no {path.name}{remedy}.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from error
    if max(status.st_size, len(content)) > limit:
        raise RunError(f"{path} is larger than such a file can be ({limit} bytes).")
    return content


def parse_json(content: bytes, origin: str, finite: bool = True) -> dict[str, Any]:
    """Return the object that a JSON document holds.

    Args:
        content: The document.
        origin: Where it is from, which an error names.
        finite: Whether its numbers must be finite.

    Raises:
        RunError: If it is not JSON, has a number of more than 40 digits or a text that is not Unicode, or holds
            something else than an object.
    """
    try:
        constant, number = (_refuse_constant, _finite) if finite else (None, None)
        text = content.decode("utf-8")
        value = json.loads(text, parse_int=_integer, parse_float=number, parse_constant=constant)
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # which a lone surrogate is not
    except (ValueError, RecursionError) as error:
        raise RunError(f"{origin}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise RunError(f"{origin}: must hold a JSON object.")
    return value


def to_safetensors(arrays: Mapping[str, np.ndarray], step: int) -> bytes:
    """Return named arrays as a safetensors file that notes the training step they are from."""
    return save({name: np.asarray(value, order="C") for name, value in arrays.items()}, metadata={"step": str(step)})


def safetensors_limit(shapes: Mapping[str, Shape]) -> int:
    """Return the most bytes that a safetensors file with arrays of these shapes can have."""
    return _HEADER_BYTES + sum(_HEADER_BYTES_PER_ARRAY + 8 * math.prod(shape) for shape in shapes.values())


def parse_safetensors(
    content: bytes, origin: Path, shapes: Mapping[str, Shape], types: Mapping[str, str]
) -> tuple[Weights, int]:
    """Return the named arrays that a safetensors document holds.

    Args:
        content: The document.
        origin: The file it is from, which an error names.
        shapes: Names and shapes that it must have; what it says of itself is checked before anything is loaded.
        types: NumPy's name of the type that each array must have.

    Returns:
        The arrays, and the training step they are from (-1 if the document does not say).

    Raises:
        RunError: If it is damaged, has other names, shapes or types, or has values that are not finite.
    """
    header = _header(content, origin)
    metadata = header.pop("__metadata__", {})
    _check_entries(origin, header, shapes, types)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{origin}: not a valid safetensors file ({error}).") from error
    for name, value in arrays.items():
        if not np.all(np.isfinite(value)):
            raise RunError(f"{origin}: {name} holds values that are not finite.")
    step = str(metadata.get("step")) if isinstance(metadata, dict) else ""
    return arrays, int(step) if re.fullmatch("[0-9]{1,18}", step) else -1


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"{path} is not a regular file.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError(f"{text[:20]}... is too large a number")
    return int(text)


def _header(content: bytes, origin: Path) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise RunError(f"{origin}: not a valid safetensors file (it is cut off, or something else).")
    return parse_json(content[8 : 8 + length], f"{origin}: not a valid safetensors file: header")


def _check_entries(
    path: Path, entries: Mapping[str, Any], shapes: Mapping[str, Shape], types: Mapping[str, str]
) -> None:
    for name, shape in shapes.items():
        if name not in entries:
            raise RunError(f"{path}: {name} is missing, which config.yaml and vocabulary.json beside it ask for.")
        entry = entries[name] if isinstance(entries[name], dict) else {}
        stored = entry.get("shape")
        if stored != list(shape):
            shown = tuple(stored[:8]) if isinstance(stored, list) else stored
            asked = f"but config.yaml and vocabulary.json beside it ask for {shape}"
            raise RunError(f"{path}: {name} has shape {shown}, {asked}.")
        dtype = entry.get("dtype")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise RunError(f"{path}: {name} is of type {dtype}; must be one of {', '.join(DTYPES)}.")
        if DTYPES[dtype] != np.dtype(types[name]):
            raise RunError(f"{path}: {name} is of type {np.dtype(DTYPES[dtype])}, not {types[name]}.")
    for name in entries:
        if name not in shapes:
            raise RunError(f"{path}: {name} is unknown to the config.yaml beside it.")
