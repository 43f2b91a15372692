"""The command `seqssvae`."""

import os
import sys
import warnings
from collections.abc import Sequence

from seqssvae.cli.arguments import parse_arguments
from seqssvae.cli.commands import COMMANDS
from seqssvae.cli.messages import warn
from seqssvae.errors import UserError
from seqssvae.training.allocation import keep_freed_memory


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its name and arguments; None for those of the process.

    Returns:
        The exit status: 0; 1 if `verify` finds that the twins differ; 2 if you can mend what went wrong, which one line
        on stderr explains; 130 if you interrupted it.
    """
    keep_freed_memory()  # before a framework is loaded: JAX's threads start with heaps of their own
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: warn(str(message))
            command, arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
            status = COMMANDS[command].run(arguments)
            sys.stdout.flush()
    except UserError as error:
        print(f"seqssvae: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seqssvae: interrupted; go on from the last evaluation with --resume RUN.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
