import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import DataConfig
from seqssvae.data.files import read_table
from seqssvae.errors import DataError

FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\ufeff"), max_size=8)


def message_of(path, data, labelled=True):
    with pytest.raises(DataError) as caught:
        read_table(path, data, labelled)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def rows_of(table):
    """Sequence, label, group and line of each row."""
    return list(zip(table.sequences, table.labels, table.groups, table.lines.tolist(), strict=True))


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "rows.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_columns_labels_and_lines(write):
    path = write("ab\tA\tg1\nc\t\t\nd\tB\tg1\n")
    table = read_table(path, DataConfig(group_column=3))
    assert rows_of(table) == [(("a", "b"), "A", "g1", 1), (("c",), None, None, 2), (("d",), "B", "g1", 3)]
    assert table.origin == str(path)
    assert table.sources is None


def test_columns_in_another_order(write):
    data = DataConfig(sequence_column=3, label_column=1, group_column=2)
    assert rows_of(read_table(write("A\tg1\tab\n"), data)) == [(("a", "b"), "A", "g1", 1)]


def test_no_label_column(write):
    assert rows_of(read_table(write("ab\tA\n"), DataConfig(label_column=0))) == [(("a", "b"), None, None, 1)]


def test_without_labels_only_the_sequence_is_needed(write):
    data = DataConfig(group_column=3)
    table = read_table(write("ab\nc\tA\tg\n"), data, labelled=False)
    assert rows_of(table) == [(("a", "b"), None, None, 1), (("c",), None, None, 2)]


def test_separator_and_header(write):
    path = write("word\tlanguage\nk ae  t\ten\n")
    table = read_table(path, DataConfig(separator=" ", header=True))
    assert rows_of(table) == [(("k", "ae", "t"), "en", None, 2)]


@pytest.mark.parametrize("content", ["a\tA\nb\tB\n", "a\tA\r\nb\tB\r\n", "\ufeffa\tA\nb\tB", "a\tA\r\nb\tB"])
def test_line_ends_and_byte_order_mark(write, content):
    assert [row[:2] for row in rows_of(read_table(write(content), DataConfig()))] == [(("a",), "A"), (("b",), "B")]


def test_nothing_but_line_ends_is_stripped_and_nothing_is_a_quote(write):
    path = write(' a \t "A" \n"b\tB\u2028\x0c\n')
    assert [row[:2] for row in rows_of(read_table(path, DataConfig()))] == [
        ((" ", "a", " "), ' "A" '),
        (('"', "b"), "B\u2028\x0c"),
    ]


@given(rows=st.lists(st.tuples(FIELDS.filter(bool), FIELDS, FIELDS), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_is_read(tmp_path_factory, rows, end):
    path = tmp_path_factory.mktemp("tsv") / "rows.tsv"
    path.write_bytes("".join("\t".join(row) + end for row in rows).encode())
    read = rows_of(read_table(path, DataConfig(group_column=3)))
    assert [("".join(symbols), label or "", group or "") for symbols, label, group, _ in read] == rows
    assert [line for *_, line in read] == list(range(1, len(rows) + 1))
    assert all(label != "" and group != "" for _, label, group, _ in read)


def plain_read(text, columns, separator, header):
    """Rows (or the line and the kind of the first mistake), read line by line."""
    rows = []
    text = text.removeprefix("\ufeff")
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        line = line.removesuffix("\r")
        if "\r" in line:
            return number, "carriage return"
        if header and number == 1:
            continue
        fields = line.split("\t")
        if len(fields) < max(columns):
            return number, "no column"
        sequence, label, group = (fields[column - 1] if column else "" for column in columns)
        symbols = [symbol for symbol in sequence.split(separator) if symbol] if separator else list(sequence)
        if not symbols:
            return number, "is empty"
        rows.append((tuple(symbols), label or None, group or None, number))
    return rows or (0, "nothing after" if header else "file is empty")


PIECES = st.sampled_from(
    ["\t", "\n", "\r", "\r\n", "a", "é", "語", "\U0001f600", "-", "--", " ", "\ufeff", "\u2028", "b\tA\n"]
)


@given(
    text=st.lists(PIECES, max_size=30).map("".join),
    columns=st.sampled_from([(1, 2, 0), (2, 1, 0), (1, 0, 0), (1, 2, 3), (3, 0, 1)]),
    separator=st.sampled_from(["", " ", "-", "--", "é"]),
    header=st.booleans(),
    at_once=st.sampled_from([1, 2, 1 << 14]),
)
def test_a_file_is_read_as_line_by_line(tmp_path_factory, text, columns, separator, header, at_once):
    path = tmp_path_factory.mktemp("tsv") / "rows.tsv"
    path.write_bytes(text.encode())
    names = dict(zip(("sequence_column", "label_column", "group_column"), columns, strict=True))
    data = DataConfig(separator=separator, header=header, **names)
    expected = plain_read(text, columns, separator, header)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqssvae.data.table.ROWS_AT_ONCE", at_once)
        patch.setattr("seqssvae.data.tsv.BYTES_AT_ONCE", at_once)
        if isinstance(expected, list):
            assert rows_of(read_table(path, data)) == expected
        else:
            line, mistake = expected
            message = message_of(path, data)
            assert mistake in message
            assert not line or message.startswith(f":{line}: ")


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
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = write("a\tA\n")
    monkeypatch.setattr("builtins.open", refuse)
    assert message_of(path, DataConfig()) == ": the file cannot be read (Permission denied); check its permissions."
