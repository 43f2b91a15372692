"""A small task: texts of class `left` are mostly of the letters a and b, those of class `right` of c and d."""

from pathlib import Path

import numpy as np

from seqssvae.config import Config
from seqssvae.config.settings import Settings, from_dict
from seqssvae.data.table import Table
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE

SETTINGS: Settings = {
    "data": {"validation_fraction": 0.25},
    "model": {
        "latent_size": 2,
        "encoder": {"embedding_size": 3, "hidden_size": 2},
        "decoder": {"embedding_size": 3, "hidden_size": 2},
    },
    "optimizer": {"learning_rate": 0.05},
    "training": {"epochs": 4, "batch_size": 8, "labelled_batch_size": 4, "buckets": 2, "min_steps": 0},
}


def toy_config() -> Config:
    return from_dict(SETTINGS)


def toy_texts(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts and their labels, in turn."""
    generator = np.random.default_rng(seed)
    labels = ["left" if index % 2 == 0 else "right" for index in range(count)]
    texts = []
    for label in labels:
        shares = [0.4, 0.4, 0.1, 0.1] if label == "left" else [0.1, 0.1, 0.4, 0.4]
        texts.append("".join(generator.choice(list("abcd"), size=generator.integers(4, 9), p=shares)))
    return texts, labels


def toy_table(count: int = 48, labelled: int = 24, seed: int = 0) -> Table:
    """The first `labelled` rows with their label, the others without."""
    texts, labels = toy_texts(count, seed)
    return Table.from_rows(texts, [label if index < labelled else None for index, label in enumerate(labels)])


def write_toy(path: Path, count: int = 48, labelled: int = 24, seed: int = 0) -> Path:
    """Write the rows of `toy_table` as a TSV file."""
    table = toy_table(count, labelled, seed)
    rows = zip(table.sequences.joined(""), table.labels, strict=True)
    path.write_text("".join(f"{text}\t{label or ''}\n" for text, label in rows))
    return path


TEXTS, NAMES = toy_texts(60)
OTHER_TEXTS, OTHER_NAMES = toy_texts(40, seed=1)


def make_estimator(**hyperparameters: object) -> SequenceSSVAE:
    """An estimator for these texts, with the fake twin."""
    return SequenceSSVAE(
        **{"backend": "fake", "recipe": "ssvae", "config": toy_config(), "epochs": 10, **hyperparameters}
    )
