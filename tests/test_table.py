"""Columns of a table and rows of different lengths in one array, against lists of lists."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import DataConfig
from seqssvae.data.in_memory import make_table
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.table import SymbolColumn, Table, TextColumn, split_symbols

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=12)
CHARACTERS = st.characters(exclude_categories=())  # of every kind, halves of surrogate pairs included
TEXTS = st.lists(st.text(st.one_of(st.sampled_from("ab- é語\U0001f600"), CHARACTERS), max_size=8), max_size=12)
AT_ONCE = st.sampled_from([1, 3, 1 << 14])


def as_lists(rows):
    return [row.tolist() for row in rows]


@pytest.mark.parametrize("count", [1, 3, 1 << 14])
@given(st.data(), ROWS, st.integers(0, 7))
def test_rows_of_different_lengths_are_as_lists_of_lists(count, data, rows, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqssvae.data.ragged.ROWS_AT_ONCE", count)
        array = RaggedArray.from_rows(rows)
        indices = data.draw(st.lists(st.integers(0, len(rows) - 1))) if rows else []
        assert as_lists(array.take(np.array(indices, np.int64))) == [rows[index] for index in indices]
        assert as_lists(array.cut(most)) == [row[:most] for row in rows]
        assert as_lists(array.insert_last(3)) == [[*row, 3] for row in rows]
        assert array.insert_last(3).values.dtype == array.values.dtype == np.int32
        squares = np.arange(10, dtype=np.int32) ** 2
        assert as_lists(array.insert_last(3, squares)) == [[*(value**2 for value in row), 3] for row in rows]
    assert as_lists(array) == rows
    assert array.lengths.tolist() == [len(row) for row in rows]
    assert as_lists(RaggedArray.from_lengths(array.values, array.lengths)) == rows
    if rows:
        assert array[-1].tolist() == rows[-1]
    with pytest.raises(IndexError):
        array[len(rows)]


@given(TEXTS, st.sampled_from(["", " ", "-", "--", "é", "ab"]), AT_ONCE)
def test_texts_are_split_as_one_by_one(texts, separator, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqssvae.data.table.ROWS_AT_ONCE", count)
        column = SymbolColumn.from_texts(iter(texts), separator)
        joined = list(column.joined(separator))
    expected = [tuple(split_symbols(text, separator)) for text in texts]
    assert list(column) == expected
    assert sorted(column.symbols) == sorted({symbol for symbols in expected for symbol in symbols})
    assert joined == [separator.join(symbols) for symbols in expected]
    counts = column.counts()
    assert all(counts[symbol] == sum(row.count(symbol) for row in expected) for symbol in column.symbols)


@given(st.lists(st.lists(st.text(max_size=3), max_size=5), max_size=12), AT_ONCE)
def test_lists_of_symbols_keep_any_symbol(rows, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqssvae.data.table.ROWS_AT_ONCE", count)
        column = SymbolColumn.from_symbols(rows)
    assert list(column) == [tuple(row) for row in rows]


@given(st.lists(st.one_of(st.none(), st.text(max_size=2)), max_size=20), st.data())
def test_a_column_of_texts_has_each_once(texts, data):
    column = TextColumn.from_texts(texts, len(texts))
    assert list(column) == texts
    assert len(set(column.texts)) == len(column.texts)
    assert +Counter(column.counts()) == Counter(text for text in texts if text is not None)
    indices = data.draw(st.lists(st.integers(0, len(texts) - 1))) if texts else []
    part = column.take(np.array(indices, np.int64))
    assert list(part) == [texts[index] for index in indices]
    assert +Counter(part.counts()) == Counter(texts[index] for index in indices if texts[index] is not None)


def test_rows_of_a_table_stay_together():
    table = Table.from_rows(["ab", "c", "da"], ["A", None, "B"], [None, "g", "g"], ["x", "yy", "zzz"], "here")
    part = table.take(np.array([2, 0]), "there")
    assert list(part.sequences) == [("d", "a"), ("a", "b")]
    assert (list(part.labels), list(part.groups)) == (["B", "A"], ["g", None])
    assert list(part.sources.joined("")) == ["zzz", "x"]
    assert (part.lines.tolist(), part.origin, len(part)) == ([2, 0], "there", 2)
    assert list(table.cut(1).sequences.joined("")) == ["a", "c", "d"]
    assert list(table.cut(1).sources.joined("")) == ["x", "y", "z"]
    assert table.take(np.array([1])).origin == "here"


def test_rows_in_memory_become_the_same_table_as_lists_and_as_texts():
    data = DataConfig(separator=" ", source_separator="-")
    texts = make_table(["a bc", "d  "], data, ["A", None], ["g", 7], ["x-y", "z-z"])
    lists = make_table([["a", "bc"], ("d",)], data, ["A", None], ["g", "7"], [["x", "y"], ["z", "z"]])
    assert list(texts.sequences) == list(lists.sequences) == [("a", "bc"), ("d",)]
    assert list(texts.groups) == list(lists.groups) == ["g", "7"]
    assert list(texts.sources) == list(lists.sources) == [("x", "y"), ("z", "z")]
    assert all(type(symbol) is str for symbol in (*lists.sources.symbols, *lists.sequences.symbols))
    assert (texts.lines.tolist(), texts.origin) == ([0, 1], "X")
