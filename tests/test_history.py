"""`history_`: the evaluations of a training as records and as a table, after `fit` and from a run directory."""

import json
import math
import pickle
import sys

import pandas
import pytest
from commands import FIT
from hypothesis import given
from hypothesis import strategies as st
from toy import NAMES, TEXTS, make_estimator

from seqssvae.cli.main import main
from seqssvae.errors import MissingPackageError, RunError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.inference.metrics import Metrics
from seqssvae.runs.files import metrics_line, read_metrics
from seqssvae.training.history import History, flatten
from seqssvae.training.state import Record

pytestmark = [pytest.mark.usefixtures("fake_twins"), pytest.mark.filterwarnings("ignore:The generator's bound")]

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**40)
OPTIONAL = {name: st.none() | NUMBERS for name in Metrics._fields[3:]}
METRICS = st.builds(Metrics, rows=COUNTS, labelled_rows=COUNTS, symbols=COUNTS, **OPTIONAL)
RECORDS = st.builds(
    Record, COUNTS, COUNTS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, METRICS, st.none() | METRICS, st.none() | NUMBERS
)
ONE = Record(5, 2, 1.5, 0.5, 0.01, 3.0, Metrics(8, 4, 60, loss=2.0, elbo=-9.0), Metrics(6, 6, 50, accuracy=0.5), 0.25)


def test_an_estimator_has_a_record_of_each_evaluation():
    model = make_estimator(epochs=3, patience=0).fit(TEXTS, NAMES)
    assert type(model.history_) is History
    assert [record.epoch for record in model.history_] == [1, 2, 3]
    assert model.history_[-1].step == model.fitted_.checkpoint.state.step
    assert model.history_[-1].validation.accuracy > 0.5
    assert not hasattr(make_estimator(), "history_")
    assert pickle.loads(pickle.dumps(model.history_)) == model.history_


def test_a_run_directory_keeps_the_history(tmp_path):
    model = make_estimator(epochs=3, patience=0).fit(TEXTS, NAMES)
    model.save(tmp_path / "run")
    loaded = SequenceSSVAE.load(tmp_path / "run")
    assert type(loaded.history_) is History
    assert loaded.history_ == model.history_
    pandas.testing.assert_frame_equal(loaded.history_.to_frame(), model.history_.to_frame())


def test_a_run_of_the_command_line_has_a_history_resumed_or_not(workplace):
    assert main([*FIT, "--training.patience=0"]) == 0
    assert main(["fit", "--resume", "run", "--training.epochs=6"]) == 0
    history = SequenceSSVAE.load("run").history_
    assert [record.to_dict() for record in history] == read_metrics("run")
    assert [record.epoch for record in history] == [1, 2, 3, 4, 5, 6]


def test_a_frame_has_a_row_for_each_step_and_a_column_for_each_value():
    second = ONE._replace(step=9, validation=None, standard_error=None)
    frame = History([ONE, second]).to_frame()
    assert frame.index.name == "step"
    assert frame.index.tolist() == [5, 9]
    own = ["epoch", "seconds", "beta", "learning_rate", "gradient_norm", "standard_error"]
    metrics = [f"{rows}.{name}" for rows in ("training", "validation") for name in Metrics._fields]
    assert frame.columns.tolist() == own + metrics
    assert frame.loc[5, "training.elbo"] == -9.0
    assert frame.loc[5, "validation.accuracy"] == 0.5
    assert frame["training.rows"].tolist() == [8, 8]
    assert frame["epoch"].dtype == int
    assert math.isnan(frame.loc[9, "validation.accuracy"])
    assert math.isnan(frame.loc[5, "training.accuracy"])
    assert math.isnan(frame.loc[9, "standard_error"])
    assert not (set(frame.dtypes) - {frame["epoch"].dtype, frame["beta"].dtype})  # no column of objects


def test_an_empty_history_is_an_empty_frame_with_the_same_columns():
    assert History().to_frame().columns.tolist() == History([ONE]).to_frame().columns.tolist()
    assert len(History().to_frame()) == 0


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match="to_frame needs pandas, which is not installed: pip install pandas"):
        History([ONE]).to_frame()


@given(st.lists(RECORDS, max_size=3))
def test_records_go_through_lines_and_back(records):
    assert History.from_lines(map(metrics_line, records), "run") == records


@given(RECORDS)
def test_flat_values_are_those_of_the_record(record):
    flat = flatten(record, "/")
    assert flat["step"] == record.step
    assert flat["training/elbo"] == record.training.elbo
    assert ("validation/elbo" in flat) == (record.validation is not None)
    assert len(flat) == 7 + len(Metrics._fields) * (1 if record.validation is None else 2)


def test_what_json_does_not_know_is_not_a_number():
    (back,) = History.from_lines([metrics_line(ONE._replace(gradient_norm=math.inf))], "run")
    assert math.isnan(back.gradient_norm)
    assert back._replace(gradient_norm=3.0) == ONE


def test_lines_of_other_versions_are_read():
    stored = json.loads(metrics_line(ONE))
    del stored["standard_error"], stored["training"]["elbo"]
    stored["later"] = stored["training"]["later"] = "something"
    (back,) = History.from_lines([json.dumps(stored)], "run")
    assert back == ONE._replace(standard_error=None, training=ONE.training._replace(elbo=None))


@pytest.mark.parametrize(
    "change",
    [
        {"step": "5"},
        {"step": True},
        {"beta": "high"},
        {"training": None},
        {"training": [1, 2]},
        {"training": {"rows": 1}},
        {"validation": {"rows": 1, "labelled_rows": 1, "symbols": 1.5}},
        {"validation": {"rows": 1, "labelled_rows": 1, "symbols": 1, "accuracy": [1]}},
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_place(change):
    lines = [metrics_line(ONE), json.dumps({**json.loads(metrics_line(ONE)), **change})]
    with pytest.raises(RunError, match=r"^run: line 2 of metrics\.jsonl is not the record of an evaluation"):
        History.from_lines(lines, "run")
