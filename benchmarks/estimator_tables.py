"""Tables and plot of `docs/estimators.md`, from the results of `benchmarks.estimators`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.estimators import RESULTS
from benchmarks.tables import BEGIN, END, spread, table

PAGE = Path("docs/estimators.md")
PLOT = Path("docs/estimators.svg")
EXACT = 1e-4
"""A gradient that differs by less, relative to its norm, differs by rounding."""


def gradients(by_twin: dict[str, Any]) -> str:
    """Bias and variance, time and memory."""
    parts = []
    for name in next(iter(by_twin.values())):
        rows = []
        for twin, results in by_twin.items():
            one = results[name]
            for entry in one["estimators"]:
                qualities = [text for part in ("every_weight", "classifier") for text in _quality(entry[part])]
                rows.append(
                    [
                        entry["estimator"],
                        twin,
                        str(entry["decoder_passes"]),
                        *qualities,
                        f"{entry['milliseconds']:.0f}",
                        f"{entry['megabytes']:.0f}",
                    ]
                )
        rows.sort(key=lambda row: [entry["estimator"] for entry in one["estimators"]].index(row[0]))
        size = f"{one['labels']} labels, {one['shape'][0]} rows of {one['shape'][1]} symbols, V {one['vocabulary']:,}"
        head = ["estimator", "twin", "decoder passes", "bias", "deviation", "bias, q(y\\|x)", "deviation, q(y\\|x)"]
        title = f"#### {name[0].upper()}{name[1:]}: {size}, {one['draws']} draws\n\n"
        parts.append(title + table([*head, "ms", "MB"], rows))
    return "### The gradient beside the exact one\n\n" + "\n".join(parts)


def _quality(one: dict[str, float]) -> tuple[str, str]:
    if one["deviation"] < EXACT:
        return "0", "0"
    resolved = one["bias"] > 2 * one["chance"]
    return (
        f"{one['bias']:.2g}" if resolved else f"below {float(format(2 * one['chance'], '.1g')):g}"
    ), f"{one['deviation']:.2g}"


def price(by_twin: dict[str, Any]) -> str:
    """Time and memory beside enumeration."""
    rows = [
        [
            name,
            twin,
            f"{one['enumerate_ms']:.0f} ms",
            f"{one['top_k_ms']:.0f} ms",
            spread(one),
            *(f"{one['megabytes'][estimator]:.0f} MB" for estimator in ("enumerate", "top_k", "sequential")),
        ]
        for twin, results in by_twin.items()
        for name, one in results.items()
    ]
    head = ["step", "twin", "enumerate", "top_k, k 4", "ratio", "enumerate", "top_k, k 4", "sequential"]
    return "### A step with 45 labels\n\n" + table(head, rows)


def labels(by_twin: dict[str, Any]) -> str:
    """Time in K."""
    counts = list(next(iter(by_twin.values()))["ms"])
    rows = [
        [twin, *(f"{one['ms'][count]:.0f} ms" for count in counts), f"{one['ratio']:.2f}"]
        for twin, one in by_twin.items()
    ]
    title = "### A step of `top_k` with k 4, in K (B 32, T 16, V 1,000, H 256)\n\n"
    return title + table(["twin", *(f"K {count}" for count in counts), "greatest / least"], rows)


def accuracy(by_twin: dict[str, Any]) -> str:
    """Validation accuracy."""
    rows = []
    for twin, results in by_twin.items():
        one = results["glosses"]
        for estimator in ("enumerate", "top_k"):
            runs = one[estimator]
            last, elbo = ([run[name] for run in runs] for name in ("accuracy", "elbo_per_symbol"))
            each = ", ".join(f"{100 * value:.1f}" for value in last)
            numbers = f"{np.mean(elbo):.3f}", f"{np.mean([run['seconds'] for run in runs]):.0f}"
            rows.append([twin, estimator, f"{100 * np.mean(last):.1f} ({each})", *numbers])
    held_out, vocabulary = one["validation_rows"], one["vocabulary"]
    size = f"{one['rows']} definitions, {held_out} held out, V {vocabulary:,}, {runs[0]['steps']} steps"
    head = ["twin", "estimator", "accuracy, % (seeds)", "ELBO a symbol", "seconds"]
    return f"### Training with either: {size}\n\n" + table(head, rows)


def plot(by_twin: dict[str, Any]) -> None:
    """Deviation of the gradient against time, of every estimator."""
    from matplotlib import pyplot

    names = list(next(iter(by_twin.values())))
    figure, places = pyplot.subplots(1, len(names), figsize=(3.4 * len(names), 3.4), sharey=True)
    for axes, name in zip(np.atleast_1d(places), names, strict=True):
        for twin, marker in zip(by_twin, "os", strict=False):
            for colour, entry in enumerate(by_twin[twin][name]["estimators"]):
                label = entry["estimator"] if twin == next(iter(by_twin)) else None
                quality = entry["every_weight"]
                error = max(float(np.hypot(quality["bias"], quality["deviation"])), 1e-3)
                axes.plot(entry["milliseconds"], error, marker, color=f"C{colour}", label=label, alpha=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("ms a step")
    first = np.atleast_1d(places)[0]
    first.set_ylabel("error of the gradient / its norm")
    figure.legend(*first.get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    figure.savefig(PLOT)


PARTS = {"gradients": gradients, "price": price, "labels": labels, "accuracy": accuracy}


def main() -> None:
    measured = json.loads(RESULTS.read_text())
    parts = [part(measured[name]) for name, part in PARTS.items() if name in measured]
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{after}")
    if "gradients" in measured:
        plot(measured["gradients"])


if __name__ == "__main__":
    main()
