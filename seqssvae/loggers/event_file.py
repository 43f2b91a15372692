"""TensorBoard's event files, written without TensorFlow or TensorBoard.

A file is a sequence of records, each a serialised message `Event`:

    length of the data     8 bytes, little-endian
    checksum of the length 4 bytes
    data
    checksum of the data   4 bytes

where a checksum is CRC-32C, rotated right by 15 bits, plus 0xa282ead8.

References:
    Records: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details and
    `tensorflow/core/lib/io/record_writer.cc`. CRC-32C: RFC 3720, appendix B.4. Messages: `event.proto` and
    `summary.proto` in `tensorflow/core`. Encoding: https://protobuf.dev/programming-guides/encoding/.
"""

import struct
from collections.abc import Mapping

VERSION = b"brain.Event:2"
_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, with its bits reversed."""
_WORD = 0xFFFFFFFF
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
"""Kinds of protobuf's fields."""


def record(data: bytes) -> bytes:
    """Return data as a record of a file."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def version_event(wall_time: float) -> bytes:
    """Return the event that a file begins with; times are in seconds since 1970."""
    return _event(wall_time, 0) + _field(3, _BYTES, VERSION)


def start_event(wall_time: float, step: int) -> bytes:
    """Return the event by which what was logged from this step on, by a process before, no longer counts."""
    return _event(wall_time, step) + _field(7, _BYTES, _field(1, _VARINT, _varint(1)))  # SessionLog.START


def scalars_event(wall_time: float, step: int, scalars: Mapping[str, float]) -> bytes:
    """Return the event of some numbers, in single precision, by name."""
    values = (
        _field(1, _BYTES, tag.encode()) + _field(2, _FLOAT, _single_precision(value)) for tag, value in scalars.items()
    )
    return _event(wall_time, step) + _field(5, _BYTES, b"".join(_field(1, _BYTES, value) for value in values))


def text_event(wall_time: float, step: int, tag: str, markdown: str) -> bytes:
    """Return the event of a text."""
    plugin = _field(1, _BYTES, _field(1, _BYTES, b"text"))
    tensor = _field(1, _VARINT, _varint(7)) + _field(2, _BYTES, b"") + _field(8, _BYTES, markdown.encode())  # DT_STRING
    value = _field(1, _BYTES, tag.encode()) + _field(9, _BYTES, plugin) + _field(8, _BYTES, tensor)
    return _event(wall_time, step) + _field(5, _BYTES, _field(1, _BYTES, value))


def crc32c(data: bytes) -> int:
    """Return the cyclic redundancy check CRC-32C of data.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    remainder = _WORD
    for byte in data:
        remainder = _TABLE[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    return remainder ^ _WORD


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_table_entry(byte) for byte in range(256)]
"""What each byte adds to the remainder."""


def _checksum(data: bytes) -> bytes:
    remainder = crc32c(data)
    return struct.pack("<I", ((remainder >> 15 | remainder << 17) + 0xA282EAD8) & _WORD)


def _event(wall_time: float, step: int) -> bytes:
    return _field(1, _DOUBLE, struct.pack("<d", wall_time)) + _field(2, _VARINT, _varint(step))


def _single_precision(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _field(number: int, kind: int, content: bytes) -> bytes:
    length = _varint(len(content)) if kind == _BYTES else b""
    return _varint(number << 3 | kind) + length + content


def _varint(value: int) -> bytes:
    """A whole number from 0 on: 7 bits a byte, the lowest first, each but the last with the eighth bit set."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])
