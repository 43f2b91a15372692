"""The checks of which the proof consists, as functions: each compares arrays and returns what it found.

A test asserts that nothing found exceeds its bound; a negative control plants a defect in one twin and asserts that
something does. `climb` goes from rung to rung, from the weights to whole trajectories.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from parity_tests import decoding
from parity_tests.derivatives import complex_step_gradient
from parity_tests.findings import Finding, compare, failures
from parity_tests.problems import Arrays, Problem
from parity_tests.twins import JaxTwin, Outputs, Solution, TorchTwin
from seqssvae.checks.tolerances import BOUNDS, relative_difference
from seqssvae.checks.verify import ROUNDINGS, sensitivities
from seqssvae.config import Precision
from seqssvae.data.vocabulary import UNK
from seqssvae.runs.storage import parse_safetensors, to_safetensors

__all__ = ["BOUNDS", "Finding", "compare", "failures", "relative_difference"]

TRAJECTORY_BOUNDS: dict[Precision, float] = {"float64": 1e-9, "float32": 1e-4}
"""Greatest relative difference allowed for weights after optimiser steps: differences of gradients add up there."""

Twin = TorchTwin | JaxTwin
Rung = Callable[[Problem, TorchTwin, JaxTwin], list[Finding]]

MAX_LENGTH = 5
BEAM_WIDTH = 4
LEARNING_RATE = 5e-3
"""Of trajectories: large enough to move every weight, small enough that rounding does not grow from step to step."""


def check_round_trip(problem: Problem, torch: TorchTwin, jax: JaxTwin) -> list[Finding]:
    """Weights go from torch through a file to jax, and through another back to torch, without changing a bit."""
    rung = f"weights, torch to file to jax to file to torch, {torch.precision}"
    first = torch.backend.get_weights()
    with TemporaryDirectory() as folder:
        jax.backend.set_weights(_through_file(first, Path(folder) / "there"))
        torch.backend.set_weights(_through_file(jax.backend.get_weights(), Path(folder) / "back"))
    last = torch.backend.get_weights()
    given = {name: value.astype(torch.precision) for name, value in problem.weights.items()}
    return [*compare(rung, problem.name, given, last, 0.0), *compare(rung, problem.name, first, last, 0.0)]


def _through_file(weights: Arrays, path: Path) -> Arrays:
    path.write_bytes(to_safetensors(weights, 0))
    shapes = {name: value.shape for name, value in weights.items()}
    types = {name: value.dtype.name for name, value in weights.items()}
    return parse_safetensors(path.read_bytes(), path, shapes, types)[0]


def check_outputs(problem: Problem, torch: TorchTwin, jax: JaxTwin) -> list[Finding]:
    """What every network returns: each twin against the oracle, then against each other."""
    of_twins = [twin.outputs(*evaluation_inputs(problem), sources(problem)) for twin in (torch, jax)]
    findings = []
    for twin, outputs in zip((torch, jax), of_twins, strict=True):
        findings += check_outputs_with_oracle(problem, twin, outputs)
    ours, theirs = map(named_outputs, of_twins)
    rung = f"network outputs, torch and jax, {torch.precision}"
    return findings + compare(rung, problem.name, ours, theirs, BOUNDS[torch.precision])


def check_outputs_with_oracle(problem: Problem, twin: Twin, outputs: Outputs) -> list[Finding]:
    """What every network of a twin returns, against the oracle."""
    (x, z), source = evaluation_inputs(problem), sources(problem)
    oracle = problem.oracle()
    loc, scale = oracle.posterior(x, source=source)
    expected = {
        "log_q_y": oracle.log_q_y(x, source=source),
        "loc": loc,
        "scale": scale,
        "log_prob_steps": oracle.step_log_probabilities(x, z, source=source),
        **{f"features.{index}": part for index, part in enumerate(oracle.features(x, source=source))},
    }
    rung = f"network outputs, {twin.name} and oracle, {twin.precision}"
    return compare(rung, problem.name, expected, named_outputs(outputs), BOUNDS[twin.precision])


def named_outputs(outputs: Outputs) -> Arrays:
    """Network outputs by name."""
    features = {f"features.{index}": part for index, part in enumerate(outputs.features)}
    return {**features, **{name: getattr(outputs, name) for name in ("log_q_y", "loc", "scale", "log_prob_steps")}}


def evaluation_inputs(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a problem without filler rows, and a z of shape `(K, B, Z)` for them."""
    batch = problem.steps()[0].batch
    x = batch.x[batch.row_mask]
    generator = np.random.default_rng(len(problem.name))
    return x, generator.normal(size=(problem.options.label_count, len(x), problem.config.model.latent_size))


def sources(problem: Problem) -> np.ndarray | None:
    """The sources of the same rows, if they have them."""
    batch = problem.steps()[0].batch
    return None if batch.source is None else batch.source[batch.row_mask]


