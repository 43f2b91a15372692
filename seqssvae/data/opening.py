"""Files as they are opened: by path or from standard input, compressed or not, and what their names say of them."""

import contextlib
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import PurePath
from types import ModuleType
from typing import Any

from seqssvae.config import FileFormat
from seqssvae.errors import ConfigurationError, DataError

STANDARD_INPUT = "-"
"""The path that stands for standard input."""

FORMATS: dict[str, FileFormat] = {
    **dict.fromkeys((".tsv", ".tab", ".txt"), "tsv"),
    ".csv": "csv",
    **dict.fromkeys((".fasta", ".fa", ".faa", ".fna", ".ffn", ".fas"), "fasta"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
"""What the end of a name says of the format."""

COMPRESSIONS = (".gz", ".zst")
"""Ends of names that say nothing of the format."""

GZIP, ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""How compressed files begin; no text in UTF-8 does."""


def named_format(path: str) -> FileFormat | None:
    """The format that a file's name tells; None where it tells none.

    Example:
        >>> named_format("rows.csv.gz"), named_format("rows")
        ('csv', None)
    """
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def named(path: str) -> str:
    """How messages call a file."""
    return "standard input" if path == STANDARD_INPUT else path


def arrow(what: str) -> ModuleType:
    """pyarrow, which is loaded where it is needed.

    Args:
        what: What needs it, for the message.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise ConfigurationError(
            f"{what} needs pyarrow, which is not installed: pip install 'seqssvae[arrow]'."
        ) from None
    return pyarrow


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[BufferedReader]:
    """Open a file, decompressed as its first bytes ask for; what goes wrong while it is read is explained.

    Args:
        path: The file; `-` is standard input.

    Raises:
        DataError: If it cannot be opened or read, or is compressed and not whole.
        ConfigurationError: If a package is missing that it takes.
    """
    try:
        with contextlib.ExitStack() as stack:
            yield _decompressed(path, _opened(path, stack))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a directory; give a TSV file.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{named(path)}: the compressed file is damaged or not whole ({error}).") from error
    except OSError as error:
        reason = (error.strerror or str(error)).partition("\n")[0]
        raise DataError(f"{named(path)}: the file cannot be read ({reason}); check its permissions.") from error


def _opened(path: str, stack: contextlib.ExitStack) -> Any:
    if path != STANDARD_INPUT:
        try:
            return stack.enter_context(open(path, "rb"))
        except ValueError as error:  # a byte of value 0 within the path
            raise DataError(f"{path}: the file cannot be read (that is no path); check its permissions.") from error
    if sys.stdin is None:
        raise DataError("standard input is closed; name a file.")
    return sys.stdin.buffer


def _decompressed(path: str, file: Any) -> BufferedReader:
    file = file if hasattr(file, "peek") else BufferedReader(file)
    start = file.peek(4)[:4]
    if start.startswith(GZIP):
        return BufferedReader(gzip.GzipFile(fileobj=file))
    if start == ZSTANDARD:
        pa = arrow(f"{named(path)}, which is compressed by Zstandard,")
        return BufferedReader(_Whole(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd"), pa.ArrowException))
    return file


class _Whole(io.RawIOBase):
    """A stream of Arrow's as one of Python's, whose errors say that it is not whole."""

    def __init__(self, stream: Any, error: type[Exception]) -> None:
        self._stream, self._error = stream, error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._stream.read(len(buffer))
        except (OSError, self._error) as error:
            raise EOFError(str(error).splitlines()[0]) from error
        buffer[: len(content)] = content
        return len(content)


def decoded_lines(stream: BufferedReader, origin: str) -> Iterator[str]:
    """The lines of a file in UTF-8, without a byte order mark.

    Raises:
        DataError: If a line is something else. The message names it.
    """
    for number, line in enumerate(stream, start=1):
        yield decoded(line, origin, number).removeprefix("\ufeff" if number == 1 else "")


def decoded(content: bytes, origin: str, line: int) -> str:
    """Lines of a file as a text.

    Args:
        content: The lines.
        origin: The file.
        line: The number of the first one.

    Raises:
        DataError: If they are not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise DataError(
            f"{origin}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in UTF-8 "
            "(iconv -f OLD_ENCODING -t UTF-8)."
        ) from None
