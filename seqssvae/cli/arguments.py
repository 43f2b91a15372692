"""Parses the command line, and explains every mistake in one sentence."""

import difflib
import re
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import SUPPRESS, ArgumentParser, DefaultHelpFormatter, Namespace, set_loader

from seqssvae.cli.commands import ALIASES, COMMANDS
from seqssvae.cli.shared_arguments import section_loaders
from seqssvae.config.fields import expected_value, field_paths, nearest_name
from seqssvae.config.settings import YAML_ERRORS, load_yaml
from seqssvae.errors import ConfigurationError

_YAML = "seqssvae"
set_loader(_YAML, load_yaml, exceptions=YAML_ERRORS)  # values read as in configuration files: `no` is text

_POSITIONAL = {"run": "RUN", "checkpoint": "CKPT", "repository": "USER/NAME", "shell": "SHELL"}
"""How help names the arguments that have no option."""

_EXPECTED = {
    "header": "true or false",
    "logger": "one of tensorboard, wandb, mlflow",
    "method": "one of sample, greedy, beam",
    "predict method": "one of classifier, generative, combined",
    "shell": "one of bash, zsh, tcsh",
    "dataset": "one of peptides, languages",
    "sampler": "one of tpe, random",
    "pruner": "one of median, halving, none",
    "minutes": "a number",
    "abstain_below": "a number",
    "precision": "one of float32, float64, bf16",
    "temperature": "a number above 0",
    "top_p": "a number above 0 and at most 1",
}
"""What the values of options that are no fields of the configuration must be, if not whole numbers."""
WITH_CONFIGURATION = ("fit", "tune", "compare", "prepare")
"""Commands whose options include the fields of the configuration."""
MAKES_DIRECTORY = ("demo", "fit", "prepare", "tune")
"""Commands whose `--output` is a directory."""
STANDARD_OUTPUT = "-"
"""The path that stands for standard output."""


def parse_arguments(argv: Sequence[str]) -> tuple[str, Namespace]:
    """Parse the name of a command and its arguments.

    Args:
        argv: The words of the command line, without the program's name. `--help` and `--version` print and leave by
            SystemExit.

    Returns:
        The command's name and its arguments.

    Raises:
        ConfigurationError: If the command or an argument is unknown (the error names the nearest known one), or an
            argument is missing or wrong.
    """
    if not argv or argv[0].startswith("-"):
        _check_options(argv, ["--help", "--version"])
        _top_parser(argv).parse_args(list(argv) or ["--help"])
    command = _command_name(argv[0])
    parser = _command_parser(command)
    known = _options(command, parser)
    rest = [_respelled(word, known) for word in argv[1:]]
    _check_options(rest, known)
    try:
        arguments = parser.parse_args(rest, defaults=command not in WITH_CONFIGURATION)
    except ArgumentError as error:
        _explain(command, error, rest)
    if command in MAKES_DIRECTORY and arguments.get("output") == STANDARD_OUTPUT:
        raise ConfigurationError(f"seqssvae {command} makes a directory, which standard output is not; name one.")
    return command, arguments


def config_overrides(arguments: Namespace) -> dict[str, Any]:
    """Return the fields of the configuration among the arguments of `fit`, nested.

    Raises:
        ConfigurationError: If `--precision` contradicts `--training.precision`.
    """
    sections = {path.partition(".")[0] for path in field_paths()}
    given = {name: value for name, value in arguments.as_dict().items() if name in sections}
    precision = arguments.get("precision")
    if precision is None:
        return given
    field = given.get("training", {}).get("precision", precision)
    if field != precision:
        raise ConfigurationError(f"--precision {precision} and --training.precision {field} differ; give one of them.")
    return {**given, "training": {**given.get("training", {}), "precision": precision}}


def _command_name(word: str) -> str:
    name = ALIASES.get(word, word)
    if name not in COMMANDS:
        close = difflib.get_close_matches(word, [*COMMANDS, *ALIASES], n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(COMMANDS)}."
        raise ConfigurationError(f"There is no command {word!r}; {hint}")
    return name


class _Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Leaves the lines of examples as they are."""


class _Parser(ArgumentParser):
    """Says so where help cannot be printed, which argparse passes over."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None:
            file.write(message)


