"""What the command line says beside its output: one line each, on stderr."""

import re
import sys

from seqssvae.data.corpus import Corpus
from seqssvae.data.counts import describe_counts

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with control characters, which a terminal would obey, as escapes.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(message: str) -> None:
    """Print a line that names the program."""
    if sys.stderr is not None:
        print(f"seqssvae: {printable(' '.join(message.split()))}", file=sys.stderr)


def warn(message: str) -> None:
    """Print a warning."""
    say(f"warning: {message}")


def warn_of_counts(corpus: Corpus, max_length: int) -> None:
    """Print a warning for rows that were left out or cut, and for unknown symbols.

    Args:
        corpus: The rows as they were encoded.
        max_length: Greatest length of a sequence, in symbols without END.
    """
    for sentence in describe_counts(corpus, max_length):
        warn(sentence)
