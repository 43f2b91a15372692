"""What the plug-in for yoyodyne makes of the host's data: its symbols as the core's, its features as labels."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from yoyodyne import data
from yoyodyne.models.base import ConfigurationError

from seqssvae.backend import NO_LABEL, Batch
from seqssvae.config import Config
from seqssvae.config.settings import to_dict
from seqssvae.data.schema import check_label_shift, label_prior
from seqssvae.data.vocabulary import END, PAD, SPECIALS, UNK, Labels

LOOKS_MISSING = {"_", "-", "?", "*", "NA", "N/A", "nan", "NaN", "None", "none", "NULL", "null", "UNK"}
"""Fields that are hardly a label's name."""

Label = tuple[str, ...]


class Alphabet:
    """The host's ids of symbols and labels, and ours.

    Ours are the four special symbols and the symbols of targets; and, apart from these, those of sources. Features, and
    two special symbols of the host's, have none: no sequence that can be generated contains them, so that p(x) is
    proper.

    Args:
        index: The host's symbols.
        labels: The classes, each an ordered tuple of feature symbols.
        missing: What stands for a missing label.
    """

    def __init__(self, index: Any, labels: Sequence[Label], missing: Label) -> None:
        features = set(index.features_vocabulary or ())

        def known(symbols: Sequence[str]) -> list[str]:
            return [symbol for symbol in symbols if symbol not in features]

        self.source_symbols = known(index.source_vocabulary)
        self.symbols = known(index.target_vocabulary or index.source_vocabulary)
        self.to_host = torch.tensor([*range(len(SPECIALS)), *map(index, self.symbols)])
        self.to_core = self._ours(index, self.symbols)
        self.source_to_core = self._ours(index, self.source_symbols)
        self.labels = {tuple(index(symbol) for symbol in label): place for place, label in enumerate(labels)}
        self.of_label = [list(ids) for ids in self.labels]
        # a marker that the index does not have is read as unknown; other unknown labels are refused beforehand
        self.missing = {(), tuple(index(symbol) for symbol in missing)}

    @staticmethod
    def _ours(index: Any, symbols: Sequence[str]) -> Int[Tensor, " N"]:
        """Our id of each of the host's."""
        places, ids = [*range(len(SPECIALS)), *map(index, symbols)], torch.full((len(index),), UNK)
        ids[torch.tensor(places)] = torch.arange(len(places))
        return ids

    def x(self, sequences: Int[Tensor, "B T"]) -> Int[np.ndarray, "B T"]:
        """Our ids of sequences."""
        return self.to_core[sequences.cpu()].numpy().astype(np.int32)

    def source(self, sequences: Int[Tensor, "B S"]) -> Int[np.ndarray, "B S"]:
        """Our ids of sources."""
        return self.source_to_core[sequences.cpu()].numpy().astype(np.int32)

    def y(self, features: Int[Tensor, "B L"]) -> Int[np.ndarray, " B"]:
        """Label ids of the host's features, `NO_LABEL` where the label is missing.

        Raises:
            ConfigurationError: If there is another label than those known.
        """
        labels = []
        for row in features.tolist():
            ids = tuple(symbol for symbol in row if symbol != PAD)
            if ids not in self.labels and ids not in self.missing:
                raise ConfigurationError("A row has a label that the model was not trained with.")
            labels.append(self.labels.get(ids, NO_LABEL))
        return np.array(labels, np.int32)

    def rows(self, batch: data.Batch, y: Int[np.ndarray, " B"] | None, transduces: bool) -> Batch:
        """The rows of a batch as the core takes them.

        Args:
            batch: The host's batch.
            y: Label ids; None where all labels are missing.
            transduces: Whether the target is modelled given the source.
        """
        source, labels = None, np.full(len(batch), NO_LABEL, np.int32) if y is None else y
        if transduces:
            source = self.source(batch.source.tensor[:, 1:])  # without the first symbol
        if batch.has_target:
            x = self.x(batch.target.tensor)
        elif transduces:
            x = np.full((len(batch), 1), END, np.int32)
        else:
            x = self.x(batch.source.tensor[:, 1:])
        return Batch(x, labels, np.ones(len(batch), bool), np.arange(len(batch), dtype=np.int32), source)

    def label_ids(self, y: Int[np.ndarray, " B"]) -> Int[Tensor, "B L"]:
        """Labels as the host's features, with END behind them."""
        rows = [torch.tensor([*self.of_label[label], END]) for label in y]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


