"""The objectives on programs with plates, factors, masks and scales of all kinds, against `TraceEnum_ELBO`."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import plated_programs
import pyro
import pyro.distributions as pdist
import pytest
import torch
from hypothesis import example, given, settings
from plated_programs import PROGRAMS, K, Program, data, solve_jax, solve_torch

from seqssvae_jax import gradient_estimators as in_jax
from seqssvae_torch import gradient_estimators as in_torch
from seqssvae_torch import label_elbo

ONE_HOT = {"torch": in_torch.one_hot, "jax": in_jax.one_hot}
SOLVE = {"torch": solve_torch, "jax": solve_jax}
EXACT: dict[str, Callable[[Any], Any]] = {
    "sequential": lambda module: module.SequentialELBO(),
    "top_k": lambda module: module.TopKELBO(K),
}


def close(ours: Any, theirs: Any) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-10, abs=1e-10)
    for gradient, expected in zip(ours[1], theirs[1], strict=True):
        # of a label that is impossible Pyro's gradient may be NaN
        expected = np.where(np.isnan(expected), 0.0, expected)
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=20)
@given(program=PROGRAMS)
def test_exact_objectives_are_pyros(name: str, program: Program) -> None:
    close(solve_torch(program, EXACT[name]), solve_torch(program, lambda _: None))


@settings(max_examples=3)
@given(program=PROGRAMS)
def test_exact_objectives_are_those_of_the_other_twin(program: Program) -> None:
    program = replace(program, subsampled=False)  # whose rows NumPyro draws
    close(solve_jax(program, EXACT["top_k"]), solve_torch(program, EXACT["top_k"]))
    close(solve_jax(program, EXACT["sequential"]), solve_torch(program, EXACT["sequential"]))


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(Program(), marks=pytest.mark.thorough),
        Program(words=3),
        pytest.param(Program(words=1, rows=1), marks=pytest.mark.thorough),
        Program(words=K, rows=K, word_latents=True, is_global=True),
        Program(sibling=4, factor=True, mask=(True, False), scale=(0.3, 1.0)),
        Program(shared=True),
        Program(rows=0, words=2, factor=True),
        Program(label_mask=True, rows=K),
    ],
    ids=str,
)
def test_exact_objectives_are_numpyros(program: Program) -> None:
    theirs = solve_jax(program, lambda _: None)
    for objective in EXACT.values():
        close(solve_jax(program, objective), theirs)


def draws(program: Program, of_rest: bool) -> Iterator[tuple[float, np.ndarray]]:
    """All ways to draw a label for each row, or one beside the most probable label: probability, and noise for it."""
    q = np.exp(data(program)["logits"])
    q = np.broadcast_to(q / q.sum(-1, keepdims=True), (*program.cells, K)).reshape(-1, K)
    if of_rest:
        q = np.where(np.arange(K) == q.argmax(-1)[:, None], 0.0, q)
        q /= q.sum(-1, keepdims=True)
    for labels in itertools.product(range(K), repeat=len(q)):
        probability = float(np.prod(q[np.arange(len(q)), labels]))
        if probability:
            yield probability, 1e6 * np.eye(K)[list(labels)]


UNBIASED: dict[str, Callable[[Any, Any], Any]] = {
    "top_k": lambda module, noise: module.TopKELBO(1, noise=noise),
    "score_function": lambda module, noise: module.ScoreFunctionELBO(noise=noise),
}


def check_unbiased(twin: str, name: str, program: Program) -> None:
    """The mean over all draws is the exact value, and gradient."""
    array = torch.tensor if twin == "torch" else jnp.asarray
    loss, gradients = 0.0, [np.zeros(1)]
    for probability, noise in draws(program, name == "top_k"):
        drawn = SOLVE[twin](program, lambda module, noise=noise: UNBIASED[name](module, array(noise)))
        loss += probability * drawn[0]
        gradients = [total + probability * part for total, part in zip(gradients * 3, drawn[1], strict=False)]
    close((loss, gradients), SOLVE[twin](program, EXACT["sequential"]))


@pytest.mark.parametrize("name", UNBIASED)
@settings(max_examples=10)
@given(program=PROGRAMS)
@example(program=Program(label_mask=True))
@example(program=Program(impossible=True, ruled_out=True, factor=True))
def test_the_mean_over_draws_is_exact(name: str, program: Program) -> None:
    check_unbiased("torch", name, replace(program, rows=min(program.rows, 2), documents=0))


@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_over_draws_is_exact_in_jax(name: str) -> None:
    check_unbiased("jax", name, Program(label_mask=True, factor=True, impossible=True, ruled_out=True))


@pytest.mark.parametrize("program", [Program(rows=2, depends=False), Program(rows=K, depends=False, words=2)], ids=str)
@pytest.mark.parametrize("twin", SOLVE)
def test_top_k_where_nothing_depends_on_the_label(twin: str, program: Program) -> None:
    close(SOLVE[twin](program, lambda module: module.TopKELBO(1)), solve_torch(program, lambda _: None))


CERTAIN: dict[str, Callable[[Any], Any]] = {
    **EXACT,
    "gumbel_softmax": lambda module: module.GumbelSoftmaxELBO(0.5),
    "score_function": lambda module: module.ScoreFunctionELBO(),
    "top_1": lambda module: module.TopKELBO(1),
}


@pytest.mark.parametrize("twin", SOLVE)
@pytest.mark.parametrize("name", CERTAIN)
def test_all_objectives_have_the_value_of_the_only_possible_label(twin: str, name: str, monkeypatch: Any) -> None:
    """So all of them count each term once, whatever its plates."""
    original = plated_programs.data

    def certain(program: Program) -> dict[str, np.ndarray]:
        values = original(program)
        values["logits"] = np.where(np.arange(K) == 2, values["logits"], -np.inf)
        return values

    monkeypatch.setattr(plated_programs, "data", certain)
    program = Program(rows=2, words=3, word_latents=True, sibling=4, is_global=True, factor=True, scale=(0.3, 2.0))
    loss, gradients = SOLVE[twin](program, CERTAIN[name])
    expected, _ = solve_torch(program, EXACT["sequential"])
    assert loss == pytest.approx(expected, rel=1e-10)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_terms_counted_several_times_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were before each site was summed over its own plates."""
    cells = label_elbo.Cells
    original = cells.summed

    def broadcast(self: Any, name: str, node: Any, log_prob: torch.Tensor) -> Any:
        summed = original(self, name, node, log_prob)
        return torch.zeros(self.shape).flatten() + log_prob.sum() / log_prob.numel() if summed is None else summed

    monkeypatch.setattr(cells, "summed", broadcast)
    program = Program(is_global=True)
    with pytest.raises(AssertionError):
        close(solve_torch(program, EXACT["top_k"]), solve_torch(program, lambda _: None))
    monkeypatch.undo()
    close(solve_torch(program, EXACT["top_k"]), solve_torch(program, lambda _: None))


