"""Small problems for the tests that need one of each conditioning and cell, with every label and row distinct."""

from functools import cache

import numpy as np

from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import TWINS, JaxTwin, TorchTwin

CASES = (("gru", "init", 1), ("lstm", "every_step", 2), ("gru", "output", 1))
"""Cell, conditioning and decoder layers."""


@cache
def case(cell: str, conditioning: str, layers: int) -> Problem:
    """An unlabelled problem with K 3 and four real rows."""
    options = Options(
        cell=cell, conditioning=conditioning, decoder_layers=layers, kind="unlabelled", filler=False, label_count=3
    )
    return make_problem(options, seed=7, name=f"{cell}-{conditioning}")


@cache
def twin_of_case(name: str, cell: str, conditioning: str, layers: int) -> TorchTwin | JaxTwin:
    """A twin of it."""
    return TWINS[name](case(cell, conditioning, layers))


def inputs(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Its rows, and z of shape `(K, B, Z)`."""
    assert problem.unlabelled is not None
    return problem.unlabelled.batch.x, problem.unlabelled.noise["z"]
