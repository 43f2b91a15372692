"""Tables of inflection in `docs/yoyodyne.md`, from the results of `benchmarks.inflection`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inflection import RESULTS
from benchmarks.tables import table

PAGE = Path("docs/yoyodyne.md")


def shown(values: list[float] | None) -> str:
    """Percent: the mean, and each seed's."""
    if values is None:
        return ""
    return f"**{100 * np.mean(values):.1f}** ({', '.join(f'{100 * value:.1f}' for value in values)})"


def rows(models: dict[str, Any]) -> list[list[str]]:
    """A line a model."""
    return [
        [name, shown(of.get("form")), shown(of.get("tag")), f"{of['parameters'][0]:,}"] for name, of in models.items()
    ]


def main() -> None:
    results = json.loads(RESULTS.read_text())["inflection"]
    head = ["", "form, given lemma and tag, %", "tag, given lemma and form, %", "weights"]
    text = PAGE.read_text()
    for part in ("untagged", "tagged"):
        begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table(head, rows(results[part]))}\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
