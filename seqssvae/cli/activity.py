"""What a terminal shows of what a command is doing while there is nothing else to show."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from seqssvae.data.opening import STANDARD_INPUT
from seqssvae.errors import printable


@contextmanager
def activity(
    quiet: bool = False, source: str | None = None, output: str | None = None
) -> Iterator[Callable[[str], None]]:
    """Show on stderr, if that is a terminal, what is being done, until it is done; a log has no use for it.

    Args:
        quiet: Whether nothing is shown.
        source: The file that is read meanwhile; if that is the terminal, nothing is shown.
        output: The file that is written meanwhile, likewise.

    Yields:
        What is to be told what is being done.
    """
    typed = source == STANDARD_INPUT and _is_terminal(sys.stdin)
    printed = output == STANDARD_INPUT and _is_terminal(sys.stdout)
    console = None
    if not quiet and not typed and not printed and _is_terminal(sys.stderr):
        from seqssvae.training.progress_bar import terminal  # loads rich

        console = terminal()
    if console is None:
        yield lambda text: None
        return
    from rich.text import Text

    with console.status("") as status:
        yield lambda text: status.update(Text(printable(text)))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and hasattr(stream, "isatty") and stream.isatty()  # what stands in for one may lack it
