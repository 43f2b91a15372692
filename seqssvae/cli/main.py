"""The command `seqssvae`."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from seqssvae.cli.allocation import keep_freed_memory
from seqssvae.cli.arguments import parse_arguments
from seqssvae.cli.commands import COMMANDS
from seqssvae.cli.tables import warn
from seqssvae.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its name and arguments; None: those of the process.

    Returns:
        The exit status: 0; 1 where `verify` finds that the twins differ; or 2 where the user can mend it, which one
        line on stderr tells.
    """
    keep_freed_memory()  # before a framework is loaded: JAX's threads start with heaps of their own
    _cache_compilations()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: warn(str(message))
            command, arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
            status = COMMANDS[command](arguments) or 0
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


def _cache_compilations() -> None:
    """Have JAX, if it will be loaded, keep what it compiles for the next time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "seqssvae" / "jax"))


if __name__ == "__main__":
    sys.exit(main())
