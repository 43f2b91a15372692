"""Every program of JAX lowers for GPU and TPU without one, asks the host for nothing, and gives its state away."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

import seqssvae_jax.ops.recurrence_custom_vjp
import seqssvae_jax.optimizers
from parity_tests.elsewhere import METHODS, WITH_SOURCE, Case, problem_of
from parity_tests.problems import Problem
from seqssvae.config import DecodingOptions
from seqssvae_jax.backend import JaxBackend
from seqssvae_jax.rows import arrays_of

PLATFORMS = ("cuda", "tpu")
STEPS = ("labelled and unlabelled", "labelled", "unlabelled")
JAX_CASES: tuple[Case, ...] = (("lstm", "every_step", 1), ("gru", "output", 1))
PROGRAMS = [
    *product(JAX_CASES, ("unlabelled", "evaluate", "classify", *METHODS)),
    *product(JAX_CASES[1:], STEPS[:2]),
    *product([("gru", f"every_step{WITH_SOURCE}", 1)], ("unlabelled", "greedy")),
]
"""With either cell, each kind of step with one; `every_step` has all that `init` has."""
CALL_OF_HOST = re.compile("callback|debug_print|infeed|outfeed")
CALL_OF_HOST_LOWERED = re.compile(r"custom_call @\w*callback\w*|stablehlo\.(?:send|recv|infeed|outfeed)\b")


def trace(backend: JaxBackend, problem: Problem, program: str, method: Any = None) -> Any:
    """One of the backend's compiled methods, traced with arguments as they are in use.

    Args:
        backend: The backend.
        problem: What it is given.
        program: Which method; a training step by the kinds of its rows.
        method: Another function for a training step than the backend's.
    """
    assert problem.labelled is not None
    assert problem.unlabelled is not None
    labelled, unlabelled = arrays_of(problem.labelled.batch), arrays_of(problem.unlabelled.batch)
    weights, stream = backend.state.weights, backend.stream(3)
    if program in STEPS:
        rows = labelled if "labelled" in program.split() else None, unlabelled if "unlabelled" in program else None
        return (method or backend._train).trace(backend.state, *rows, 0.3, 0.01, 1.0, 0.7, stream)
    if program == "evaluate":
        return backend._evaluate.trace(weights, unlabelled, stream)
    if program == "classify":
        return backend._classify.trace(weights, unlabelled.x, unlabelled.source)
    labels, source = np.array([0, 1, 2], np.int32), None if unlabelled.source is None else unlabelled.source[:3]
    options = {"options": DecodingOptions(6, program, 2), "use_mean": False}
    return backend._generate.trace(weights, labels, None, source, stream, 0.8, 0.9, **options)


@cache
def jax_backend(case: Case) -> JaxBackend:
    """The JAX twin of a case, which compiles nothing."""
    problem = problem_of(case)
    return JaxBackend(problem.config, problem.dimensions)


@cache
def traced(case: Case, program: str) -> Any:
    """One of its programs."""
    return trace(jax_backend(case), problem_of(case), program)


@cache
def lowered(case: Case, program: str) -> Any:
    """The same for platforms that are not here."""
    return traced(case, program).lower(lowering_platforms=PLATFORMS)


@cache
def text(case: Case, program: str) -> str:
    """The same as StableHLO, which is what a platform's compiler is given."""
    return lowered(case, program).as_text()


def primitives(jaxpr: Jaxpr) -> Iterator[str]:
    """Names of all operations, also of those in loops, branches and functions within."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for part in jax.tree.leaves(equation.params, is_leaf=lambda part: isinstance(part, ClosedJaxpr | Jaxpr)):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                yield from primitives(part.jaxpr if isinstance(part, ClosedJaxpr) else part)


def calls_of_host(traced: Any) -> set[str]:
    """The operations that would interrupt a program to ask the host for something."""
    return {name for name in primitives(traced.jaxpr.jaxpr) if CALL_OF_HOST.search(name)}


def given_away(text: str) -> int:
    """How many arguments' buffers a lowered program writes its results to."""
    return len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", text))


@pytest.mark.parametrize(("case", "program"), PROGRAMS, ids=str)
class TestEveryProgramOfJax:
    def test_lowers_for_cuda_and_tpu_without_a_call_of_the_host(self, case: Case, program: str) -> None:
        assert {"dot_general", "scan"} <= set(primitives(traced(case, program).jaxpr.jaxpr))
        assert calls_of_host(traced(case, program)) == set()
        assert not traced(case, program).jaxpr.effects
        assert CALL_OF_HOST_LOWERED.findall(text(case, program)) == []

    def test_is_in_float32(self, case: Case, program: str) -> None:
        assert "xf32>" in text(case, program)
        assert "f64>" not in text(case, program)

    def test_gives_away_its_state_if_it_returns_one_and_nothing_else(self, case: Case, program: str) -> None:
        first, *others = lowered(case, program).args_info[0]
        donated = [leaf.donated for leaf in jax.tree.leaves(first)]
        assert all(donated) if program in STEPS else not any(donated)
        assert not any(leaf.donated for leaf in jax.tree.leaves(others))
        assert given_away(text(case, program)) == sum(donated)


def printing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which also prints."""

    def prints(*arguments: Any) -> Any:
        jax.debug.print("{}", jax.tree.leaves(arguments)[0].sum())
        return function(*arguments)

    return prints


def computed_by_the_host(gradients: dict[str, jax.Array], clip_norm: float) -> tuple[dict[str, jax.Array], jax.Array]:
    """Gradients as they are, and a norm that NumPy computes."""
    norm = jax.pure_callback(
        lambda values: np.sqrt(sum(np.sum(np.square(value)) for value in values.values())).astype(np.float32),
        jax.ShapeDtypeStruct((), np.float32),
        gradients,
    )
    return gradients, norm


@pytest.mark.parametrize(
    ("place", "planted", "call"),
    [
        (
            (seqssvae_jax.ops.recurrence_custom_vjp.Layer, "gates"),
            printing(seqssvae_jax.ops.recurrence_custom_vjp.Layer.gates),
            "debug_print|debug_callback",
        ),
        ((seqssvae_jax.optimizers, "clip_gradients"), computed_by_the_host, "pure_callback"),
    ],
    ids=["printing within the loop over time", "a norm by the host"],
)
def test_a_call_of_the_host_is_caught(
    place: tuple[Any, str], planted: Callable[..., Any], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lowered text is that for the platform that is here: for others JAX lowers no such call at all."""
    monkeypatch.setattr(*place, planted)
    problem = problem_of(JAX_CASES[1])
    step = trace(JaxBackend(problem.config, problem.dimensions), problem, "labelled")
    (lowered_call,) = calls_of_host(step)
    assert re.fullmatch(call, lowered_call)
    assert CALL_OF_HOST_LOWERED.search(step.lower().as_text())


def test_a_step_that_keeps_its_state_is_caught() -> None:
    backend = jax_backend(JAX_CASES[1])
    step = trace(backend, problem_of(JAX_CASES[1]), "labelled", method=jax.jit(backend._drawn_step))
    assert given_away(step.lower(lowering_platforms=PLATFORMS).as_text()) == 0
