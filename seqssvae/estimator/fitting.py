"""How an estimator is fitted: anew, from a trained model, or a pass further."""

import dataclasses
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from seqssvae.backend import Backend, Dimensions, get_backend
from seqssvae.config import Config
from seqssvae.config.checks import check_device
from seqssvae.data.in_memory import as_array
from seqssvae.data.plain import as_list
from seqssvae.data.prepare import Prepared
from seqssvae.diagnosis.diagnose import diagnose_fitted
from seqssvae.errors import ConfigurationError
from seqssvae.estimator.embedding import EmbeddingMixin
from seqssvae.estimator.fields import build_config, check_callbacks, drawn_seed
from seqssvae.estimator.fitted import FittedModel, Sequences, warn_of_counts
from seqssvae.estimator.hyperparameters import HyperparametersMixin
from seqssvae.estimator.rows import GivenRows, Start, Validation, read_rows
from seqssvae.recipes.auto import Fitted, affordable, fit_towards, learn, obstacle, rows_trained_on, with_reference
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.ensemble import Ensemble, Trial
from seqssvae.recipes.report import generator_warning, training_summary
from seqssvae.runs.files import Checkpoint, corpus_digest, metrics_line
from seqssvae.runs.learned import ensemble_of_first, learned_files
from seqssvae.runs.run import RunDirectory
from seqssvae.runs.sharing import check_same_training
from seqssvae.runs.usable import usable_backend
from seqssvae.training.history import History
from seqssvae.training.processes import ALONE, Processes, join_for
from seqssvae.training.progress import progress
from seqssvae.training.state import Observer, TrainingState
from seqssvae.training.step_order import total_steps