@pytest.mark.parametrize("twin", SOLVE)
class TestStructuresThatAreNotServedAreNamed:
    def expect(self, twin: str, model: Any, guide: Any, message: str) -> None:
        elbo, given = (in_torch, ()) if twin == "torch" else (in_jax, (jax.random.key(0), {}))
        for objective in CERTAIN.values():
            with pytest.raises(ValueError, match=message):
                objective(elbo).loss(*given, model, guide)

    def parts(self, twin: str) -> tuple[Any, Any, Any]:
        return (pyro, pdist, torch) if twin == "torch" else (numpyro, ndist, jnp)

    def test_what_depends_on_y_outside_of_its_plates(self, twin: str) -> None:
        ppl, dist, np_ = self.parts(twin)

        def programs(observed: bool) -> None:
            with ppl.plate("rows", 2):
                y = ONE_HOT[twin](ppl.sample("y", dist.Categorical(logits=np_.zeros((2, K)))), K)
            if observed:
                ppl.sample("x", dist.Normal(y[..., 0].max() + y[..., :1, 0], 1.0), obs=np_.zeros(1))

        self.expect(twin, lambda: programs(True), lambda: programs(False), "'x' depends on the label, but")

    def test_what_sums_y_up_outside_of_its_plates(self, twin: str) -> None:
        """Where each row is run with one label alone, its shape says nothing of y."""
        ppl, dist, np_ = self.parts(twin)

        def programs(observed: bool) -> None:
            with ppl.plate("rows", 3):
                y = ONE_HOT[twin](ppl.sample("y", dist.Categorical(logits=np_.zeros((3, K)))), K)
            if observed:
                ppl.sample("x", dist.Normal(y[..., 0].sum(-1), 1.0), obs=np_.asarray(0.3))

        message = "'x' depends on the label, but|'x' has a dimension -1 that is no plate|log_prob shape"
        self.expect(twin, lambda: programs(True), lambda: programs(False), message)

    def test_plates_deeper_than_was_said(self, twin: str) -> None:
        ppl, dist, np_ = self.parts(twin)

        def programs(observed: bool) -> None:
            with ppl.plate("rows", 2, dim=-1):
                ppl.sample("y", dist.Categorical(logits=np_.zeros((2, K))))
                if observed:
                    with ppl.plate("words", 4, dim=-2):
                        ppl.sample("x", dist.Normal(np_.zeros((4, 2)), 1.0), obs=np_.zeros((4, 2)))

        elbo, given = (in_torch, ()) if twin == "torch" else (in_jax, (jax.random.key(0), {}))
        with pytest.raises(ValueError, match="'x' is within 2 dimensions of plates: max_plate_nesting must be"):
            elbo.TopKELBO(2, max_plate_nesting=1).loss(*given, lambda: programs(True), lambda: programs(False))

    def test_a_dimension_that_is_no_plate(self, twin: str) -> None:
        ppl, dist, np_ = self.parts(twin)

        def programs(observed: bool) -> None:
            with ppl.plate("rows", 2):
                ppl.sample("y", dist.Categorical(logits=np_.zeros((2, K))))
            if observed:
                ppl.sample("x", dist.Normal(np_.zeros(5), 1.0), obs=np_.zeros(5))

        self.expect(
            twin,
            lambda: programs(True),
            lambda: programs(False),
            "'x' has a dimension -1 that is no plate|invalid log_prob shape",
        )

    def test_a_latent_of_the_model_alone(self, twin: str) -> None:
        ppl, dist, np_ = self.parts(twin)

        def programs(latent: bool) -> None:
            with ppl.plate("rows", 2):
                ppl.sample("y", dist.Categorical(logits=np_.zeros((2, K))))
                if latent:
                    ppl.sample("z", dist.Normal(np_.zeros(2), 1.0))

        self.expect(twin, lambda: programs(True), lambda: programs(False), "latent site 'z' is missing in the guide")

    def test_another_discrete_latent(self, twin: str) -> None:
        ppl, dist, np_ = self.parts(twin)

        def programs() -> None:
            with ppl.plate("rows", 2):
                ppl.sample("y", dist.Categorical(logits=np_.zeros((2, K))))
                ppl.sample("n", dist.Poisson(np_.ones(2)))

        self.expect(twin, programs, programs, "site 'n' must be reparameterized")

    def test_another_distribution_than_a_categorical(self, twin: str) -> None:
        ppl, dist, np_ = self.parts(twin)

        def programs() -> None:
            with ppl.plate("rows", 2):
                ppl.sample("y", dist.Normal(np_.zeros(2), 1.0))

        self.expect(twin, programs, programs, "'y' must have a Categorical distribution, not Normal")
