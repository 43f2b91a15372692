"""`SequenceSSVAE`: the model in scikit-learn's conventions, thin over the same training loop as the command line."""

import dataclasses
import warnings
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import NO_LABEL, Backend, DecodingMethod, get_backend
from seqssvae.cli.tables import describe_counts
from seqssvae.config import Config
from seqssvae.config.settings import from_dict, merge, to_dict
from seqssvae.data.corpus import Corpus, encode_rows
from seqssvae.data.in_memory import as_array, check_sequences, label_names, make_rows, read_labels, sort_classes
from seqssvae.data.prepare import prepare_rows
from seqssvae.data.schema import Schema
from seqssvae.errors import ConfigurationError, DataError, RunError
from seqssvae.estimator.parameters import Parameters
from seqssvae.inference.evaluate import encode, generate, predict_proba
from seqssvae.inference.transduce import transduce
from seqssvae.runs.run import Checkpoint, RunWriter, corpus_digest, open_run, read_checkpoint
from seqssvae.runs.storage import read_json, to_json, write_files
from seqssvae.training.fit import fit

ESTIMATOR = "estimator.json"
"""The file that `SequenceSSVAE.save` adds to a run directory."""

FIELDS = {
    "cell": ("model.cell",),
    "latent_size": ("model.latent_size",),
    "hidden_size": ("model.encoder.hidden_size",),
    "decoder_hidden_size": ("model.decoder.hidden_size",),
    "embedding_size": ("model.encoder.embedding_size", "model.decoder.embedding_size"),
    "layers": ("model.encoder.layers", "model.decoder.layers"),
    "conditioning": ("model.decoder.conditioning",),
    "dropout": ("model.dropout",),
    "word_dropout": ("model.word_dropout",),
    "encoder_word_dropout": ("model.encoder.word_dropout",),
    "alpha": ("objective.alpha",),
    "consistency": ("objective.consistency.weight",),
    "gradient_estimator": ("objective.gradient_estimator",),
    "k": ("objective.k",),
    "learning_rate": ("optimizer.learning_rate",),
    "epochs": ("training.epochs",),
    "max_steps": ("training.max_steps",),
    "batch_size": ("training.batch_size",),
    "metric": ("training.metric",),
    "patience": ("training.patience",),
    "standard_errors": ("training.standard_errors",),
    "validation_fraction": ("data.validation_fraction",),
    "max_length": ("data.max_length",),
    "separator": ("data.separator",),
    "random_state": ("training.seed",),
}
"""Fields of the configuration that each flat parameter stands for."""

Sequences = Sequence[str] | Sequence[Sequence[str]]

SOURCE_OR_NOT = "source must be given where, and only where, it was given to fit."


class Fitted(NamedTuple):
    """All that training leaves in an estimator.

    Args:
        backend: The twin with its best weights.
        config: The whole configuration.
        schema: Symbols, labels, p(y).
        texts: Whether sequences were given as texts.
        checkpoint: How training went, to be saved.
    """

    backend: Backend
    config: Config
    schema: Schema
    texts: bool
    checkpoint: Checkpoint


