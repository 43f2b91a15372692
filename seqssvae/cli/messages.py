"""What the command line says beside its output: one line each, on stderr."""

import sys
from typing import TYPE_CHECKING

from seqssvae.errors import printable
from seqssvae.training.processes import ALONE, Processes, is_first

if TYPE_CHECKING:
    from seqssvae.data.corpus import Corpus

_processes: Processes = ALONE


def speak_among(processes: Processes) -> None:
    """Have one of several processes speak for all from now on."""
    global _processes
    _processes = processes


def abandon_others(status: int) -> int:
    """End a command that went wrong, without waiting for other processes; return its status if there are none."""
    if status:
        _processes.abandon(status)
    return status


def speaks_of_errors() -> bool:
    """Return whether it is for this process to say what went wrong: asked once, before it is said."""
    return is_first() if _processes is ALONE else _processes.speaks()


def say(message: str) -> None:
    """Print a line that names the program, in the first of several processes."""
    if is_first() and _processes.rank == 0:
        say_aloud(message)


def say_aloud(message: str) -> None:
    """Print a line that names the program."""
    if sys.stderr is not None:
        print(f"seqssvae: {printable(' '.join(message.split()))}", file=sys.stderr)


def warn(message: str) -> None:
    """Print a warning."""
    say(f"warning: {message}")


def warn_of_counts(corpus: "Corpus", max_length: int) -> None:
    """Print a warning for rows that were left out or cut, and for unknown symbols.

    Args:
        corpus: The rows as they were encoded.
        max_length: Greatest length of a sequence, in symbols without END.
    """
    from seqssvae.data.counts import describe_counts  # which the help does not need

    for sentence in describe_counts(corpus, max_length):
        warn(sentence)
