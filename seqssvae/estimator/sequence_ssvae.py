"""`SequenceSSVAE`: the model in scikit-learn's conventions, a thin layer over the training loop of the command line."""

import dataclasses
import sys
import warnings
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from seqssvae.backend import Backend, Dimensions, get_backend
from seqssvae.config import Config
from seqssvae.config.settings import from_dict, merge, to_dict
from seqssvae.data.in_memory import as_array, label_names, make_table, read_labels, read_sequences, sort_classes
from seqssvae.data.prepare import Prepared, prepare_table
from seqssvae.diagnosis.diagnose import diagnose_fitted
from seqssvae.estimator.embedding import EmbeddingMixin
from seqssvae.estimator.fields import build_config, check_callbacks, source_column
from seqssvae.estimator.fitted import FittedModel, Sequences, warn_of_counts
from seqssvae.estimator.generation import GenerationMixin
from seqssvae.estimator.hyperparameters import HyperparametersMixin
from seqssvae.estimator.inspection import InspectionMixin
from seqssvae.estimator.pictures import PicturesMixin
from seqssvae.estimator.prediction import PredictionMixin
from seqssvae.estimator.storage import StoredEstimator, load_estimator, save_estimator
from seqssvae.recipes.auto import affordable, fit_towards, learn, obstacle, rows_trained_on
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.compare import MethodAccuracy, compare
from seqssvae.recipes.report import generator_warning
from seqssvae.runs.files import Checkpoint, corpus_digest, metrics_line
from seqssvae.runs.learned import ensemble_of_first, learned_files
from seqssvae.runs.usable import usable_backend
from seqssvae.training.history import History
from seqssvae.training.processes import join_for
from seqssvae.training.progress import progress
from seqssvae.training.state import Observer


