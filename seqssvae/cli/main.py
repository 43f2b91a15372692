"""The command `seqssvae`."""

import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from seqssvae.cli.arguments import parse_arguments
from seqssvae.cli.commands import COMMANDS
from seqssvae.cli.messages import abandon_others, say, say_aloud, speak_among, speaks_of_errors, warn
from seqssvae.cli.output import ClosedOutput
from seqssvae.cli.signals import Terminated, terminable
from seqssvae.errors import UserError
from seqssvae.training.allocation import keep_freed_memory
from seqssvae.training.processes import ALONE

READ_ROWS_FIRST = frozenset(("fit", "evaluate", "diagnose"))
"""Commands that keep freed memory once they have read all rows, and have returned what that took."""
_NO_MEMORY = ("can't allocate memory", "RESOURCE_EXHAUSTED", "Out of memory")
"""What PyTorch and JAX say on a CPU, or on any device, where there is not enough memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its name and arguments; None for those of the process.

    Returns:
        The exit status: 0; 1 if `verify` finds that the twins differ; 2 if you can mend what went wrong, which one line
        on stderr explains; 3 for a fault of the program; 130 if you interrupted it, and 143 if SIGTERM did.
    """
    return abandon_others(_run(sys.argv[1:] if argv is None else argv))


def _run(words: Sequence[str]) -> int:
    if not READ_ROWS_FIRST.intersection(words[:1]):
        keep_freed_memory()  # before a framework is loaded: JAX's threads start with heaps of their own
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every locale has every symbol
    speak_among(ALONE)
    try:
        with terminable(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: warn(str(message))
            try:
                command, arguments = parse_arguments(words)
            except SystemExit:  # what was asked for, such as help, is printed
                sys.stdout.flush()
                raise
            arguments.words = list(words)
            status = COMMANDS[command].run(arguments)
            sys.stdout.flush()
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt as error:
        say("interrupted" + "".join(f"; {advice}" for advice in error.args) + ".")
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:  # the reader of the output, such as head, has left
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        return _fail(f"{error.filename or 'the output'}: {error.strerror or error}.")
    except Exception as error:
        if _is_lack_of_memory(error):
            return _fail("there is not enough memory.")
        if speaks_of_errors():
            traceback.print_exc()
            name = type(error).__name__
            say_aloud(f"error: this is a fault of seqssvae ({name}); please report it with what is above.")
        return 3
    return status


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether memory, or that of a device, was not enough, as Python, PyTorch or JAX say."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def _fail(message: str) -> int:
    if speaks_of_errors():
        say_aloud(f"error: {message}")
    return 2


def _drop_output() -> None:
    """Have what is still to be printed go nowhere, since it cannot go where it should."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # where it is no file, or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
