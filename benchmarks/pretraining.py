"""What an SSVAE gains from pretraining, for which rows are learned from without any label first.

    python -m benchmarks.pretraining [--sets peptides languages] [--labels 10 50] [--seeds 3] [--steps 300]

Three fits of the recipe `ssvae` for each set, number of labels and seed: one of so many steps, one of as many that
starts from the weights of a fit without labels (of as many steps too), and one of twice as many steps. The last tells
pretraining from longer training. The metric is accuracy on test rows, by q(y|x) of the last weights.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.few_labels.sets import load_set
from seqssvae import SequenceSSVAE
from seqssvae.config import Config
from seqssvae.config.settings import from_dict

ROWS, TEST = 3000, 1000
FITS = ("from the start", "pretrained", "twice as long")
SETTINGS: dict[str, Any] = {
    "model": {
        "latent_size": 16,
        "encoder": {"embedding_size": 32, "hidden_size": 64},
        "decoder": {"embedding_size": 16, "hidden_size": 64, "conditioning": "output"},
    },
    "objective": {"alpha": 50.0},
    "optimizer": {"learning_rate": 0.003},
    "training": {"epochs": 1000, "batch_size": 64, "labelled_batch_size": 32, "buckets": 2, "patience": 0},
}


def config_of(labels: Sequence[str], steps: int, seed: int, **training: Any) -> Config:
    """The configuration of a fit of so many steps, whose last weights are kept."""
    own = {"max_steps": steps, "min_steps": steps, "evaluation_interval": steps, "seed": seed}
    data = {"labels": list(labels), "max_length": 60, "validation_fraction": 0.0}
    return from_dict({**SETTINGS, "training": {**SETTINGS["training"], **own, **training}, "data": data})


def accuracies(name: str, folder: Path | None, count: int, seed: int, steps: int, backend: str) -> list[float]:
    """Accuracy of each of the three fits on the same test rows, with so many labels of each class."""
    rows = load_set(name, folder)
    order = np.random.default_rng(0).permutation(len(rows))
    test = [rows[index] for index in order[:TEST]]
    learned = [rows[index] for index in np.random.default_rng([seed, 1]).permutation(order[TEST:])[:ROWS]]
    names = sorted({label for _, label in rows})
    left = dict.fromkeys(names, count)
    observed: list[str | None] = []
    for _, label in learned:
        left[label] -= 1
        observed.append(label if left[label] >= 0 else None)
    x = [list(symbols) for symbols, _ in learned]

    def new(steps: int, **training: Any) -> SequenceSSVAE:
        return SequenceSSVAE(recipe="ssvae", backend=backend, config=config_of(names, steps, seed, **training))

    def accuracy(model: SequenceSSVAE) -> float:
        predicted = model.predict([list(symbols) for symbols, _ in test])
        return float(np.mean(np.asarray(predicted) == [label for _, label in test]))

    alone = accuracy(new(steps).fit(x, observed))
    pretrained = new(steps, metric="elbo").fit(x, [None] * len(x))
    pretrained.set_params(config=config_of(names, steps, seed))
    return [alone, accuracy(pretrained.fit(x, observed, warm_start=True)), accuracy(new(2 * steps).fit(x, observed))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["peptides", "languages"])
    parser.add_argument("--folder", type=Path, help="Where NAME.tsv of further sets is.")
    parser.add_argument("--labels", nargs="+", type=int, default=[10, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--backend", default="jax")
    chosen = parser.parse_args()
    for name in chosen.sets:
        for count in chosen.labels:
            seeds = range(chosen.seeds)
            found = [accuracies(name, chosen.folder, count, seed, chosen.steps, chosen.backend) for seed in seeds]
            means = 100 * np.mean(found, axis=0)
            text = ", ".join(f"{fit} {mean:.1f}" for fit, mean in zip(FITS, means, strict=True))
            print(f"{name}, {count} labels a class: {text}", flush=True)


if __name__ == "__main__":
    main()
