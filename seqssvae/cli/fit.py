"""The commands that make a run: `fit` and `import-yoyodyne`."""

import os
from importlib import import_module

from jsonargparse import Namespace

from seqssvae.backend import Backend, Dimensions, get_backend
from seqssvae.cli.activity import activity
from seqssvae.cli.arguments import config_overrides
from seqssvae.cli.main import main
from seqssvae.cli.messages import say, speak_among, warn, warn_of_counts
from seqssvae.cli.recipe_tables import trials_table
from seqssvae.cli.signals import noted_signals
from seqssvae.cli.tables import console, fit_table
from seqssvae.config import Config
from seqssvae.config.fields import check_fields, field_paths
from seqssvae.config.settings import Settings, from_dict, merge, read_yaml, to_dict
from seqssvae.data.prepare import prepare_files
from seqssvae.data.prepared_rows import prepared_settings
from seqssvae.diagnosis.diagnose import Diagnosis, diagnose_fitted
from seqssvae.errors import ConfigurationError
from seqssvae.loggers.named import named_logger
from seqssvae.recipes.auto import (
    Fitted,
    affordable,
    fit_towards,
    learn,
    network_config,
    obstacle,
    rows_trained_on,
    with_reference,
)
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.named import with_recipe
from seqssvae.recipes.report import kept_sentence, training_summary
from seqssvae.runs.checkpoints import has_checkpoint
from seqssvae.runs.learned import calibration_file, ensemble_of_first, learned_files, read_ensemble, trained_on_files
from seqssvae.runs.run import RunDirectory
from seqssvae.runs.sharing import check_same_training
from seqssvae.runs.usable import usable_backend
from seqssvae.runs.writer import RunWriter, refuse_existing
from seqssvae.training.allocation import keep_freed_memory
from seqssvae.training.processes import Processes, ProcessLost, devices_of, join_processes, twin_module
from seqssvae.training.progress import progress
from seqssvae.training.state import Observer, TrainingState

RESUMABLE = {
    *("data.train", "data.validation", "data.format", "data.header", "data.sequence_column", "data.label_column"),
    *("data.id_column", "data.labels_file", "data.labels_id_column"),
    *("optimizer.schedule_steps", "training.checkpoint_minutes"),
    *("training.epochs", "training.max_steps", "training.min_steps", "training.patience"),
}
"""Fields that may differ in a run that resumes another one."""


def fit_command(arguments: Namespace) -> int:
    """Train on the configured files and write a run directory, or go on with one; on several devices if asked to."""
    processes = join_processes(arguments.get("device"))
    speak_among(processes)
    try:
        status = _fit(arguments, processes)
        processes.finish()
    except Exception as error:
        if not processes.has_lost(error) and not isinstance(error, ProcessLost):
            raise
        output = arguments.get("output") or arguments.get("resume")
        what = str(error) if isinstance(error, ProcessLost) else "another of the processes that train together ended"
        advice = f"go on by seqssvae fit --resume {output}" if has_checkpoint(output) else "nothing was trained yet"
        raise ProcessLost(f"{what}; {advice}.") from error
    return status


