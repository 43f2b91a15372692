"""Checks of single values, each of which raises a `ConfigurationError` that names the field by its full path."""

import math
from collections.abc import Sequence
from typing import get_args

from seqssvae.errors import ConfigurationError


def check(condition: bool, path: str, expected: str, value: object) -> None:
    """Raise an error that says what was expected and what was given, unless a condition holds.

    Args:
        condition: What must hold.
        path: Full path of the field.
        expected: What its value must be, in words.
        value: The value that was given.

    Raises:
        ConfigurationError: If the condition does not hold.
    """
    if not condition:
        raise ConfigurationError(f"{path} must be {expected}, not {value!r}.")


def check_integer(path: str, value: int, minimum: int, maximum: int | None = None) -> None:
    """Check that a value is a whole number, not below a minimum and, if there is one, not above a maximum."""
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    within = maximum is None or (valid and value <= maximum)
    bounds = f"of at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")
    check(valid and within, path, f"a whole number {bounds}", value)


def check_column(path: str, value: int | str, minimum: int) -> None:
    """Check that a value is the name of a column, or its number, not below a minimum."""
    if isinstance(value, str):
        check(bool(value), path, "a number or a name that is not empty", value)
    else:
        check_integer(path, value, minimum)


def is_number(value: object) -> bool:
    """Whether a value is a number, and not true or false, which Python takes for numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_number(path: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Check that a value is a finite number within bounds, of which the lower one may be excluded (`open_low`)."""
    number = is_number(value) and math.isfinite(value)
    inside = number and (value > low if open_low else value >= low) and value <= high
    bounds = f"{'above' if open_low else 'of at least'} {low:g}" + (
        "" if high == math.inf else f" and at most {high:g}"
    )
    check(inside, path, f"a number {bounds}", value)


def check_flag(path: str, value: bool) -> None:
    """Check that a value is true or false."""
    check(isinstance(value, bool), path, "true or false", value)


def check_device(name: str | None) -> None:
    """Check that a device is given by its name, if it is."""
    check(name is None or isinstance(name, str), "device", "a name, such as cpu or cuda:1", name)


def check_names(path: str, value: Sequence[str]) -> tuple[str, ...]:
    """Check that a value is a list of texts, and return it as a tuple."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    check(listed and all(isinstance(name, str) for name in value), path, "a list of names (quote numbers)", value)
    return tuple(value)


def check_numbers(path: str, value: Sequence[float]) -> tuple[float, ...]:
    """Check that a value is a list of finite numbers, and return it as a tuple."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    numbers = listed and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
    check(numbers and all(math.isfinite(item) for item in value), path, "a list of numbers", value)
    return tuple(value)


def check_literal(path: str, value: str, literal: object) -> None:
    """Check that a value is one of the names that a `Literal` lists."""
    names = get_args(literal)
    check(value in names, path, "one of " + ", ".join(names), value)