def check_predictions(problem: Problem, torch: TorchTwin, jax: JaxTwin) -> list[Finding]:
    """The classifier's probabilities, and the embedding of each row: each twin against the oracle and the other."""
    (x, _), source = evaluation_inputs(problem), sources(problem)
    oracle = problem.oracle()
    expected = {"q(y|x)": np.exp(oracle.log_q_y(x, source=source)), "embedding": oracle.embedding(x, source)}
    if source is not None:
        expected["p(y|source)"] = np.exp(oracle.log_p_y(source))
    of_twins = []
    for twin in (torch, jax):
        with twin.backend.exact_products():
            q_y, embedding = np.exp(twin.backend.classify(x, source)), twin.backend.encode(x, source)
            of_twins.append({"q(y|x)": q_y, "embedding": embedding})
            if source is not None:
                of_twins[-1]["p(y|source)"] = np.exp(twin.backend.classify_source(source))
    return _three_ways("predictions", problem, torch.precision, expected, of_twins[0], of_twins[1])


def check_objective(problem: Problem, torch: TorchTwin, jax: JaxTwin) -> list[Finding]:
    """Loss, every ELBO term and the gradient of every weight: terms with the oracle too."""
    solutions = torch.solve(), jax.solve()
    wider = widened(problem) if torch.precision == "float32" else {}
    findings = []
    for twin, solution in zip((torch, jax), solutions, strict=True):
        findings += check_terms(problem, twin, solution, wider)
    return findings + check_twins(problem, *solutions, torch.precision, wider)


def check_terms(
    problem: Problem, twin: Twin, solution: Solution, wider: Mapping[str, float] | None = None
) -> list[Finding]:
    """Loss and every ELBO term of a twin against the oracle; `wider` as of `widened`."""
    bound = BOUNDS[twin.precision]
    rung = f"ELBO terms, {twin.name} and oracle, {twin.precision}"
    loss = compare(rung, problem.name, {"loss": problem.objective()}, {"loss": solution.loss}, bound)
    return _with_bounds(loss + compare(rung, problem.name, oracle_terms(problem), solution.terms, bound), wider)


def oracle_terms(problem: Problem) -> Arrays:
    """Every term of every row by the oracle, named as the twins' are."""
    oracle, terms = problem.oracle(), {}
    if problem.labelled is not None:
        labelled = oracle.labelled_terms(problem.labelled.rows(), problem.beta)
        for name in ("reconstruction", "kl_z", "kl_y", "classification"):
            terms[f"labelled.{name}"] = np.asarray(getattr(labelled, name))
        terms |= {f"labelled.{name}": np.zeros(len(labelled.elbo)) for name in ("consistency", "distillation")}
    if problem.unlabelled is not None:
        given = problem.unlabelled.rows(), problem.beta, 1.0, problem.config.objective
        unlabelled = oracle.unlabelled_terms(*given)
        for name in ("reconstruction", "kl_z", "kl_y", "distillation"):
            terms[f"unlabelled.{name}"] = np.asarray(getattr(unlabelled, name))
        nothing = np.zeros(len(problem.unlabelled.batch.y))
        terms |= {"unlabelled.classification": nothing, "unlabelled.consistency": nothing}
        if problem.options.consistency:
            rows = problem.unlabelled.rows()
            terms["unlabelled.consistency"] = oracle.inconsistency(rows, problem.config.objective.consistency)
    if problem.options.name == "classifier":
        terms |= {name: np.zeros_like(terms[name]) for name in terms if name.endswith(("reconstruction", "z", "kl_y"))}
    return terms


def check_twins(
    problem: Problem, torch: Solution, jax: Solution, precision: Precision, wider: Mapping[str, float] | None = None
) -> list[Finding]:
    """Loss, terms and the gradient of every weight: the twins against each other; `wider` as of `widened`."""
    bound = BOUNDS[precision]
    ours, theirs = ({"loss": solution.loss, **solution.terms} for solution in (torch, jax))
    findings = [
        *compare(f"ELBO terms, torch and jax, {precision}", problem.name, ours, theirs, bound),
        *compare(f"gradients, torch and jax, {precision}", problem.name, torch.gradients, jax.gradients, bound),
    ]
    return _with_bounds(findings, wider)


def _with_bounds(findings: list[Finding], wider: Mapping[str, float] | None) -> list[Finding]:
    return [
        one._replace(bound=max(one.bound, (wider or {}).get(one.what.rpartition(": ")[2], 0.0))) for one in findings
    ]


def widened(problem: Problem) -> dict[str, float]:
    """Bounds in float32, as in `checks.verify`: by how far, in float64, rounding the weights to float32 moves it."""
    exact = TorchTwin(problem)
    moved = sensitivities(exact.backend, *exact.given(), problem.beta, seed=0)
    kinds = [(f", {kind} rows", kind) for kind in ("labelled", "unlabelled")]
    bounds = {}
    for name, value in moved.items():
        kind = next((f"{kind}." for ending, kind in kinds if name.endswith(ending)), "")
        bounds[kind + name.partition(",")[0]] = ROUNDINGS * value
    return bounds


