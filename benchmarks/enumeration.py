"""What exact enumeration costs, beside what a user would write: `python -m benchmarks.enumeration [PART ...]`.

Parts: epochs, identical, fraction, memory, observed, labels, sizes, sequential; without any, all. Both sides
of a comparison have a process of their own, and take turns. Results are added to `docs/benchmarks.json`; tables and
plot are made from it by `python -m benchmarks.tables`.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.epochs import epochs
from benchmarks.flops import Product, necessary, total
from benchmarks.results import RESULTS, add_result, median_and_spread, show
from benchmarks.sides import model_config, random_rows
from benchmarks.sizes import Sizes
from benchmarks.worker import TWINS, Worker

MB = 1024 * 1024


def identical(twin: str, _: Path, repetitions: int = 9) -> Any:
    """Ratio of recipe to ours on the same padded batches."""
    shapes = {
        "K10 B64 T32 V64": Sizes(10, 64, 32, 64),
        "K18 B128 T16 V60": Sizes(18, 128, 16, 60),
        "K12 B64 T10 V107": Sizes(12, 64, 10, 107),
        "K45 B16 T12 V10000": Sizes(45, 16, 12, 10_000),
    }
    results = {}
    for name, sizes in shapes.items():
        x = random_rows(sizes)
        with Worker(twin, "ours") as us, Worker(twin, "recipe") as them:
            for side in (us, them):
                side.build(sizes)
                side.seconds(x, warm=1)
            pairs = [(us.seconds(x), them.seconds(x)) for _ in range(repetitions)]
        ratio = median_and_spread([b / a for a, b in pairs])
        results[name] = {
            "ours_ms": 1e3 * float(np.median([a for a, _ in pairs])),
            "recipe_ms": 1e3 * float(np.median([b for _, b in pairs])),
            "ratio": ratio[0],
            "quartiles": ratio[1:],
        }
        show(twin, "identical", name, results[name])
    return results


def ideal_seconds(worker: Any, products: dict[str, Product]) -> float:
    """Time of the necessary products alone, each at the rate of its shape, forward and back."""
    seconds = 0.0
    for product in products.values():
        rows, inner, columns, times, backward = product
        shapes = [(rows, inner, columns), (inner, rows, columns), (rows, columns, inner)][: 1 + backward]
        if product.times > 1:  # of a step: the state is a column a row
            shapes = [(columns, inner, rows), (columns, rows, inner), (inner, columns, rows)]
        seconds += sum(times * 2 * rows * inner * columns / worker.rate(*shape) for shape in shapes)
    return seconds


def fraction(twin: str, _cache: Path, repetitions: int = 9) -> Any:
    """Share of the machine's rate of matrix products that a step reaches, necessary products alone counted."""
    sizes = Sizes(18, 128, 16, 60)
    products = necessary(model_config(sizes), *sizes[:4])
    x = random_rows(sizes)
    with Worker(twin, "ours") as us, Worker(twin, "recipe") as them:
        for side in (us, them):
            side.build(sizes)
            side.seconds(x, warm=1)
        seconds = []
        for _ in range(repetitions):
            seconds.append((ideal_seconds(us, products), us.seconds(x), them.seconds(x)))
    ours, theirs = (median_and_spread([row[0] / row[side] for row in seconds]) for side in (1, 2))
    gflops = total(products) / 1e9
    result = {
        "gflop": gflops,
        "rate_gflops": gflops / float(np.median([row[0] for row in seconds])),
        "ours": ours[0],
        "ours_quartiles": ours[1:],
        "recipe": theirs[0],
        "recipe_quartiles": theirs[1:],
    }
    show(twin, "fraction", "K18 B128 T16 V60", result)
    return result


def memory(twin: str, _: Path) -> Any:
    """Peak memory of a step above the process with its model, where freed memory goes back to the kernel."""
    sizes = Sizes(45, 32, 32, 10_000)
    with Worker(twin, "ours", keep_freed=False) as us:
        us.build(sizes)
        peak, before = us.peak(random_rows(sizes))
    result = {"ours_mb": peak, "process_mb": before, "recipe_logits_mb": 45 * 32 * 32 * 10_000 * 4 / MB}
    show(twin, "memory", "K45 B32 T32 V10000", result)
    return result


def observed(twin: str, _: Path, repetitions: int = 15) -> Any:
    """An unlabelled step beside a labelled one of the same rows, where labels enter at the output."""
    sizes = Sizes(12, 64, 12, 77, hidden=128)
    x, y = random_rows(sizes), (np.arange(64) % 12).astype(np.int32)
    with Worker(twin, "ours") as us:
        us.build(sizes, conditioning="output")
        us.seconds(x, None, 2)
        us.seconds(x, y, 2)
        pairs = [(us.seconds(x), us.seconds(x, y)) for _ in range(repetitions)]
    ratio = median_and_spread([a / b for a, b in pairs])
    result = {"ratio": ratio[0], "quartiles": ratio[1:], "unlabelled_ms": 1e3 * float(np.median([a for a, _ in pairs]))}
    show(twin, "observed", "K12 V77 H128 output", result)
    return result


