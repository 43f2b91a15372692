"""Configuration as YAML and as nested dictionaries, with every mistake named by its full path."""

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Hashable, Iterator, Mapping
from collections.abc import Sequence as AbstractSequence
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

import yaml

from seqssvae.config import Config
from seqssvae.errors import ConfigurationError

Settings = dict[str, Any]
"""Some fields of a `Config`, nested as there."""

RENAMED: dict[str, dict[str, str | None]] = {
    "data": {"labels_per_class": None, "validation_labels_per_class": None},
    "objective": {"estimator": "gradient_estimator"},
}
"""Fields of runs that earlier versions wrote, and their names now; None where there is no such field any more."""

YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)
"""What reading a malformed document may raise."""

_shortened = Repr()
_shortened.maxlevel = 2
_repr = _shortened.repr


def to_dict(config: Config) -> Settings:
    """All fields, nested, as plain values that YAML and JSON can hold."""
    return _plain(dataclasses.asdict(config))


def from_dict(settings: Mapping[str, Any], origin: str | None = None) -> Config:
    """Build a configuration from some of its fields; the others keep their defaults.

    Args:
        settings: Fields, nested.
        origin: The file they are from, named in messages.

    Raises:
        ConfigurationError: For an unknown field (naming the nearest known one) or a wrong value.

    Example:
        >>> from_dict({"model": {"encoder": {"hidden_size": 8}}}).model.encoder.hidden_size
        8
    """
    check_fields(settings, origin)
    try:
        return _build(Config, settings)
    except ConfigurationError as error:
        raise ConfigurationError(_at(origin) + str(error)) from error


def upgraded(settings: Mapping[str, Any]) -> Settings:
    """Fields of a run that an earlier version wrote, by the names they have now."""
    found = dict(settings)
    for section, names in RENAMED.items():
        if isinstance(found.get(section), Mapping):
            fields = ((names.get(name, name), value) for name, value in found[section].items())
            found[section] = {name: value for name, value in fields if name is not None}
    return found


def to_yaml(config: Config) -> str:
    """The whole configuration as a YAML document."""
    settings = to_dict(config)
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    legible = yaml.safe_load(text) == settings  # not so for some line breaks of Unicode, which must be escaped
    return text if legible else yaml.safe_dump(settings, sort_keys=False)


