"""What can be done with a missing label, and its price: `python -m benchmarks.estimators [PART ...]`.

Parts: price (time and memory beside enumeration at K 45), labels (time in K), gradients (bias and variance at K 12 and
K 45), accuracy (training with either). Results are added to `docs/estimators.json`; the page's tables and plot are made
from it by `python -m benchmarks.estimator_tables`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.glosses import definitions
from benchmarks.results import add_result, median_and_spread
from benchmarks.sides import random_rows
from benchmarks.sizes import Sizes
from benchmarks.worker import TWINS, Worker
from seqssvae.backend import get_backend
from seqssvae.checks.gradient_comparison import compare_gradient_estimators
from seqssvae.checks.gradient_estimators import Setting, list_gradient_estimators, random_batch
from seqssvae.cli.tables import gradient_estimators_json
from seqssvae.config import (
    BetaConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    GradientEstimatorName,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainingConfig,
)
from seqssvae.data.prepare import Prepared, prepare_table
from seqssvae.data.splits import keep_labels_per_class
from seqssvae.data.table import Table
from seqssvae.training.fit import fit

RESULTS = Path("docs/estimators.json")
MB = 1024 * 1024
GLOSSES = 9000
"""Definitions that are trained on, of 117,659."""
LABELLED = 10
"""Of them, how many of each class keep their label."""
STEPS = 300
TRAINED: tuple[GradientEstimatorName, ...] = ("enumerate", "top_k")
"""Estimators whose accuracy is compared."""
LONGEST = 12
"""Most words of a definition that are read."""


def price(twin: str, _: Path, repetitions: int = 9) -> Any:
    """A step of `top_k` with k 4 beside one of `enumerate`: time and memory."""
    sizes = Sizes(45, 16, 16, 10_000)
    x = random_rows(sizes)
    with Worker(twin, "ours") as every, Worker(twin, "ours") as top:
        every.build(sizes)
        top.build(sizes, estimator="top_k", k=4)
        for side in (every, top):
            side.seconds(x, warm=2)
        pairs = [(every.seconds(x), top.seconds(x)) for _ in range(repetitions)]
    ratio = median_and_spread([a / b for a, b in pairs])
    peaks = {name: _peak(twin, sizes, x, name) for name in ("enumerate", "top_k", "sequential")}
    return {
        "K45 B16 T16 V10000": {
            "enumerate_ms": 1e3 * float(np.median([a for a, _ in pairs])),
            "top_k_ms": 1e3 * float(np.median([b for _, b in pairs])),
            "ratio": ratio[0],
            "quartiles": ratio[1:],
            "megabytes": peaks,
        }
    }


def _peak(twin: str, sizes: Sizes, x: np.ndarray, estimator: str) -> float:
    """Peak memory of a step above the process with weights, one gradient and optimiser state."""
    with Worker(twin, "ours", keep_freed=False) as us:
        us.build(sizes, estimator=estimator, k=4)
        us.seconds(x, warm=1)
        return us.peak(x)[0] - us.weight_bytes() / MB


def labels(twin: str, _: Path, repetitions: int = 7) -> Any:
    """Time of a step of `top_k` with k 4 in K."""
    counts = (16, 32, 64, 128, 256)
    times: dict[int, list[float]] = {count: [] for count in counts}
    with Worker(twin, "ours") as us:
        for _round in range(repetitions):
            for count in counts:
                sizes = Sizes(count, 32, 16, 1000)
                us.build(sizes, estimator="top_k", k=4)
                times[count].append(us.seconds(random_rows(sizes), warm=2))
    middle = {str(count): 1e3 * float(np.median(times[count])) for count in counts}
    return {"ms": middle, "ratio": max(middle.values()) / min(middle.values())}


def gloss_rows(cache: Path, seed: int = 0) -> Table:
    """A random part of the definitions, of every class at least 30."""
    texts, of_rows = definitions(cache)
    order = np.random.default_rng([seed, 0x61055]).permutation(len(texts))
    classes = np.array(of_rows)[order]
    first = np.concatenate([np.flatnonzero(classes == label)[:30] for label in np.unique(classes)])
    others = np.setdiff1d(np.arange(len(order)), first)
    chosen = order[np.concatenate([first, others[: GLOSSES - len(first)]])]
    labels = [f"{of_rows[row]:02}" for row in chosen]
    return Table.from_rows([texts[row][:LONGEST] for row in chosen], labels, origin="glosses")


def gloss_config(estimator: GradientEstimatorName = "enumerate", seed: int = 0, steps: int = STEPS) -> Config:
    """For the glosses: small networks, few labels."""
    return Config(
        data=DataConfig(minimum_count=6, validation_fraction=0.2, max_length=LONGEST),
        model=ModelConfig(
            latent_size=16,
            encoder=EncoderConfig(embedding_size=64, hidden_size=64, pooling="max"),
            decoder=DecoderConfig(embedding_size=32, hidden_size=64, conditioning="every_step"),
            dropout=0.2,
        ),
        objective=ObjectiveConfig(gradient_estimator=estimator, k=4, alpha=30.0, beta=BetaConfig(steps=200)),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        training=TrainingConfig(
            max_steps=steps,
            epochs=100,
            batch_size=32,
            labelled_batch_size=32,
            evaluation_interval=steps // 2,
            patience=0,
            buckets=4,
            seed=seed,
        ),
    )


def _prepared(config: Config, rows: Table) -> Prepared:
    prepared = prepare_table(rows, config)
    y = keep_labels_per_class(prepared.training.y, LABELLED, prepared.schema.labels.names, config.training.seed)
    return prepared._replace(training=prepared.training.with_labels(y))


def accuracy(twin: str, cache: Path, seeds: int = 3) -> Any:
    """Validation accuracy after the same number of steps, of `enumerate` and of `top_k`."""
    rows = gloss_rows(cache)
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in range(seeds):
        for estimator in TRAINED:
            config = gloss_config(estimator, seed)
            prepared = _prepared(config, rows)
            backend = get_backend(twin)(config, prepared.schema.dimensions)
            fitted = fit(config, prepared.training, prepared.validation, backend)
            held_out = [record.validation for record in fitted.records if record.validation is not None]
            results.setdefault(estimator, []).append(
                {
                    "accuracy": held_out[-1].accuracy,
                    "best": max(metrics.accuracy or 0.0 for metrics in held_out),
                    "elbo_per_symbol": held_out[-1].elbo_per_symbol,
                    "seconds": fitted.state.seconds,
                    "steps": fitted.state.step,
                }
            )
            print(twin, seed, estimator, results[estimator][-1], len(prepared.schema.vocabulary), flush=True)
    return {
        "glosses": {
            **results,
            "vocabulary": len(prepared.schema.vocabulary),
            "rows": len(prepared.training),
            "validation_rows": len(prepared.validation),
        }
    }


def gradients(twin: str, cache: Path, draws: int = 50, names: tuple[str, ...] = ("languages", "glosses")) -> Any:
    """Bias and variance of every estimator's gradient, at the first weights and after some training."""
    results = {}
    for name in names:
        rows, config = _rows_and_config(name, cache)
        prepared = _prepared(config, rows)
        backend = get_backend("torch")(config, prepared.schema.dimensions)
        for moment in ("first weights", "trained"):
            if moment == "trained":
                fit(config, prepared.training, prepared.validation, backend)
            batch = random_batch(prepared.training, 32, 0)
            weights = backend.get_weights()
            setting = Setting(twin, replace(config), prepared.schema.dimensions, weights, batch)
            label_count = len(prepared.schema.dimensions.label_prior)
            qualities = compare_gradient_estimators(setting, list_gradient_estimators(label_count, [1, 4]), draws)
            results[f"{name}, {moment}"] = {
                "labels": len(prepared.schema.dimensions.label_prior),
                "shape": list(batch.x.shape),
                "vocabulary": len(prepared.schema.vocabulary),
                "draws": draws,
                "estimators": gradient_estimators_json(qualities),
            }
            print(twin, name, moment, json.dumps(results[f"{name}, {moment}"]["estimators"]), flush=True)
    return results


def _rows_and_config(name: str, cache: Path) -> tuple[Table, Config]:
    if name == "glosses":
        return gloss_rows(cache), gloss_config(steps=STEPS // 3)
    from seqssvae.datasets import load_dataset

    config = gloss_config(steps=STEPS // 3)
    return load_dataset(name), replace(config, data=replace(config.data, minimum_count=1))


PARTS: dict[str, Callable[..., Any]] = {"price": price, "labels": labels, "gradients": gradients, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    parser.add_argument("--twins", nargs="+", default=list(TWINS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path(".cache/wordnet"))
    given = parser.parse_args()
    for part in given.parts or PARTS:
        for twin in given.twins:
            result = PARTS[part](twin, given.cache)
            print(twin, part, json.dumps(result) if part != "gradients" else "", flush=True)
            add_result(given.results, part, twin, result)


if __name__ == "__main__":
    main()
