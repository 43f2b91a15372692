"""What commands write: TSV files, and JSON on stdout."""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seqssvae.cli.arguments import STANDARD_OUTPUT
from seqssvae.errors import RunError, printable
from seqssvae.runs.writing import explained, is_stream, write_atomically


def check_output(output: str, overwrite: bool, data: str | None = None) -> None:
    """Check, before any work is done, that an output file can be written.

    Args:
        output: The file, or a pipe or device to write into; `-` is standard output.
        overwrite: Whether a file that is already there may be replaced.
        data: The file of rows that is read, which is never replaced.

    Raises:
        RunError: If the file is a directory, exists already, or has no directory to be in that may be written to.
    """
    if output == STANDARD_OUTPUT:
        return
    path = Path(output)
    is_data = data is not None and os.path.exists(path) and os.path.exists(data) and path.samefile(data)
    if is_data and not is_stream(path):
        raise RunError(f"The output file {output} is that of --data; name another one.")
    if os.path.isdir(path):
        raise RunError(f"The output file {output} is a directory; name a file.")
    if is_stream(path):
        return
    if os.path.lexists(path) and not overwrite:
        raise RunError(f"The output file {output} exists already; name another one, or give --overwrite.")
    place = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(place):
        raise RunError(f"The output file {output} cannot be made: there is no directory {path.parent}.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"The output file {output} cannot be made: you may not write to {place}.")


def write_table(output: str, header: Iterable[str], lines: Iterable[Iterable[str]]) -> None:
    """Write a TSV file, whole or not at all, or to standard output.

    A tab or line break within a column is written as an escape.

    Args:
        output: The file; `-` is standard output.
        header: Names of the columns.
        lines: The columns of each line, which are taken one by one.

    Raises:
        RunError: If it cannot be written.
    """

    def encoded() -> Iterator[bytes]:
        yield _line(header)
        yield from map(_line, lines)

    write_chunks(output, encoded())


def write_chunks(output: str, chunks: Iterable[bytes]) -> None:
    """Write a file, whole or not at all, or to standard output, piece by piece.

    Args:
        output: The file; `-` is standard output.
        chunks: What it is to hold.

    Raises:
        RunError: If it cannot be written.
    """
    if output == STANDARD_OUTPUT:
        if isinstance(sys.stdout, ClosedOutput):
            raise RunError("standard output is closed; name a file.")
        sys.stdout.flush()
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    with explained(Path(output)):
        write_atomically(Path(output), chunks)


class ClosedOutput(io.TextIOBase):
    """What stands for a standard output that is closed: that a result is lost is an error."""

    def write(self, text: str) -> int:
        """Raise an OSError."""
        raise OSError(errno.EBADF, "is closed", "standard output")


def print_json(value: Any) -> None:
    """Print a value as JSON on one line, without characters that a terminal would obey, or that the locale lacks."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    text = json.dumps(value, ensure_ascii=not encoding.startswith("utf"))
    print(re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text))


def _line(columns: Iterable[str]) -> bytes:
    columns = list(columns)
    line = "\t".join(columns)
    if line.count("\t") != len(columns) - 1 or "\n" in line or "\r" in line:
        line = "\t".join(map(printable, columns))
    return f"{line}\n".encode(errors="backslashreplace")
