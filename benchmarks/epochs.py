"""Seconds that an epoch of real data takes either side, from batches of it taken in turns."""

import platform
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.results import median_and_spread, show
from benchmarks.sides import padded
from benchmarks.sizes import Sizes
from benchmarks.worker import Worker
from seqssvae.backend import NO_LABEL
from seqssvae.config import Precision
from seqssvae.data.batches import BatchStream
from seqssvae.data.buckets import choose_buckets
from seqssvae.data.corpus import Corpus


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
    from seqssvae.datasets import load_dataset

    texts = list(load_dataset(name).sequences.cut(50))
    ids = {symbol: place for place, symbol in enumerate(sorted({symbol for text in texts for symbol in text}), start=4)}
    rows = [np.array([*(ids[symbol] for symbol in text), 3], np.int32) for text in texts]
    labels, size = (2, 64) if name == "peptides" else (12, 64)
    return Dataset(rows, Sizes(labels, size, 0, len(ids) + 4), 24)


def ours_batches(data: Dataset) -> dict[int, tuple[np.ndarray, float]]:
    """For each of our lengths a batch of it, and how many there are in an epoch."""
    corpus = Corpus.from_sequences(data.rows, np.full(len(data.rows), NO_LABEL, np.int32))
    chosen = choose_buckets(corpus.lengths, data.buckets)
    batches: dict[int, tuple[np.ndarray, float]] = {}
    for batch in BatchStream(corpus, np.arange(len(corpus)), data.sizes.rows, chosen, seed=0).epoch(0):
        length = batch.x.shape[1]
        first, count = batches.get(length, (batch.x, 0.0))
        batches[length] = (batch.x if batch.row_mask.all() else first), count + 1
    return dict(sorted(batches.items()))


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
        show(twin, "epochs", name, results[name])
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
