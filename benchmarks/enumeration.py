"""What exact enumeration costs, beside what a user would write: `python -m benchmarks.enumeration [PART ...]`.

Parts: epochs, identical, fraction, memory, observed, labels, sizes, sequential; without any, all. Both sides
of a comparison have a process of their own, and take turns. Results are added to `docs/benchmarks.json`; tables and
plot are made from it by `python -m benchmarks.tables`.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.flops import Product, necessary, total
from benchmarks.sides import model_config, padded, random_rows
from benchmarks.sizes import Sizes
from benchmarks.worker import TWINS, Worker, median_and_spread
from seqssvae.backend import NO_LABEL
from seqssvae.config import Precision
from seqssvae.data.batches import BatchStream, buckets
from seqssvae.data.corpus import Corpus, CorpusCounts

RESULTS = Path("docs/benchmarks.json")
MB = 1024 * 1024


class Dataset(NamedTuple):
    """Rows, and the sizes of the model for them.

    Args:
        rows: Symbol ids with END.
        sizes: K, B, V and so on; T is of no account.
        buckets: How many lengths our side pads to.
    """

    rows: list[np.ndarray]
    sizes: Sizes
    buckets: int


def dataset(name: str, cache: Path) -> Dataset:
    """Peptides (K 2), languages (K 12) or glosses (K 45)."""
    if name == "glosses":
        from benchmarks.glosses import glosses

        rows, _ = glosses(cache)
        return Dataset(rows, Sizes(45, 16, 32, 10_000), 32)
    from seqssvae.demo.demo import dataset_rows

    texts = [row.symbols[:50] for row in dataset_rows(name)]
    ids = {symbol: place for place, symbol in enumerate(sorted({symbol for text in texts for symbol in text}), start=4)}
    rows = [np.array([*(ids[symbol] for symbol in text), 3], np.int32) for text in texts]
    labels, size = (2, 64) if name == "peptides" else (12, 64)
    return Dataset(rows, Sizes(labels, size, 0, len(ids) + 4), 24)


def ours_batches(data: Dataset) -> dict[int, tuple[np.ndarray, float]]:
    """For each of our lengths a batch of it, and how many there are in an epoch."""
    rows, none = tuple(data.rows), np.full(len(data.rows), NO_LABEL, np.int32)
    corpus = Corpus(rows, none, (None,) * len(rows), "memory", CorpusCounts(len(rows), 0, 0, 0))
    chosen = buckets(corpus.lengths, data.buckets)
    found: dict[int, tuple[np.ndarray, float]] = {}
    for batch in BatchStream(corpus, np.arange(len(rows)), data.sizes.rows, chosen, seed=0).epoch(0):
        length = batch.x.shape[1]
        first, count = found.get(length, (batch.x, 0.0))
        found[length] = (batch.x if batch.row_mask.all() else first), count + 1
    return dict(sorted(found.items()))


def recipe_batches(data: Dataset, count: int, round_to: int) -> list[np.ndarray]:
    """So many of the recipe's batches of random rows, stratified by the length that each is padded to."""
    generator = np.random.default_rng(1)
    order = generator.permutation(len(data.rows))
    size = data.sizes.rows
    cut = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    longest = np.array([max(len(data.rows[row]) for row in rows) for rows in cut])
    chosen = np.argsort(longest, kind="stable")[((np.arange(count) + 0.5) / count * len(cut)).astype(int)]
    return [
        padded([data.rows[row] for row in cut[place]], -(-int(longest[place]) // round_to) * round_to)
        for place in chosen
    ]


WARM = 1
"""Steps before the one that is timed, each time a side has its turn.

In an epoch a step follows one of its own side, which is what is to be timed: not one straight after the other side's,
which took ours 7 % longer with words, and in JAX 8 % longer with definitions.
"""


def has_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 numbers."""
    flags = Path("/proc/cpuinfo").read_text() if platform.system() == "Linux" else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def epochs(twin: str, cache: Path, count: int = 50, names: tuple[str, ...] = ("languages", "glosses")) -> Any:
    """Seconds an epoch takes either side, and ours with bfloat16, from at least 50 batches of each, in turns.

    Ours have the same batches in either precision; bfloat16 is left out where the processor has no instructions for it.
    """
    results = {}
    for name in names:
        data = dataset(name, cache)
        count = max(count, 150) if name != "glosses" else count  # short steps, of which noise is a larger part
        ours, theirs = ours_batches(data), recipe_batches(data, count, 1 if twin == "torch" else 4)
        times, their_times = _turns(twin, data.sizes, {length: x for length, (x, _) in ours.items()}, theirs)
        counts = {length: number for length, (_, number) in ours.items()}
        epoch, low, high = (_epoch(times["float32"], counts, share) for share in (0.5, 0.25, 0.75))
        their_steps = len(data.rows) / data.sizes.rows
        their_epoch, generator = float(np.mean(their_times)) * their_steps, np.random.default_rng(3)
        means = [float(np.mean(generator.choice(their_times, count))) * their_steps for _ in range(1000)]
        results[name] = {
            "sizes": data.sizes._asdict(),
            "ours_seconds": epoch,
            "ours_quartiles": [low, high],
            "recipe_seconds": their_epoch,
            "recipe_interval": [float(np.quantile(means, q)) for q in (0.025, 0.975)],
            "ratio": their_epoch / epoch,
            "our_lengths": {str(length): number for length, number in counts.items()},
            "mean_recipe_length": float(np.mean([x.shape[1] for x in theirs])),
        }
        if "bf16" in times:
            short = _epoch(times["bf16"], counts)
            pairs = [zip(times["float32"][length], times["bf16"][length], strict=True) for length in counts]
            ratios = median_and_spread([longer / shorter for of_length in pairs for longer, shorter in of_length])
            gain = {"bf16": epoch / short, "bf16_quartiles": ratios[1:]}
            results[name] |= {"bf16_seconds": short, "bf16_ratio": their_epoch / short, **gain}
        _show(twin, "epochs", name, results[name])
    return results


def _turns(
    twin: str, sizes: Sizes, ours: dict[int, np.ndarray], theirs: list[np.ndarray]
) -> tuple[dict[Precision, dict[int, list[float]]], list[float]]:
    """Seconds of our steps, by precision and length, and of the recipe's, each of which ours take turns with."""
    precisions: tuple[Precision, ...] = ("float32", "bf16") if has_bfloat16() else ("float32",)
    times: dict[Precision, dict[int, list[float]]] = {
        precision: {length: [] for length in ours} for precision in precisions
    }
    their_times, repeated = [], np.resize(list(ours), len(theirs))
    with ExitStack() as stack:
        us = {precision: stack.enter_context(Worker(twin, "ours")) for precision in precisions}
        them = stack.enter_context(Worker(twin, "recipe"))
        them.build(sizes)
        for precision, worker in us.items():
            worker.build(sizes, precision=precision)
            for x in ours.values():
                worker.seconds(x)
        for x in {x.shape[1]: x for x in theirs}.values():
            them.seconds(x)
        for length, x in zip(np.random.default_rng(2).permutation(repeated), theirs, strict=True):
            for precision, worker in us.items():
                times[precision][int(length)].append(worker.seconds(ours[int(length)], warm=WARM))
            their_times.append(them.seconds(x, warm=WARM))
    return times, their_times


def _epoch(times: dict[int, list[float]], counts: dict[int, float], share: float = 0.5) -> float:
    """Seconds of as many steps of each length as there are, each as long as this quantile of those that were timed."""
    return sum(float(np.quantile(times[length], share)) * number for length, number in counts.items())


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
        _show(twin, "identical", name, results[name])
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
        found = []
        for _ in range(repetitions):
            found.append((ideal_seconds(us, products), us.seconds(x), them.seconds(x)))
    ours, theirs = (median_and_spread([row[0] / row[side] for row in found]) for side in (1, 2))
    gflops = total(products) / 1e9
    result = {
        "gflop": gflops,
        "rate_gflops": gflops / float(np.median([row[0] for row in found])),
        "ours": ours[0],
        "ours_quartiles": ours[1:],
        "recipe": theirs[0],
        "recipe_quartiles": theirs[1:],
    }
    _show(twin, "fraction", "K18 B128 T16 V60", result)
    return result


def memory(twin: str, _: Path) -> Any:
    """Peak memory of a step above the process with its model, where freed memory goes back to the kernel."""
    sizes = Sizes(45, 32, 32, 10_000)
    os.environ["SEQSSVAE_MALLOC"] = "0"
    with Worker(twin, "ours") as us:
        del os.environ["SEQSSVAE_MALLOC"]
        us.build(sizes)
        peak, before = us.peak(random_rows(sizes))
    result = {"ours_mb": peak, "process_mb": before, "recipe_logits_mb": 45 * 32 * 32 * 10_000 * 4 / MB}
    _show(twin, "memory", "K45 B32 T32 V10000", result)
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
    _show(twin, "observed", "K12 V77 H128 output", result)
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
    _show(twin, "labels", "B64 T12 V64 H256", result)
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
                _show(twin, field, str(value), results[field][str(value)])
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
        _show(twin, "sequential", str(count), results[str(count)])
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


def _show(twin: str, part: str, name: str, result: Any) -> None:
    numbers = {key: round(value, 3) for key, value in result.items() if isinstance(value, float)}
    print(f"{twin} {part} {name}: {numbers}", flush=True)


def _tasks(parts: list[str], twins: list[str]) -> Iterator[tuple[str, str]]:
    return ((part, twin) for part in parts or PARTS for twin in twins)


def add_result(path: Path, part: str, twin: str, result: Any) -> None:
    """Add what was measured to a file of results, in place of what it has of the same name."""
    found = json.loads(path.read_text()) if path.exists() else {}
    found.setdefault(part, {}).setdefault(twin, {}).update(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


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
