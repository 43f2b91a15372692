"""Markers of a missing label: one or several, as they are given and as they are saved."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from fake_backend import FakeBackend
from toy import NAMES, TEXTS, make_estimator

from seqssvae.data.in_memory import read_labels
from seqssvae.errors import DataError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "missing", "expected"),
    [
        (["a", "?", "", "b"], ["", "?"], ["a", None, None, "b"]),
        (["a", "?", "", "b"], ("?",), ["a", None, "", "b"]),
        (["a", "?", "b"], {"?", None}, ["a", None, "b"]),
        (["a", "?", "b"], frozenset(), ["a", "?", "b"]),
        (["a", "?", "b"], "?", ["a", None, "b"]),
        ([2, -1, 0, NAN], [0, NAN], [2, -1, None, None]),
        ([2, -1, 0, NAN], None, [2, None, 0, None]),
        ([2, -1, 0, NAN], NAN, [2, -1, 0, None]),
        (np.array(["a", "?"]), ["?"], ["a", None]),
    ],
)
def test_each_marker_is_a_missing_label(values, missing, expected):
    assert read_labels(values, len(values), missing) == expected


@pytest.mark.parametrize("missing", [["", "?"], ("?", ""), ["?", "", NAN, None]])
def test_an_estimator_takes_several_and_keeps_them(missing, tmp_path, monkeypatch):
    fake = SimpleNamespace(name="fake", load=lambda: FakeBackend)
    monkeypatch.setattr("seqssvae.backend.entry_points", lambda group: [fake])
    marked = [name if i % 3 else ("?" if i % 2 else "") for i, name in enumerate(NAMES)]
    with pytest.raises(DataError, match="empty text"):
        make_estimator().fit(TEXTS, marked)
    model = make_estimator(missing=missing).fit(TEXTS, marked)
    assert model.classes_.tolist() == sorted(set(NAMES))
    assert set(model.predict(TEXTS[:4], abstain_below=1.0)) == {None}
    model.save(tmp_path / "run")
    loaded = SequenceSSVAE.load(tmp_path / "run")
    assert set(loaded.missing) == {"", "?"}
    assert loaded.score(TEXTS, marked) == model.score(TEXTS, marked)
    assert not any(isinstance(one, float) and math.isnan(one) for one in loaded.missing)