class SequenceSSVAE(Parameters):
    """Semi-supervised variational autoencoder for sequences: classifier, embedding and generator in one.

    A flat parameter that is None is as `config` says, whose own defaults are those of the command line.

    Args:
        backend: The twin, `torch` or `jax`.
        hidden_size: Size of the encoder's state, for each direction.
        latent_size: Size of z.
        decoder_hidden_size: Size of the decoder's state.
        embedding_size: Size of a symbol's embedding.
        layers: Recurrent layers of encoder and decoder.
        cell: `gru` or `lstm`.
        conditioning: How y and z enter the decoder: `init`, `every_step` or `output`.
        dropout: Share of embedding and feature entries set to 0 in training.
        word_dropout: Share of the decoder's input symbols replaced by UNK in training.
        encoder_word_dropout: Share of the symbols replaced by UNK in training before the encoder reads them.
        alpha: Weight of the classification term.
        consistency: Weight of the term that q(y|x) be the same with dropout as without, where the label is missing.
        gradient_estimator: What is done with a missing label: `enumerate`, `sequential`, `top_k`, `gumbel_softmax` or
            `score_function`.
        k: Labels that `top_k` sums out; 0: as many as each batch needs.
        learning_rate: Step size.
        epochs: Most passes over the unlabelled rows.
        max_steps: Most training steps; 0: as `epochs` says.
        batch_size: Rows of an unlabelled batch.
        metric: What decides the best weights: `accuracy`, `classification`, `elbo` or `loss`.
        patience: Evaluations without a better metric after which training stops.
        standard_errors: How far below the best a later evaluation's metric may be, in its standard errors, for the
            later weights to be kept; 0: the best are.
        validation_fraction: Share of the rows given to `fit` that is held out to evaluate the metric.
        max_length: Longest sequence taken: longer ones are left out in training and cut afterwards.
        separator: What separates the symbols of a text; empty: each character is a symbol.
        random_state: Seed of everything drawn.
        missing: What marks a missing label, beside None. None: the integer -1 does, as in scikit-learn's
            semi-supervised estimators.
        device: The framework's name of a device.
        config: All the rest.

    Attributes:
        classes_: The labels, sorted, as they were given.
        fitted_: The trained twin, its configuration, symbols and labels.

    Example:
        >>> model = SequenceSSVAE(backend="jax", hidden_size=32, epochs=5)
        >>> model.get_params()["hidden_size"]
        32
    """

    def __init__(
        self,
        *,
        backend: str = "jax",
        hidden_size: int | None = None,
        latent_size: int | None = None,
        decoder_hidden_size: int | None = None,
        embedding_size: int | None = None,
        layers: int | None = None,
        cell: str | None = None,
        conditioning: str | None = None,
        dropout: float | None = None,
        word_dropout: float | None = None,
        encoder_word_dropout: float | None = None,
        alpha: float | None = None,
        consistency: float | None = None,
        gradient_estimator: str | None = None,
        k: int | None = None,
        learning_rate: float | None = None,
        epochs: int | None = None,
        max_steps: int | None = None,
        batch_size: int | None = None,
        metric: str | None = None,
        patience: int | None = None,
        standard_errors: float | None = None,
        validation_fraction: float | None = None,
        max_length: int | None = None,
        separator: str | None = None,
        random_state: int | None = None,
        missing: Hashable = None,
        device: str | None = None,
        config: Config | None = None,
    ) -> None:
        self.backend = backend
        self.hidden_size = hidden_size
        self.latent_size = latent_size
        self.decoder_hidden_size = decoder_hidden_size
        self.embedding_size = embedding_size
        self.layers = layers
        self.cell = cell
        self.conditioning = conditioning
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.encoder_word_dropout = encoder_word_dropout
        self.alpha = alpha
        self.consistency = consistency
        self.gradient_estimator = gradient_estimator
        self.k = k
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.metric = metric
        self.patience = patience
        self.standard_errors = standard_errors
        self.validation_fraction = validation_fraction
        self.max_length = max_length
        self.separator = separator
        self.random_state = random_state
        self.missing = missing
        self.device = device
        self.config = config

    # Training

    def fit(
        self,
        X: Sequences,
        y: Iterable[Any] | None = None,
        groups: Iterable[Any] | None = None,
        source: Sequences | None = None,
    ) -> "SequenceSSVAE":
        """Train on sequences, some of which have a label.

        Args:
            X: Sequences: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one.
            groups: Group of each; no group is both trained on and held out.
            source: The sequence that each is made from, if there is one; then it is given to the other methods, too.

        Raises:
            DataError: If there are no sequences, or labels that cannot be learned.
            ConfigurationError: If a parameter is wrong.
        """
        texts = check_sequences(X)
        if source is not None:
            check_sequences(source, "source")
        values = read_labels(y, len(X), self.missing)
        config = self._build_config()
        classes = sort_classes(values) if config.data.labels is None else list(config.data.labels)
        names = label_names(classes)
        column = 0 if source is None else config.data.source_column or 1 + max(_columns(config))
        settings = {"labels": list(names.values()), "source_column": column}
        config = from_dict(merge(to_dict(config), {"data": settings}))
        labels = [None if value is None else names.get(value, str(value)) for value in values]
        separators = config.data.separator, config.data.source_separator
        prepared = prepare_rows(make_rows(X, labels, groups, separators[0], source, separators[1]), config, "X")
        _warn_of_counts(prepared.training, config)
        twin = get_backend(self.backend)(config, prepared.schema.dimensions, self.device)
        result = fit(config, prepared.training, prepared.validation, twin)
        history = [record.to_dict() for record in result.records]
        self.classes_ = as_array(classes)
        self.fitted_ = Fitted(
            twin,
            config,
            prepared.schema,
            texts,
            Checkpoint(result.state, history, corpus_digest(prepared.training)),
        )
        return self

    def fit_transform(
        self,
        X: Sequences,
        y: Iterable[Any] | None = None,
        groups: Iterable[Any] | None = None,
        source: Sequences | None = None,
    ) -> Float[np.ndarray, "N Z"]:
        """`fit`, then `transform` of the same sequences."""
        return self.fit(X, y, groups, source).transform(X, source)

    def _build_config(self) -> Config:
        """The configuration that the flat parameters and `config` make together."""
        if self.config is not None and not isinstance(self.config, Config):
            raise ConfigurationError(f"config must be a seqssvae.config.Config, not {type(self.config).__name__}.")
        settings = to_dict(self.config or Config())
        for name, paths in FIELDS.items():
            value = getattr(self, name)
            for path in paths if value is not None else ():
                overrides: Any = value.item() if isinstance(value, np.generic) else value
                for part in reversed(path.split(".")):
                    overrides = {part: overrides}
                settings = merge(settings, overrides)
        return from_dict(settings)

    # Use

    def predict_proba(self, X: Sequences, source: Sequences | None = None) -> Float[np.ndarray, "N K"]:
        """q(y|x) of each sequence, a column per entry of `classes_`."""
        return predict_proba(self._get_fitted().backend, self._encode(X, source), self._get_fitted().config)

    def predict(self, X: Sequences, source: Sequences | None = None) -> np.ndarray:
        """The most probable label of each sequence."""
        indices = self.predict_proba(X, source).argmax(axis=1)
        return self.classes_[indices]

    def transform(self, X: Sequences, source: Sequences | None = None) -> Float[np.ndarray, "N Z"]:
        """The embedding of each sequence: sum over y of q(y|x) loc(x, y)."""
        return encode(self._get_fitted().backend, self._encode(X, source), self._get_fitted().config)

    def transduce(
        self,
        source: Sequences,
        y: Iterable[Any] | None = None,
        method: DecodingMethod = "greedy",
        beam_width: int = 5,
        max_length: int | None = None,
        seed: int = 0,
    ) -> list[Any]:
        """The sequence that is made of each source, in the form in which X was given to `fit`.

        Args:
            source: Sources: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one, for which the most probable label is taken.
            method: Take the best symbol at each step (`greedy`), search (`beam`), or draw each symbol (`sample`).
            beam_width: Candidates kept by `beam`.
            max_length: Most symbols; None: the greatest length of training.
            seed: Seed of what `sample` draws.
        """
        fitted, classes, sources = self._get_fitted(), self.classes_.tolist(), self._encode_sources(source)
        values = read_labels(y, len(source), self.missing)
        for value in values:
            if value is not None and value not in classes:
                raise DataError(f"There is no label {value!r}; known are {', '.join(map(repr, classes))}.")
        indices = np.array([NO_LABEL if value is None else classes.index(value) for value in values], np.int32)
        search = method, beam_width, max_length, seed
        vocabulary = fitted.schema.vocabulary
        found = transduce(fitted.backend, vocabulary, sources, indices, fitted.config, *search)
        return [vocabulary.join(one.symbols) if fitted.texts else one.symbols for one in found]

    def score(self, X: Sequences, y: Iterable[Any], source: Sequences | None = None) -> float:
        """Share of the sequences with a label whose predicted label is theirs."""
        values, predicted = read_labels(y, len(X), self.missing), self.predict(X, source)
        hits = [found == value for found, value in zip(predicted, values, strict=True) if value is not None]
        if not hits:
            raise DataError("y has no label to score the predictions by.")
        return float(np.mean(hits))

    def sample(
        self,
        label: Any,
        n: int = 1,
        seed: int = 0,
        method: DecodingMethod = "sample",
        beam_width: int = 5,
        max_length: int | None = None,
        source: str | Sequence[str] | None = None,
    ) -> list[Any]:
        """New sequences of a label, in the form (texts, or lists of symbols) in which X was given to `fit`.

        Args:
            label: One of `classes_`.
            n: Number of sequences.
            seed: Seed of z and of the symbols.
            method: Draw each symbol (`sample`), take the best one (`greedy`), or search for the best sequence (`beam`).
            beam_width: Candidates kept by `beam`.
            max_length: Most symbols; None: the greatest length of training.
            source: What they are made from, of a model fitted with sources.
        """
        fitted, classes = self._get_fitted(), self.classes_.tolist()
        if label not in classes:
            raise DataError(f"There is no label {label!r}; known are {', '.join(map(repr, classes))}.")
        vocabulary, max_length = fitted.schema.vocabulary, max_length or fitted.config.data.max_length
        if (source is None) != (fitted.schema.source_vocabulary is None):
            raise DataError(SOURCE_OR_NOT)
        made_from = None if source is None else self._encode_sources([source])[0]
        search = n, max_length, seed, method, beam_width
        found = generate(fitted.backend, vocabulary, classes.index(label), *search, source=made_from)
        return [vocabulary.join(sequence.symbols) if fitted.texts else sequence.symbols for sequence in found]

    def _get_fitted(self) -> Fitted:
        if not hasattr(self, "fitted_"):
            raise RunError("This SequenceSSVAE is not fitted yet; call fit first, or load a run.")
        return self.fitted_

    def _encode(self, X: Sequences, source: Sequences | None) -> Corpus:
        """The sequences, and their sources, encoded; too long ones are cut."""
        fitted = self._get_fitted()
        schema, data = fitted.schema, fitted.config.data
        if (source is None) != (schema.source_vocabulary is None):
            raise DataError(SOURCE_OR_NOT)
        check_sequences(X)
        if source is not None:
            check_sequences(source, "source")
        rows = make_rows(X, None, None, data.separator, source, data.source_separator)
        sources = schema.source_vocabulary
        corpus = encode_rows(rows, schema.vocabulary, schema.labels, data, "X", "truncate", sources)
        _warn_of_counts(corpus, fitted.config)
        return corpus

    def _encode_sources(self, source: Sequences) -> tuple[Int[np.ndarray, "_"], ...]:
        """Ids of sources; too long ones are cut."""
        fitted = self._get_fitted()
        vocabulary, data = fitted.schema.source_vocabulary, fitted.config.data
        if vocabulary is None:
            raise DataError("This SequenceSSVAE was fitted without sources.")
        check_sequences(source, "source")
        rows = make_rows(source, None, None, data.source_separator)
        return tuple(vocabulary.encode(row.symbols[: data.max_length]) for row in rows)

    # Storage

    def save(self, path: str | Path) -> None:
        """Write a run directory, which the command line can use as well.

        Raises:
            RunError: If it exists.
            ConfigurationError: If a label or the marker is neither a text nor a number.
        """
        fitted, classes = self._get_fitted(), self.classes_.tolist()
        for value in [*classes, self.missing]:
            if value is not None and not isinstance(value, (str, int, float)):
                raise ConfigurationError(f"Only labels that are texts or numbers can be saved, not {value!r}.")
        writer = RunWriter(path, fitted.config, fitted.schema, fitted.backend.name, fitted.checkpoint)
        writer.started(fitted.checkpoint.state.step, fitted.checkpoint.state)
        stored = {"texts": fitted.texts, "classes": classes, "missing": self.missing}
        write_files({Path(path) / ESTIMATOR: to_json(stored)})

    @classmethod
    def load(cls, path: str | Path, backend: str | None = None, device: str | None = None) -> "SequenceSSVAE":
        """Open a run directory that `save` or the command line has written.

        Args:
            path: The directory.
            backend: The twin; None: the one that trained it.
            device: The twin's device.

        Raises:
            RunError: If it is no run directory, or a file of it is missing, damaged, or does not fit the others.
        """
        run, checkpoint = open_run(path, backend, device), read_checkpoint(path)
        classes, texts, missing = _read_estimator(Path(path) / ESTIMATOR, run.labels.names)
        data = dataclasses.replace(run.config.data, labels=None)
        config = dataclasses.replace(run.config, data=data)
        estimator = cls(backend=run.backend.name, missing=missing, device=device, config=config)
        estimator.classes_ = as_array(classes)
        estimator.fitted_ = Fitted(run.backend, run.config, run.schema, texts, checkpoint)
        return estimator


def _columns(config: Config) -> tuple[int, int, int]:
    return config.data.sequence_column, config.data.label_column, config.data.group_column


def _read_estimator(path: Path, names: Sequence[str]) -> tuple[list[Any], bool, Hashable]:
    """Labels, whether sequences are texts, and the marker; for a run of the command line what its files amount to."""
    if not path.exists():
        return list(names), True, None
    stored = read_json(path)
    classes, missing = stored.get("classes"), stored.get("missing")
    if not isinstance(classes, list) or len(classes) != len(names):
        raise RunError(f"{path}: classes must be a list of {len(names)} labels.")
    for value in [*classes, missing]:
        if not isinstance(value, (str, int, float, type(None))):
            raise RunError(f"{path}: labels and marker must be texts or numbers, not {value!r}.")
    return classes, bool(stored.get("texts", True)), missing


def _warn_of_counts(corpus: Corpus, config: Config) -> None:
    for sentence in describe_counts(corpus, config.data.max_length):
        warnings.warn(sentence, stacklevel=3)
