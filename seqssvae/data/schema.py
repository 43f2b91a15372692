"""What a model must know of its data: symbols, labels, and how probable each label is."""

from dataclasses import dataclass
from typing import Any

from seqssvae.backend import Dimensions
from seqssvae.config import ModelConfig
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.parameters import Shape, parameter_shapes

FORMAT = 1
"""Version of the run directory's layout."""


@dataclass(frozen=True)
class Schema:
    """What a run knows of its data.

    Args:
        vocabulary: The symbols of sequences.
        labels: The classes.
        label_prior: p(y), one probability per label.
        source_vocabulary: The symbols of sources; None where there are none.
    """

    vocabulary: Vocabulary
    labels: Labels
    label_prior: tuple[float, ...]
    source_vocabulary: Vocabulary | None = None

    @property
    def dimensions(self) -> Dimensions:
        """What the model must know of it."""
        sources = 0 if self.source_vocabulary is None else len(self.source_vocabulary)
        return Dimensions(len(self.vocabulary), self.label_prior, sources)

    def parameter_shapes(self, model: ModelConfig) -> dict[str, Shape]:
        """Name and shape of every weight of a model of these data."""
        size, prior, sources = self.dimensions
        return parameter_shapes(model, size, len(prior), sources)

    def to_dict(self) -> dict[str, Any]:
        """What `vocabulary.json` holds."""
        stored = {
            "format": FORMAT,
            "vocabulary": self.vocabulary.to_dict(),
            "labels": self.labels.to_dict(),
            "label_prior": list(self.label_prior),
        }
        if self.source_vocabulary is not None:
            stored["source_vocabulary"] = self.source_vocabulary.to_dict()
        return stored