def labels(twin: str, _cache: Path, repetitions: int = 7) -> Any:
    """Time of an unlabelled step in K, and the rate at which one more label is computed."""
    counts = (2, 4, 8, 16, 24, 32, 48, 64)
    shapes = {count: Sizes(count, 64, 12, 64) for count in counts}
    times: dict[int, list[float]] = {count: [] for count in counts}
    ideals = []
    with Worker(twin, "ours") as us:
        for _ in range(repetitions):
            for count, sizes in shapes.items():
                us.build(sizes)
                times[count].append(us.seconds(random_rows(sizes), warm=1))
            more = [necessary(model_config(sizes), *sizes[:4]) for sizes in (shapes[32], shapes[64])]
            ideals.append((ideal_seconds(us, more[1]) - ideal_seconds(us, more[0])) / 32)
    middle = np.array([np.median(times[count]) for count in counts])
    slope, start = np.polyfit(counts, middle, 1)
    residual = middle - (start + slope * np.array(counts))
    result = {
        "ms": {str(count): 1e3 * value for count, value in zip(counts, middle.tolist(), strict=True)},
        "r2": float(1 - residual.var() / middle.var()),
        "ms_per_label": 1e3 * float(slope),
        "ideal_ms_per_label": 1e3 * float(np.median(ideals)),
        "fraction": float(np.median(ideals) / slope),
    }
    show(twin, "labels", "B64 T12 V64 H256", result)
    return result


def sizes_of(twin: str, _: Path, repetitions: int = 3) -> Any:
    """Time of an unlabelled step in V, T and B, either side where it fits into memory."""
    base = Sizes(8, 16, 12, 1000)
    results: dict[str, Any] = {}
    grid = {"vocabulary": (64, 512, 4096, 30_000), "steps": (6, 12, 24, 48), "rows": (4, 16, 64)}
    with Worker(twin, "ours") as us, Worker(twin, "recipe") as them:
        for field, values in grid.items():
            for value in values:
                sizes = base._replace(**{field: value})
                x, pairs = random_rows(sizes), []
                for side in (us, them):
                    side.build(sizes)
                    side.seconds(x, warm=1)
                pairs = [(us.seconds(x), them.seconds(x)) for _ in range(repetitions)]
                ours, theirs = (1e3 * float(np.median([pair[side] for pair in pairs])) for side in (0, 1))
                results.setdefault(field, {})[str(value)] = {"ours_ms": ours, "recipe_ms": theirs}
                show(twin, field, str(value), results[field][str(value)])
    return results


def sequential(twin: str, _: Path, repetitions: int = 9) -> Any:
    """The question's last point: one label after the other in the recipe, beside all at once, for few labels."""
    if twin == "jax":
        return {"note": "NumPyro enumerates in parallel only"}
    results = {}
    for count in (2, 3, 4):
        sizes = Sizes(count, 32, 40, 64, hidden=100, embedding=50)
        x = random_rows(sizes)
        with Worker(twin, "recipe") as one, Worker(twin, "recipe") as every, Worker(twin, "ours") as us:
            one.build(sizes, enumerate="sequential")
            every.build(sizes)
            us.build(sizes)
            for side in (one, every, us):
                side.seconds(x, warm=1)
            rows = [(one.seconds(x), every.seconds(x), us.seconds(x)) for _ in range(repetitions)]
        results[str(count)] = {
            name: 1e3 * float(np.median([row[place] for row in rows]))
            for place, name in enumerate(("sequential_ms", "parallel_ms", "ours_ms"))
        }
        show(twin, "sequential", str(count), results[str(count)])
    return results


PARTS: dict[str, Callable[..., Any]] = {
    "identical": identical,
    "fraction": fraction,
    "memory": memory,
    "observed": observed,
    "labels": labels,
    "sizes": sizes_of,
    "sequential": sequential,
    "epochs": epochs,
}


def _tasks(parts: list[str], twins: list[str]) -> Iterator[tuple[str, str]]:
    return ((part, twin) for part in parts or PARTS for twin in twins)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    parser.add_argument("--twins", nargs="+", default=list(TWINS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/wordnet"))
    parser.add_argument("--data", nargs="+", default=["languages", "glosses"], help="of the epochs; also peptides")
    parser.add_argument("--batches", type=int, default=50, help="of each side, for the epochs")
    parser.add_argument("--repetitions", type=int, help="of what is not epochs; without it, as each part has them")
    given = parser.parse_args()
    for part, twin in _tasks(given.parts, given.twins):
        options: dict[str, Any] = {"repetitions": given.repetitions} if given.repetitions else {}
        if part == "epochs":
            options = {"count": given.batches, "names": tuple(given.data)}
        elif part == "memory":
            options = {}
        result = PARTS[part](twin, given.cache, **options)
        add_result(given.results, part, twin, result)


if __name__ == "__main__":
    main()
