"""What a GPU takes a training step with, tried on the processor: values and gradients of every problem of the cover."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional

from parity_tests.conftest import Check, problem_at, solution_of
from parity_tests.findings import compare
from parity_tests.ladder import BOUNDS, check_terms
from parity_tests.twins import Solution, TorchTwin
from seqssvae_torch import plain_elbo
from seqssvae_torch.ops import recurrence_fused, symbol_log_probs_fused, use_implementation

MIXED = 3
"""A problem of labelled and unlabelled rows, with filler rows."""


def fused(index: int) -> tuple[TorchTwin, Solution]:
    twin = TorchTwin(problem_at(index, "float64"), "float64")
    with use_implementation("fused"):
        return twin, twin.solve()


def test_terms_are_those_of_the_oracle_and_gradients_those_of_the_twin(index: int, check: Check) -> None:
    problem = problem_at(index, "float64")
    twin, solution = fused(index)
    check(check_terms(problem, twin, solution))
    expected = solution_of(index, "torch", "float64").gradients
    check(compare("gradients, fused and torch, float64", problem.name, expected, solution.gradients, BOUNDS["float64"]))


def _kl_without_the_scale(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plain_elbo, "_log_ratio", lambda q, p, z: (0.5 * (z.square() - q.noise.square())).sum(-1))


def _padding_as_well(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(symbol_log_probs_fused, "PAD", -100)


def _no_second_bias(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recurrence_fused, "functional", _Functional({"pad": lambda bias, _: bias.new_zeros(3 * len(bias))}))


class _Functional:
    def __init__(self, changed: Mapping[str, Callable[..., Any]]) -> None:
        self.changed = changed

    def __getattr__(self, name: str) -> Any:
        return self.changed.get(name) or getattr(functional, name)


def _filler_rows_as_well(patch: pytest.MonkeyPatch) -> None:
    sound = plain_elbo.negative_unlabelled

    def broken(ssvae: Any, rows: Any, *given: Any) -> Any:
        return sound(ssvae, rows._replace(row_mask=torch.ones_like(rows.row_mask)), *given)

    patch.setattr("seqssvae_torch.objectives.negative_unlabelled", broken)


@pytest.mark.parametrize("plant", [_kl_without_the_scale, _padding_as_well, _no_second_bias, _filler_rows_as_well])
def test_a_broken_variant_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem_at(MIXED, "float64").options.filler
    plant(monkeypatch)
    _, broken = fused(MIXED)
    sound = solution_of(MIXED, "torch", "float64").gradients
    findings = compare("gradients", "broken", sound, broken.gradients, BOUNDS["float64"])
    assert any(not finding.holds for finding in findings)
