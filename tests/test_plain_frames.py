"""Columns of pandas' frames are read by position: any index, any type of column, categorical and missing entries."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import NAMES, TEXTS
from toy import make_estimator as make

from seqssvae.data.plain import as_list
from seqssvae.errors import DataError

pandas = pytest.importorskip("pandas")

pytestmark = pytest.mark.usefixtures("fake_twins")

TEXT = st.text("abc", min_size=1, max_size=3)


def index_of(kind, count, random):
    """An index of another order than the rows."""
    numbers = random.sample(range(count), count)
    return {
        "shuffled": pandas.Index(numbers),
        "doubled": pandas.Index([0] * count),
        "texts": pandas.Index([f"row{number}" for number in numbers]),
        "dates": pandas.Timestamp("2020") + pandas.to_timedelta(numbers, unit="D"),
        "levels": pandas.MultiIndex.from_tuples([(number % 2, number) for number in numbers]),
    }[kind]


INDEXES = st.sampled_from(["shuffled", "doubled", "texts", "dates", "levels"])
MAKERS = {
    "object": lambda values: pandas.Series(values, dtype=object),
    "string": lambda values: pandas.Series(values, dtype="string"),
    "categorical": lambda values: pandas.Series(
        pandas.Categorical(values, categories=["unused", *sorted(set(values) - {None})])
    ),
}


@given(st.lists(st.none() | TEXT, min_size=1), st.sampled_from(sorted(MAKERS)), INDEXES, st.randoms())
def test_columns_of_texts(values, maker, kind, random):
    column = MAKERS[maker](values)
    column.index = index_of(kind, len(values), random)
    assert as_list(column, "y") == values
    assert as_list(column.to_frame(), "y") == values
    assert as_list(column.array, "y") == values


@given(st.lists(st.none() | st.integers(-5, 5), min_size=1), INDEXES, st.randoms())
def test_columns_of_numbers(values, kind, random):
    for dtype in ("Int64", "float64", "object", "Float32"):
        column = pandas.Series(values, index=index_of(kind, len(values), random), dtype=dtype)
        assert as_list(column, "y") == values


def test_missing_dates_are_missing():
    days = pandas.to_datetime(["2020-01-01", None])
    assert as_list(pandas.Series(days, index=[1, 0]), "y") == [pandas.Timestamp("2020-01-01"), None]
    assert as_list([pandas.NaT, pandas.NA, "a"], "y") == [None, None, "a"]


def test_a_frame_of_several_columns_is_refused():
    with pytest.raises(DataError, match="X is a frame of 2 columns; give one of them"):
        as_list(pandas.DataFrame({"a": ["x"], "b": ["y"]}), "X")


@cache
def without_a_frame():
    """Probabilities and score of what was fitted to lists."""
    fitted = make(epochs=1).fit(TEXTS, NAMES, [index // 6 for index in range(60)])
    return fitted.predict_proba(TEXTS), fitted.score(TEXTS, NAMES)


@settings(max_examples=15)
@given(INDEXES, st.randoms())
def test_an_estimator_gives_each_row_its_own_source_label_and_group(kind, random):
    frame = pandas.DataFrame({"x": TEXTS, "y": NAMES, "g": [index // 6 for index in range(60)]})
    frame.index = index_of(kind, 60, random)
    frame["y"] = frame["y"].astype("category")
    probabilities, score = without_a_frame()
    fitted = make(epochs=1).fit(frame["x"], frame["y"], frame["g"])
    np.testing.assert_array_equal(fitted.predict_proba(frame["x"]), probabilities)
    assert fitted.score(frame["x"], frame["y"]) == score
