"""The worst difference of each rung over a whole run of the tests: what `make parity` prints."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from parity_tests.findings import Finding, failures

WIDTH = 130


class Summary(NamedTuple):
    """What was found at one rung; a plain tuple, so that a worker process can send it.

    Args:
        rung: Its name.
        comparisons: How many arrays were compared.
        failed: How many differ by more than their bound.
        worst: The greatest difference.
        bound: Of that one.
        where: Of that one.
    """

    rung: str
    comparisons: int
    failed: int
    worst: float
    bound: float
    where: str


def summarise(findings: Iterable[Finding]) -> list[Summary]:
    """One entry for each rung, in the order of their first findings."""
    return merge(Summary(f.rung, 1, int(not f.holds), f.difference, f.bound, f.what) for f in findings)


def merge(summaries: Iterable[Summary]) -> list[Summary]:
    """Add up those of the same rung."""
    merged: dict[str, Summary] = {}
    for one in summaries:
        before = merged.get(one.rung, one._replace(comparisons=0, failed=0))
        worse = one if not one.worst <= before.worst else before
        merged[one.rung] = worse._replace(
            comparisons=before.comparisons + one.comparisons, failed=before.failed + one.failed
        )
    return list(merged.values())


def table_of(summaries: Iterable[Summary]) -> Table:
    """The summary as a table, a line for each rung."""
    table = Table(title="Parity by rung: worst max|a - b| / max|a| found")
    for name in ("rung", "compared", "failed", "worst", "bound", "where"):
        table.add_column(name, justify="left" if name in ("rung", "where") else "right", overflow="fold")
    for one in sorted(summaries):
        numbers = str(one.comparisons), str(one.failed), f"{one.worst:.1e}", f"{one.bound:.0e}"
        table.add_row(one.rung, *numbers, one.where)
    return table


def print_table(summaries: Iterable[Summary]) -> None:
    """Print the summary as a table."""
    _print(table_of(summaries))


def print_controls(caught: Iterable[Sequence[Any]]) -> None:
    """Print by which check each planted defect was caught: names of defect and twin, and a finding."""
    table = Table(title="Planted defects, and what caught each")
    for name in ("defect", "in", "caught by", "where", "difference", "bound"):
        table.add_column(name, justify="right" if name in ("difference", "bound") else "left", overflow="fold")
    for defect, twin, rung, where, difference, bound in sorted(caught):
        table.add_row(defect, twin, rung, where, f"{difference:.1e}", f"{bound:.0e}")
    _print(table)


def _print(table: Table) -> None:
    """Whole also where the output is no terminal."""
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=WIDTH)).print(table)


def describe(findings: Iterable[Finding]) -> str:
    """What does not hold, a line each."""
    return "\n".join(f"{f.rung}: {f.what}: {f.difference:.3g} > {f.bound:g}" for f in failures(findings))
