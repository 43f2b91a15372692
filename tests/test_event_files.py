"""TensorBoard's event files: checksums against the standard, records and messages against TensorBoard's own reader."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.loggers.event_file import crc32c, record, scalars_event, start_event, text_event, version_event

event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
event_file_loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
errors = pytest.importorskip("tensorboard.compat.tensorflow_stub.errors")


def remainder(data: bytes) -> int:
    """CRC-32C by dividing polynomials over GF(2), one bit after the other, as RFC 3720 defines it."""
    bits = [byte >> place & 1 for byte in data for place in range(8)] + [0] * 32  # the lowest bit of a byte first
    for place in range(32):
        bits[place] ^= 1
    divisor = [int(digit) for digit in f"{0x11EDC6F41:033b}"]
    for start in range(len(data) * 8):
        if bits[start]:
            for place, digit in enumerate(divisor):
                bits[start + place] ^= digit
    return sum((bit ^ 1) << place for place, bit in enumerate(bits[-32:]))


def masked(data: bytes) -> bytes:
    crc = remainder(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def split(content: bytes) -> list[bytes]:
    """The data of the records of a file, whose checksums must be right."""
    records = []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert content[8:12] == masked(content[:8])
        data, content = content[12 : 12 + length], content[12 + length :]
        assert len(data) == length
        assert content[:4] == masked(data)
        records.append(data)
        content = content[4:]
    return records


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksums_are_those_of_the_standard(data, crc):
    assert crc32c(data) == remainder(data) == crc  # RFC 3720, B.4; the last but one is the usual check value


@given(st.binary(max_size=64))
def test_checksums_are_remainders(data):
    assert crc32c(data) == remainder(data)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_records_can_be_told_apart_again(parts):
    assert split(b"".join(map(record, parts))) == parts


@pytest.mark.parametrize("place", [0, 8, 12, 20, -1])
def test_a_changed_byte_is_refused_by_tensorboard(tmp_path, place):
    content = bytearray(record(version_event(0.0)) + record(scalars_event(0.0, 1, {"a": 1.0})))
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(content)
    assert len(list(event_file_loader.RawEventFileLoader(str(path)).Load())) == 2
    content[len(record(version_event(0.0))) + place if place >= 0 else place] ^= 1
    path.write_bytes(content)
    reader = event_file_loader._make_tf_record_iterator(str(path))
    next(reader)
    with pytest.raises((errors.DataLossError, StopIteration)):  # a longer length: the record is not complete
        next(reader)
    with pytest.raises(AssertionError):
        split(bytes(content))


TAGS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.floats(width=32), max_size=4)


@given(st.floats(0, 2**40), st.integers(0, 2**62), TAGS)
def test_scalars_are_what_protobuf_reads(wall_time, step, values):
    event = event_pb2.Event.FromString(scalars_event(wall_time, step, values))
    assert (event.wall_time, event.step, event.WhichOneof("what")) == (wall_time, step, "summary")
    assert [value.tag for value in event.summary.value] == list(values)
    for value, expected in zip(event.summary.value, values.values(), strict=True):
        assert value.WhichOneof("value") == "simple_value"
        assert struct.pack("<f", value.simple_value) == struct.pack("<f", expected) or expected != expected


def test_numbers_beyond_single_precision_are_infinite():
    event = event_pb2.Event.FromString(scalars_event(0.0, 1, {"a": 1e300, "b": -1e300}))
    assert [value.simple_value for value in event.summary.value] == [float("inf"), float("-inf")]


def test_other_events_are_what_protobuf_reads():
    assert event_pb2.Event.FromString(version_event(3.0)).file_version == "brain.Event:2"
    start = event_pb2.Event.FromString(start_event(3.0, 300))
    assert (start.step, start.session_log.status) == (300, event_pb2.SessionLog.START)
    (value,) = event_pb2.Event.FromString(text_event(3.0, 7, "config", "größe")).summary.value
    assert (value.tag, value.metadata.plugin_data.plugin_name) == ("config", "text")
    assert list(value.tensor.string_val) == ["größe".encode()]
