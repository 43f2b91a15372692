"""The configuration as YAML and as nested dictionaries. Every error names the field by its full path."""

import dataclasses
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from seqssvae.config import Config
from seqssvae.config.fields import check_fields, is_section, short_repr
from seqssvae.errors import ConfigurationError

Settings = dict[str, Any]
"""Some fields of a `Config`, nested as there."""

RENAMED: dict[str, dict[str, str | None]] = {
    "data": {"labels_per_class": None, "validation_labels_per_class": None},
    "objective": {"estimator": "gradient_estimator"},
}
"""By section, the fields that earlier versions wrote, and their present names; None where a field was removed."""

YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)
"""The exceptions that reading a malformed document may raise."""


def to_dict(config: Config) -> Settings:
    """Return all fields, nested, as plain values that YAML and JSON can hold."""
    return _plain(dataclasses.asdict(config))


def from_dict(settings: Mapping[str, Any], origin: str | None = None) -> Config:
    """Build a configuration from some of its fields; the others keep their defaults.

    Args:
        settings: Fields, nested as in `Config`.
        origin: The file they are from, which an error names.

    Raises:
        ConfigurationError: If a field is unknown (the error names the nearest known one) or has a wrong value.

    Example:
        >>> from_dict({"model": {"encoder": {"hidden_size": 8}}}).model.encoder.hidden_size
        8
    """
    check_fields(settings, origin)
    try:
        return _build(Config, settings)
    except ConfigurationError as error:
        raise ConfigurationError((f"{origin}: " if origin else "") + str(error)) from error


def upgraded(settings: Mapping[str, Any]) -> Settings:
    """Return the fields of a run that an earlier version wrote by their present names, without those removed since."""
    upgraded_settings = dict(settings)
    for section, names in RENAMED.items():
        if isinstance(settings.get(section), Mapping):
            fields = ((names.get(name, name), value) for name, value in settings[section].items())
            upgraded_settings[section] = {name: value for name, value in fields if name is not None}
    return upgraded_settings


def merge(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """Return settings in which some fields are replaced; neither argument is changed."""
    merged = dict(settings)
    for name, value in overrides.items():
        inner = merged.get(name)
        merged[name] = merge(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def to_yaml(config: Config) -> str:
    """Return the whole configuration as a YAML document."""
    return to_plain_yaml(to_dict(config))


def to_plain_yaml(settings: Settings, in_one_line: bool = False) -> str:
    """Return fields as a YAML document, or as an entry of one, with lists and all, in one line."""
    options: dict[str, Any] = {"sort_keys": False}
    if in_one_line:
        text = yaml.dump(settings, Dumper=_Dumper, default_flow_style=True, width=10**9, **options).strip()
        return text.removeprefix("{").removesuffix("}")
    text = yaml.dump(settings, Dumper=_Dumper, allow_unicode=True, **options)
    legible = yaml.safe_load(text) == settings  # not so for some line breaks of Unicode, which must be escaped
    return text if legible else yaml.dump(settings, Dumper=_Dumper, **options)


def read_yaml(path: str | Path) -> Settings:
    """Read some fields of a configuration from a YAML file, and check their names and types.

    Raises:
        ConfigurationError: If the file cannot be read, is not YAML, or has an unknown field or a value of a wrong type.
    """
    settings = parse_yaml(read_text(path), str(path))
    check_fields(settings, str(path))
    return settings


def read_text(path: str | Path) -> str:
    """Read a configuration file.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"There is no configuration file {path}.") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8.") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}).") from None


def parse_yaml(text: str, origin: str) -> Settings:
    """Return the mapping that a YAML document holds; an empty document is an empty mapping.

    Args:
        text: The document.
        origin: The file it is from, which an error names.

    Raises:
        ConfigurationError: If the document is malformed, or holds something else than a mapping.
    """
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
        raise ConfigurationError(
            f"{origin}: must hold sections such as 'model:' with fields, not {short_repr(document)}."
        )
    return document


def load_yaml(text: str) -> Any:
    """Return the value that a YAML document holds; nothing in the document is executed.

    Raises:
        YAMLError: If the document is malformed; also ValueError or RecursionError (`YAML_ERRORS`).
    """
    return yaml.load(text, _Loader)  # a subclass of yaml.SafeLoader


def _build(cls: type, settings: Mapping[str, Any]) -> Any:
    kinds = get_type_hints(cls)
    return cls(
        **{
            name: _build(kinds[name], value or {}) if is_section(kinds[name]) else value
            for name, value in settings.items()
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class _Loader(yaml.SafeLoader):
    """Reads YAML as version 1.2 defines it: 1e-3 is a number, `no` is text; a key that is given twice is an error."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem=f"the tag {event.tag!r} has no use here", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

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


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would not read as text."""


for _first, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_first])
