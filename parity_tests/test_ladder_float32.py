"""The ladder in float32: every problem of the cover, from the weights to the gradients."""

import pytest

from parity_tests.conftest import FEW, Check, problem_at, problem_numbers, twin_of
from parity_tests.ladder import EVERY_PROBLEM, climb
from parity_tests.twins import JaxTwin, TorchTwin


@pytest.mark.parametrize("index", problem_numbers(FEW))
@pytest.mark.usefixtures("unchecked")  # the ladder in float64 checks the same shapes
def test_every_rung_holds(index: int, check: Check) -> None:
    torch, jax = (twin_of(index, name, "float32") for name in ("torch", "jax"))
    assert isinstance(torch, TorchTwin)
    assert isinstance(jax, JaxTwin)
    check(climb(problem_at(index, "float32"), torch, jax, EVERY_PROBLEM))
