"""The section `model`: sizes and kinds of the networks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from seqssvae.config.checks import check, check_flag, check_integer, check_literal, check_number, check_numbers
from seqssvae.errors import ConfigurationError

CellName = Literal["gru", "lstm"]
Conditioning = Literal["init", "every_step", "output"]
EncoderKind = Literal["recurrent", "convolution", "both"]
Pooling = Literal["last", "mean", "max"]
LabelPrior = Literal["uniform", "empirical", "given"]

MOST_UNITS, MOST_LAYERS, MOST_SEEN = 16_384, 100, 1000
"""The greatest sizes of a vector, numbers of layers, and numbers of symbols that a convolution sees at once."""


def most_of(name: str) -> int:
    """The greatest number of layers, or the greatest size."""
    return MOST_LAYERS if name == "layers" else MOST_UNITS


@dataclass(frozen=True)
class EncoderConfig:
    """The network that reads x for q(y|x) and q(z|x,y); a recurrent one of these sizes reads the source, if any.

    Args:
        kind: What makes the features of a row: a network that is `recurrent`, a `convolution` with max pooling (Kim
            2014), which learns of fewer labels where short pieces of a sequence tell its class, or `both` side by side.
        widths: Numbers of symbols that filters of a convolution see at once.
        channels: C, number of filters of each width.
        embedding_size: E, size of a symbol's embedding.
        hidden_size: H, size of the state, for each direction; and of the hidden layer of q(z|x,y).
        layers: Number of recurrent layers.
        bidirectional: Whether each layer reads in both directions.
        pooling: How states become the features of a row: the last of each direction, or the mean or maximum over time.
        word_dropout: Share of the symbols of x that become UNK in training, before either encoder reads it; a source is
            read whole.
        separate: Whether q(y|x) and q(z|x,y) have an encoder each, instead of sharing one.
    """

    kind: EncoderKind = "recurrent"
    widths: Sequence[int] = (1, 2, 3, 4)
    channels: int = 64
    embedding_size: int = 32
    hidden_size: int = 128
    layers: int = 1
    bidirectional: bool = True
    pooling: Pooling = "last"
    word_dropout: float = 0.0
    separate: bool = False

    def __post_init__(self) -> None:
        check_literal("model.encoder.kind", self.kind, EncoderKind)
        widths = check_numbers("model.encoder.widths", self.widths)
        valid = all(isinstance(width, int) and 0 < width <= MOST_SEEN for width in widths)
        valid = valid and 0 < len(set(widths)) == len(widths)
        check(valid, "model.encoder.widths", f"different whole numbers from 1 to {MOST_SEEN}", self.widths)
        object.__setattr__(self, "widths", widths)
        for name in ("channels", "embedding_size", "hidden_size", "layers"):
            check_integer(f"model.encoder.{name}", getattr(self, name), 1, most_of(name))
        check_literal("model.encoder.pooling", self.pooling, Pooling)
        check_number("model.encoder.word_dropout", self.word_dropout, 0.0, 1.0)
        for name in ("bidirectional", "separate"):
            check_flag(f"model.encoder.{name}", getattr(self, name))


@dataclass(frozen=True)
class DecoderConfig:
    """The recurrent network that generates x, p(x|y,z).

    Args:
        embedding_size: E, size of a symbol's embedding.
        hidden_size: H, size of the state.
        layers: Number of recurrent layers.
        conditioning: How y and z enter: `init` (the initial state), `every_step` (that, and every step's input), or
            `output` (added to the output of a recurrence that runs on x alone, once per row).
        context: How many symbols each step sees of those before it: all of them (None), by a recurrence, or the last so
            many, START being one of them, by a layer of its own, which goes with `output`. The less of a sequence
            explains itself, the more is left to y and z (Yang et al. 2017); with 0 a sequence is a bag of symbols.
        attention: Whether each step attends to the source, where there is one (Luong et al. 2015, the global attention
            of section 3.1 with the bilinear score, without input feeding).
    """

    embedding_size: int = 32
    hidden_size: int = 64
    layers: int = 1
    conditioning: Conditioning = "output"
    context: int | None = None
    attention: bool = True

    def __post_init__(self) -> None:
        for name in ("embedding_size", "hidden_size", "layers"):
            check_integer(f"model.decoder.{name}", getattr(self, name), 1, most_of(name))
        check_literal("model.decoder.conditioning", self.conditioning, Conditioning)
        check_flag("model.decoder.attention", self.attention)
        if self.context is None:
            return
        check_integer("model.decoder.context", self.context, 0, MOST_SEEN)
        if self.conditioning != "output" or self.layers > 1:
            raise ConfigurationError(
                "model.decoder.context goes with model.decoder.conditioning: output and model.decoder.layers: 1."
            )


@dataclass(frozen=True)
class ModelConfig:
    """The networks of the graphical model.

    Args:
        cell: Recurrent cell of encoder and decoder.
        latent_size: Z, size of z.
        encoder: The network that reads x.
        decoder: The network that generates x.
        dropout: Share of embedding and feature entries set to 0 in training.
        word_dropout: Share of the decoder's input symbols that become UNK in training (Bowman et al. 2016,
            section 3.1).
        label_prior: The distribution p(y): `uniform`, `empirical` (the shares of the observed training labels), or
            `given` (`label_prior_probabilities`). Where there is a source, p(y|source) starts from it.
        label_prior_probabilities: p(y) in the order of the labels, if `label_prior` is `given`.
    """

    cell: CellName = "gru"
    latent_size: int = 16
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    dropout: float = 0.0
    word_dropout: float = 0.0
    label_prior: LabelPrior = "uniform"
    label_prior_probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check_literal("model.cell", self.cell, CellName)
        check_integer("model.latent_size", self.latent_size, 1, MOST_UNITS)
        check_number("model.dropout", self.dropout, 0.0, 0.95)
        check_number("model.word_dropout", self.word_dropout, 0.0, 1.0)
        check_literal("model.label_prior", self.label_prior, LabelPrior)
        given = self.label_prior_probabilities
        path = "model.label_prior_probabilities"
        if (self.label_prior == "given") != (given is not None):
            raise ConfigurationError(f"{path} goes with model.label_prior: given, and only with it.")
        if given is not None:
            numbers = check_numbers(path, given)
            check(all(p > 0 for p in numbers), path, "numbers above 0", given)
            object.__setattr__(self, "label_prior_probabilities", tuple(float(p) for p in numbers))
            check(abs(sum(given) - 1) < 1e-6, path, "a list that sums to 1", list(given))
