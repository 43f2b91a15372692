"""The command `completion`: what a shell needs to complete commands, options and their values."""

import argparse

from jsonargparse import Namespace

from seqssvae.cli.arguments import command_actions, expected_option_value
from seqssvae.cli.commands import COMMANDS
from seqssvae.errors import MissingPackageError


def completion_command(arguments: Namespace) -> None:
    """Print a script for a shell.

    Raises:
        MissingPackageError: If shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        text = "Completion needs shtab, which is not installed: pip install 'seqssvae[completion]'."
        raise MissingPackageError(text) from error
    paths = {"FILE": shtab.FILE, "RUN": shtab.DIRECTORY, "DIRECTORY": shtab.DIRECTORY}
    print(shtab.complete(_parser(paths), arguments.shell))


def _parser(paths: dict[str, dict[str, str]]) -> argparse.ArgumentParser:
    """All commands and their options as a parser of the standard library, by which values that are paths are known."""
    whole = argparse.ArgumentParser(prog="seqssvae", description="Commands.")
    whole.add_argument("--version", action="version", version="", help="Print the version.")
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        parser = commands.add_parser(name, help=_plain(command.summary), description=_plain(command.summary))
        for action in command_actions(name):
            names = action.option_strings or [action.dest]
            if "--help" in names:
                continue
            about = _plain(action.help or "")
            if action.nargs == 0:
                parser.add_argument(*names, action="store_true", help=about)
                continue
            expected = expected_option_value(name, action.dest) or ""
            words = {"true or false": "true, false"}.get(expected, expected.removeprefix("one of "))
            choices = words.split(", ") if words != expected else None
            added = parser.add_argument(*names, choices=choices, nargs=action.nargs, metavar=action.metavar, help=about)
            kind = "RUN" if action.dest in ("run", "runs") else action.metavar
            if kind in paths or action.dest.endswith(("train", "validation", "_file")):
                added.complete = paths.get(str(kind), paths["FILE"])  # type: ignore[attr-defined]  # which shtab looks for
    return whole


def _plain(text: str) -> str:
    """A text in which argparse sees no place to fill in."""
    return text.replace("%", "%%")
