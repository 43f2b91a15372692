"""Columns of polars' and Arrow's frames, and NumPy's arrays of texts, are read as lists are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import NAMES, TEXTS
from toy import make_estimator as make

from seqssvae.data.in_memory import read_labels, read_sequences
from seqssvae.data.plain import as_list
from seqssvae.errors import DataError

TEXT = st.text("abc", min_size=1, max_size=3)


@given(st.lists(st.none() | TEXT, min_size=1), st.sampled_from(["String", "Categorical", "Object"]))
def test_columns_of_polars(values, kind):
    polars = pytest.importorskip("polars")
    column = polars.Series("y", values, dtype=getattr(polars, kind))
    assert as_list(column, "y") == values
    assert as_list(polars.DataFrame([column]), "y") == values
    if kind != "Object":
        assert as_list(column.to_arrow(), "y") == values
        assert as_list(polars.DataFrame([column]).to_arrow(), "y") == values


def test_numbers_of_polars_with_nulls_and_nan_are_labels_with_missing_ones():
    polars = pytest.importorskip("polars")
    assert read_labels(polars.Series([1, None, 2]), 3, None) == [1, None, 2]
    assert read_labels(polars.Series([1.0, None, float("nan")]), 3, None) == [1.0, None, None]


def test_frames_of_several_columns_are_refused():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": ["x"], "b": ["y"]})
    for wrong in (frame, frame.to_arrow()):
        with pytest.raises(DataError, match="X is a frame of 2 columns; give one of them"):
            read_sequences(wrong)


@given(st.lists(TEXT, min_size=1))
def test_arrays_of_texts_hold_texts_and_not_symbols(texts):
    strings = [np.array(texts), np.array(texts, object), np.array(texts, np.dtypes.StringDType())]
    for array in strings:
        assert read_sequences(array) == texts
        assert read_sequences(array[:, None]) == texts  # a column of a frame, by frame[["name"]].values
        assert read_sequences(array[None, :].T) == texts


def test_an_estimator_takes_a_column_in_every_form(fake_twins):
    polars, pandas = pytest.importorskip("polars"), pytest.importorskip("pandas")
    index = np.random.default_rng(0).permutation(60)
    frame = pandas.DataFrame({"seq": TEXTS, "y": [*NAMES[:40], *[None] * 20]}, index=index)
    frame["y"] = frame["y"].astype("category")
    other = polars.DataFrame({"seq": TEXTS, "y": [*NAMES[:40], *[None] * 20]})
    expected = make(epochs=1).fit(TEXTS, [*NAMES[:40], *[None] * 20]).predict_proba(TEXTS)
    for X, y in (
        (frame[["seq"]], frame["y"]),
        (frame[["seq"]].values, frame["y"].to_numpy()),
        (np.array(TEXTS), frame[["y"]]),
        (other["seq"], other["y"]),
        (other[["seq"]], other.to_arrow()["y"]),
    ):
        np.testing.assert_array_equal(make(epochs=1).fit(X, y).predict_proba(X), expected)
