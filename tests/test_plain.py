"""What is given in memory is read by position, whatever holds it."""

import datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import NAMES, TEXTS, toy_config
from toy import make_estimator as make

from seqssvae.data.in_memory import make_table, read_labels, read_sequences
from seqssvae.data.plain import as_list, is_missing
from seqssvae.errors import DataError

pytestmark = pytest.mark.usefixtures("fake_twins")

TEXT = st.text("abc", min_size=1, max_size=3)
VALUES = st.one_of(TEXT, st.integers(-5, 5), st.booleans(), st.floats(allow_nan=False), st.dates())
NAT = np.datetime64("NaT")


class Indexed:
    """A column that is found by the labels of an index, as pandas' is, but iterated by position."""

    def __init__(self, values, index):
        self.values, self.index = list(values), list(index)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def __getitem__(self, label):
        return self.values[self.index.index(label)]

    @property
    def shape(self):
        return (len(self.values),)


HOLDERS = {
    "list": lambda values, order: values,
    "tuple": lambda values, order: tuple(values),
    "generator": lambda values, order: (value for value in values),
    "array of objects": lambda values, order: as_objects(values),
    "column": lambda values, order: as_objects(values).reshape(-1, 1),
    "not contiguous": lambda values, order: as_objects([part for value in values for part in (value, "x")])[::2],
    "masked": lambda values, order: np.ma.masked_array(as_objects(values), mask=False),
    "indexed": Indexed,
    "values of a dictionary": lambda values, order: dict(zip(order, values, strict=True)).values(),
}


def as_objects(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


@given(st.lists(VALUES, min_size=1), st.sampled_from(sorted(HOLDERS)), st.randoms())
def test_every_collection_is_read_by_position(values, holder, random):
    order = random.sample(range(len(values)), len(values))
    assert as_list(HOLDERS[holder](values, order), "y") == values


@given(st.lists(st.tuples(TEXT, st.booleans()), min_size=1))
def test_masked_entries_are_missing_and_what_lies_under_a_mask_is_not_read(entries):
    values, mask = zip(*entries, strict=True)
    expected = [None if hidden else value for value, hidden in entries]
    assert as_list(np.ma.masked_array(np.array(values), mask), "y") == expected


@pytest.mark.parametrize(
    "missing",
    [None, float("nan"), np.nan, np.float32("nan"), NAT, np.timedelta64("NaT"), np.ma.masked, Decimal("sNaN")],
)
def test_what_is_missing_is_none_whatever_the_marker(missing):
    assert is_missing(missing)
    assert as_list(["a", missing], "y") == ["a", None]
    assert read_labels(["a", missing, "b"], 3, None) == read_labels(["a", missing, "b"], 3, missing) == ["a", None, "b"]
    assert read_labels(["a", missing, "?"], 3, "?") == ["a", None, None]


@pytest.mark.parametrize("value", ["", "nan", 0, 0.0, float("inf"), False, (), (float("nan"),), Decimal(0), object()])
def test_what_is_a_value_is_not_missing(value):
    assert not is_missing(value)


def test_a_marker_that_is_nan_leaves_minus_one_a_label():
    y = [float("nan"), -1.0, 1.0]
    assert read_labels(y, 3, float("nan")) == [None, -1.0, 1.0]
    with pytest.raises(DataError, match="the labels -1 and 1, but -1 marks"):
        read_labels(y, 3, None)


def test_dates_keep_their_type_and_unit():
    days = np.array(["2020-01-02", "NaT", "2021-03-04"], "datetime64[ns]")
    assert as_list(days, "y") == [days[0], None, days[2]]
    assert as_list([datetime.date(2020, 1, 2)], "y") == [datetime.date(2020, 1, 2)]


@pytest.mark.parametrize("values", ["abc", b"abc", {"a": 1}, {"a"}, 3, np.array(3), np.array("abc"), None])
def test_what_has_no_order_is_refused(values):
    with pytest.raises(DataError, match="y must be a list, an array or a column"):
        as_list(values, "y")


@pytest.mark.parametrize(
    "several", [["x", "y"], np.array(["x", "y"]), {"x"}, {"x": 1}], ids=lambda one: type(one).__name__
)
def test_several_labels_in_one_entry_are_refused(several):
    kind = type(several).__name__
    with pytest.raises(DataError, match=f"y must have one label in each entry, a text or a number, not a {kind}"):
        read_labels([several, "x"], 2, None)


@given(st.randoms())
def test_rows_keep_their_label_group_and_source_whatever_holds_them(random):
    holders = [HOLDERS[random.choice(sorted(HOLDERS))] for _ in range(4)]
    order = random.sample(range(60), 60)
    groups, sources = [index // 6 for index in range(60)], [text[::-1] for text in TEXTS]
    X, y, g, s = (
        holder(values, order) for holder, values in zip(holders, (TEXTS, NAMES, groups, sources), strict=True)
    )
    data = toy_config().data
    table = make_table(read_sequences(X), data, read_labels(y, 60, None), g, read_sequences(s, "source"))
    assert list(table.sequences.joined("")) == TEXTS
    assert list(table.labels) == NAMES
    assert list(table.groups) == list(map(str, groups))
    assert list(table.sources.joined("")) == sources


def test_a_row_without_a_group_is_a_group_of_its_own():
    missing = [float("nan"), None, NAT, np.ma.masked]
    groups = [f"g{index}" if index < 20 else missing[index % 4] for index in range(60)]
    table = make_table(TEXTS, toy_config().data, NAMES, groups)
    assert list(table.groups) == [f"g{index}" for index in range(20)] + [None] * 40


def test_symbols_of_a_row_are_read_by_position_too():
    rows = [Indexed("ab", [7, 0]), np.array(["c", "d"]), ("e",), np.ma.masked_array(["f", "g"], [False, False])]
    assert read_sequences(rows) == [["a", "b"], ["c", "d"], ["e"], ["f", "g"]]
    for wrong in (np.ma.masked_array(["f", "g"], [False, True]), {"a": 1}, ["a", None]):
        with pytest.raises(DataError, match=r"X\[0\]"):
            read_sequences([wrong, ["a"]])


def test_a_missing_sequence_is_named():
    with pytest.raises(DataError, match=r"X\[1\] is missing; leave it out"):
        read_sequences(["ab", float("nan"), "c"])


def test_an_estimator_reads_all_inputs_by_position():
    order, groups = list(reversed(range(60))), [0] * 15 + [None] * 45
    expected = make().fit(TEXTS, NAMES, groups)
    fitted = make().fit(Indexed(TEXTS, order), Indexed(NAMES, order), Indexed(groups, order))
    assert fitted.score(Indexed(TEXTS, order), Indexed(NAMES, order)) == expected.score(TEXTS, NAMES)
    np.testing.assert_array_equal(expected.predict_proba(Indexed(TEXTS, order)), expected.predict_proba(TEXTS))
