"""What the plug-in for yoyodyne makes of the host's data: its symbols as the core's, its features as labels."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from yoyodyne.models.base import ConfigurationError

from seqssvae.backend import NO_LABEL
from seqssvae.vocabulary import PAD, SPECIALS, UNK

HOST_SPECIALS = 6
"""The host's special symbols come first in its index; the first four of them are ours as well."""

Label = tuple[str, ...]


class Alphabet:
    """The host's ids of symbols and labels, and ours.

    Ours are the four special symbols and the symbols of sequences. Features, and two special symbols of the host's,
    have none: no sequence that can be generated contains them, so that p(x) is proper.

    Args:
        index: The host's symbols.
        labels: The classes, each an ordered tuple of feature symbols.
        missing: What stands for a missing label.
    """

    def __init__(self, index: Any, labels: Sequence[Label], missing: Label) -> None:
        features = set(index.features_vocabulary or ())
        places = [
            place for place, symbol in enumerate(index.symbols) if place >= HOST_SPECIALS and symbol not in features
        ]
        self.symbols = [index.symbols[place] for place in places]
        self.to_host = torch.tensor([*range(len(SPECIALS)), *places])
        self.to_core = torch.full((len(index),), UNK)
        self.to_core[self.to_host] = torch.arange(len(self.to_host))
        self.labels = {tuple(index(symbol) for symbol in label): place for place, label in enumerate(labels)}
        self.of_label = [list(ids) for ids in self.labels]
        # a marker that the index does not have is read as unknown; other unknown labels are refused beforehand
        self.missing = {(), tuple(index(symbol) for symbol in missing)}

    def x(self, sequences: Int[Tensor, "B T"]) -> Int[np.ndarray, "B T"]:
        """Our ids of sequences."""
        return self.to_core[sequences.cpu()].numpy().astype(np.int32)

    def y(self, features: Int[Tensor, "B L"]) -> Int[np.ndarray, "B"]:
        """Label ids of the host's features, `NO_LABEL` where the label is missing.

        Raises:
            ConfigurationError: If there is another label than those known.
        """
        found = []
        for row in features.tolist():
            ids = tuple(symbol for symbol in row if symbol != PAD)
            if ids not in self.labels and ids not in self.missing:
                raise ConfigurationError("A row has a label that the model was not trained with.")
            found.append(self.labels.get(ids, NO_LABEL))
        return np.array(found, np.int32)


class Read(NamedTuple):
    """How often each label occurs in a file, and how often none."""

    counts: dict[Label, int]
    missing: int


def labels_of(path: str, parser: Any) -> Iterator[tuple[int, Label]]:
    """Line and label of every row of a file."""
    for line, sample in enumerate(parser.samples(path), 1):
        yield line, tuple(sample[1])


def read_labels(path: str, parser: Any, missing: Label) -> Read:
    """The labels of a file."""
    counts: dict[Label, int] = {}
    absent = 0
    for _, label in labels_of(path, parser):
        if label in (missing, ()):
            absent += 1
        else:
            counts[label] = counts.get(label, 0) + 1
    return Read(counts, absent)
