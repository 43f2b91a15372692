"""Sweeps: trials are trained one after the other, each is on file once it has ended, and the best is kept."""

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqssvae.config import Config
from seqssvae.config.checks import check_integer, check_literal, check_number
from seqssvae.config.settings import Settings, to_dict
from seqssvae.errors import ConfigurationError, MissingPackageError, RunError, UserError
from seqssvae.recipes.named import recipe_settings
from seqssvae.runs.files import corpus_digest
from seqssvae.runs.lock import DirectoryLock
from seqssvae.runs.writing import explained
from seqssvae.tuning.names import PrunerName, SamplerName
from seqssvae.tuning.plots import write_plot
from seqssvae.tuning.results import PLOT, RUNS, TABLE, Trial, Tuned, best_trial, read_trials, write_best, write_trials
from seqssvae.tuning.spaces import check_spaces
from seqssvae.tuning.study import (
    STUDY_FILE,
    counted,
    open_study,
    optuna,
    repeat_interrupted,
    seeded_sampler,
    storage_errors,
)
from seqssvae.tuning.trials import Trials, failure, run_name

MOST_TRIALS = 1_000_000
Report = Callable[[Trial, Trial | None, int], None]
"""Called after each trial."""


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep proceeds.

    Args:
        trials: How many trials the study is to have in all.
        minutes: No trial begins after so many minutes; None for no limit.
        storage: Where the study is kept: a URL of Optuna's, one of its storages, or None for a file in the output
            directory. A storage that has a URL can be shared by many machines.
        study: The study's name in the storage.
        sampler: How values are chosen: by the tree-structured Parzen estimator (`tpe`) or at `random`.
        pruner: What ends a trial early: being worse than half of those before at the same evaluation (`median`),
            successive `halving`, or nothing (`none`).
        seed: Seed of the choices.
        keep_run: Whether the run directory of the best trial is kept.
    """

    trials: int = 50
    minutes: float | None = None
    storage: Any = None
    study: str = "seqssvae"
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    seed: int = 0
    keep_run: bool = False

    def __post_init__(self) -> None:
        check_integer("trials", self.trials, 1, MOST_TRIALS)
        if self.minutes is not None:
            check_number("minutes", self.minutes, 0)
        check_literal("sampler", self.sampler, SamplerName)
        check_literal("pruner", self.pruner, PrunerName)
        check_integer("seed", self.seed, 0)


def sweep(
    output: str | Path,
    trials: Trials,
    options: SweepOptions,
    report: Report = lambda trial, best, done: None,
) -> Tuned:
    """Train trials until there are enough, or go on with those that there are.

    Args:
        output: The output directory: a new one, or that of the sweep to go on with.
        trials: Trains a trial.
        options: How the sweep proceeds.
        report: Called after each trial with it, the best one, and how many are done.

    Raises:
        ConfigurationError: If a space is wrong, or the study searches something else; before anything is trained.
        RunError: If the directory or the storage cannot be used.
        UserError: If no trial could be trained to its end.
        KeyboardInterrupt: If the sweep was interrupted; the trial that ran is tried again when it goes on.
    """
    optuna()
    path, base = Path(output), trials.config({})
    check_spaces(trials.spaces, base, trials.config)
    _check_output(path)
    trials.check_rows()
    with _locked(path):
        study = open_study(
            options.storage, path, options.study, base.training.metric, _settings(trials, base), options.pruner
        )
        study.sampler = seeded_sampler(options.sampler, options.seed)
        trials.runs = path / RUNS if options.keep_run else None
        with storage_errors(options.storage or path / STUDY_FILE):
            _run(study, trials, options, path, report)
            return _result(study, trials, path)


def check_recipe(recipe: str) -> None:
    """Check that a recipe trains a network alone.

    Raises:
        ConfigurationError: If it does not, or there is none of this name.
    """
    recipe_settings(recipe)
    if recipe == "auto":
        raise ConfigurationError(
            "The recipe auto chooses by cross-validation itself; name one that trains a network alone to tune it: "
            "ssvae, topics, classifier or labels."
        )


def _check_output(path: Path) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        raise RunError(f"The output directory {path} is a file; name another one.")
    names = set(os.listdir(path)) if os.path.isdir(path) else set()
    if names and not names & {STUDY_FILE, TABLE}:
        raise RunError(f"The output directory {path} exists already and holds no sweep; name another one.")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make the output directory and keep others from it; it is removed again if it stays empty."""
    existed = os.path.lexists(path)
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(path)
    try:
        lock.take()
        yield
    finally:
        lock.release()
        if not existed:
            with contextlib.suppress(OSError):
                path.rmdir()


def _settings(trials: Trials, base: Config) -> Settings:
    """What must stay as it is when a sweep goes on: files may move, but not change."""
    prepared = trials.rows.of(base)
    rows = {name: corpus_digest(getattr(prepared, name)) for name in ("training", "validation")}
    spaces = {path: str(space) for path, space in trials.spaces.items()}
    config = to_dict(replace(base, data=replace(base.data, train=None, validation=None)))
    return {"recipe": trials.recipe, "backend": trials.backend, "rows": rows, "space": spaces, "config": config}


def _run(study: Any, trials: Trials, options: SweepOptions, path: Path, report: Report) -> None:
    began, minutes = time.monotonic(), options.minutes
    _write(study, trials, path)
    while True:
        repeat_interrupted(study, alone=options.storage is None)
        late = minutes is not None and time.monotonic() - began >= 60 * minutes
        if late or len(counted(study)) >= options.trials:
            return
        number = _train_one(study, trials)
        known, best = _write(study, trials, path)
        report(known[number], best, len(counted(study)))


def _train_one(study: Any, trials: Trials) -> int:
    """Train a trial; it may fail. Returns its number."""
    numbers = []

    def objective(trial: Any) -> float:
        numbers.append(trial.number)
        return trials(trial)

    try:
        study.optimize(objective, n_trials=1)
    except Exception as error:
        if not numbers or failure(error) is None:
            raise
    return numbers[0]


def _write(study: Any, trials: Trials, path: Path) -> tuple[list[Trial], Trial | None]:
    """Write what is known so far, and keep the run of the best trial alone."""
    metric, known = trials.config({}).training.metric, read_trials(study, trials.spaces)
    best = best_trial(known, metric)
    write_trials(path, known, trials.spaces)
    if best is not None:
        write_best(path, trials.config_of(study.get_trials(deepcopy=False)[best.number]))
    for run in (path / RUNS).glob("trial-*") if trials.runs is not None else ():
        if best is None or run.name != run_name(best.number):
            shutil.rmtree(run, ignore_errors=True)
    return known, best


def _result(study: Any, trials: Trials, path: Path) -> Tuned:
    metric, known = trials.config({}).training.metric, read_trials(study, trials.spaces)
    best = best_trial(known, metric)
    if best is None:
        errors = [trial.error for trial in known if trial.error]
        why = f": {errors[-1]}" if errors else "."
        raise UserError(f"None of {len(known)} trials in {path} came to its end{why}")
    try:
        write_plot(path / PLOT, known, best, trials.spaces, metric)
    except MissingPackageError as error:
        warnings.warn(f"There is no {path / PLOT}: {error}", stacklevel=2)
    config = trials.config_of(study.get_trials(deepcopy=False)[best.number])
    run = path / RUNS / run_name(best.number)
    return Tuned(config, trials.recipe, metric, best, known, path, run if run.is_dir() else None, study)
