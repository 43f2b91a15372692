"""Checks of single values: each raises a `ConfigurationError` that names the field by its full path."""

import math
from collections.abc import Sequence
from typing import get_args

from seqssvae.errors import ConfigurationError


def check(condition: bool, path: str, expected: str, found: object) -> None:
    """Raise a sentence that says what was expected, and what was found."""
    if not condition:
        raise ConfigurationError(f"{path} must be {expected}, not {found!r}.")


def check_integer(path: str, value: int, minimum: int) -> None:
    """A whole number that is not too small."""
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
    check(valid, path, f"a whole number of at least {minimum}", value)


def check_number(path: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """A finite number within bounds, the lower of which may be excluded."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    inside = number and (value > low if open_low else value >= low) and value <= high
    bounds = f"{'above' if open_low else 'of at least'} {low:g}" + (
        "" if high == math.inf else f" and at most {high:g}"
    )
    check(inside, path, f"a number {bounds}", value)


def check_flag(path: str, value: bool) -> None:
    """True or false."""
    check(isinstance(value, bool), path, "true or false", value)


def check_names(path: str, value: Sequence[str]) -> tuple[str, ...]:
    """A list of texts, returned as a tuple."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    check(listed and all(isinstance(name, str) for name in value), path, "a list of names (quote numbers)", value)
    return tuple(value)


def check_choice(path: str, value: str, choices: object) -> None:
    """One of the names of a `Literal`."""
    names = get_args(choices)
    check(value in names, path, "one of " + ", ".join(names), value)
