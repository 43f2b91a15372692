"""Negative controls: every defect planted into one twin is found by the ladder's own checks."""

from functools import cache

import pytest

from parity_tests.conftest import CONTROL, Check
from parity_tests.defects import DEFECTS, Defect, plant
from parity_tests.ladder import Rung, check_objective, check_trajectories, climb
from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import TWINS, JaxTwin, TorchTwin
from seqssvae.config import OptimizerConfig

pytestmark = pytest.mark.usefixtures("unchecked")  # the ladder in float64 checks the same shapes

OPTIONS = {
    "gru": Options(conditioning="every_step", kind="unlabelled"),
    "labelled": Options(conditioning="every_step", kind="labelled", dropout=0.3, word_dropout=0.4),
    "lstm": Options(cell="lstm", conditioning="every_step", kind="unlabelled"),
    "output": Options(conditioning="output", kind="unlabelled"),
    "convolution": Options(
        name="classifier", encoder="both", dropout=0.3, consistency=0.7, aligned=True, realigned=True, shifted=True
    ),
    "context": Options(context=2, kind="unlabelled", source=True, attention=False),
    "exact": Options(posterior="exact", posterior_temperature=None, kind="unlabelled"),
    "given": Options(name="classifier", posterior="given"),
    "source": Options(conditioning="init", kind="unlabelled", source=True),
}
"""The least that shows a defect: rows of all lengths, a filler row, and a beta that is not 1."""
MOVED = "labelled"
"""The problem whose weights are moved as well: elsewhere it would cost jax another compilation and show no more."""


def rungs(name: str) -> tuple[Rung, ...]:
    """Enough of the ladder."""
    return (check_objective, check_trajectories) if name == MOVED else (check_objective,)


@cache
def problem(name: str) -> Problem:
    """What shows a defect."""
    return make_problem(OPTIONS[name], seed=5, name=f"control-{name}", optimizer=OptimizerConfig(clip_norm=0.5))


@cache
def sound(twin: str, name: str) -> TorchTwin | JaxTwin:
    """The twin as it is."""
    return TWINS[twin](problem(name))


def pair(planted: str, name: str) -> tuple[TorchTwin, JaxTwin]:
    """One twin built anew, the other as it is."""
    torch, jax = (TWINS[twin](problem(name)) if twin == planted else sound(twin, name) for twin in ("torch", "jax"))
    assert isinstance(torch, TorchTwin)
    assert isinstance(jax, JaxTwin)
    return torch, jax


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_is_found_where_nothing_is_planted(check: Check, name: str) -> None:
    check(climb(problem(name), *pair("none", name), rungs(name)))


@pytest.mark.parametrize(
    ("defect", "twin"),
    [(defect, twin) for defect in DEFECTS for twin in defect.twins],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_defect_is_found(
    defect: Defect, twin: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = defect.problem
    sound("jax" if twin == "torch" else "torch", name).restart()
    plant(defect, twin, monkeypatch)
    caught = next((one for one in climb(problem(name), *pair(twin, name), rungs(name)) if not one.holds), None)
    assert caught is not None, f"{defect.name} in {twin} went unnoticed"
    request.node.user_properties.append((CONTROL, (defect.name, twin, *caught)))
