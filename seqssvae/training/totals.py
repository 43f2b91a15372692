"""Totals of training steps as named arrays, in which a checkpoint between two evaluations keeps them."""

from collections.abc import Mapping, Sequence

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


def unpack_totals(arrays: Mapping[str, np.ndarray]) -> list[StepTotals]:
    """Return what `pack_totals` was given; of no arrays, no totals."""
    if not arrays:
        return []
    plain = {name: values.tolist() for name, values in arrays.items()}
    terms = map(ELBOTerms, *(plain[f"terms.{name}"] for name in ELBOTerms._fields))
    return list(map(StepTotals, plain["loss"], plain["gradient_norm"], terms, *(plain[name] for name in _COUNTS)))
