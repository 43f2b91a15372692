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
from seqssvae.training.totals import join_totals, pack_totals

REMEDY = "a smaller optimizer.learning_rate or optimizer.clip_norm may help"


PENDING = 256
"""Most steps whose totals may lie on the device, and whose rows are kept."""


class StepReports:
    """What the training steps since the last evaluation reported, in memory that hardly grows with their number.

    The totals of the newest steps may still be on the device, and rows are kept by which a value that is not finite can
    be named. Of older steps, which a device has taken long ago, a few numbers remain: fetching them keeps no device
    waiting.

    Args:
        corpus: The rows that are trained on.
        on_nonfinite: As in `TrainingConfig`.
        good_step: The step of the last evaluation, whose weights are kept.
        totals: Of earlier steps since then, as `totals` returned them.
    """

    def __init__(self, corpus: Corpus, on_nonfinite: OnNonfinite, good_step: int, totals: Weights) -> None:
        self._corpus, self._stops, self._good_step = corpus, on_nonfinite == "stop", good_step
        self._fetched = [totals] if totals else []
        self._pending: list[_StepReport] = []
        self._skipped, self._first = 0, ""

    def add(self, steps: Sequence[TrainingStep], totals: Sequence[StepTotals]) -> None:
        """Add what steps reported.

        Raises:
            UserError: If a step is found that is not finite and training is to stop.
        """
        self._pending += [
            _StepReport(step.step + 1, of_step, [batch.rows for batch in (step.labelled, step.unlabelled) if batch])
            for step, of_step in zip(steps, totals, strict=True)
        ]
        if len(self._pending) >= PENDING:
            self._fetch(len(self._pending) // 2)

    def totals(self) -> Weights:
        """Fetch and return the totals of all finite steps, as `pack_totals` does; the others moved nothing.

        Raises:
            UserError: If a step is not finite and training is to stop.
        """
        self._fetch(len(self._pending))
        self._fetched = [join_totals(self._fetched)]
        return self._fetched[0]

    def totals_at_evaluation(self) -> Weights:
        """Fetch and return the totals of all finite steps, of which there must be some.

        Raises:
            UserError: If a step is not finite and training is to stop, or if none is finite.

        Warns:
            UserWarning: If steps that are not finite were skipped.
        """
        totals = self.totals()
        finite = len(totals["loss"])
        if not finite:
            raise diverged(self._first, self._good_step)
        if self._skipped:
            warnings.warn(
                f"{self._skipped} of {self._skipped + finite} steps were skipped: {self._first}, among others.",
                stacklevel=2,
            )
        return totals

    def _fetch(self, count: int) -> None:
        """Fetch the totals of the first pending steps, and forget their rows."""
        finite, fetched = [], self._pending[:count]
        for report in fetched:
            if (what := _what_is_not_finite(report)) is None:
                finite.append(report.totals)
                continue
            self._skipped += 1
            if not self._first:
                self._first = f"{what} at step {report.number}, in rows {self._corpus.places(_rows(report))}"
            if self._stops:
                raise diverged(self._first, self._good_step)
        self._fetched.append(pack_totals(finite))
        self._pending = self._pending[count:]


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


class _StepReport(NamedTuple):
    """The number of a step from 1, its totals, and of each of its batches the rows: -1 for filler rows."""

    number: int
    totals: StepTotals
    rows: list[np.ndarray]


def _what_is_not_finite(report: _StepReport) -> str | None:
    """What a step reported that is not finite, in words: a term where it is known, or else the loss or its gradient."""
    totals = report.totals
    values = {"training loss": float(totals.loss), "norm of the gradient": float(totals.gradient_norm)}
    if all(map(math.isfinite, values.values())):
        return None
    terms = {name.replace("_", " of "): float(getattr(totals.terms, name)) for name in ELBOTerms._fields}
    name, value = next((name, value) for name, value in {**terms, **values}.items() if not math.isfinite(value))
    loss = "" if name in values else f" and the training loss is {values['training loss']}"
    return f"the {name} is {value}{loss}"


def _rows(report: _StepReport) -> np.ndarray:
    """The rows of a step that are not finite; all of its rows if that is not known, or if all are."""
    finite = [np.asarray(flags) for flags in report.totals.finite]
    if len(finite) == len(report.rows):
        nonfinite = [rows[~flags & (rows >= 0)] for rows, flags in zip(report.rows, finite, strict=True)]
        if any(map(len, nonfinite)):
            return np.concatenate(nonfinite)
    return np.concatenate([rows[rows >= 0] for rows in report.rows])