def check_gradients_with_oracle(problem: Problem, *solved: tuple[Twin, Solution]) -> list[Finding]:
    """The gradient of every weight, of each twin, against the oracle's, by complex step (which takes a while)."""
    expected, findings = complex_step_gradient(problem.objective, problem.weights), []
    for twin, solution in solved:
        rung = f"gradients, {twin.name} and oracle, {twin.precision}"
        findings += compare(rung, problem.name, expected, solution.gradients, BOUNDS[twin.precision])
    return findings


def check_trajectories(
    problem: Problem, torch: TorchTwin, jax: JaxTwin, steps: tuple[int, ...] = (1, 10)
) -> list[Finding]:
    """Weights and optimiser state after so many steps on the same rows with the same noise; the twins are as before.

    In float32 the optimiser state is compared after the first step alone: later it averages gradients that grow small
    as the loss falls, while the weights they are taken at differ by their rounding.
    """
    bound, taken, findings = TRAJECTORY_BOUNDS[torch.precision], 0, []
    for count in steps:
        in_torch, in_jax = (twin.train(count - taken, LEARNING_RATE) for twin in (torch, jax))
        taken = count
        name = f"weights after {count} step{'s' * (count > 1)}, torch and jax, {torch.precision}"
        findings += compare(name, problem.name, in_torch, in_jax, bound)
        if count == 1 or torch.precision == "float64":
            states = [twin.backend.get_optimizer_state() for twin in (torch, jax)]
            findings += compare(f"optimiser state, torch and jax, {torch.precision}", problem.name, *states, bound)
    for twin in (torch, jax):
        twin.restart()
    return findings


def check_searches(problem: Problem, torch: TorchTwin, jax: JaxTwin) -> list[Finding]:
    """Greedy decoding and beam search, symbol for symbol, with scores: each twin against the oracle and the other."""
    labels = problem.options.label_count
    y = np.arange(labels + 1, dtype=np.int32) % labels
    z = np.random.default_rng(3).normal(size=(len(y), problem.config.model.latent_size))
    source = sources(problem)
    if source is not None:
        source = source[np.arange(len(y)) % len(source)]
    greedy = decoding.greedy(problem.oracle(), y, z, MAX_LENGTH, source, (UNK,))
    beam = decoding.beam_search(problem.oracle(), y, z, MAX_LENGTH, BEAM_WIDTH, source, (UNK,))
    sequences = [twin.search(y, z, MAX_LENGTH, BEAM_WIDTH, source) for twin in (torch, jax)]
    return [
        *_sequences("greedy decoding", problem, torch.precision, greedy, *(both[0] for both in sequences)),
        *_sequences("beam search", problem, torch.precision, beam, *(both[1] for both in sequences)),
    ]


Sequences = tuple[np.ndarray, np.ndarray]
"""Symbols, and the log-probability of each sequence."""


def _sequences(rung: str, problem: Problem, precision: Precision, *results: Sequences) -> list[Finding]:
    symbols = _three_ways(f"{rung}, symbols", problem, precision, *({"x": x} for x, _ in results), bound=0.0)
    scores = _three_ways(f"{rung}, scores", problem, precision, *({"log p(x|y,z)": score} for _, score in results))
    return symbols + scores


def _three_ways(
    what: str,
    problem: Problem,
    precision: Precision,
    oracle: Mapping[str, np.ndarray],
    torch: Mapping[str, np.ndarray],
    jax: Mapping[str, np.ndarray],
    bound: float | None = None,
) -> list[Finding]:
    bound = BOUNDS[precision] if bound is None else bound
    return [
        *compare(f"{what}, torch and oracle, {precision}", problem.name, oracle, torch, bound),
        *compare(f"{what}, jax and oracle, {precision}", problem.name, oracle, jax, bound),
        *compare(f"{what}, torch and jax, {precision}", problem.name, torch, jax, bound),
    ]


EVERY_PROBLEM: tuple[Rung, ...] = (check_round_trip, check_outputs, check_objective)
"""What is checked for every fixture, in both precisions."""
LADDER: tuple[Rung, ...] = (*EVERY_PROBLEM, check_predictions, check_searches, check_trajectories)
"""All rungs of the ladder."""


def climb(problem: Problem, torch: TorchTwin, jax: JaxTwin, rungs: tuple[Rung, ...] = LADDER) -> Iterator[Finding]:
    """Go up rung by rung; what is above is not computed before it is asked for."""
    for rung in rungs:
        yield from rung(problem, torch, jax)


def in_precision(problem: Problem, precision: Precision) -> Problem:
    """The problem with weights and noise rounded to that precision, so that the oracle solves what the twins do."""

    def rounded(values: Mapping[str, np.ndarray]) -> Arrays:
        return {name: v if v.dtype == bool else v.astype(precision).astype(np.float64) for name, v in values.items()}

    labelled, unlabelled = (
        step and step._replace(noise=rounded(step.noise)) for step in (problem.labelled, problem.unlabelled)
    )
    return replace(problem, weights=rounded(problem.weights), labelled=labelled, unlabelled=unlabelled)
