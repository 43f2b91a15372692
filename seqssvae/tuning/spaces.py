"""Search spaces: which values of a field of the configuration are tried."""

import itertools
import json
import random
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from seqssvae.config import Config
from seqssvae.config.fields import check_fields, expected_value, field_paths, nearest_name, short_repr
from seqssvae.config.settings import YAML_ERRORS, Settings, load_yaml
from seqssvae.errors import ConfigurationError

FORMS = "'log LOW HIGH', 'uniform LOW HIGH [STEP]', 'int LOW HIGH [STEP]' or 'choice VALUE VALUE ...'"
WHOLE, NUMBER, TEXT = "a whole number", "a number", ("text", "one of")
COMPARED_BY = ("training.metric", "training.seed")
"""Fields that decide what trials are compared by: the metric, and the rows that are held out."""
CHANGED_ALONE = ("data.minimum_count", "data.max_length")
"""Fields of the data that leave the labels, and the rows that are held out, as they are."""
MOST_COMBINATIONS = 500
"""Combinations of values among which one is sought that the configuration takes."""


@dataclass(frozen=True)
class Choice:
    """Some values.

    Args:
        values: The values.
    """

    values: tuple[Any, ...]

    def suggest(self, trial: Any, name: str) -> Any:
        """The value that a trial of Optuna's has."""
        labels = {_label(value): value for value in self.values}
        return labels[trial.suggest_categorical(name, list(labels))]

    def ends(self) -> Sequence[Any]:
        """Values that show whether the configuration takes all of them."""
        return self.values

    def __str__(self) -> str:
        texts = (value if isinstance(value, str) else json.dumps(value) for value in self.values)
        return "choice " + " ".join(map(shlex.quote, texts))


@dataclass(frozen=True)
class Interval:
    """The numbers from one to another, both included.

    Args:
        low: The least.
        high: The greatest.
        whole: Whether they are whole numbers.
        log: Whether their logarithms are equally probable, instead of they themselves.
        step: What they lie apart; None for all numbers between.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Any, name: str) -> Any:
        """The value that a trial of Optuna's has."""
        if self.whole:
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def ends(self) -> Sequence[Any]:
        """Values that show whether the configuration takes all of them."""
        return self.low, self.high

    def __str__(self) -> str:
        kind = "log" if self.log else "int" if self.whole else "uniform"
        return " ".join(map(str, (kind, self.low, self.high, *([] if self.step is None else [self.step]))))


Space = Choice | Interval
Spaces = dict[str, Space]
"""The space of each field that is searched, by the field's full name."""


def parse_spaces(given: Mapping[str, Any], origin: str = "--space.") -> Spaces:
    """Read search spaces.

    Args:
        given: By full name of a field, or nested as in `Config`: a text such as `log 1e-4 1e-2`, or a list of values.
        origin: What stands in front of a field's name in messages.

    Raises:
        ConfigurationError: If there is no such field, or a space is none of its values.

    Example:
        >>> spaces = parse_spaces({"optimizer.learning_rate": "log 1e-4 1e-2", "model": {"cell": ["gru", "lstm"]}})
        >>> spaces["model.cell"]
        Choice(values=('gru', 'lstm'))
    """
    spaces: Spaces = {}
    for path, space in _flat(given):
        if path not in (known := list(field_paths())):
            close = nearest_name(path, known)
            raise ConfigurationError(
                f"{origin}{path}: there is no field {path}" + (f"; did you mean {close}?" if close else ".")
            )
        if path in spaces:
            raise ConfigurationError(f"{origin}{path} is given twice.")
        spaces[path] = _parse(path, space, f"{origin}{path}")
    return spaces


def nested(values: Mapping[str, Any]) -> Settings:
    """Return values by full name of their field, nested as in `Config`."""
    settings: Settings = {}
    for path, value in values.items():
        *sections, leaf = path.split(".")
        inner = settings
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = value
    return settings


def check_spaces(spaces: Spaces, base: Config, build: Callable[[Settings], Config]) -> None:
    """Check that trials can be compared, and that the configuration takes every value, with some values of the others.

    Args:
        spaces: What is searched.
        base: The configuration in which it is searched.
        build: Returns the configuration with some fields replaced.

    Raises:
        ConfigurationError: If that is not so, or nothing is searched.
    """
    if not spaces:
        raise ConfigurationError(
            "Nothing is searched: give a field a space, such as --space.model.latent_size 'int 4 32'."
        )
    for path in spaces:
        if (reason := _incomparable(path, base)) is not None:
            raise ConfigurationError(f"{path} cannot be searched: {reason}.")
    for path, space in spaces.items():
        others = {name: other.ends() for name, other in spaces.items() if name != path}
        for value in space.ends():
            _check_value(path, value, others, build)


