"""The command line's arguments: a parser per command, and every mistake in one sentence."""

import difflib
import re
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Literal, NoReturn

from jsonargparse import SUPPRESS, ArgumentParser, Namespace, set_loader

from seqssvae.backend import DecodingMethod
from seqssvae.config import Config, Precision
from seqssvae.config.fields import expected_value, field_paths, nearest_name
from seqssvae.config.settings import YAML_ERRORS, load_yaml
from seqssvae.errors import ConfigurationError

Dataset = Literal["peptides", "languages"]

_YAML = "seqssvae"
set_loader(_YAML, load_yaml, exceptions=YAML_ERRORS)  # values read as in configuration files: `no` is text


def parse_arguments(argv: Sequence[str]) -> tuple[str, Namespace]:
    """The command and its arguments. `--help` and `--version` print and leave by SystemExit.

    Raises:
        ConfigurationError: If an argument is unknown (naming the nearest known one), missing or wrong.
    """
    if not argv or argv[0].startswith("-"):
        _check_options(argv, ["--help", "--version"])
        _top_parser().parse_args(list(argv) or ["--help"])
    command, rest = argv[0], list(argv[1:])
    if command not in _BUILDERS:
        close = difflib.get_close_matches(command, list(_BUILDERS), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_BUILDERS)}."
        raise ConfigurationError(f"There is no command {command!r}; {hint}")
    parser = _command_parser(command)
    _check_options(rest, _options(command, parser))
    try:
        return command, parser.parse_args(rest, defaults=command != "fit")
    except ArgumentError as error:
        _explain(command, error, rest)


def config_overrides(arguments: Namespace) -> dict[str, Any]:
    """The fields of the configuration among the arguments of `fit`, nested."""
    sections = {path.partition(".")[0] for path in field_paths()}
    given = {name: value for name, value in arguments.as_dict().items() if name in sections}
    precision = arguments.get("precision")
    if precision is None:
        return given
    named = given.get("training", {}).get("precision", precision)
    if named != precision:
        raise ConfigurationError(f"--precision {precision} and --training.precision {named} differ; give one of them.")
    return {**given, "training": {**given.get("training", {}), "precision": precision}}


def _parser(description: str, usage: str) -> ArgumentParser:
    return ArgumentParser(prog="seqssvae", exit_on_error=False, description=description, usage=usage, parser_mode=_YAML)


def _top_parser() -> ArgumentParser:
    parser = _parser(
        "Semi-supervised variational autoencoders for sequences: from many sequences and few labels a classifier, an "
        "embedding, and a generator that can be steered by label, in PyTorch or in JAX. Start with: seqssvae demo",
        "seqssvae COMMAND ...   (seqssvae COMMAND --help says more)",
    )
    parser.add_argument("--version", action="version", version=f"seqssvae {version('seqssvae')}")
    commands = parser.add_subcommands(required=False, dest="command")
    for name, (_, summary, _) in _BUILDERS.items():
        commands.add_subcommand(name, ArgumentParser(), help=summary)
    return parser


def _command_parser(command: str) -> ArgumentParser:
    build, summary, usage = _BUILDERS[command]
    parser = _parser(summary, f"seqssvae {command} {usage}")
    build(parser)
    return parser


def _add_run(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="The run directory that `seqssvae fit` made.")
    parser.add_argument("--backend", type=str | None, help="torch or jax; without it, the one that trained the run.")
    _add_device(parser)


def _add_device(parser: ArgumentParser) -> None:
    parser.add_argument("--device", type=str | None, help="The framework's name of a device, such as cpu or cuda.")


def _add_data(parser: ArgumentParser, labelled: bool, required: bool = True) -> None:
    text = "TSV file (UTF-8), a row a line."
    if required:
        parser.add_argument("--data", type=str, required=True, metavar="FILE", help=text)
    else:
        parser.add_argument("--data", type=str | None, metavar="FILE", help=f"{text} Without it, rows are made up.")
    parser.add_argument("--sequence-column", type=int | None, help="Column of the sequence, if not as in training.")
    parser.add_argument("--source-column", type=int | None, help="Column of the source, of a model that has sources.")
    if labelled:
        parser.add_argument("--label-column", type=int | None, help="Column of the label; 0 for none.")
    parser.add_argument("--header", type=bool | None, help="Whether the first line names the columns.")


def _add_output(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=str, required=True, metavar="FILE", help="TSV file to write.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the output file if it exists.")


def _build_fit(parser: ArgumentParser) -> None:
    parser.add_argument("--config", type=str | None, metavar="FILE", help="YAML file with any of the fields below.")
    parser.add_argument("--backend", type=str | None, help="The twin that trains: torch or jax.")
    parser.add_argument("--output", type=str, required=True, metavar="RUN", help="The run directory to make.")
    _add_device(parser)
    parser.add_argument("--precision", type=Precision | None, help="Short for --training.precision.")
    parser.add_argument(
        "--resume",
        type=str | None,
        metavar="RUN",
        help="Go on from the last evaluation of this run, with its configuration, into the new directory.",
    )
    parser.add_class_arguments(Config, None)
    for action in _section_loaders(parser):
        action.help = SUPPRESS


