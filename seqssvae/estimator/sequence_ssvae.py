"""`SequenceSSVAE`: the model in scikit-learn's conventions, a thin layer over the training loop of the command line."""

import dataclasses
import tempfile
from collections.abc import Collection, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqssvae.config import Config
from seqssvae.data.in_memory import as_array
from seqssvae.estimator.fields import known_hyperparameters
from seqssvae.estimator.fitted import Sequences
from seqssvae.estimator.fitting import FittingMixin
from seqssvae.estimator.generation import GenerationMixin
from seqssvae.estimator.inspection import InspectionMixin
from seqssvae.estimator.pictures import PicturesMixin
from seqssvae.estimator.prediction import PredictionMixin
from seqssvae.estimator.storage import StoredEstimator, load_estimator, save_estimator
from seqssvae.recipes.compare import MethodAccuracy, compare
from seqssvae.runs.files import ENSEMBLE
from seqssvae.runs.run import RunDirectory
from seqssvae.training.history import History
from seqssvae.training.state import Observer


class SequenceSSVAE(PredictionMixin, GenerationMixin, InspectionMixin, PicturesMixin, FittingMixin):
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
        max_steps: The greatest number of training steps; 0 for no limit but `epochs`, or, by the recipe `auto`, for as
            many as its budget allows.
        budget: How much computing `recipe="auto"` may take; 1 is some minutes of two cores.
        batch_size: Rows of an unlabelled batch.
        metric: What decides the best weights: `accuracy`, `classification`, `elbo` or `loss`.
        patience: Evaluations without a better metric after which training stops.
        min_steps: Training steps before which no evaluation decides what is kept or when to stop.
        standard_errors: How far from the best metric another evaluation's may be, in standard errors of the best, for
            its weights to be kept (those with the best ELBO, or the last); with 0 those of the best evaluation are.
        validation_fraction: Share of the sequences given to `fit` that is held out to evaluate the metric.
        max_length: Greatest length of a sequence: longer ones are left out in training and cut afterwards.
        separator: What separates the symbols of a text; if it is empty, each character is a symbol.
        random_state: Seed of everything that is drawn: a whole number, or NumPy's `RandomState` or `Generator`, from
            which each `fit` draws one. None for that of `config` or, where that is None too, one that NumPy's global
            state gives.
        missing: Marker of a missing label, such as "?", or a list of markers, beside None, NaN, NaT, NA and masked
            entries, of which each may be a marker too. By default it is the integer -1, as in scikit-learn's
            semi-supervised estimators.
        device: The framework's name of a device.
        devices: How many devices share each batch of the network's training. PyTorch has a process for each, which
            torchrun starts: all of them call `fit` with the same rows.
        config: All other settings.
        verbose: 1 (or True) to show how training goes, on stderr, as the command line does; 0 to be silent.
        callbacks: Observers of the network's training, such as `seqssvae.loggers.TensorBoardLogger`.
        pretrained: A run directory from whose weights training starts; see `from_pretrained`.

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
        budget: float | None = None,
        batch_size: int | None = None,
        metric: str | None = None,
        patience: int | None = None,
        min_steps: int | None = None,
        standard_errors: float | None = None,
        validation_fraction: float | None = None,
        max_length: int | None = None,
        separator: str | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        missing: Hashable | Collection[Hashable] = None,
        device: str | None = None,
        devices: int | None = None,
        config: Config | None = None,
        verbose: int = 0,
        callbacks: Sequence[Observer] | None = None,
        pretrained: str | Path | None = None,
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
        self.budget = budget
        self.batch_size = batch_size
        self.metric = metric
        self.patience = patience
        self.min_steps = min_steps
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
        self.pretrained = pretrained

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
        given = self._read(self._config(), X, y, groups)
        self._check_device()
        return compare(given.config, given.prepare(given.config), self._build_backend)

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
        own = known_hyperparameters(config, recipe)
        estimator = cls(backend=fitted.backend.name, recipe=recipe, missing=missing, device=device, **own)
        estimator.classes_, estimator.history_ = as_array(classes), History.from_lines(fitted.checkpoint.history, path)
        estimator.fitted_ = fitted
        return estimator

    def push_to_hub(
        self, repository: str, private: bool | None = None, token: str | None = None, certificate: bool = True
    ) -> str:
        """Share the fitted estimator on the Hugging Face Hub, with a card of what it is.

        Args:
            repository: `USER/NAME`, which is made if need be; what another estimator left there is replaced.
            private: Whether a repository that is made is private; None: as your account has it.
            token: Of the hub; None: that of `HF_TOKEN`, or of `hf auth login`.
            certificate: Whether the card says how far the twins agree, where both are installed, which takes a while.

        Returns:
            The address of the repository.

        Raises:
            RunError: If the estimator is not fitted.
            HubError: If there is no token, no network, or the hub refuses.
            MissingPackageError: If huggingface_hub is not installed.
        """
        from seqssvae.checks.certify import certify
        from seqssvae.hub.card import model_card
        from seqssvae.hub.sharing import check_pushable, push_run

        self._get_fitted()
        check_pushable(repository, token)
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            self.save(run)
            directory = RunDirectory(run)
            checked = certify(directory, None) if certificate else None
            card = model_card(directory.open(self.fitted_.backend.name), repository, checked)
            return push_run(run, repository, card, private, token)

    @classmethod
    def from_hub(
        cls,
        repository: str,
        revision: str | None = None,
        token: str | None = None,
        backend: str | None = None,
        device: str | None = None,
    ) -> "SequenceSSVAE":
        """Open what `push_to_hub` or `seqssvae push` wrote.

        Nothing of it is trusted: files of known names alone are fetched, none of them a pickle, and all are checked.

        Args:
            repository: `USER/NAME`.
            revision: A branch, tag or commit; None for the main branch.
            token: As of `push_to_hub`; public repositories need none.
            backend: Name of the twin; None for the one that trained the run.
            device: The twin's device.

        Raises:
            RunError: If the repository holds no run, or a file of it is not what it should be.
            HubError: If there is no such repository or revision, or no network.
            MissingPackageError: If huggingface_hub is not installed.
        """
        from seqssvae.hub.sharing import pull_run

        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            pull_run(repository, run, revision, token)
            return cls.load(run, backend, device)

    @classmethod
    def from_pretrained(cls, path: str | Path, backend: str | None = None, **hyperparameters: Any) -> "SequenceSSVAE":
        """Return an estimator whose training starts from the weights of a run, with the labels that `fit` is given.

        The encoder, the decoder and the embeddings of known symbols are kept. What belongs to a label is kept where the
        run has a label of that name, and otherwise made anew.

        Args:
            path: The run directory. Each `fit` reads it, so it must stay where it is.
            backend: Name of the twin; None for the one that trained the run.
            hyperparameters: Those that are to be other than in the run; sizes and kinds of networks must be the same.

        Raises:
            RunError: If there is no run directory, or a file of it is missing, damaged, or does not fit the others.
        """
        directory = RunDirectory(path)
        config = dataclasses.replace(directory.config, data=dataclasses.replace(directory.config.data, labels=None))
        recipe = hyperparameters.pop("recipe", "auto" if ENSEMBLE[0] in directory.files else "ssvae")
        own = known_hyperparameters(config, recipe)
        backend = backend or directory.trained_by
        return cls(**{"backend": backend, "recipe": recipe, "pretrained": str(path), **own, **hyperparameters})
