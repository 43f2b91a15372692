import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import DataConfig
from seqssvae.data.tsv import Row, read_rows
from seqssvae.errors import DataError

FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\ufeff"), max_size=8)


def message_of(path, data, labelled=True):
    with pytest.raises(DataError) as caught:
        read_rows(path, data, labelled)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "rows.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_columns_labels_and_lines(write):
    path = write("ab\tA\tg1\nc\t\t\nd\tB\tg1\n")
    assert read_rows(path, DataConfig(group_column=3)) == [
        Row(("a", "b"), "A", "g1", 1),
        Row(("c",), None, None, 2),
        Row(("d",), "B", "g1", 3),
    ]


def test_columns_in_another_order(write):
    data = DataConfig(sequence_column=3, label_column=1, group_column=2)
    assert read_rows(write("A\tg1\tab\n"), data) == [Row(("a", "b"), "A", "g1", 1)]


def test_no_label_column(write):
    assert read_rows(write("ab\tA\n"), DataConfig(label_column=0)) == [Row(("a", "b"), None, None, 1)]


def test_without_labels_only_the_sequence_is_needed(write):
    data = DataConfig(group_column=3)
    assert read_rows(write("ab\nc\tA\tg\n"), data, labelled=False) == [
        Row(("a", "b"), None, None, 1),
        Row(("c",), None, None, 2),
    ]


def test_separator_and_header(write):
    path = write("word\tlanguage\nk ae  t\ten\n")
    assert read_rows(path, DataConfig(separator=" ", header=True)) == [Row(("k", "ae", "t"), "en", None, 2)]


@pytest.mark.parametrize("content", ["a\tA\nb\tB\n", "a\tA\r\nb\tB\r\n", "\ufeffa\tA\nb\tB", "a\tA\r\nb\tB"])
def test_line_ends_and_byte_order_mark(write, content):
    assert [row[:2] for row in read_rows(write(content), DataConfig())] == [(("a",), "A"), (("b",), "B")]


def test_nothing_but_line_ends_is_stripped_and_nothing_is_a_quote(write):
    path = write(' a \t "A" \n"b\tB\u2028\x0c\n')
    assert [row[:2] for row in read_rows(path, DataConfig())] == [
        ((" ", "a", " "), ' "A" '),
        (('"', "b"), "B\u2028\x0c"),
    ]


@given(rows=st.lists(st.tuples(FIELDS.filter(bool), FIELDS, FIELDS), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_is_read(tmp_path_factory, rows, end):
    path = tmp_path_factory.mktemp("tsv") / "rows.tsv"
    path.write_bytes("".join("\t".join(row) + end for row in rows).encode())
    read = read_rows(path, DataConfig(group_column=3))
    assert [("".join(row.symbols), row.label or "", row.group or "") for row in read] == rows
    assert [row.line for row in read] == list(range(1, len(rows) + 1))
    assert all(row.label != "" and row.group != "" for row in read)


def test_missing_file(tmp_path):
    assert message_of(tmp_path / "none.tsv", DataConfig()) == ": there is no such file; check the path."


def test_directory(tmp_path):
    assert message_of(tmp_path, DataConfig()) == ": this is a directory; give a TSV file."


def test_empty_file(write):
    expected = ": the file is empty; it must have a row per line, with columns separated by tabs."
    assert message_of(write(""), DataConfig()) == expected
    assert message_of(write("\ufeff"), DataConfig()) == expected


def test_header_and_nothing_else(write):
    assert "nothing after the header line" in message_of(write("a\tb\n"), DataConfig(header=True))


@pytest.mark.parametrize(
    ("content", "place", "byte"),
    [
        (b"a\tA\nb\tB\n\xe9t\xe9\tC\n", ":3:", "0xe9"),
        (b"\xff\xfea\x00\t\x00", ":1:", "0xff"),
        (b"a\tA\r\nb\t\xc3", ":2:", "0xc3"),
    ],
)
def test_not_utf8_names_the_line(write, content, place, byte):
    message = message_of(write(content), DataConfig())
    assert message.startswith(f"{place} byte {byte} is not UTF-8; save the file in UTF-8")


@pytest.mark.parametrize(
    ("data", "line", "missing", "count", "remedy"),
    [
        (DataConfig(), 2, 2, "1 column", "set data.label_column to 0"),
        (DataConfig(label_column=4), 1, 4, "2 columns", "set data.label_column to 0"),
        (DataConfig(sequence_column=3), 1, 3, "2 columns", "set data.sequence_column to"),
        (DataConfig(label_column=0, group_column=2), 2, 2, "1 column", "set data.group_column to"),
    ],
)
def test_wrong_column_names_line_and_field(write, data, line, missing, count, remedy):
    message = message_of(write("a\tA\nb\n"), data)
    assert message.startswith(f":{line}: there is no column {missing} among {count}; ")
    assert remedy in message


@pytest.mark.parametrize("content", ["a\tA\n\tB\n", "a\tA\n \tB\n", "a\tA\n  \t\n"])
def test_empty_sequence_names_the_line(write, content):
    message = message_of(write(content), DataConfig(separator=" "))
    assert re.match(r":2: the sequence is empty; remove the line", message)


def test_empty_line_is_an_empty_sequence(write):
    assert message_of(write("a\n\nb\n"), DataConfig(label_column=0)).startswith(":2: the sequence is empty")


def test_carriage_returns_alone_are_no_line_ends(write):
    assert message_of(write("a\tA\rb\tB\r"), DataConfig()).startswith(":1: a carriage return within the line; save")


def test_unreadable_file_says_why(write, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    path = write("a\tA\n")
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert message_of(path, DataConfig()) == ": the file cannot be read (Permission denied); check its permissions."
