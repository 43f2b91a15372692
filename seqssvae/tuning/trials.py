"""One trial: a model that is trained, and reported at each evaluation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqssvae.backend import NO_LABEL
from seqssvae.config import Config, StoppingMetric
from seqssvae.config.settings import Settings, from_dict, merge
from seqssvae.data.prepare import Prepared
from seqssvae.errors import ConfigurationError, UserError
from seqssvae.inference.metrics import Metrics
from seqssvae.recipes.auto import fit_towards, rows_trained_on, with_reference
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.named import with_recipe
from seqssvae.recipes.network import BuildBackend
from seqssvae.runs.learned import calibration_file, learned_files
from seqssvae.runs.writer import RunWriter
from seqssvae.training.state import FitResult, Observer, Record, TrainingState
from seqssvae.tuning.spaces import Spaces, nested
from seqssvae.tuning.study import ERROR, optuna

STEP, STANDARD_ERROR, CLASSIFICATION = "step", "standard_error", "classification"
"""Names of what is noted of a trial: the step whose weights were kept, how sure its value is, and -log q(y|x) there."""
OUT_OF_MEMORY = ("out of memory", "RESOURCE_EXHAUSTED")
"""What a framework says where a device's memory does not suffice."""


class Rows:
    """The rows that trials are trained and compared on; they are prepared anew only where a trial needs it.

    Args:
        prepare: Prepares them for a configuration.
    """

    def __init__(self, prepare: Callable[[Config], Prepared]) -> None:
        self._prepare, self._known = prepare, dict[str, Any]()

    def of(self, config: Config) -> Prepared:
        """The rows for a configuration.

        Raises:
            UserError: If they cannot be used.
        """
        model, shift = config.model, config.objective.consistency.label_shift
        key = repr((config.data, config.training.seed, model.label_prior, model.label_prior_probabilities, shift))
        if key not in self._known:
            self._known = {key: self._prepare(config)}
        return self._known[key]


class Trials:
    """Trains what trials suggest.

    Args:
        own: The fields that are not searched, nested as in `Config`; the recipe has the others.
        recipe: Name of the recipe.
        spaces: What is searched.
        rows: The rows.
        backend: Name of the twin.
        build: Builds it.
        observers: Their methods are called as training goes on.
        interrupted: Asked every now and then whether training is to stop.
        runs: The directory where each trial's run is written; None to write none.
    """

    def __init__(
        self,
        own: Settings,
        recipe: str,
        spaces: Spaces,
        rows: Rows,
        backend: str,
        build: BuildBackend,
        observers: Sequence[Observer] = (),
        interrupted: Callable[[], bool] = lambda: False,
        runs: Path | None = None,
    ) -> None:
        self._own, self.recipe, self.spaces, self.rows, self.runs = own, recipe, spaces, rows, runs
        self.backend, self._build, self._observers, self._interrupted = backend, build, observers, interrupted
        self._carried: tuple[Prepared, dict[str, bytes]] | None = None

    def config(self, chosen: Settings) -> Config:
        """The configuration in which some fields, nested, have these values.

        Raises:
            ConfigurationError: If there is none.
        """
        return from_dict(with_recipe(self.recipe, merge(self._own, chosen)))

    def config_of(self, trial: Any) -> Config:
        """The configuration of a trial of Optuna's, which is to be tried or has been."""
        return self.config(nested({path: space.suggest(trial, path) for path, space in self.spaces.items()}))

    def check_rows(self) -> None:
        """Check, before anything is trained, that the rows can serve to compare trials, and that the twin can be built.

        Raises:
            UserError: If not.
        """
        config = self.config({})
        prepared = self.rows.of(config)
        validation, metric = prepared.validation, config.training.metric
        if not len(validation):
            raise ConfigurationError(
                "Trials are compared on validation rows, and there are none: give data.validation, or a "
                "data.validation_fraction above 0."
            )
        if metric in ("accuracy", "classification") and not np.any(validation.y != NO_LABEL):
            raise ConfigurationError(
                f"training.metric: {metric} needs labelled validation rows, and there are none: give some, or set "
                "training.metric: elbo."
            )
        self._build(config, prepared.schema.dimensions)

    def __call__(self, trial: Any) -> float:
        """Train a trial.

        Returns:
            The metric, on the validation rows, of the weights that were kept.

        Raises:
            Exception: Optuna's `TrialPruned` where a trial is not worth going on with, and whatever training raises;
                what is due to the trial's values is noted.
        """
        try:
            config = self.config_of(trial)
            prepared = self.rows.of(config)
            reporter = _Reporter(trial, config.training.metric)
            writer = None if self.runs is None else self._writer(self.runs / run_name(trial.number), config, prepared)
            observers = [*([] if writer is None else [writer]), *self._observers, reporter]
            fitted = fit_towards(None, config, prepared, self._build, observers, None, self._interrupted)
            if writer is not None:
                writer.add(fitted.result.state, calibration_file(fitted.network_pool))
            return _noted(trial, fitted.result, config.training.metric)
        except Exception as error:
            if (reason := failure(error)) is not None:
                trial.set_user_attr(ERROR, reason)
            raise

    def _writer(self, path: Path, config: Config, prepared: Prepared) -> RunWriter:
        if self._carried is None or self._carried[0] is not prepared:
            size = prepared.schema.dimensions.vocabulary_size
            trained_on = with_reference(rows_trained_on(prepared, None), config, prepared, None)
            baselines = Baselines.learn(prepared.training.sequences, size)
            self._carried = prepared, learned_files(None, baselines, trained_on)
        return RunWriter(path, config, prepared.schema, self.backend, prepared.training, self._carried[1])


class _Reporter(Observer):
    """Tells Optuna the metric of each evaluation, and ends training where Optuna says so."""

    def __init__(self, trial: Any, metric: StoppingMetric) -> None:
        self._trial, self._metric = trial, metric
        self._evaluations = 0

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Report an evaluation; Optuna's `TrialPruned` ends training."""
        self._evaluations += 1
        self._trial.report(metric_of(record.validation, self._metric), self._evaluations)
        if self._trial.should_prune():
            self._trial.set_user_attr(STEP, record.step)
            raise optuna().TrialPruned()


def metric_of(metrics: Metrics | None, metric: StoppingMetric) -> float:
    """What validation rows say of a model; the ELBO is per symbol."""
    value = getattr(metrics, "elbo_per_symbol" if metric == "elbo" else metric)
    return float(value)


def run_name(number: int) -> str:
    """The name of a trial's run directory."""
    return f"trial-{number}"


def failure(error: BaseException) -> str | None:
    """Why a trial failed, if that is due to its values: it diverged, cannot be configured, or needs too much memory."""
    text = str(error)
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(one in text for one in OUT_OF_MEMORY)
    ):
        return "There is not enough memory."
    return None


def _noted(trial: Any, result: FitResult, metric: StoppingMetric) -> float:
    best = result.best
    assert best is not None  # the last step is evaluated in any case
    trial.set_user_attr(STEP, best.step)
    trial.set_user_attr(STANDARD_ERROR, best.standard_error)
    trial.set_user_attr(CLASSIFICATION, None if best.validation is None else best.validation.classification)
    return metric_of(best.validation, metric)
