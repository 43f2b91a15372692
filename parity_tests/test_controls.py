"""Negative controls: every defect planted into one twin is found by the ladder's own checks."""

from functools import cache

import pytest

from parity_tests.conftest import CONTROL, Check
from parity_tests.defects import ARRAYS, DEFECTS, Defect, plant, read_step_by_step
from parity_tests.defects import TWINS as PACKAGES
from parity_tests.ladder import check_objective, check_trajectories, climb
from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import TWINS, JaxTwin, TorchTwin
from seqssvae.config import OptimizerConfig

RUNGS = (check_objective, check_trajectories)
"""Enough of the ladder: what is above and below costs jax more compilations and sees no more."""


@cache
def problem() -> Problem:
    """Labelled and unlabelled rows of all lengths, with dropout, a filler row, and a beta that is not 1."""
    options = Options(
        conditioning="every_step",
        kind="mixed",
        dropout=0.3,
        word_dropout=0.4,
        beta=0.3,
        encoder_word_dropout=0.4,
        consistency=0.7,
        aligned=True,
    )
    return make_problem(options, seed=5, name="control", optimizer=OptimizerConfig(clip_norm=0.5))


@cache
def sound(name: str) -> TorchTwin | JaxTwin:
    """The twin as it is."""
    return TWINS[name](problem())


def pair(planted: str) -> tuple[TorchTwin, JaxTwin]:
    """One twin built anew, the other as it is."""
    torch, jax = (TWINS[name](problem()) if name == planted else sound(name) for name in ("torch", "jax"))
    assert isinstance(torch, TorchTwin)
    assert isinstance(jax, JaxTwin)
    return torch, jax


def test_nothing_is_found_where_nothing_is_planted(check: Check) -> None:
    check(climb(problem(), *pair("none"), RUNGS))


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_nor_where_a_twin_reads_step_by_step(check: Check, monkeypatch: pytest.MonkeyPatch, twin: str) -> None:
    read_step_by_step(monkeypatch, PACKAGES[twin], ARRAYS[twin])
    check(climb(problem(), *pair(twin), RUNGS))


@pytest.mark.parametrize(
    ("defect", "twin"),
    [(defect, twin) for defect in DEFECTS for twin in defect.twins],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_defect_is_found(
    defect: Defect, twin: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    sound("jax" if twin == "torch" else "torch").restart()
    plant(defect, twin, monkeypatch)
    caught = next((one for one in climb(problem(), *pair(twin), RUNGS) if not one.holds), None)
    assert caught is not None, f"{defect.name} in {twin} went unnoticed"
    request.node.user_properties.append((CONTROL, (defect.name, twin, *caught)))