def _parser(description: str, usage: str) -> ArgumentParser:
    return _Parser(prog="seqssvae", exit_on_error=False, description=description, usage=usage, parser_mode=_YAML)


def _top_parser(argv: Sequence[str]) -> ArgumentParser:
    parser = _parser(
        "Semi-supervised variational autoencoders for sequences: from many sequences and few labels you get a "
        "classifier, an embedding, and a generator that you steer by label, in PyTorch or in JAX. Start with: "
        "seqssvae demo",
        "seqssvae COMMAND ...   (seqssvae COMMAND --help says more)",
    )
    version = ""
    if "--version" in argv:  # which takes a while to look up
        version = f"seqssvae {import_module('importlib.metadata').version('seqssvae')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subcommands(required=False, dest="command")
    for name, command in COMMANDS.items():
        commands.add_subcommand(name, ArgumentParser(), help=command.summary)
    return parser


def _command_parser(name: str) -> ArgumentParser:
    command = COMMANDS[name]
    examples = "".join(f"\n    {line}" for line in command.examples)
    parser = _parser(
        command.summary + (f"\n\nexamples:{examples}" if examples else ""), f"seqssvae {name} {command.usage}"
    )
    parser.formatter_class = _Formatter
    command.add_arguments(parser)
    return parser


def command_actions(command: str, parser: ArgumentParser | None = None) -> list[Any]:
    """The arguments of a command, as argparse's actions, those that help does not show left out."""
    actions = _known_actions(command, parser or _command_parser(command))
    return [action for action in actions if action.help != SUPPRESS]


def _known_actions(command: str, parser: ArgumentParser) -> list[Any]:
    loaders = section_loaders(parser) if command in WITH_CONFIGURATION else []
    return [action for action in parser._actions if action not in loaders]


def expected_option_value(command: str, name: str) -> str | None:
    """Describe in words what the value of an option must be; None where nothing is known of it but its type."""
    return expected_value(name) or _EXPECTED.get(f"{command} {name}") or _EXPECTED.get(name)


def _options(command: str, parser: ArgumentParser) -> list[str]:
    actions = _known_actions(command, parser)
    return [option for action in actions for option in action.option_strings if option.startswith("--")]


def _respelled(word: str, known: Sequence[str]) -> str:
    """Return an option as its command has it, where it is spelled as in another command; other words as they are.

    `--sequence-column` and `--data.sequence_column`, `--data` and `--data.train` are one option each.
    """
    option, equals, value = word.partition("=")
    if not option.startswith("--") or option in known:
        return word
    name = option.removeprefix("--")
    fields = name.replace("-", "_")
    plain = (name.removeprefix("data.") if fields in field_paths() else name).replace("_", "-")
    others = (fields, f"data.{fields}", plain, *{"data": ["data.train"], "data.train": ["data"]}.get(name, []))
    return next((f"--{other}{equals}{value}" for other in others if f"--{other}" in known), word)


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
        names = " and ".join(_POSITIONAL.get(name, f"--{name}") for name in missing[1].split(", "))
        raise ConfigurationError(f"seqssvae {command} needs {names}; see seqssvae {command} --help.") from error
    if extra := re.search(r"unrecognized arguments: (.*)", text):
        raise ConfigurationError(f"seqssvae {command} has no use for {extra[1]!r}; see its --help.") from error
    if without_value := re.search(r"argument (--[\w.-]+).*: expected (?:at least )?one argument", text):
        raise ConfigurationError(f"{without_value[1]} needs a value.") from error
    if key := re.search(r'[Pp]arser key "([\w.]+)"', text):
        name = key[1] if f"--{key[1]}" in " ".join(argv) else key[1].replace("_", "-")
        expected = expected_option_value(command, key[1]) or "a whole number"
        if key[1] in _POSITIONAL:
            raise ConfigurationError(f"{_POSITIONAL[key[1]]} must be {expected}, not {argv[0]!r}.") from error
        raise ConfigurationError(f"--{name} must be {expected}, not {_value_of(f'--{name}', argv)!r}.") from error
    raise ConfigurationError(" ".join(text.split())) from error


def _value_of(option: str, argv: Sequence[str]) -> str:
    for place, argument in enumerate(argv):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and place + 1 < len(argv):
            return argv[place + 1]
    return ""
