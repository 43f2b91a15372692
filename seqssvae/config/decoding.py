"""How a generated sequence is chosen."""

from dataclasses import dataclass
from typing import Literal

from seqssvae.config.checks import check_flag, check_integer, check_literal, check_number
from seqssvae.config.data import DataConfig
from seqssvae.errors import ConfigurationError

DecodingMethod = Literal["sample", "greedy", "beam"]

LONGEST_SEARCH, MOST_CANDIDATES = 100_000, 1000
"""Most symbols of a generated sequence that may be asked for, and most candidates of a beam search."""
MOST_SYMBOLS = 10_000
"""Most symbols of a generated sequence where no number is given, however great `data.max_length` is."""


@dataclass(frozen=True)
class DecodingOptions:
    """How a generated sequence is chosen; none of it changes the probability that the model gives a sequence.

    Args:
        max_length: Most symbols of a sequence, without END; None: as in training.
        method: Draw each symbol (`sample`), take the most probable one (`greedy`), or search for the most probable
            sequence (`beam`).
        beam_width: Of `beam`: the number of candidates that are kept.
        temperature: Of `sample`: divides the logits of each symbol; below 1 symbols are surer, above 1 wilder.
        top_p: Of `sample`: the most probable symbols that have this probability together are drawn from (Holtzman et
            al. 2020, https://arxiv.org/abs/1904.09751).
        allow_unknown: Whether the symbol `<UNK>`, which stands for all that are not in the vocabulary, may be chosen.

    Raises:
        ConfigurationError: If a value is wrong, or of no use with the method; the message begins with its name.
    """

    max_length: int | None = None
    method: DecodingMethod = "sample"
    beam_width: int = 5
    temperature: float = 1.0
    top_p: float = 1.0
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        check_literal("method", self.method, DecodingMethod)
        check_integer("beam_width", self.beam_width, 1, MOST_CANDIDATES)
        if self.max_length is not None:
            check_integer("max_length", self.max_length, 1, LONGEST_SEARCH)
        check_number("temperature", self.temperature, 0, open_low=True)
        check_number("top_p", self.top_p, 0, 1, open_low=True)
        check_flag("allow_unknown", self.allow_unknown)
        for name in ("temperature", "top_p"):
            if getattr(self, name) != 1 and self.method != "sample":
                raise ConfigurationError(f"{name} is for the method sample alone; leave it out with {self.method}.")

    def longest(self, data: DataConfig) -> int:
        """Most symbols of a sequence, without END, of a model that was trained on such data."""
        return min(data.max_length, MOST_SYMBOLS) if self.max_length is None else self.max_length