def _build_evaluate(parser: ArgumentParser) -> None:
    _add_run(parser)
    _add_data(parser, labelled=True)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the noise of z.")
    parser.add_argument(
        "--importance-samples", type=int, default=0, metavar="P", help="Draws of z for the importance-weighted bound."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the tables.")


def _build_predict(parser: ArgumentParser) -> None:
    _add_run(parser)
    _add_data(parser, labelled=False)
    _add_output(parser)


def _build_generate(parser: ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--label", type=str, required=True, metavar="NAME", help="The label to generate for.")
    parser.add_argument("--count", type=int, default=10, help="Number of sequences.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of z and of the symbols.")
    parser.add_argument(
        "--method",
        type=DecodingMethod,
        default="sample",
        help="Draw each symbol, take the most probable one, or search for the most probable sequence.",
    )
    parser.add_argument(
        "--source", type=str | None, metavar="TEXT", help="What to make it from, if the run has sources."
    )
    _add_search(parser)


def _add_search(parser: ArgumentParser) -> None:
    parser.add_argument("--beam-width", type=int, default=5, help="Candidates kept by --method beam.")
    parser.add_argument("--max-length", type=int | None, help="Most symbols of a sequence; else data.max_length.")


def _build_transduce(parser: ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--data", type=str, required=True, metavar="FILE", help="TSV file (UTF-8), a source a line.")
    parser.add_argument("--source-column", type=int | None, help="Column of the source, if not as in training.")
    parser.add_argument(
        "--label-column",
        type=int | None,
        help="Column of the label; where it is empty, or with 0, the label is predicted as well.",
    )
    parser.add_argument("--header", type=bool | None, help="Whether the first line names the columns.")
    _add_output(parser)
    parser.add_argument(
        "--score", action="store_true", help="Say how many are as in the file's column of the sequence."
    )
    parser.add_argument("--sequence-column", type=int | None, help="That column, if not as in training.")
    parser.add_argument(
        "--method",
        type=DecodingMethod,
        default="greedy",
        help="Take the most probable symbol, search for the most probable sequence, or draw each symbol.",
    )
    _add_search(parser)
    parser.add_argument("--seed", type=int, default=0, help="Seed of what --method sample draws.")


def _build_verify(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="The run directory that `seqssvae fit` made.")
    _add_data(parser, labelled=True, required=False)
    _add_device(parser)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the noise given to both twins.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the tables.")


def _build_estimators(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str | None, nargs="?", help="The run directory that `seqssvae fit` made.")
    parser.add_argument(
        "--config", type=str | None, metavar="FILE", help="In place of a run: YAML file, of which the first weights."
    )
    parser.add_argument("--backend", type=str | None, help="torch or jax; without it, the one that trained the run.")
    _add_device(parser)
    _add_data(parser, labelled=True)
    parser.add_argument("--k", nargs="+", type=int, default=[1, 4], help="Labels that top_k sums out, one or more.")
    parser.add_argument("--rows", type=int | None, help="Rows of the batch; else training.batch_size.")
    parser.add_argument("--draws", type=int, default=50, help="How often labels are drawn.")
    parser.add_argument("--repetitions", type=int, default=7, help="How many steps are timed.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the rows and of the noise.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of the table.")


def _build_import(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="A checkpoint file that yoyodyne wrote.")
    parser.add_argument("run", type=str, help="The run directory to make.")


def _build_demo(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dataset",
        type=Dataset,
        default="peptides",
        help="peptides: antimicrobial or not; languages: word to language (needs seqssvae[demo]).",
    )
    parser.add_argument("--backends", nargs="+", type=str, help="Twins to train; without it, those installed.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of everything.")
    parser.add_argument("--output", type=str | None, metavar="DIRECTORY", help="Where the runs go; else runs/demo.")
    parser.add_argument("--quick", action="store_true", help="A few steps only, to see that it works.")


_Builder = tuple[Callable[[ArgumentParser], None], str, str]
_BUILDERS: dict[str, _Builder] = {
    "demo": (
        _build_demo,
        "Show on shipped data, with both twins, that unlabelled rows help.",
        "[--dataset peptides|languages] [--backends torch jax] [--seed S] [--output DIRECTORY] [--quick]",
    ),
    "fit": (
        _build_fit,
        "Train a model on a TSV file, and write a run directory.",
        "--config FILE --backend torch|jax --output RUN [--device D] [--precision P] [--resume RUN] "
        "[--section.field VALUE ...]",
    ),
    "evaluate": (
        _build_evaluate,
        "Tell how well a run does on a TSV file: ELBO, accuracy, confusion.",
        "RUN --data FILE [--backend B] [--device D] [--seed S] [--importance-samples P] [--json]",
    ),
    "predict": (
        _build_predict,
        "Write the label, and the probability of each label, of every row of a TSV file.",
        "RUN --data FILE --output FILE [--overwrite] [--backend B] [--device D]",
    ),
    "encode": (
        _build_predict,
        "Write the embedding (sum over y of q(y|x) loc(x, y)) of every row of a TSV file.",
        "RUN --data FILE --output FILE [--overwrite] [--backend B] [--device D]",
    ),
    "generate": (
        _build_generate,
        "Print new sequences of one label: sequence, label and log p(x|y,z), a line each.",
        "RUN --label NAME [--source TEXT] [--count N] [--seed S] [--method sample|greedy|beam] [--max-length N]",
    ),
    "transduce": (
        _build_transduce,
        "Write the sequence that is made of each source of a TSV file, with its label or the most probable one.",
        "RUN --data FILE --output FILE [--overwrite] [--label-column N] [--score] [--method greedy|beam|sample] "
        "[--backend B] [--device D]",
    ),
    "estimators": (
        _build_estimators,
        "Compare what can be done with a missing label: bias and variance of the gradient, time, memory.",
        "RUN|--config FILE --data FILE [--backend B] [--device D] [--k K ...] [--rows B] [--draws N] "
        "[--repetitions N] [--seed S] [--json]",
    ),
    "import-yoyodyne": (
        _build_import,
        "Make a run directory of a checkpoint that the plug-in for yoyodyne left.",
        "CKPT RUN",
    ),
    "verify": (
        _build_verify,
        "Show that both twins compute the same for a run: losses, terms, predictions, gradients. Status 1 if not.",
        "RUN [--data FILE] [--device D] [--seed S] [--json]",
    ),
}


def _section_loaders(parser: ArgumentParser) -> list[Any]:
    """jsonargparse's own options that load a section from a file; `--config` is the one way here."""
    sections = {f"--{path.rpartition('.')[0]}" for path in field_paths()}
    return [action for action in parser._actions if sections & set(action.option_strings)]


def _options(command: str, parser: ArgumentParser) -> list[str]:
    hidden = _section_loaders(parser) if command == "fit" else []
    actions = [action for action in parser._actions if action not in hidden]
    return [option for action in actions for option in action.option_strings if option.startswith("--")]


def _check_options(argv: Sequence[str], known: list[str]) -> None:
    for argument in argv:
        option = argument.partition("=")[0]
        if option.startswith("--") and option != "--" and option not in known:
            paths = [name.removeprefix("--") for name in known]
            close = nearest_name(option.removeprefix("--"), paths)
            hint = f"did you mean --{close}?" if close else "--help lists those there are."
            raise ConfigurationError(f"There is no option {option} here; {hint}")


def _explain(command: str, error: ArgumentError, argv: Sequence[str]) -> NoReturn:
    """Raise a sentence in place of jsonargparse's message."""
    text = str(error)
    if missing := re.search(r"arguments? (?:is|are) required: (.*)", text):
        names = " and ".join(_PLACES.get(name, f"--{name}") for name in missing[1].split(", "))
        raise ConfigurationError(f"seqssvae {command} needs {names}; see seqssvae {command} --help.") from error
    if extra := re.search(r"unrecognized arguments: (.*)", text):
        raise ConfigurationError(f"seqssvae {command} has no use for {extra[1]!r}; see its --help.") from error
    if lone := re.search(r"argument (--[\w.-]+).*: expected (?:at least )?one argument", text):
        raise ConfigurationError(f"{lone[1]} needs a value.") from error
    if key := re.search(r'[Pp]arser key "([\w.]+)"', text):
        name = key[1] if f"--{key[1]}" in " ".join(argv) else key[1].replace("_", "-")
        found = _value(f"--{name}", argv)
        what = expected_value(key[1]) or _EXPECTED.get(key[1], "a whole number")
        raise ConfigurationError(f"--{name} must be {what}, not {found!r}.") from error
    raise ConfigurationError(" ".join(text.split())) from error


_PLACES = {"run": "RUN", "checkpoint": "CKPT"}
"""Arguments that are known by their place."""

_EXPECTED = {
    "header": "true or false",
    "method": "one of sample, greedy, beam",
    "dataset": "one of peptides, languages",
    "precision": "one of float32, float64, bf16",
}
"""What arguments must be that are no field of the configuration, where it is not a whole number."""


def _value(option: str, argv: Sequence[str]) -> str:
    for place, argument in enumerate(argv):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and place + 1 < len(argv):
            return argv[place + 1]
    return ""