def _incomparable(path: str, base: Config) -> str | None:
    """Why trials that differ in a field cannot be compared; None if they can."""
    metric = base.training.metric
    if path in COMPARED_BY:
        return "it decides what trials are compared by"
    if path.startswith("data.") and path not in CHANGED_ALONE:
        return "trials are compared on the same rows, of which it decides"
    if path.startswith("data.") and metric not in ("accuracy", "classification"):
        return f"it changes what training.metric: {metric} is measured on; choose accuracy or classification"
    if path == "data.max_length" and base.data.too_long != "truncate":
        return "it decides which rows there are; set data.too_long: truncate"
    if path.startswith("objective.") and metric == "loss":
        return "it changes the loss that trials are compared by; choose another training.metric"
    return None


def _check_value(
    path: str, value: Any, others: Mapping[str, Sequence[Any]], build: Callable[[Settings], Config]
) -> None:
    first: ConfigurationError | None = None
    for combination in _combinations(list(others.values())):
        try:
            build(nested({**dict(zip(others, combination, strict=True)), path: value}))
        except ConfigurationError as error:
            first = first or error
        else:
            return
    raise ConfigurationError(f"The space of {path} has {short_repr(value)}: {first}")


def _combinations(values: list[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """All combinations of values, one of each; where they are too many, some that are drawn."""
    count = 1
    for one in values:
        count *= len(one)
    if count <= MOST_COMBINATIONS:
        return iter(itertools.product(*values))
    generator = random.Random(0)
    return ([generator.choice(one) for one in values] for _ in range(MOST_COMBINATIONS))


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parse(path: str, space: Any, name: str) -> Space:
    if isinstance(space, (list, tuple)):
        return _choice(path, list(space), name)
    try:
        kind, *words = shlex.split(space) if isinstance(space, str) else [""]
        is_text = (expected_value(path) or "").startswith(TEXT)
        values = list(words) if is_text else [load_yaml(word) for word in words]
    except (ValueError, *YAML_ERRORS):
        kind, values = "", []
    if kind == "choice":
        return _choice(path, values, name)
    if kind not in ("log", "uniform", "int"):
        raise ConfigurationError(f"{name} must be {FORMS}, not {short_repr(space)}.")
    return _interval(path, kind, values, name, space)


def _choice(path: str, values: list[Any], name: str) -> Choice:
    for value in values:
        check_fields(nested({path: value}))
    values = [tuple(value) if isinstance(value, list) else value for value in values]
    if len(values) < 2 or len({_label(value) for value in values}) < len(values):
        raise ConfigurationError(f"{name} must be a choice among two or more different values, not {values!r}.")
    return Choice(tuple(values))


def _interval(path: str, kind: str, numbers: list[Any], name: str, space: str) -> Interval:
    expected = expected_value(path)
    if expected not in (WHOLE, NUMBER):
        raise ConfigurationError(f"{name} must be 'choice VALUE VALUE ...', since {path} must be {expected}.")
    if expected == WHOLE and kind == "uniform":
        raise ConfigurationError(f"{name} must be 'int LOW HIGH [STEP]', since {path} must be {WHOLE}.")
    whole = expected == WHOLE or kind == "int"
    types = (int,) if whole else (int, float)
    most = 2 if kind == "log" else 3
    if not 2 <= len(numbers) <= most or not all(type(number) in types for number in numbers):
        sort = "whole numbers" if whole else "numbers"
        raise ConfigurationError(f"{name} must be {FORMS} of {sort}, not {space!r}.")
    for number in numbers[:2]:
        check_fields(nested({path: number}))
    low, high, step = (*numbers, None)[:3]
    if low >= high or (kind == "log" and low <= 0) or (step is not None and not 0 < step <= high - low):
        rule = "LOW above 0 and below HIGH" if kind == "log" else "LOW below HIGH, and a STEP between them"
        raise ConfigurationError(f"{name} must have {rule}, not {space!r}.")
    if step is not None:  # the last value that steps reach
        start, apart = Decimal(str(low)), Decimal(str(step))
        high = type(high)(start + (Decimal(str(high)) - start) // apart * apart)
    return Interval(low if whole else float(low), high if whole else float(high), whole, kind == "log", step)


def _label(value: Any) -> Any:
    """What stands for a value in Optuna's storages, which have no lists."""
    return json.dumps(value) if isinstance(value, (list, tuple)) else value
