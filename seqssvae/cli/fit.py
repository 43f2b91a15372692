"""The commands that make a run: `fit` and `import-yoyodyne`."""

import os
from importlib import import_module

from jsonargparse import Namespace

from seqssvae.backend import Backend, Dimensions, get_backend
from seqssvae.cli.arguments import config_overrides
from seqssvae.cli.messages import warn, warn_of_counts
from seqssvae.cli.recipe_tables import trials_table
from seqssvae.cli.signals import noted_signals
from seqssvae.cli.tables import console, fit_table
from seqssvae.config import Config
from seqssvae.config.fields import check_fields, field_paths
from seqssvae.config.settings import Settings, from_dict, merge, read_yaml, to_dict
from seqssvae.data.prepare import prepare_files
from seqssvae.data.prepared_rows import prepared_settings
from seqssvae.diagnosis.diagnose import diagnose_fitted
from seqssvae.errors import ConfigurationError
from seqssvae.loggers.named import named_logger
from seqssvae.recipes.auto import affordable, fit_towards, learn, network_config, obstacle, rows_trained_on
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.named import with_recipe
from seqssvae.recipes.report import kept_sentence
from seqssvae.runs.learned import learned_files, read_ensemble
from seqssvae.runs.run import RunDirectory
from seqssvae.runs.usable import usable_backend
from seqssvae.runs.writer import RunWriter, refuse_existing
from seqssvae.training.progress import progress

RESUMABLE = {
    *("data.train", "data.validation", "data.format", "data.header", "data.sequence_column", "data.label_column"),
    *("data.id_column", "data.labels_file", "data.labels_id_column"),
    *("optimizer.schedule_steps", "training.checkpoint_minutes"),
    *("training.epochs", "training.max_steps", "training.patience"),
}
"""Fields that may differ in a run that resumes another one."""


def fit_command(arguments: Namespace) -> None:
    """Train on the configured files and write a run directory, or go on with one."""
    resume, output = arguments.get("resume"), arguments.get("output") or arguments.get("resume")
    if output is None:
        raise ConfigurationError("seqssvae fit needs --output; see seqssvae fit --help.")
    in_place = resume is not None and os.path.realpath(output) == os.path.realpath(resume)
    if not in_place:
        refuse_existing(output)
    quiet = bool(arguments.get("quiet"))
    loggers = [named_logger(name, output) for name in dict.fromkeys(arguments.get("logger") or ())]
    resumed = RunDirectory(resume, verify=not arguments.get("no_verify")) if resume else None
    config = _build_config(arguments, resumed)
    named = arguments.get("backend") or (resumed.trained_by if resumed else None)
    prepared = prepare_files(config)
    warn_of_counts(prepared.training, config.data.max_length)
    if config.data.validation is not None:
        warn_of_counts(prepared.validation, config.data.max_length)
    schema, backend = prepared.schema, named or usable_backend()
    checkpoint = resumed.resume(schema, prepared.training) if resumed else None

    def build(config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(backend)(config, dimensions, arguments.get("device"))

    ensemble = read_ensemble(resumed.files, build) if resumed else None
    if not resumed and (arguments.get("recipe") or "auto") == "auto":
        reason = obstacle(config, prepared)
        if reason is None:
            config = affordable(config, prepared)
            with progress("candidates", quiet) as shown:
                ensemble = learn(config, prepared, build, [shown], shown.candidate)
            if not quiet:
                console().print(trials_table(ensemble.trials))
        else:
            warn(reason)
        config = network_config(config, ensemble)
    baselines = Baselines.learn(prepared.training.sequences, schema.dimensions.vocabulary_size)
    trained_on = rows_trained_on(config, prepared, ensemble)
    carried = learned_files(ensemble, baselines, trained_on)
    writer = RunWriter(output, config, schema, backend, checkpoint or prepared.training, carried, in_place=in_place)
    state = checkpoint.state if checkpoint else None
    try:
        with noted_signals() as interrupted:
            observers = [writer, *loggers, progress("training", quiet)]
            fitted = fit_towards(ensemble, config, prepared, build, observers, state, interrupted)
    except KeyboardInterrupt as error:
        if writer.step is None:
            raise
        raise type(error)(f"go on from step {writer.step} by seqssvae fit --resume {output}") from error
    result, diagnosis = fitted.result, diagnose_fitted(fitted, prepared, baselines, trained_on)
    if quiet:
        for finding in diagnosis.warnings:
            warn(str(finding))
        return
    if result.records:
        console().print(fit_table(result))
        print(kept_sentence(result, config))
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
