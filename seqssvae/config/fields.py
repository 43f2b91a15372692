"""The fields of the configuration: their names, the types of their values, and a hint where a name is misspelled."""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as AbstractSequence
from reprlib import Repr
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from seqssvae.config import Config
from seqssvae.errors import ConfigurationError

LARGEST = 2.0**63
"""No number in a configuration is as large."""

_short = Repr()
_short.maxlevel = 2


def short_repr(value: Any) -> str:
    """Return a value as Python would write it, cut where it is long or deeply nested."""
    return _short.repr(value)


def is_section(kind: Any) -> TypeGuard[type]:
    """Return whether a type is that of a section, which has fields, rather than that of a value."""
    return dataclasses.is_dataclass(kind)


def field_paths(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """Iterate over the full names of all fields that hold a value, such as `model.encoder.hidden_size`.

    Args:
        cls: The section whose fields are listed.
        prefix: What is put in front of each name.
    """
    for name, kind in get_type_hints(cls).items():
        if is_section(kind):
            yield from field_paths(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def nearest_name(name: str, known: AbstractSequence[str]) -> str | None:
    """Find the known name that is most like a misspelled one.

    Args:
        name: The misspelled name, such as `model.hidden_siez`.
        known: Full names to choose from.

    Returns:
        The name whose whole path is most alike or, failing that, whose last part is; None if there is none.
    """
    whole = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if whole:
        return whole[0]
    leaves: dict[str, str] = {}
    for path in known:
        leaves.setdefault(path.rpartition(".")[2], path)
    last = difflib.get_close_matches(name.rpartition(".")[2], list(leaves), n=1, cutoff=0.7)
    return leaves[last[0]] if last else None


def expected_value(path: str) -> str | None:
    """Describe in words what the value of a field must be; None if there is no such field.

    Example:
        >>> expected_value("model.latent_size")
        'a whole number'
    """
    kind: Any = Config
    for name in path.split("."):
        kinds = get_type_hints(kind) if is_section(kind) else {}
        if name not in kinds:
            return None
        kind = kinds[name]
    return "a section of fields" if is_section(kind) else _mismatch(kind, _NO_VALUE)


def check_fields(settings: Mapping[str, Any], origin: str | None = None) -> None:
    """Check the names of nested fields, and the types of their values.

    Args:
        settings: Some fields of a `Config`, nested as there.
        origin: The file they are from, which an error names.

    Raises:
        ConfigurationError: If a field is unknown or its value has a wrong type. The error names the first such field
            by its path, and the known field that is nearest to an unknown one.
    """
    _check_section(Config, settings, "", f"{origin}: " if origin else "")


_NO_VALUE = object()
"""A value that is of no field's type."""


def _check_section(cls: type, settings: Mapping[str, Any], prefix: str, at: str) -> None:
    kinds = get_type_hints(cls)
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if name not in kinds:
            raise ConfigurationError(at + _unknown_field(path, prefix, list(kinds)))
        kind = kinds[name]
        if not is_section(kind):
            expected = _mismatch(kind, value)
            if expected:
                raise ConfigurationError(f"{at}{path} must be {expected}, not {short_repr(value)}.")
        elif isinstance(value, Mapping):
            _check_section(kind, value, f"{path}.", at)
        elif value is not None:
            raise ConfigurationError(f"{at}{path} is a section of fields, not {short_repr(value)}.")


def _unknown_field(path: str, prefix: str, siblings: list[str]) -> str:
    leaf, paths = path.rpartition(".")[2], list(field_paths())
    elsewhere = [known for known in paths if known.rpartition(".")[2] == leaf]
    close = [prefix + sibling for sibling in difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)]
    known = next(iter([*elsewhere, *close]), None) or nearest_name(path, paths)
    hint = f"did you mean {known}?" if known else f"known here are {', '.join(siblings)}."
    return f"{path} is not a field of the configuration; {hint}"


def _mismatch(kind: Any, value: Any) -> str | None:
    """Describe what was expected if a value is not of a field's type; None if it is."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [option for option in get_args(kind) if option is not type(None)]
        mismatches = [_mismatch(option, value) for option in inner]
        return None if value is None or None in mismatches else " or ".join(map(str, mismatches))
    if get_origin(kind) is Literal:
        names = get_args(kind)
        return None if isinstance(value, str) and value in names else "one of " + ", ".join(names)
    if get_origin(kind) is AbstractSequence:
        return _sequence_mismatch(get_args(kind)[0], value)
    if kind in (int, float):
        return _number_mismatch(kind, value)
    if kind is bool:
        return None if isinstance(value, bool) else "true or false"
    return None if isinstance(value, str) else "text (in quotes, where YAML would read it as something else)"


def _number_mismatch(kind: type, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        return "a number" if kind is float else "a whole number"
    if isinstance(value, float):
        return None if math.isfinite(value) else "a finite number"
    return None if abs(value) < LARGEST else "a number of at most 18 digits"


def _sequence_mismatch(kind: type, value: Any) -> str | None:
    if isinstance(value, (list, tuple)) and all(_mismatch(kind, item) is None for item in value):
        return None
    return "a list of texts (in quotes, where YAML would read them otherwise)" if kind is str else "a list of numbers"