class Read(NamedTuple):
    """How often each label occurs in a file, and how often none."""

    counts: dict[Label, int]
    missing: int


def labels_of(path: str, parser: Any) -> Iterator[tuple[int, Label]]:
    """Line and label of every row of a file."""
    for line, sample in enumerate(parser.samples(path), 1):
        yield line, tuple(sample[1])


def check_labels(path: str, parser: Any, names: Sequence[str], missing: Label) -> None:
    """Check that a file has no other labels than these.

    Raises:
        ConfigurationError: If it has, naming the first one and its line.
    """
    known = {tuple(parser.features_symbols(name)) for name in names}
    for line, label in labels_of(path, parser):
        if label not in known and label not in (missing, ()):
            raise ConfigurationError(
                f"{path}, line {line}: the label {parser.features_string(label)!r} is none of those of the training "
                f"data ({', '.join(names)})."
            )


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


def first_state(module: Any, index: Any, config: Config, labels: Sequence[str] | None, marker: str) -> dict[str, Any]:
    """What the networks are built from, as the training file has it.

    Args:
        module: The host's data.
        index: Its symbols.
        config: What the user says of networks and objective.
        labels: The classes, if they are given.
        marker: What stands for a missing label.

    Raises:
        ConfigurationError: If file and arguments do not go together.
    """
    parser, path = module.parser, module.train
    missing = tuple(parser.features_symbols(marker))
    if not parser.has_target:
        raise ConfigurationError("data.target_col is 0: to model the sequences of one column, name it as target_col.")
    if not index.tie_embeddings:
        raise ConfigurationError(
            "data.tie_embeddings must be true: sources and targets have embeddings of their own here in any case."
        )
    names = labels
    read = read_labels(path, parser, missing) if parser.has_features else Read({}, 0)
    counts = {parser.features_string(label): count for label, count in read.counts.items()}
    if marker and not read.missing:
        raise ConfigurationError(
            f"No row of {path} has {marker!r} in its features column, which missing= says marks a missing "
            f"label; the column has {', '.join(counts) or 'nothing'}."
        )
    if names is not None and (others := [name for name in counts if name not in names]):
        raise ConfigurationError(
            f"{path} has the label {others[0]!r}, which is not one of labels= ({', '.join(names)})."
        )
    names = list(names or sorted(counts))
    if len(names) < 2:
        has = f"only the label {names[0]!r}" if names else "no label"
        raise ConfigurationError(f"{path} has {has}: name at least two classes by labels=, and their features_col.")
    for name in names:
        if name in LOOKS_MISSING:
            rank_zero_warn(f"{name!r} is taken as a class; if it marks a missing label, say missing: {name!r}.")
    rank_zero_info(f"{len(names)} classes: {', '.join(names)}; {read.missing} rows without a label.")
    y = np.repeat(np.arange(len(names)), [counts.get(name, 0) for name in names]).astype(np.int32)
    check_label_shift(config.objective, Labels(tuple(names)))
    prior = label_prior(config.model, Labels(tuple(names)), y)
    alphabet, transduces = Alphabet(index, [], missing), parser.source_col != parser.target_col
    networks = to_dict(config)["model"]
    return {
        "labels": names,
        "symbols": alphabet.symbols,
        "source_symbols": alphabet.source_symbols if transduces else None,
        "data": {
            "sequence_column": parser.target_col,
            "label_column": parser.features_col,
            "source_column": parser.source_col if transduces else 0,
            "separator": parser.target_sep,
            "source_separator": parser.source_sep,
        },
        "label_prior": list(prior),
        "networks": networks,
        "objective": to_dict(config)["objective"],
        "seed": config.training.seed,
        "baseline": {},
    }
