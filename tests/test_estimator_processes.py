"""A fitted estimator crosses to other processes, as joblib and scikit-learn's tools ask of it."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score
from toy import NAMES, OTHER_NAMES, OTHER_TEXTS, TEXTS, toy_config

from seqssvae.errors import ConfigurationError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE


@pytest.fixture(scope="module", params=["torch", "jax"])
def fitted(request):
    return SequenceSSVAE(backend=request.param, recipe="ssvae", config=toy_config(), epochs=1, max_steps=1).fit(
        TEXTS, NAMES
    )


def test_a_pickle_has_the_same_weights_and_optimizer(fitted, tmp_path):
    expected = fitted.predict_proba(OTHER_TEXTS)
    for copied in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(copied.predict_proba(OTHER_TEXTS), expected)
        for name, value in fitted.fitted_.backend.get_optimizer_state().items():
            np.testing.assert_array_equal(copied.fitted_.backend.get_optimizer_state()[name], value)
        assert copied.sample("left", n=3) == fitted.sample("left", n=3)
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(fitted))
    code = f"import pickle; print(pickle.load(open({str(path)!r}, 'rb')).predict({OTHER_TEXTS[:5]!r}).tolist())"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(fitted.predict(OTHER_TEXTS[:5]).tolist())


@pytest.mark.parametrize("fitted", ["torch", pytest.param("jax", marks=pytest.mark.thorough)], indirect=True)
def test_joblib_and_scikit_learn_s_tools_work_in_processes(fitted):
    (predicted,) = Parallel(n_jobs=2)(delayed(fitted.predict)(texts) for texts in [OTHER_TEXTS])
    assert predicted.tolist() == fitted.predict(OTHER_TEXTS).tolist()
    assert cross_val_score(SequenceSSVAE(**fitted.get_params()), TEXTS, NAMES, cv=2, n_jobs=2).shape == (2,)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), cv=2, n_jobs=2).fit(TEXTS, NAMES)
    assert calibrated.predict_proba(OTHER_TEXTS).shape == (len(OTHER_NAMES), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "topk"}, "method must be one of sample, greedy, beam, not 'topk'"),
        ({"n": -1}, "a whole number of at least 0 and at most 100000000, not -1"),
        ({"n": 2.5}, "a whole number of at least 0 and at most 100000000, not 2.5"),
        (
            {"beam_width": 0, "method": "beam"},
            "beam_width must be a whole number of at least 1 and at most 1000, not 0",
        ),
        ({"beam_width": 10**9, "method": "beam"}, "of at least 1 and at most 1000, not 1000000000"),
        ({"max_length": 10**9}, "of at least 1 and at most 100000, not 1000000000"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1 and at most 100000, not 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
    ],
)
def test_what_sample_cannot_do_is_refused(fitted, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        fitted.sample("left", **arguments)
    assert fitted.sample("left", n=0) == []


@pytest.mark.parametrize("device", ["cpu:0", "cpu"])
def test_a_device_may_have_a_number(device):
    from seqssvae_jax.compilation import device_named

    assert device_named(device).platform == "cpu"
    for wrong in ("cpu:99", "cpu:x", "abacus:1"):
        with pytest.raises(ConfigurationError, match=f"JAX has no device '{wrong}' here"):
            device_named(wrong)
