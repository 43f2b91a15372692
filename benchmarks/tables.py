"""Tables and plot of `docs/enumeration.md`, from the results of `benchmarks.enumeration`."""

import json
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS

PAGE = Path("docs/enumeration.md")
PLOT = Path("docs/enumeration.svg")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def spread(result: dict[str, Any], name: str = "ratio") -> str:
    """A ratio and its quartiles."""
    low, high = result["quartiles" if name == "ratio" else f"{name}_quartiles"]
    return f"{result[name]:.2f} ({low:.2f} to {high:.2f})"


def epochs(by_twin: dict[str, Any]) -> str:
    """Whole epochs; columns of bfloat16 where it was measured."""
    results = sorted((name, twin, one) for twin, of_twin in by_twin.items() for name, one in of_twin.items())
    head = ["rows", "twin", "recipe", "ours", "recipe / ours"]
    rows = [
        [name, twin, f"{one['recipe_seconds']:.0f} s", f"{one['ours_seconds']:.0f} s", f"{one['ratio']:.2f}"]
        for name, twin, one in results
    ]
    if any("bf16" in one for _, _, one in results):
        head += ["bfloat16", "ours / bfloat16 (steps)"]
        for row, (_, _, one) in zip(rows, results, strict=True):
            row += [f"{one['bf16_seconds']:.0f} s", spread(one, "bf16")] if "bf16" in one else ["", ""]
    return "### An epoch of real data\n\n" + table(head, rows)


def identical(by_twin: dict[str, Any]) -> str:
    """The same padded batch."""
    rows = [
        [name, twin, f"{one['ours_ms']:.0f} ms", f"{one['recipe_ms']:.0f} ms", spread(one)]
        for twin, results in by_twin.items()
        for name, one in results.items()
    ]
    return "### The same padded batch\n\n" + table(["step", "twin", "ours", "recipe", "recipe / ours"], sorted(rows))


def single(parts: dict[str, Any]) -> str:
    """Figures of one step."""
    rows = []
    for twin, one in parts.get("fraction", {}).items():
        rate = f"{one['rate_gflops']:.0f} GFLOP/s"
        rows.append(
            [f"share of the rate of matrix products ({rate})", twin, spread(one, "ours"), spread(one, "recipe")]
        )
    for twin, one in parts.get("memory", {}).items():
        logits = f"its logits alone {one['recipe_logits_mb']:.0f} MB"
        rows.append(["peak memory, K 45, B 32, T 32, V 10,000, H 256", twin, f"{one['ours_mb']:.0f} MB", logits])
    for twin, one in parts.get("observed", {}).items():
        rows.append(["unlabelled / labelled step, `output`, K 12", twin, spread(one), ""])
    for twin, one in parts.get("labels", {}).items():
        text = (
            f"R² {one['r2']:.4f}, {one['ms_per_label']:.1f} ms a label, products at {one['fraction']:.2f} of the rate"
        )
        rows.append(["time of a step in K, 2 to 64, B 64, T 12, V 64", twin, text, ""])
    return "### One step\n\n" + table(["figure", "twin", "ours", "recipe"], rows)


def sizes(by_twin: dict[str, Any]) -> str:
    """In V, T and B."""
    rows = [
        [f"{field} {value}", twin, f"{one['ours_ms']:.0f} ms", f"{one['recipe_ms']:.0f} ms"]
        for twin, results in by_twin.items()
        for field, of_field in results.items()
        for value, one in of_field.items()
    ]
    title = "### In V, T and B (otherwise K 8, B 16, T 12, V 1,000, H 256)\n\n"
    return title + table(["step", "twin", "ours", "recipe"], rows)


def sequential(by_twin: dict[str, Any]) -> str:
    """One label after the other."""
    rows = [
        [count, *(f"{one[name]:.0f} ms" for name in ("sequential_ms", "parallel_ms", "ours_ms"))]
        for count, one in by_twin.get("torch", {}).items()
    ]
    head = ["K", "recipe, one label after the other", "recipe, all at once", "ours"]
    return "### Few labels: one after the other, or all at once? (PyTorch, B 32, T 40, H 100)\n\n" + table(head, rows)


def plot(parts: dict[str, Any]) -> None:
    """Time in K."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for twin, one in parts.get("labels", {}).items():
        counts = [int(count) for count in one["ms"]]
        axes.plot(counts, list(one["ms"].values()), marker="o", label=twin)
    axes.set_xlabel("labels K")
    axes.set_ylabel("ms a step")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT)


def main() -> None:
    measured = json.loads(RESULTS.read_text())
    parts = [part(measured[name]) for name, part in PARTS.items() if name in measured]
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join([parts[0], single(measured), *parts[1:]]) + f"\n{END}{after}")
    plot(measured)


PARTS = {
    "epochs": epochs,
    "identical": identical,
    "sizes": sizes,
    "sequential": sequential,
}


if __name__ == "__main__":
    main()