def read_yaml(path: str | Path) -> Settings:
    """Read some fields of a configuration from a YAML file, and check their names and types.

    Raises:
        ConfigurationError: If it cannot be read, is no YAML, or has an unknown field or one of a wrong type.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"There is no configuration file {path}.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8.") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}).") from None
    settings = parse_yaml(text, str(path))
    check_fields(settings, str(path))
    return settings


def parse_yaml(text: str, origin: str) -> Settings:
    """The mapping that a YAML document holds; an empty document is an empty mapping."""
    try:
        document = load_yaml(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigurationError(f"{origin}{line}: not valid YAML: {error.problem or error.context}.") from None
    except YAML_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(f"{origin}: not valid YAML: {reason}.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{origin}: must hold sections such as 'model:' with fields, not {_repr(document)}.")
    return document


def load_yaml(text: str) -> Any:
    """The value that a YAML document holds, safely; `YAML_ERRORS` may be raised."""
    return yaml.load(text, _Loader)  # a subclass of yaml.SafeLoader


def merge(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Settings with some fields replaced; neither argument is changed."""
    merged = dict(settings)
    for name, value in overrides.items():
        inner = merged.get(name)
        merged[name] = merge(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def field_paths(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """Full names of all fields that hold a value, such as `model.encoder.hidden_size`."""
    for name, kind in get_type_hints(cls).items():
        if _is_section(kind):
            yield from field_paths(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def nearest(name: str, known: AbstractSequence[str]) -> str | None:
    """The known name most like this one: by the whole path, or else by its last part; None if none is alike."""
    whole = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if whole:
        return whole[0]
    leaves: dict[str, str] = {}
    for path in known:
        leaves.setdefault(path.rpartition(".")[2], path)
    last = difflib.get_close_matches(name.rpartition(".")[2], list(leaves), n=1, cutoff=0.7)
    return leaves[last[0]] if last else None


def expected(path: str) -> str | None:
    """What the value of a field must be, in words; None if there is no such field."""
    kind: Any = Config
    for name in path.split("."):
        kinds = get_type_hints(kind) if _is_section(kind) else {}
        if name not in kinds:
            return None
        kind = kinds[name]
    return "a section of fields" if _is_section(kind) else _mismatch(kind, _NOTHING)


def check_fields(settings: Mapping[str, Any], origin: str | None = None) -> None:
    """Check names and types of fields, at every depth.

    Raises:
        ConfigurationError: Naming the first wrong one by its path, and the file.
    """
    _check_section(Config, settings, "", _at(origin))


_NOTHING = object()
"""A value of no field's type."""


def _is_section(kind: Any) -> TypeGuard[type]:
    return dataclasses.is_dataclass(kind)


def _at(origin: str | None) -> str:
    return f"{origin}: " if origin else ""


def _check_section(cls: type, settings: Mapping[str, Any], prefix: str, at: str) -> None:
    kinds = get_type_hints(cls)
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if name not in kinds:
            raise ConfigurationError(at + _unknown(path, prefix, list(kinds)))
        kind = kinds[name]
        if not _is_section(kind):
            expected = _mismatch(kind, value)
            if expected:
                raise ConfigurationError(f"{at}{path} must be {expected}, not {_repr(value)}.")
        elif isinstance(value, Mapping):
            _check_section(kind, value, f"{path}.", at)
        elif value is not None:
            raise ConfigurationError(f"{at}{path} is a section of fields, not {_repr(value)}.")


def _unknown(path: str, prefix: str, siblings: list[str]) -> str:
    leaf, paths = path.rpartition(".")[2], list(field_paths())
    elsewhere = [known for known in paths if known.rpartition(".")[2] == leaf]
    close = [prefix + sibling for sibling in difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)]
    known = next(iter([*elsewhere, *close]), None) or nearest(path, paths)
    hint = f"did you mean {known}?" if known else f"known here are {', '.join(siblings)}."
    return f"{path} is not a field of the configuration; {hint}"


def _mismatch(kind: Any, value: Any) -> str | None:
    """What was expected, in words, where a value is not of a field's type."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [option for option in get_args(kind) if option is not type(None)]
        return None if value is None else _mismatch(inner[0], value)
    if get_origin(kind) is Literal:
        names = get_args(kind)
        return None if isinstance(value, str) and value in names else "one of " + ", ".join(names)
    if get_origin(kind) is AbstractSequence:
        return _sequence_mismatch(get_args(kind)[0], value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float:
        return None if number and math.isfinite(value) else "a number"
    if kind is int:
        return None if number and isinstance(value, int) else "a whole number"
    if kind is bool:
        return None if isinstance(value, bool) else "true or false"
    return None if isinstance(value, str) else "text (in quotes, where YAML would read it as something else)"


def _sequence_mismatch(kind: type, value: Any) -> str | None:
    if isinstance(value, (list, tuple)) and all(_mismatch(kind, item) is None for item in value):
        return None
    return "a list of texts (in quotes, where YAML would read them otherwise)" if kind is str else "a list of numbers"


def _build(cls: type, settings: Mapping[str, Any]) -> Any:
    kinds = get_type_hints(cls)
    return cls(
        **{
            name: _build(kinds[name], value or {}) if _is_section(kinds[name]) else value
            for name, value in settings.items()
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class _Loader(yaml.SafeLoader):
    """YAML as version 1.2 reads it: 1e-3 is a number, `no` is text; a key given twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a field's name must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}  # not those of YAML 1.1, which the base class has
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), "-+0123456789")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    "-+.0123456789",
)
