"""Observers that an estimator is given."""

import pickle
import warnings

import pytest
from event_series import series
from sklearn.base import clone
from toy import NAMES, TEXTS, make_estimator

from seqssvae.errors import ConfigurationError
from seqssvae.loggers import TensorBoardLogger


@pytest.mark.usefixtures("fake_twins")
@pytest.mark.filterwarnings("ignore:The generator's bound")
def test_callbacks_of_an_estimator_observe_its_network(tmp_path):
    logger = TensorBoardLogger(tmp_path / "logs")
    model = make_estimator(epochs=2, callbacks=[logger])
    assert model.get_params()["callbacks"] == [logger]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(TEXTS, NAMES)
    expected = [one.step for one in model.history_]
    assert [step for step, _ in series(tmp_path / "logs", "validation/accuracy")] == expected
    copy = clone(model).fit(TEXTS, NAMES)  # its own file, in the same directory: the steps are there once
    assert copy.callbacks[0] is not logger
    assert [step for step, _ in series(tmp_path / "logs", "validation/accuracy")] == expected
    assert pickle.loads(pickle.dumps(copy.callbacks))[0].path == logger.path


@pytest.mark.usefixtures("fake_twins")
@pytest.mark.parametrize(
    ("callbacks", "kind"), [(["tensorboard"], "str"), ([TensorBoardLogger], "TensorBoardLogger"), (3, "int")]
)
def test_callbacks_must_be_observers(callbacks, kind):
    with pytest.raises(ConfigurationError, match=rf"callbacks must be .*Observers .*not {kind}\."):
        make_estimator(callbacks=callbacks).fit(TEXTS, NAMES)
