"""The study: Optuna's list of trials, in a storage that outlasts the process."""

import contextlib
import importlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqssvae.config import StoppingMetric
from seqssvae.errors import ConfigurationError, MissingPackageError, RunError, UserError
from seqssvae.tuning.names import PrunerName, SamplerName

STUDY_FILE = "study.db"
"""The file of the default storage, in the output directory."""
JOURNAL = "journal:"
"""What the URL of a storage begins with that is a journal file, which also many machines can share."""
HEARTBEAT_SECONDS, GRACE_SECONDS = 30, 120
"""How often a process notes in a shared storage that it lives, and after how long without it its trial is given up."""
GREATEST = ("accuracy", "elbo")
"""Metrics that are to be great."""
ERROR, AGAIN, SETTINGS = "error", "again", "settings"
"""Names of what is noted of a trial (why it failed; which trial it repeats), and of the study (what is searched)."""


def optuna() -> Any:
    """Return Optuna.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        module = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"Tuning needs the package {error.name}, which is not installed: pip install 'seqssvae[tune]'."
        ) from error
    module.logging.set_verbosity(module.logging.ERROR)  # what it says is said by us
    return module


def open_study(
    storage: Any, folder: Path, name: str, metric: StoppingMetric, settings: Mapping[str, Any], pruner: PrunerName
) -> Any:
    """Open a study, or make it if it is not there yet.

    Args:
        storage: A URL, one of Optuna's storages, or None for a file in the output directory.
        folder: The output directory.
        name: The study's name in the storage.
        metric: What trials are compared by.
        settings: What is searched, and in what; it must be what it was when the study was made.
        pruner: What ends a trial early.

    Raises:
        RunError: If the storage cannot be opened.
        ConfigurationError: If the study searches something else, or the URL is wrong.
    """
    direction = "maximize" if metric in GREATEST else "minimize"
    shown = str(folder / STUDY_FILE) if storage is None else storage
    given = json.loads(json.dumps(settings))  # as a storage keeps it
    with storage_errors(shown, opening=True):
        study = optuna().create_study(
            storage=_storage(storage, folder),
            study_name=name,
            direction=direction,
            pruner=_pruner(pruner),
            load_if_exists=True,
        )
        before = study.user_attrs.get(SETTINGS)
        if before is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(SETTINGS, given)
            before = given
    if before != given:
        reason = "was not made by seqssvae" if before is None else _difference(before, given)
        raise ConfigurationError(f"The study {name} of {shown} {reason}; name another one.")
    return study


@contextlib.contextmanager
def storage_errors(shown: Any, opening: bool = False) -> Iterator[None]:
    """Turn a failure of a storage into an error that a user can read.

    Args:
        shown: The storage, as it was named.
        opening: Whether it is being opened, where whatever fails is due to it.

    Raises:
        RunError: If the storage fails.
        MissingPackageError: If the storage needs a package that is not installed.
    """
    kinds = [optuna().exceptions.StorageInternalError, *((OSError, KeyError, ValueError) if opening else ())]
    with contextlib.suppress(ModuleNotFoundError):
        kinds.append(importlib.import_module("sqlalchemy.exc").SQLAlchemyError)
    try:
        yield
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if not opening:
            raise
        raise MissingPackageError(f"The storage {shown} needs the package {error.name}: pip install it.") from error
    except tuple(kinds) as error:
        cause = error.__cause__ or error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise RunError(f"The storage {shown} cannot be used: {reason.rstrip('.')}.") from error


def seeded_sampler(kind: SamplerName, seed: int) -> Any:
    """Return a sampler whose choices for a trial depend on the seed, the trial's place and those before it alone.

    So a study that was interrupted chooses what it would have chosen otherwise.

    Args:
        kind: The tree-structured Parzen estimator (Bergstra et al. 2011), which learns from the trials before, or
            random draws.
        seed: The seed.
    """
    samplers = optuna().samplers
    make = samplers.TPESampler if kind == "tpe" else samplers.RandomSampler

    base: Any = samplers.BaseSampler

    class _Seeded(base):  # its base is Optuna's, which may not be installed
        own = make(seed=seed % 2**32)

        def before_trial(self, study: Any, trial: Any) -> None:
            self.own = make(seed=(seed * 1_000_003 + _place(study, trial)) % 2**32)
            self.own.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self.own.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self.own.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self.own.sample_independent(study, trial, param_name, param_distribution)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            self.own.after_trial(study, trial, state, values)

    return _Seeded()


def repeat_interrupted(study: Any, alone: bool) -> None:
    """See to it that trials whose process ended are tried once more, with the same values.

    Args:
        study: The study.
        alone: Whether no other process works on it, so that every trial that seems to run has been interrupted.
    """
    states = optuna().trial.TrialState
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is experimental
        optuna().storages.fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(AGAIN) for trial in trials}
    for trial in trials:
        running = trial.state == states.RUNNING and alone
        interrupted = trial.state == states.FAIL and ERROR not in trial.user_attrs
        if (running or interrupted) and trial.number not in repeated:
            study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})
        if running:
            study.tell(trial.number, state=states.FAIL)


def counted(study: Any) -> list[Any]:
    """The trials that are finished or running, without those that were interrupted, of which there is another."""
    states = optuna().trial.TrialState
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state != states.WAITING and (trial.state != states.FAIL or ERROR in trial.user_attrs)
    ]


def _place(study: Any, trial: Any) -> int:
    """Which trial it is, from 0, if those that repeat another do not count."""
    if AGAIN in trial.user_attrs:
        original = next(one for one in study.get_trials(deepcopy=False) if one.number == trial.user_attrs[AGAIN])
        return _place(study, original)
    earlier = study.get_trials(deepcopy=False)[: trial.number]
    return trial.number - sum(AGAIN in one.user_attrs for one in earlier)


def _storage(storage: Any, folder: Path) -> Any:
    storages = optuna().storages
    if storage is None:
        return storages.RDBStorage(f"sqlite:///{(folder / STUDY_FILE).absolute()}")
    if not isinstance(storage, str):
        return storage
    if storage.startswith(JOURNAL):
        backend = importlib.import_module("optuna.storages.journal").JournalFileBackend
        return storages.JournalStorage(backend(storage.removeprefix(JOURNAL)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the heartbeat is experimental
        return storages.RDBStorage(storage, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS)


def _pruner(kind: PrunerName) -> Any:
    pruners = optuna().pruners
    if kind == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    return pruners.SuccessiveHalvingPruner() if kind == "halving" else pruners.NopPruner()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is other than it was, in words."""
    old, new = dict(_flat(before)), dict(_flat(now))
    for name in [*old, *new]:
        if old.get(name) != new.get(name):
            return f"has {name}: {old.get(name)!r}, which is {new.get(name)!r} now"
    return "is not what it was"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}." if prefix or name not in ("config", "space") else f"{name} ")
        else:
            yield f"{prefix}{name}", value
