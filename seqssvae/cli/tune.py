"""The command `tune`."""

from jsonargparse import Namespace
from rich.table import Table

from seqssvae.backend import Backend, Dimensions, get_backend
from seqssvae.cli.arguments import config_overrides
from seqssvae.cli.messages import say, warn_of_counts
from seqssvae.cli.signals import noted_signals
from seqssvae.cli.tables import console
from seqssvae.config import Config
from seqssvae.config.fields import check_fields
from seqssvae.config.settings import merge, parse_yaml, read_text, read_yaml
from seqssvae.data.prepare import prepare_files
from seqssvae.errors import ConfigurationError
from seqssvae.runs.usable import usable_backend
from seqssvae.training.progress import progress
from seqssvae.tuning.results import BEST, PLOT, TABLE, Trial, Tuned, best_trial, describe
from seqssvae.tuning.spaces import Spaces, parse_spaces
from seqssvae.tuning.sweep import SweepOptions, check_recipe, sweep
from seqssvae.tuning.trials import Rows, Trials

MOST_SHOWN = 10
"""Most trials of the table that is printed."""


def tune_command(arguments: Namespace) -> None:
    """Search fields of the configuration, and write what did best."""
    path, output = arguments.get("config"), arguments.get("output")
    if output is None:
        raise ConfigurationError("seqssvae tune needs --output; see seqssvae tune --help.")
    recipe, backend = arguments.get("recipe") or "ssvae", arguments.get("backend") or usable_backend()
    check_recipe(recipe)
    overrides = config_overrides(arguments)
    own = merge(read_yaml(path) if path else {}, overrides)
    check_fields(own, None if overrides else path)
    spaces = _spaces(arguments)
    options = _options(arguments)
    quiet = bool(arguments.get("quiet"))

    def build(config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(backend)(config, dimensions, arguments.get("device"))

    with noted_signals() as interrupted, progress("trial", quiet) as shown:
        trials = Trials(own, recipe, spaces, Rows(prepare_files), backend, build, [shown], interrupted)
        base = trials.config({})
        warn_of_counts(trials.rows.of(base).training, base.data.max_length)
        get_backend(backend).check_device(arguments.get("device"))

        def report(trial: Trial, best: Trial | None, done: int) -> None:
            if not quiet:
                say(f"{done} of {options.trials}: {describe(trial, best, base.training.metric)}")
            if interrupted():
                raise KeyboardInterrupt

        try:
            tuned = sweep(output, trials, options, report)
        except KeyboardInterrupt as error:
            raise type(error)("go on by the same command") from error
    _print(tuned, backend)


def _spaces(arguments: Namespace) -> Spaces:
    """The spaces of the file, and those of the command line in place of them."""
    file, given = arguments.get("spaces"), arguments.as_dict().get("space") or {}
    from_file = parse_spaces(parse_yaml(read_text(file), file), f"{file}: ") if file else {}
    return {**from_file, **parse_spaces(given)}


def _options(arguments: Namespace) -> SweepOptions:
    names = "trials", "minutes", "storage", "study", "sampler", "pruner", "seed", "keep_run"
    return SweepOptions(**{name: arguments[name] for name in names if arguments.get(name) is not None})


def _print(tuned: Tuned, backend: str) -> None:
    metric, best = tuned.metric, tuned.best
    fields = list(best.values)
    table = Table(title=f"the best of {len(tuned.trials)} trials")
    for name in ("trial", metric, "", "step", "seconds", *fields):
        table.add_column(name, justify="right", overflow="fold")
    rest = list(tuned.trials)
    while len(table.rows) < MOST_SHOWN and (one := best_trial(rest, metric)) is not None:
        rest.remove(one)
        error = "" if one.standard_error is None else f"± {one.standard_error:.4f}"
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        values = (_shown(one.values.get(field)) for field in fields)
        table.add_row(str(one.number), f"{one.value:.4f}", error, str(one.step), seconds, *values)
    console().print(table)
    states = [trial.state for trial in tuned.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"Trials: {counts}. All are in {tuned.path / TABLE}, and in {tuned.path / PLOT} as a picture.")
    print(
        f"Trial {best.number} did best on the validation rows. As the best of many it looks better there than it is: "
        "evaluate it on other rows."
    )
    best_file = tuned.path / BEST
    print(f"seqssvae fit --config {best_file} --recipe {tuned.recipe} --backend {backend} --output RUN")
    if tuned.run is not None:
        print(f"The run is in {tuned.run}.")


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
