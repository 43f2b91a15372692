"""A fair comparison on somebody's own rows: this tool and what it competes with, by one cross-validation."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import scipy.stats

from seqssvae.config import Config
from seqssvae.data.prepare import Prepared
from seqssvae.errors import DataError
from seqssvae.recipes.auto import learn, learning_rows, obstacle
from seqssvae.recipes.network import BuildBackend, Networks
from seqssvae.recipes.rows import LearningRows

if TYPE_CHECKING:
    from seqssvae.recipes.references import Reference

CONFIDENCE = 0.95


class MethodAccuracy(NamedTuple):
    """How well one of those compared does on labelled rows that it has not seen.

    Args:
        name: What it is.
        learns_from: Which rows it learns from.
        accuracy: The share of rows whose label it finds.
        low: Lower end of the interval that has the accuracy with a probability of .95 (Wilson 1927).
        high: Its upper end.
        seconds: The time the cross-validation took.
    """

    name: str
    learns_from: str
    accuracy: float
    low: float
    high: float
    seconds: float


def compare(
    config: Config, prepared: Prepared, build: BuildBackend, report: Callable[[str], None] = lambda name: None
) -> list[MethodAccuracy]:
    """Cross-validate all that can be compared, on the same folds of the labelled rows.

    Args:
        config: Says the seed, the precision and how rows are cut.
        prepared: The rows.
        build: Builds a twin.
        report: Called with the name of each before it learns.

    Raises:
        DataError: If there are too few labelled rows, or there are sources.
    """
    from seqssvae.recipes.references import REFERENCES  # loads much of scikit-learn

    if (reason := obstacle(config, prepared)) is not None:
        raise DataError(f"Nothing can be compared. {reason}")
    rows, results = learning_rows(config, prepared), []

    def add(name: str, learns_from: str, hits: Callable[[], int]) -> None:
        report(name)
        began = time.perf_counter()
        share = scipy.stats.binomtest(hits(), len(rows.y))
        interval = share.proportion_ci(CONFIDENCE, method="wilson")
        seconds = time.perf_counter() - began
        results.append(MethodAccuracy(name, learns_from, float(share.statistic), interval.low, interval.high, seconds))

    for name, reference in REFERENCES.items():
        learns_from = "labelled rows" if name.startswith("logistic") else "all rows"
        add(name, learns_from, partial(_hits, reference, rows))

    def alone() -> int:
        learned = Networks.learn(rows, rows.label_shares, config, build, consistency=0.0)
        assert learned is not None
        return int((learned.out_of_fold.argmax(axis=1) == rows.y).sum())

    add("seqssvae, classifier alone", "labelled rows", alone)
    add(
        "seqssvae, recipe auto",
        "all rows",
        lambda: round(learn(config, prepared, build).trials[-1].accuracy * len(rows.y)),
    )
    return results


def _hits(reference: "Reference", rows: LearningRows) -> int:
    """How many rows a competitor labels rightly without having seen their fold."""
    from seqssvae.recipes.references import cross_validate

    return int((cross_validate(reference, rows) == rows.y).sum())