class FittingMixin(EmbeddingMixin, HyperparametersMixin):
    """Mixin of an estimator that learns.

    Attributes:
        history_: The evaluations in training.
        trials_: How each candidate of the recipe `auto` did.
    """

    backend: str | None
    recipe: str
    config: Config | None
    device: str | None
    devices: int | None
    verbose: int
    callbacks: Sequence[Observer] | None
    pretrained: str | Path | None
    random_state: Any
    history_: History
    trials_: list[Trial]

    def fit(
        self,
        X: Sequences,
        y: Iterable[Any] | None = None,
        groups: Iterable[Any] | None = None,
        source: Sequences | None = None,
        validation: Validation | None = None,
        warm_start: bool = False,
    ) -> Self:
        """Train on sequences, some of which have a label.

        Args:
            X: Sequences: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one.
            groups: Group of each; no group is both trained on and held out.
            source: The sequence that each is made from, if there is one; then the other methods need it, too.
            validation: Rows that decide what is best and when to stop, `(X, y)` or `(X, y, source)`, in place of some
                that are held out from X.
            warm_start: Whether training starts from the weights that the estimator has, with a new optimiser. Symbols
                and labels that it does not know are added; what it knows of the others is kept, and is lost in so far
                as the rows given now do not teach it again. With `recipe="auto"` candidates learn from these rows
                alone. Ignored where nothing is fitted yet.

        Returns:
            The estimator itself.

        Raises:
            DataError: If there are no sequences, or labels that cannot be learned.
            ConfigurationError: If a hyperparameter is wrong.
        """
        start = self._fitted_start() if warm_start and hasattr(self, "fitted_") else self._pretrained_start()
        processes = join_for(self._backend_name, self.devices, self.device)
        given = self._read(self._config(processes), X, y, groups, source, validation, start)
        is_first, quiet = processes.rank == 0, not self.verbose or processes.rank > 0
        observers = self._observers(quiet) if is_first else []
        prepared, config = given.prepare(given.config), given.config
        check_same_training(processes, config, prepared)
        warn_of_counts(prepared.training, config)
        self._check_device(processes)
        if not quiet:
            print(f"seqssvae: {training_summary(config, prepared, self._backend_name, self.device)}", file=sys.stderr)
        ensemble = None
        if self.recipe == "auto":
            config = affordable(config, prepared)
        if self.recipe == "auto" and (reason := obstacle(config, prepared)) is not None:
            warnings.warn(reason, stacklevel=2)
        elif self.recipe == "auto":
            if is_first:
                with progress("candidates", quiet) as shown:
                    ensemble = learn(config, prepared, self._build_backend, [shown], shown.candidate)
            ensemble = ensemble_of_first(processes, ensemble, prepared.schema.dimensions, self._build_backend)
        fitted = self._train(given, prepared, config, ensemble, observers)
        baselines = Baselines.learn(prepared.training.sequences, prepared.schema.dimensions.vocabulary_size)
        if (worse := generator_warning(fitted, prepared.validation, baselines)) is not None:
            warnings.warn(worse, stacklevel=2)
        trained_on = with_reference(rows_trained_on(prepared, ensemble), config, prepared, ensemble)
        known = baselines, trained_on
        self._keep(given, prepared, fitted, [], *known)
        if not quiet:
            for finding in diagnose_fitted(fitted, prepared, *known).findings:
                print(f"seqssvae: {finding}", file=sys.stderr)
        return self

    def partial_fit(
        self,
        X: Sequences,
        y: Iterable[Any] | None = None,
        classes: Iterable[Any] | None = None,
        source: Sequences | None = None,
    ) -> Self:
        """Go on training with one pass over some rows; none of them is held out, and the optimiser goes on.

        The learning rate is constant, whatever `optimizer.schedule` is, since there is no last pass. The first call
        begins with a new model, or with `pretrained`.

        Args:
            X: Sequences: texts, or lists of symbols.
            y: Label of each, or the marker of a missing one. Labels and symbols that the model does not know are added.
            classes: All labels that there will be. The first call needs it where y has fewer than two.
            source: The sequence that each is made from, if there is one.

        Returns:
            The estimator itself.

        Raises:
            DataError: If there are no sequences, or labels that cannot be learned.
            ConfigurationError: If a hyperparameter is wrong, or the recipe is `auto`.
        """
        if self.recipe == "auto":
            raise ConfigurationError(
                "The recipe auto needs all rows at once; partial_fit goes with one that trains a network alone, such "
                'as recipe="ssvae".'
            )
        processes = join_for(self._backend_name, self.devices, self.device)
        is_fitted = hasattr(self, "fitted_")
        start = self._fitted_start(goes_on=True) if is_fitted else self._pretrained_start()
        observers = self._observers(quiet=not self.verbose) if processes.rank == 0 else []
        listed = () if classes is None else as_list(classes, "classes")
        given = self._read(self._config(processes), X, y, None, source, None, start, listed)
        config = _one_pass(given.config)
        prepared = given.prepare(config)
        warn_of_counts(prepared.training, config)
        config, resume = _next_pass(config, prepared, start)
        check_same_training(processes, config, prepared, resume)
        before = list(self.history_) if is_fitted else []
        fitted = self._train(given, prepared, config, None, observers, resume)
        fitted = fitted._replace(config=given.config)  # as it was asked for, for a fit that follows
        self._keep(given, prepared, fitted, before)
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

    def _config(self, processes: Processes = ALONE) -> Config:
        """The configuration of the hyperparameters, with a seed that is drawn if need be, and is that of the first."""
        seed = drawn_seed(self.random_state, self.config)
        if processes.count > 1 and seed is not None:
            seed = int(processes.of_first(str(seed).encode()))
        return build_config({**self.get_params(), "random_state": seed}, self.config, self.recipe)

    def _read(self, config: Config, *given: Any) -> GivenRows:
        return read_rows(config, self.missing, *given)

    def _observers(self, quiet: bool) -> list[Observer]:
        return [*check_callbacks(self.callbacks), progress("training", quiet, summary=True)]

    def _fitted_start(self, goes_on: bool = False) -> Start:
        """What the estimator has learned, to train on from there."""
        fitted, state = self.fitted_, self.fitted_.checkpoint.state
        weights = state.weights if goes_on else fitted.backend.get_weights()
        return Start(fitted.schema, weights, self.classes_.tolist(), state if goes_on else None)

    def _pretrained_start(self) -> Start | None:
        """What the run has learned that `pretrained` names."""
        if self.pretrained is None:
            return None
        directory = RunDirectory(self.pretrained)
        return Start(directory.schema, directory.weights[0])

    def _train(
        self,
        given: GivenRows,
        prepared: Prepared,
        config: Config,
        ensemble: Ensemble | None,
        observers: Sequence[Observer],
        resume: TrainingState | None = None,
    ) -> Fitted:
        start, several = given.start, self.devices not in (None, 1)

        def build(config: Config, dimensions: Dimensions, devices: int = 1) -> Backend:
            twin = self._build_backend(config, dimensions, devices)
            return twin if start is None else start.given_to(twin, config, prepared.schema)

        def build_shared(config: Config, dimensions: Dimensions) -> Backend:
            return build(config, dimensions, self.devices or 1)

        if resume is not None:
            twin = build(config, prepared.schema.dimensions)
            weights = twin.get_weights()
            resume = dataclasses.replace(
                resume, weights=weights, best_weights=weights, optimizer=twin.get_optimizer_state()
            )
        share = build_shared if several else None
        return fit_towards(ensemble, config, prepared, build, observers, resume, warm=start is not None, share=share)

    def _keep(self, given: GivenRows, prepared: Prepared, fitted: Fitted, before: list[Any], *known: Any) -> None:
        """Keep what training left, with the records of trainings before."""
        records, result = [*before, *fitted.result.records], fitted.result
        carried = learned_files(fitted.ensemble, *known) if known else {}
        history = [metrics_line(record) for record in records]
        checkpoint = Checkpoint(result.state, history, corpus_digest(prepared.training), carried)
        self.classes_, self.history_ = as_array(given.classes), History(records)
        self.trials_ = [] if fitted.ensemble is None else list(fitted.ensemble.trials)
        parts = fitted.backend, fitted.config, prepared.schema, given.texts, checkpoint, fitted.ensemble
        self.fitted_ = FittedModel(*parts, *known)._replace(network_pool=fitted.network_pool)

    def _check_device(self, processes: Processes = ALONE) -> None:
        """Raise a ConfigurationError if there is no such device, before anything is computed."""
        check_device(self.device)
        get_backend(self._backend_name).check_device(processes.device(self.device))

    def _build_backend(self, config: Config, dimensions: Dimensions, devices: int = 1) -> Backend:
        check_device(self.device)
        device = join_for(self._backend_name, self.devices, self.device).device(self.device)
        shared = {} if devices == 1 else {"devices": devices}  # which a twin of one device need not know
        return get_backend(self._backend_name)(config, dimensions, device, **shared)

    @property
    def _backend_name(self) -> str:
        return self.backend or usable_backend()


def _one_pass(config: Config) -> Config:
    """The configuration of a pass over rows of which none is held out, and after which there may be others."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, validation_fraction=0.0),
        optimizer=dataclasses.replace(config.optimizer, schedule="constant"),
        training=dataclasses.replace(config.training, epochs=1, max_steps=0, evaluation_interval=0),
    )


def _next_pass(config: Config, prepared: Prepared, start: Start | None) -> tuple[Config, TrainingState | None]:
    """The configuration and the state that a pass goes on with.

    Rows may be fewer than those before: the pass counts as the first that no step has come to, so that what depends on
    the number of the step (the weight of the KL, noise) or of the epoch (the order of rows) goes on.
    """
    state = None if start is None else start.state
    if state is None:
        return config, None

    def ending_with(epoch: int) -> Config:
        return dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=epoch))

    epoch = max(state.epoch + 1, state.step // total_steps(ending_with(1), prepared.training))
    while (step := total_steps(ending_with(epoch), prepared.training)) < state.step:
        epoch += 1
    resumed = dataclasses.replace(state, step=step, epoch=epoch, epoch_step=0, totals={}, best=None, waited=0)
    return ending_with(epoch + 1), resumed
