"""The checks of which the proof consists, as functions: each compares tensors and returns what it found.

Differences are `max|a - b| / max|a|` per tensor. A test asserts that nothing found exceeds its bound; a negative
control plants a defect in one twin and asserts that something does.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from parity_tests.derivatives import complex_step_gradient
from parity_tests.problems import Problem
from parity_tests.twins import JaxTwin, Outputs, Solution, TorchTwin
from seqssvae.config import Precision

BOUNDS: dict[Precision, float] = {"float64": 1e-9, "float32": 1e-5}
"""Greatest relative difference allowed for values and gradients."""

Twin = TorchTwin | JaxTwin


class Finding(NamedTuple):
    """One comparison.

    Args:
        rung: What was compared, in general: a row of the summary.
        what: What was compared, in particular.
        difference: `max|a - b| / max|a|`.
        bound: What it may be at most.
    """

    rung: str
    what: str
    difference: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound (and not NaN)."""
        return self.difference <= self.bound


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """`max|a - b| / max|a|`; where a is all zeros, `max|b|`."""
    if np.shape(a) != np.shape(b):
        return np.inf
    largest = np.max(np.abs(a), initial=0.0)
    return float(np.max(np.abs(np.asarray(a) - b), initial=0.0) / (largest if largest > 0 else 1.0))


def compare(
    rung: str, where: str, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], bound: float
) -> list[Finding]:
    """Compare arrays by name; a name that only one side has is a finding without bound."""
    findings = [
        Finding(rung, f"{where}: {name}", relative_difference(expected[name], found[name]), bound)
        for name in expected
        if name in found
    ]
    odd = set(expected) ^ set(found)
    return findings + [Finding(rung, f"{where}: {name} on one side only", np.inf, bound) for name in sorted(odd)]


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """What does not hold."""
    return [finding for finding in findings if not finding.holds]


def oracle_terms(problem: Problem) -> dict[str, np.ndarray]:
    """Every term of every row by the oracle, named as the twins' are."""
    oracle, terms = problem.oracle(), {}
    if problem.labelled is not None:
        found = oracle.labelled_terms(problem.labelled.rows(), problem.beta)
        for name in ("reconstruction", "kl_z", "kl_y", "classification"):
            terms[f"labelled.{name}"] = np.asarray(getattr(found, name))
    if problem.unlabelled is not None:
        unlabelled = oracle.unlabelled_terms(problem.unlabelled.rows(), problem.beta)
        for name in ("reconstruction", "kl_z", "kl_y"):
            terms[f"unlabelled.{name}"] = np.asarray(getattr(unlabelled, name))
        terms["unlabelled.classification"] = np.zeros(len(problem.unlabelled.batch.y))
    return terms


def check_terms(problem: Problem, twin: Twin, solution: Solution) -> list[Finding]:
    """Loss and every ELBO term of a twin against the oracle."""
    bound = BOUNDS[twin.precision]
    rung = f"ELBO terms, {twin.name} and oracle, {twin.precision}"
    loss = compare(rung, problem.name, {"loss": problem.objective()}, {"loss": solution.loss}, bound)
    return loss + compare(rung, problem.name, oracle_terms(problem), solution.terms, bound)


def check_outputs_with_oracle(problem: Problem, twin: Twin, outputs: Outputs) -> list[Finding]:
    """What every network returns, against the oracle."""
    x, z = evaluation_inputs(problem)
    oracle = problem.oracle()
    loc, scale = oracle.posterior(x)
    expected = {
        "log_q_y": oracle.log_q_y(x),
        "loc": loc,
        "scale": scale,
        "log_prob_steps": oracle.step_log_probabilities(x, z),
        **{f"features.{index}": part for index, part in enumerate(oracle.features(x))},
    }
    rung = f"network outputs, {twin.name} and oracle, {twin.precision}"
    return compare(rung, problem.name, expected, named_outputs(outputs), BOUNDS[twin.precision])


def named_outputs(outputs: Outputs) -> dict[str, np.ndarray]:
    """Network outputs by name."""
    features = {f"features.{index}": part for index, part in enumerate(outputs.features)}
    return {**features, **{name: getattr(outputs, name) for name in ("log_q_y", "loc", "scale", "log_prob_steps")}}


def evaluation_inputs(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a problem without filler rows, and a z of shape `(K, B, Z)` for them."""
    batch = problem.steps()[0].batch
    x = batch.x[batch.row_mask]
    generator = np.random.default_rng(len(problem.name))
    return x, generator.normal(size=(problem.options.label_count, len(x), problem.config.model.latent_size))


def check_twins(problem: Problem, torch: Solution, jax: Solution, precision: Precision) -> list[Finding]:
    """Loss, terms and the gradient of every weight: the twins against each other."""
    bound = BOUNDS[precision]
    return [
        *compare(f"ELBO terms, torch and jax, {precision}", problem.name, torch.terms, jax.terms, bound),
        *compare(
            f"ELBO terms, torch and jax, {precision}", problem.name, {"loss": torch.loss}, {"loss": jax.loss}, bound
        ),
        *compare(f"gradients, torch and jax, {precision}", problem.name, torch.gradients, jax.gradients, bound),
    ]


def check_gradients_with_oracle(problem: Problem, twin: Twin, solution: Solution) -> list[Finding]:
    """The gradient of every weight against the oracle's, by complex step."""
    expected = complex_step_gradient(problem.objective, problem.weights)
    rung = f"gradients, {twin.name} and oracle, {twin.precision}"
    return compare(rung, problem.name, expected, solution.gradients, BOUNDS[twin.precision])
