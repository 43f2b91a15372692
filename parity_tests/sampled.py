"""Problems whose missing labels are drawn, and the expectation over them, which is a sum over finitely many labels."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np

from parity_tests.problems import Arrays, Options, Problem, Step, make_problem
from parity_tests.twins import TWINS, JaxTwin, Solution, TorchTwin
from seqssvae.config import CellName, Conditioning
from seqssvae.noise import SAMPLED
from seqssvae.parameters import baseline_shapes

LABELS = 4
CERTAIN = 1e6
"""Noise that decides which label is drawn, whatever its probability."""


Kind = Literal["mixed", "unlabelled"]


def problem_with(
    estimator: str,
    conditioning: Conditioning = "every_step",
    source: bool = False,
    kind: Kind = "unlabelled",
    **objective: Any,
) -> Problem:
    """A problem with this estimator, whose noise y is drawn with it.

    Its rows have no label, since no estimator has a part in one that is observed, or are of both kinds.
    """
    cell: CellName = "lstm" if conditioning == "init" else "gru"
    options = Options(conditioning=conditioning, label_count=LABELS, cell=cell, filler=True, source=source)
    problem = make_problem(options, seed=11, name=f"{estimator}-{conditioning}")
    config = replace(
        problem.config, objective=replace(problem.config.objective, gradient_estimator=estimator, **objective)
    )
    assert problem.unlabelled is not None
    assert problem.labelled is not None
    generator, particles = np.random.default_rng(5), config.objective.num_particles
    labelled, noise = dict(problem.labelled.noise), dict(problem.unlabelled.noise)
    if estimator in SAMPLED:
        noise["y"] = generator.gumbel(size=(len(problem.unlabelled.batch.x), LABELS))
    if particles > 1:
        labelled["z"] = generator.normal(size=(particles, *labelled["z"].shape))
        noise |= {name: generator.gumbel(size=(particles, *noise[name].shape)) for name in ("z", "y") if name in noise}
    return replace(
        problem,
        config=config,
        labelled=problem.labelled._replace(noise=labelled) if kind == "mixed" else None,
        unlabelled=problem.unlabelled._replace(noise=noise),
    )


@cache
def twin_with(
    name: str,
    estimator: str,
    conditioning: Conditioning = "every_step",
    source: bool = False,
    kind: Kind = "unlabelled",
    **objective: Any,
) -> Any:
    """A twin of such a problem; where labels are scored, it already expects something of each row."""
    twin = TWINS[name](problem_with(estimator, conditioning, source, kind, **objective))
    expect_something(twin)
    return twin


def expect_something(twin: TorchTwin | JaxTwin) -> None:
    """Give a baseline that is not 0."""
    config, dimensions = twin.problem.config, twin.problem.dimensions
    shapes = baseline_shapes(config.objective, dimensions.vocabulary_size)
    generator = np.random.default_rng(17)
    learned = {name: generator.normal(-2.0, 0.5, shape) for name, shape in shapes.items()}
    if learned:
        learned["baseline.mass"] = np.asarray(0.4)
    twin.backend.set_optimizer_state({**twin.backend.get_optimizer_state(), **learned})


def single_rows(problem: Problem) -> Iterator[Step]:
    """The real unlabelled rows, each as a batch of its own, with its noise."""
    step = problem.unlabelled
    assert step is not None
    for b in np.flatnonzero(step.batch.row_mask):
        yield Step(step.batch.take(np.array([b])), {"z": step.noise["z"][:, b : b + 1]})


def solve(twin: TorchTwin | JaxTwin, row: Step, noise: Arrays) -> Solution:
    """Loss, terms and gradients of one unlabelled row."""
    before = twin.problem
    twin.problem = replace(before, labelled=None, unlabelled=row._replace(noise={**row.noise, **noise}))
    solution = twin.solve()
    twin.problem = before
    return solution


def expectation(twin: TorchTwin | JaxTwin, row: Step, k: int) -> Solution:
    """The mean over the label drawn of a row: of those that are not among the k most probable."""
    log_q = twin.backend.classify(row.batch.x, row.batch.source)[0]
    order = np.argsort(-log_q, kind="stable")
    rest = order[k:] if k < LABELS - 1 else order[:1]
    shares = np.exp(log_q[rest]) / np.exp(log_q[rest]).sum()
    of_labels = [solve(twin, row, {"y": CERTAIN * np.eye(LABELS)[[label]]}) for label in rest]

    def mean(of: Callable[[Solution], Arrays]) -> Arrays:
        names = of(of_labels[0])
        return {
            name: np.asarray(sum(p * of(solution)[name] for p, solution in zip(shares, of_labels, strict=True)))
            for name in names
        }

    return Solution(
        mean(lambda solution: {"loss": solution.loss})["loss"],
        mean(lambda solution: solution.terms),
        mean(lambda solution: solution.gradients),
    )


def named(solution: Solution) -> Arrays:
    """All of it by name."""
    return {"loss": solution.loss, **solution.terms, **solution.gradients}
