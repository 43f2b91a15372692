"""Warnings of the command line: one line each, on stderr."""

import sys

from seqssvae.data.corpus import Corpus
from seqssvae.data.counts import describe_counts


def warn(message: str) -> None:
    """Print a warning."""
    print(f"seqssvae: warning: {' '.join(message.split())}", file=sys.stderr)


def warn_of_counts(corpus: Corpus, max_length: int) -> None:
    """Print a warning for rows that were left out or cut, and for unknown symbols.

    Args:
        corpus: The rows as they were encoded.
        max_length: Greatest length of a sequence, in symbols without END.
    """
    for sentence in describe_counts(corpus, max_length):
        warn(sentence)
