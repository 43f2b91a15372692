"""Values that are not finite: found before anything else reads them, and named by step, term and rows."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqssvae.backend import ELBOTerms, StepTotals, TrainingStep, Weights
from seqssvae.config.training import OnNonfinite
from seqssvae.data.corpus import Corpus
from seqssvae.errors import UserError

REMEDY = "a smaller optimizer.learning_rate or optimizer.clip_norm may help"


class StepReport(NamedTuple):
    """What a training step reported.

    Args:
        number: The number of the step, counted from 1.
        totals: Its totals.
        rows: For each of its batches, the index of each row in the corpus, -1 for filler rows.
    """

    number: int
    totals: StepTotals
    rows: list[np.ndarray]


def report_of(step: TrainingStep, totals: StepTotals) -> StepReport:
    """Return what a step reported, without the symbols of its batches."""
    return StepReport(step.step + 1, totals, [batch.rows for batch in (step.labelled, step.unlabelled) if batch])


def is_finite(totals: StepTotals) -> bool:
    """Return whether a step's loss and the norm of its gradient are finite."""
    return math.isfinite(float(totals.loss)) and math.isfinite(float(totals.gradient_norm))


def finite_totals(
    reports: Sequence[StepReport], corpus: Corpus, on_nonfinite: OnNonfinite, good_step: int
) -> list[StepTotals]:
    """Return the totals of all steps that are finite; the others moved nothing.

    Args:
        reports: What the steps since the last evaluation reported.
        corpus: Their rows.
        on_nonfinite: As in `TrainingConfig`.
        good_step: The step of the last evaluation, whose weights are kept.

    Raises:
        UserError: If a step is not finite and training is to stop, or if none is finite.

    Warns:
        UserWarning: If steps that are not finite were skipped.
    """
    finite, first, skipped = [], "", 0
    for report in reports:
        if (what := _what_is_not_finite(report)) is None:
            finite.append(report.totals)
            continue
        skipped += 1
        first = first or f"{what} at step {report.number}, in rows {corpus.places(_rows(report))}"
        if on_nonfinite == "stop":
            break
    if skipped and (on_nonfinite == "stop" or not finite):
        raise diverged(first, good_step)
    if skipped:
        warnings.warn(f"{skipped} of {len(reports)} steps were skipped: {first}, among others.", stacklevel=2)
    return finite


def check_weights_finite(weights: Weights, step: int, good_step: int) -> None:
    """Check that all weights are finite.

    Raises:
        UserError: If one is not.
    """
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise diverged(f"the weight {name} is not finite after step {step}", good_step)


def diverged(what: str, good_step: int) -> UserError:
    """Return the error that says what is not finite, and what is left."""
    return UserError(f"Training diverged: {what} (the last good weights are those of step {good_step}); {REMEDY}.")


def _what_is_not_finite(report: StepReport) -> str | None:
    """What a step reported that is not finite, in words: a term where it is known, or else the loss or its gradient."""
    totals = report.totals
    if is_finite(totals):
        return None
    values = {"training loss": float(totals.loss), "norm of the gradient": float(totals.gradient_norm)}
    terms = {name.replace("_", " of "): float(getattr(totals.terms, name)) for name in ELBOTerms._fields}
    name, value = next((name, value) for name, value in {**terms, **values}.items() if not math.isfinite(value))
    loss = "" if name in values else f" and the training loss is {values['training loss']}"
    return f"the {name} is {value}{loss}"


def _rows(report: StepReport) -> np.ndarray:
    """The rows of a step that are not finite; all of its rows if that is not known, or if all are."""
    finite = [np.asarray(flags) for flags in report.totals.finite]
    if len(finite) == len(report.rows):
        found = [rows[~flags & (rows >= 0)] for rows, flags in zip(report.rows, finite, strict=True)]
        if any(map(len, found)):
            return np.concatenate(found)
    return np.concatenate([rows[rows >= 0] for rows in report.rows])
