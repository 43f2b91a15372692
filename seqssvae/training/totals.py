"""Totals of training steps as named arrays: a few numbers a step."""

from collections.abc import Sequence

import numpy as np

from seqssvae.backend import ELBOTerms, StepTotals, Weights
from seqssvae.parameters import Shape

_COUNTS = ("rows", "labelled_rows", "symbols")
_NUMBERS = ("loss", "gradient_norm", *(f"terms.{name}" for name in ELBOTerms._fields))


def totals_layout(count: int) -> tuple[dict[str, Shape], dict[str, str]]:
    """Return shape, and NumPy's name of the type, of each array of the totals of so many steps."""
    types = {**dict.fromkeys(_NUMBERS, "float64"), **dict.fromkeys(_COUNTS, "int64")}
    return dict.fromkeys(types, (count,)), types


def pack_totals(totals: Sequence[StepTotals]) -> Weights:
    """Return the totals of steps as arrays with an entry a step, for which they are fetched from the device."""
    arrays: Weights = {name: np.array([int(getattr(step, name)) for step in totals], np.int64) for name in _COUNTS}
    for name in ("loss", "gradient_norm"):
        arrays[name] = np.array([float(getattr(step, name)) for step in totals], np.float64)
    for name in ELBOTerms._fields:
        arrays[f"terms.{name}"] = np.array([float(getattr(step.terms, name)) for step in totals], np.float64)
    return arrays


def join_totals(parts: Sequence[Weights]) -> Weights:
    """Return the totals of consecutive steps as one array of each name."""
    return {name: np.concatenate([part[name] for part in parts]) for name in totals_layout(0)[0]}