def _fit(arguments: Namespace, processes: Processes) -> int:
    resume, output = arguments.get("resume"), arguments.get("output") or arguments.get("resume")
    if output is None:
        raise ConfigurationError("seqssvae fit needs --output; see seqssvae fit --help.")
    is_first = processes.rank == 0
    in_place = resume is not None and os.path.realpath(output) == os.path.realpath(resume)
    if not in_place and is_first:
        refuse_existing(output)
    quiet = bool(arguments.get("quiet")) or not is_first
    loggers = [named_logger(name, output) for name in dict.fromkeys(arguments.get("logger") or ()) if is_first]
    resumed = RunDirectory(resume, verify=not arguments.get("no_verify")) if resume else None
    config = _build_config(arguments, resumed)
    named = arguments.get("backend") or (resumed.trained_by if resumed else None)
    backend = named or processes.backend or usable_backend()
    devices = devices_of(processes, backend, arguments.get("devices"))
    if devices > processes.devices:
        status = twin_module(backend).start(main, arguments.words, devices, arguments.get("device"))
        if status is not None:
            return status
    with activity(quiet, config.data.train) as show:
        prepared = prepare_files(config, show)
        show(f"counting the symbols of {len(prepared.training):,} training rows")
        baselines = Baselines.learn(prepared.training.sequences, prepared.schema.dimensions.vocabulary_size)
        show(f"loading {backend}")
        keep_freed_memory()
        device = processes.device(arguments.get("device"))
        get_backend(backend).check_device(device)  # an error, if it is one, before anything else is said
    warn_of_counts(prepared.training, config.data.max_length)
    if config.data.validation is not None:
        warn_of_counts(prepared.validation, config.data.max_length)
    schema = prepared.schema
    checkpoint = resumed.resume(schema, prepared.training) if resumed else None
    state = checkpoint.state if checkpoint else None
    check_same_training(processes, config, prepared, state)
    summary = _Summary("" if quiet else training_summary(config, prepared, backend, device))

    def build(config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(backend)(config, dimensions, device)

    def share(config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(backend)(config, dimensions, device, devices=devices)

    ensemble = read_ensemble(resumed.files, schema.dimensions, build) if resumed else None
    if not resumed and (arguments.get("recipe") or "auto") == "auto":
        config, reason = affordable(config, prepared), obstacle(config, prepared)
        if reason is None:
            if is_first:
                summary.say()
                with progress("candidates", quiet) as shown:
                    ensemble = learn(config, prepared, build, [shown], shown.candidate)
            ensemble = ensemble_of_first(processes, ensemble, schema.dimensions, build)
            if not quiet and ensemble is not None:
                console().print(trials_table(ensemble.trials))
        else:
            warn(reason)
        config = network_config(config, ensemble)
    trained_on = rows_trained_on(prepared, ensemble)
    carried = learned_files(ensemble, baselines, trained_on)
    given = checkpoint or prepared.training
    writer = RunWriter(output, config, schema, backend, given, carried, in_place=in_place) if is_first else None
    try:
        with noted_signals() as interrupted:
            observers = [] if writer is None else [writer, summary, *loggers, progress("training", quiet)]
            fitted = fit_towards(
                *(ensemble, config, prepared, build, observers, state),
                interrupted=lambda: processes.any(interrupted()),
                share=share if devices > 1 else None,
            )
    except KeyboardInterrupt as error:
        if writer is None or writer.step is None:
            raise
        raise type(error)(f"go on from step {writer.step} by seqssvae fit --resume {output}") from error
    if writer is not None:
        trained_on = with_reference(trained_on, config, prepared, ensemble)
        writer.add(fitted.result.state, calibration_file(fitted.network_pool) | trained_on_files(trained_on))
    if is_first:
        _tell(fitted, diagnose_fitted(fitted, prepared, baselines, trained_on), output, quiet)
    return 0


class _Summary(Observer):
    """Says once, when something begins to learn, on what."""

    def __init__(self, text: str) -> None:
        self.text = text

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Say it, if candidates have not begun before."""
        self.say()

    def say(self) -> None:
        """Say the text, the first time alone."""
        if self.text:
            say(self.text)
        self.text = ""


def _tell(fitted: Fitted, diagnosis: Diagnosis, output: str, quiet: bool) -> None:
    """Print how training went."""
    if quiet:
        for finding in diagnosis.warnings:
            warn(str(finding))
        return
    if fitted.result.records:
        console().print(fit_table(fitted.result))
        print(kept_sentence(fitted.result, fitted.config))
    for finding in diagnosis.findings:
        print(finding)
    print(f"The run is in {output}.")


def import_yoyodyne_command(arguments: Namespace) -> None:
    """Make a run directory of a checkpoint of the plug-in for yoyodyne."""
    refuse_existing(arguments.run)
    get_backend("torch")  # raises an error that names the extra if it is not installed
    import_module("seqssvae_torch.yoyodyne.checkpoints").import_yoyodyne(arguments.checkpoint, arguments.run)
    print(f"The run is in {arguments.run}.")


def _build_config(arguments: Namespace, resumed: RunDirectory | None) -> Config:
    """Return the configuration of the file with the fields of the command line, or that of the run to resume with both.

    Raises:
        ConfigurationError: If a field is wrong, or may not differ from that of the run to resume.
    """
    path = arguments.get("config")
    settings = read_yaml(path) if path else {}
    overrides = config_overrides(arguments)
    if resumed is None:
        own = merge(settings, overrides)
        own = prepared_settings(own)
        check_fields(own, None if overrides else path)
        return from_dict(with_recipe(arguments.get("recipe") or "auto", own), None if overrides else path)
    before = to_dict(resumed.config)
    after = to_dict(from_dict(merge(merge(before, settings), overrides)))
    for name in field_paths():
        if name not in RESUMABLE and _field(before, name) != _field(after, name):
            raise ConfigurationError(
                f"{name} is {_field(before, name)!r} in {arguments.resume} and cannot be {_field(after, name)!r} in "
                f"the run that resumes it; only {', '.join(sorted(RESUMABLE))} can be other."
            )
    return from_dict(after)


def _field(settings: Settings, path: str) -> object:
    value: object = settings
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else None
    return value