class SequenceSSVAE(
    PredictionMixin, GenerationMixin, EmbeddingMixin, InspectionMixin, PicturesMixin, HyperparametersMixin
):
    """Semi-supervised variational autoencoder for sequences: classifier, embedding and generator in one.

    A hyperparameter that is None leaves its field as `config` has it, whose defaults are those of the command line.

    Args:
        backend: Name of the twin, `torch` or `jax`; None for JAX or, where it is not installed, PyTorch.
        recipe: What is trained. `auto` compares candidates by cross-validation over the labelled sequences, averages
            those that are of use, and trains a network towards what they say. The others train a network alone: `ssvae`
            the recurrent one of these hyperparameters, `topics`, `classifier`, or `labels` (`seqssvae.recipes.named`).
        hidden_size: Size of the encoder's state, for each direction.
        latent_size: Size of z.
        decoder_hidden_size: Size of the decoder's state.
        embedding_size: Size of a symbol's embedding.
        layers: Number of recurrent layers of encoder and decoder.
        cell: Recurrent cell, `gru` or `lstm`.
        conditioning: How y and z enter the decoder: `init`, `every_step` or `output`.
        dropout: Share of embedding and feature entries set to 0 in training.
        word_dropout: Share of the decoder's input symbols that become UNK in training.
        encoder_word_dropout: Share of the symbols that become UNK in training before the encoder reads them.
        alpha: Weight of the classification term.
        consistency: Weight of the consistency term, on sequences whose label is missing.
        gradient_estimator: How a missing label is treated in training: `enumerate`, `sequential`, `top_k`,
            `gumbel_softmax` or `score_function`.
        k: Number of labels that `top_k` sums out; 0 for as many as each batch needs.
        learning_rate: The greatest step size.
        epochs: The greatest number of passes over the unlabelled sequences.
        max_steps: The greatest number of training steps; 0 for no limit but `epochs`.
        batch_size: Rows of an unlabelled batch.
        metric: What decides the best weights: `accuracy`, `classification`, `elbo` or `loss`.
        patience: Evaluations without a better metric after which training stops.
        standard_errors: How far from the best metric a later evaluation's may be, in standard errors of the best, for
            the later weights to be kept; with 0 the weights of the best evaluation are kept.
        validation_fraction: Share of the sequences given to `fit` that is held out to evaluate the metric.
        max_length: Greatest length of a sequence: longer ones are left out in training and cut afterwards.
        separator: What separates the symbols of a text; if it is empty, each character is a symbol.
        random_state: Seed of everything that is drawn.
        missing: Marker of a missing label, beside None, NaN, NaT, NA and masked entries, of which each may be the
            marker too. By default it is the integer -1, as in scikit-learn's semi-supervised estimators.
        device: The framework's name of a device.
        devices: How many devices share each batch of the network's training. PyTorch has a process for each, which
            torchrun starts: all of them call `fit` with the same rows.
        config: All other settings.
        verbose: 1 (or True) to show how training goes, on stderr, as the command line does; 0 to be silent.
        callbacks: Observers of the network's training, such as `seqssvae.loggers.TensorBoardLogger`.

    Attributes:
        classes_: The labels, sorted, as they were given.
        history_: The evaluations in training: a list, and `history_.to_frame()` a pandas DataFrame.
        trials_: With `recipe="auto"`, how each candidate did in cross-validation, and last all of them together.
        fitted_: The trained twin, its configuration, symbols and labels.

    Example:
        >>> model = SequenceSSVAE(backend="jax", hidden_size=32, epochs=5)
        >>> model.get_params()["hidden_size"]
        32
    """

    def __init__(
        self,
        *,
        backend: str | None = None,
        recipe: str = "auto",
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
        devices: int | None = None,
        config: Config | None = None,
        verbose: int = 0,
        callbacks: Sequence[Observer] | None = None,
    ) -> None:
        self.backend = backend
        self.recipe = recipe
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
        self.devices = devices
        self.config = config
        self.verbose = verbose
        self.callbacks = callbacks

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
            source: The sequence that each is made from, if there is one; then the other methods need it, too.

        Returns:
            The estimator itself.

        Raises:
            DataError: If there are no sequences, or labels that cannot be learned.
            ConfigurationError: If a hyperparameter is wrong.
        """
        processes = join_for(self._backend_name, self.devices, self.device)
        is_first, quiet = processes.rank == 0, not self.verbose or processes.rank > 0
        observers = [*check_callbacks(self.callbacks), progress("training", quiet, summary=True)] if is_first else []
        prepared, config, classes, texts = self._prepare(X, y, groups, source)
        warn_of_counts(prepared.training, config)
        ensemble = None
        if self.recipe == "auto" and (reason := obstacle(config, prepared)) is not None:
            warnings.warn(reason, stacklevel=2)
        elif self.recipe == "auto":
            config = affordable(config, prepared)
            if is_first:
                with progress("candidates", quiet) as shown:
                    ensemble = learn(config, prepared, self._build_backend, [shown], shown.candidate)
            ensemble = ensemble_of_first(processes, ensemble, self._build_backend)
        share = None if self.devices in (None, 1) else self._build_shared
        fitted = fit_towards(ensemble, config, prepared, self._build_backend, observers, share=share)
        baselines = Baselines.learn(prepared.training.sequences, prepared.schema.dimensions.vocabulary_size)
        if (worse := generator_warning(fitted.result, prepared.validation, baselines)) is not None:
            warnings.warn(worse, stacklevel=2)
        trained_on = rows_trained_on(config, prepared, ensemble)
        carried = learned_files(ensemble, baselines, trained_on)
        history = [metrics_line(record) for record in fitted.result.records]
        checkpoint = Checkpoint(fitted.result.state, history, corpus_digest(prepared.training), carried)
        self.classes_, self.history_ = as_array(classes), History(fitted.result.records)
        self.trials_ = [] if ensemble is None else list(ensemble.trials)
        known = ensemble, baselines, trained_on
        self.fitted_ = FittedModel(fitted.backend, fitted.config, prepared.schema, texts, checkpoint, *known)
        if not quiet:
            for finding in diagnose_fitted(fitted, prepared, baselines, trained_on).findings:
                print(f"seqssvae: {finding}", file=sys.stderr)
        return self

    def fit_transform(
        self,
        X: Sequences,
        y: Iterable[Any] | None = None,
        groups: Iterable[Any] | None = None,
        source: Sequences | None = None,
    ) -> Float[np.ndarray, "N Z"]:
        """Train with `fit`, and return the embeddings of the same sequences."""
        return self.fit(X, y, groups, source).transform(X, source)

    def compare(self, X: Sequences, y: Iterable[Any], groups: Iterable[Any] | None = None) -> list[MethodAccuracy]:
        """Cross-validate this tool and what it competes with over the labelled sequences; nothing is fitted.

        Args:
            X: Sequences: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one.
            groups: Group of each; no group is both learned from and predicted.

        Returns:
            How each did: logistic regression, naive Bayes with EM and self-training of scikit-learn, a classifier of
            ours that learns from labels alone, and the recipe `auto`.
        """
        prepared, config, _, _ = self._prepare(X, y, groups, None)
        return compare(config, prepared, self._build_backend)

    def save(self, path: str | Path) -> None:
        """Write a run directory, which the command line can use as well.

        Args:
            path: The directory, which must not exist.

        Raises:
            RunError: If it exists, or the estimator is not fitted.
            ConfigurationError: If a label or the marker is neither a text nor a number.
        """
        fitted = self._get_fitted()
        save_estimator(path, StoredEstimator(fitted, self.classes_.tolist(), self.missing))

    @classmethod
    def load(cls, path: str | Path, backend: str | None = None, device: str | None = None) -> "SequenceSSVAE":
        """Open a run directory that `save` or the command line wrote.

        Args:
            path: The directory.
            backend: Name of the twin; None for the one that trained the run.
            device: The twin's device.

        Raises:
            RunError: If there is no run directory, or a file of it is missing, damaged, or does not fit the others.
        """
        fitted, classes, missing = load_estimator(path, backend, device)
        config = dataclasses.replace(fitted.config, data=dataclasses.replace(fitted.config.data, labels=None))
        recipe = "ssvae" if fitted.ensemble is None else "auto"
        estimator = cls(backend=fitted.backend.name, recipe=recipe, missing=missing, device=device, config=config)
        estimator.classes_, estimator.history_ = as_array(classes), History.from_lines(fitted.checkpoint.history, path)
        estimator.fitted_ = fitted
        return estimator

    def _prepare(
        self, X: Sequences, y: Iterable[Any] | None, groups: Iterable[Any] | None, source: Sequences | None
    ) -> tuple[Prepared, Config, list[Any], bool]:
        """Encode and split the rows; return them, the configuration, the labels, and whether the rows are texts."""
        sequences, sources = read_sequences(X), None if source is None else read_sequences(source, "source")
        values = read_labels(y, len(sequences), self.missing)
        config = build_config(self.get_params(), self.config, self.recipe)
        classes = sort_classes(values) if config.data.labels is None else list(config.data.labels)
        names = label_names(classes)
        settings = {"labels": list(names.values()), "source_column": source_column(config, source)}
        config = from_dict(merge(to_dict(config), {"data": settings}))
        labels = [None if value is None else names.get(value, str(value)) for value in values]
        table = make_table(sequences, config.data, labels, groups, sources)
        return prepare_table(table, config), config, classes, isinstance(sequences[0], str)

    def _build_backend(self, config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(self._backend_name)(config, dimensions, self._own_device)

    def _build_shared(self, config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(self._backend_name)(config, dimensions, self._own_device, devices=self.devices or 1)

    @property
    def _own_device(self) -> str | None:
        return join_for(self._backend_name, self.devices, self.device).device(self.device)

    @property
    def _backend_name(self) -> str:
        return self.backend or usable_backend()
