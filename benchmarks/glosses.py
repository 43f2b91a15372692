"""WordNet 3.0's definitions as rows: words of a definition, and the lexicographer's file it is from, as its label.

The 117,659 definitions come with Debian's package `wordnet-base`, which is fetched and unpacked where it is not
installed (apt-get and dpkg-deb); nothing of it is kept with this project.
"""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from seqssvae.data.vocabulary import END, UNK

INSTALLED = Path("/usr/share/wordnet")
FILES = ("data.adj", "data.adv", "data.noun", "data.verb")
FIRST_SYMBOL = 4
"""Ids below are of special symbols."""


def glosses(cache: Path, vocabulary_size: int = 10_000, most: int = 32) -> tuple[list[np.ndarray], np.ndarray]:
    """Symbol ids of every definition, with END, and its label from 0 to 44.

    Args:
        cache: Directory to unpack into.
        vocabulary_size: V; rarer words become UNK.
        most: Most symbols of a row, END included; longer ones are cut.
    """
    texts, labels = definitions(cache)
    counts = Counter(word for text in texts for word in text)
    known = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    ids = {word: FIRST_SYMBOL + place for place, word in enumerate(known[: vocabulary_size - FIRST_SYMBOL])}
    rows = [np.array([*(ids.get(word, UNK) for word in text[: most - 1]), END], np.int32) for text in texts]
    return rows, np.array(labels, np.int32)


def definitions(cache: Path) -> tuple[list[list[str]], list[int]]:
    """The words of every definition, and its label."""
    texts, labels = [], []
    for line in _lines(_directory(cache)):
        head, _, gloss = line.partition(" | ")
        texts.append(re.findall(r"[a-z0-9']+", re.split(r'; "', gloss)[0].lower()) or ["empty"])
        labels.append(int(head.split(" ", 2)[1]))
    return texts, labels


def _directory(cache: Path) -> Path:
    if (INSTALLED / FILES[0]).exists():
        return INSTALLED
    unpacked = cache / "usr/share/wordnet"
    if not unpacked.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["apt-get", "download", "wordnet-base"], cwd=directory, check=True, capture_output=True)
            package = next(Path(directory).glob("wordnet-base*.deb"))
            subprocess.run(["dpkg-deb", "-x", str(package), str(cache)], check=True)
    return unpacked


def _lines(directory: Path) -> list[str]:
    return [
        line
        for name in FILES
        for line in (directory / name).read_text(encoding="latin-1").splitlines()
        if not line.startswith("  ")
    ]
