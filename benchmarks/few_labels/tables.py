"""The table of results, as Markdown, and the figures that it must show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BALANCED = ("surnames", "flights")
"""Sets whose classes are very uneven: balanced accuracy is shown."""
AUTO = "auto"
SHORT = {
    "logistic regression on n-grams": "LR",
    "naive Bayes on n-grams with EM": "EM",
    "self-training on n-grams": "self-training",
    "classifier alone": "classifier alone",
    AUTO: "auto",
}


def score(result: dict[str, Any], name: str) -> float:
    """Accuracy, or balanced accuracy, in per cent."""
    return 100 * float(result["balanced" if result["set"] in BALANCED else "accuracy"][name])


def cells(results: Sequence[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The results of each set and number of labels, the sets in the order in which they first occur."""
    grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
    sets = list(dict.fromkeys(result["set"] for result in results))
    for result in sorted(results, key=lambda result: (sets.index(result["set"]), result["labels"])):
        grouped.setdefault((result["set"], result["labels"]), []).append(result)
    return grouped


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The table."""
    singles = [name for name in SHORT if name != AUTO]
    heads = ["set", "labels a class", *SHORT.values(), "less the best", "best by cross-validation", "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    autos, chosen = [], []
    for (name, labels), of_cell in cells(results).items():
        means = {method: np.mean([score(one, method) for one in of_cell]) for method in SHORT}
        picks = [score(one, max(singles, key=lambda method: one["validated"][method])) for one in of_cell]
        autos.append(means[AUTO])
        chosen.append(np.mean(picks))
        seconds = np.max([one["seconds"][AUTO] for one in of_cell])
        gap = means[AUTO] - max(means[method] for method in singles)
        numbers = [f"{value:.1f}" for value in means.values()] + [f"{gap:+.1f}", f"{chosen[-1]:.1f}", f"{seconds:.0f}"]
        lines.append(f"| {name} | {labels} | " + " | ".join(numbers) + " |")
    mean = np.mean(autos)
    lines.append(
        f"| all | | {' | '.join([''] * len(singles))} | **{mean:.1f}** | {mean - np.mean(chosen):+.1f} over the next | "
        f"{np.mean(chosen):.1f} | |"
    )
    return "\n".join(lines)


def write_plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw, for each set and number of labels, what every method has."""
    from matplotlib import pyplot

    grouped = cells(results)
    figure, axes = pyplot.subplots(figsize=(8, 0.36 * len(grouped) + 1.2), layout="constrained")
    places = range(len(grouped), 0, -1)
    styles = {AUTO: ("#c1121f", "D", 46)}
    for number, (method, name) in enumerate(SHORT.items()):
        color, marker, size = styles.get(method, (f"C{number}", "o", 26))
        means = [np.mean([score(one, method) for one in of_cell]) for of_cell in grouped.values()]
        axes.scatter(means, places, size, color=color, marker=marker, label=f"seqssvae, {name}" if number > 2 else name)
    axes.set_yticks(list(places), [f"{name}, {labels}" for name, labels in grouped])
    axes.set_xlabel("accuracy on test rows, %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.0 + 1.1 / len(grouped)), ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def print_tables(results: Sequence[dict[str, Any]]) -> None:
    """Print the table of each twin."""
    for twin in sorted({one["twin"] for one in results}):
        own = [one for one in results if one["twin"] == twin]
        print(f"\n{twin}, {len({one['seed'] for one in own})} seeds\n\n{markdown(own)}")
    both: dict[tuple[str, int, int], dict[str, float]] = {}
    for one in results:
        both.setdefault((one["set"], one["labels"], one["seed"]), {})[one["twin"]] = score(one, AUTO)
    apart = [of["torch"] - of["jax"] for of in both.values() if len(of) == 2]
    if len(apart) > 1:
        error = np.std(apart, ddof=1) / np.sqrt(len(apart))
        print(
            f"\ntorch less jax, {len(apart)} cells of both: {np.mean(apart):+.2f}, two standard errors {2 * error:.2f}"
        )
