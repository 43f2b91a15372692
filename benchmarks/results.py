"""What benchmarks measure: the files that keep it, and how a series of ratios is summed up."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("docs/benchmarks.json")


def median_and_spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the quartiles around it."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return middle, low, high


def add_result(path: Path, part: str, twin: str, result: Any) -> None:
    """Add what was measured to a file of results, in place of what it has of the same name."""
    measured = json.loads(path.read_text()) if path.exists() else {}
    measured.setdefault(part, {}).setdefault(twin, {}).update(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured, indent=1) + "\n")


def show(twin: str, part: str, name: str, result: Any) -> None:
    """Print the numbers of a result as soon as they are known."""
    numbers = {key: round(value, 3) for key, value in result.items() if isinstance(value, float)}
    print(f"{twin} {part} {name}: {numbers}", flush=True)
