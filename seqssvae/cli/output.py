"""The TSV files that commands write."""

import os
from collections.abc import Iterable
from pathlib import Path

from seqssvae.errors import RunError
from seqssvae.runs.storage import write_files


def check_output(output: str, overwrite: bool) -> None:
    """Check, before any work is done, that an output file can be written.

    Args:
        output: The file.
        overwrite: Whether a file that is already there may be replaced.

    Raises:
        RunError: If the file is a directory, exists already, or has no directory to be in.
    """
    path = Path(output)
    if path.is_dir():
        raise RunError(f"The output file {output} is a directory; name a file.")
    if os.path.lexists(path) and not overwrite:
        raise RunError(f"The output file {output} exists already; name another one, or give --overwrite.")
    if not path.parent.is_dir():
        raise RunError(f"The output file {output} cannot be made: there is no directory {path.parent}.")


def write_table(output: str, header: Iterable[str], lines: Iterable[Iterable[str]]) -> None:
    """Write a TSV file, whole or not at all.

    Args:
        output: The file.
        header: Names of the columns.
        lines: The columns of each line.
    """
    text = "".join("\t".join(line) + "\n" for line in [header, *lines])
    write_files({Path(output): text.encode()})
