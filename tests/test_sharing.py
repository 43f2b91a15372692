"""A batch that two devices share gives the loss, gradient and steps of one device, however labels are spread."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sharing_cases import CASES

AT_EVERY_CHANGE = 3
CHOSEN = [
    pytest.param((twin, most), marks=mark, id=f"{twin}-{most}")
    for most, mark in ((AT_EVERY_CHANGE, ()), (len(CASES), pytest.mark.thorough))
    for twin in ("torch", "jax")
]


@pytest.fixture(scope="module", params=CHOSEN)
def results(request, tmp_path_factory):
    """The folder with what one device and two devices of a twin have found."""
    twin, most = request.param
    folder = tmp_path_factory.mktemp(twin)
    script = Path(__file__).with_name("sharing_cases.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run(
        [sys.executable, script, twin, folder, str(most)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def worst(first: dict, second: dict, prefix: str = "") -> float:
    """The greatest difference of arrays, each relative to its greatest entry; infinite where one is not finite."""
    differences = [0.0]
    for name in (name for name in first if name.startswith(prefix)):
        a, b = np.asarray(first[name], float), np.asarray(second[name], float)
        assert a.shape == b.shape, name
        difference = np.abs(a - b).max(initial=0.0) / max(np.abs(a).max(initial=0.0), 1e-3)
        differences.append(float(np.nan_to_num(difference, nan=np.inf)))
    return max(differences)


def test_two_devices_compute_what_one_does(results):
    """Loss, gradient, terms of each row, an evaluation, and what three steps report and leave, in float64."""
    for number, case in enumerate(CASES[: len(list(results.glob("? 1.npz")))]):
        one, two = (dict(np.load(results / f"{number} {devices}.npz")) for devices in (1, 2))
        assert one.keys() == two.keys()
        assert worst(one, two) < 1e-12, case


def test_labels_that_are_spread_otherwise_are_other_problems(results):
    """If all cases were one problem, the test above would show less than it seems to."""
    first, second = (dict(np.load(results / f"{number} 2.npz")) for number in (0, 1))
    assert worst(first, second, "gradient") > 1e-3


def test_a_mean_of_the_devices_means_is_another_gradient(results):
    """Had each device taken the other to have as many rows and labels as itself, the test above would have failed."""
    one, planted = (dict(np.load(results / f"{name}.npz")) for name in ("0 1", "mean of means"))
    assert worst(one, planted, "loss") > 1e-3
    assert worst(one, planted, "gradient") > 1e-3
