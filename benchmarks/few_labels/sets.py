"""The sets: those that come with packages, and TSV files (sequence, label) in a folder of your own."""

import re
from pathlib import Path

import numpy as np

from benchmarks.glosses import definitions
from seqssvae.data.table import Table
from seqssvae.datasets import load_dataset

CACHE = Path(".cache/few_labels")
NOUNS = {
    **{4: "act", 5: "animal", 6: "artifact", 8: "body", 10: "communication"},
    **{13: "food", 15: "location", 18: "person", 20: "plant", 27: "substance"},
}
"""By number of the lexicographer's file, the classes of the glosses."""
GLOSSES_OF_A_CLASS = 1000
MOST_SYMBOLS = 50
WORDS_IN_A_TEXT = 3

Row = tuple[tuple[str, ...], str]


def load_set(name: str, folder: Path | None) -> list[Row]:
    """The rows of a set: symbols and label.

    Args:
        name: `peptides`, `languages`, `glosses`, or the name of a file NAME.tsv in the folder.
        folder: The folder.

    Raises:
        FileNotFoundError: If there is no such set.
    """
    if name == "glosses":
        return _glosses()
    if name in ("peptides", "languages"):
        return _of_table(load_dataset(name))
    if folder is None:
        raise FileNotFoundError(f"there is no set {name}; give the folder that has {name}.tsv by --folder")
    lines = (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t")[:2] for line in lines if line.strip()]
    words = np.median([len(text.split()) for text, _ in pairs]) >= WORDS_IN_A_TEXT
    return [(tuple(text.split() if words else text)[:MOST_SYMBOLS], label) for text, label in pairs]


def names(folder: Path | None) -> list[str]:
    """The names of all sets."""
    own = [] if folder is None else sorted(path.stem for path in folder.glob("*.tsv"))
    return ["peptides", "languages", "glosses", *own]


def _of_table(table: Table) -> list[Row]:
    joined = table.sequences.joined("")
    return [(tuple(text)[:MOST_SYMBOLS], str(table.labels[row])) for row, text in enumerate(joined)]


def _glosses() -> list[Row]:
    texts, labels = definitions(CACHE)
    generator, rows = np.random.default_rng(0), []
    counts = dict.fromkeys(NOUNS, 0)
    seen: set[str] = set()
    for row in generator.permutation(len(texts)):
        label, text = labels[row], " ".join(texts[row])
        if label in NOUNS and counts[label] < GLOSSES_OF_A_CLASS and text not in seen and re.search("[a-z]", text):
            counts[label] += 1
            seen.add(text)
            rows.append((tuple(texts[row])[:32], NOUNS[label]))
    return rows
