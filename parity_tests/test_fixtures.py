"""The shared problems: what is on file, and that it covers what it should."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from parity_tests.cover import cover, groups_to_cover, uncovered
from parity_tests.fixtures import (
    FACTORS,
    FURTHER_FACTORS,
    JOINT,
    POSTERIOR_FACTORS,
    SOURCE_FACTORS,
    SOURCE_JOINT,
    arrays_of,
    generate_problems,
    load_problem,
    load_problems,
    problem_files,
    save_problem,
)
from parity_tests.problems import Options, Problem, make_problem
from seqssvae.backend import NO_LABEL
from seqssvae.data.vocabulary import END, PAD, START
from seqssvae.noise import noise_specs

PROBLEMS = load_problems()


def _without_arrays(problem: Problem) -> dict:
    arrays = dict.fromkeys(("weights", "labelled", "unlabelled"))
    return {**{field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}, **arrays}


def _differences(a: Problem, b: Problem) -> list[str]:
    """Names of what is not exactly the same in two problems."""
    names = [name for name, value in _without_arrays(a).items() if value != _without_arrays(b)[name]]
    first, second = arrays_of(a), arrays_of(b)
    for name in sorted(first.keys() | second.keys()):
        pair = first.get(name), second.get(name)
        if pair[0] is None or pair[1] is None or pair[0].dtype != pair[1].dtype or not np.array_equal(*pair):
            names.append(name)
    return names


def test_files_hold_what_the_code_generates() -> None:
    generated = generate_problems()
    assert [path.stem for path in problem_files()] == [problem.name for problem in generated]
    for on_file, problem in zip(PROBLEMS, generated, strict=True):
        assert _differences(on_file, problem) == []


def test_files_are_small_and_their_headers_are_json() -> None:
    assert sum(path.stat().st_size for path in problem_files()) < 1_000_000
    for path in problem_files():
        with safe_open(path, framework="numpy") as file:
            assert json.loads(file.metadata()["problem"])["name"] == path.stem


def test_a_problem_survives_its_file_and_a_changed_one_is_noticed(tmp_path: Path) -> None:
    problem = make_problem(Options(dropout=0.3, word_dropout=0.4), seed=40)
    path = tmp_path / "problem.safetensors"
    save_problem(problem, path)
    first = path.read_bytes()
    assert _differences(load_problem(path), problem) == []
    save_problem(problem, path)
    assert path.read_bytes() == first
    problem.unlabelled.noise["z"][0, 0, 0] = np.nextafter(problem.unlabelled.noise["z"][0, 0, 0], 9.0)
    assert _differences(load_problem(path), problem) == ["unlabelled/noise/z"]
    assert _differences(load_problem(path), dataclasses.replace(problem, beta=0.5, labelled=None))[0] == "beta"


def test_every_pair_of_options_occurs() -> None:
    combinations = [vars(problem.options) for problem in PROBLEMS if not problem.options.source]
    with_source = [vars(problem.options) for problem in PROBLEMS if problem.options.source]
    posterior = [vars(problem.options) for problem in PROBLEMS if problem.name.startswith("posterior")]
    assert uncovered(POSTERIOR_FACTORS, posterior) == []
    further = [vars(problem.options) for problem in PROBLEMS if problem.name.startswith("further")]
    assert uncovered(FACTORS, combinations, JOINT) == []
    assert uncovered(SOURCE_FACTORS, with_source, SOURCE_JOINT) == []
    assert uncovered(FURTHER_FACTORS, further) == []
    assert 15 <= len(combinations) <= 50
    assert any(uncovered(FACTORS, combinations[:i] + combinations[i + 1 :], JOINT) for i in range(len(combinations)))


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3, 4), (2,) * 6, (5, 1, 3, 2)])
def test_a_cover_is_complete_smaller_than_the_product_and_always_the_same(sizes: tuple[int, ...]) -> None:
    factors = {f"option {i}": tuple(f"value {j}" for j in range(size)) for i, size in enumerate(sizes)}
    covering = cover(factors)
    pairs = {(a, one[a], b, one[b]) for one in covering for a in factors for b in factors if a < b}
    expected = sum(sizes[i] * sizes[j] for i in range(len(sizes)) for j in range(i + 1, len(sizes)))
    assert len(pairs) == expected == len(groups_to_cover(factors))
    fewest = np.prod(sorted(sizes)[-2:])
    assert fewest <= len(covering) <= 2 * fewest
    assert cover(factors) == covering


def test_options_taken_together_are_covered_by_their_product() -> None:
    factors = {name: (0, 1, 2) for name in "abcd"}
    covering = cover(factors, joint=[("a", "c", "d")])
    assert {(one["a"], one["c"], one["d"]) for one in covering} == {
        (a, c, d) for a in range(3) for c in range(3) for d in range(3)
    }
    assert len(uncovered(factors, covering[1:], joint=[("a", "c", "d")])) > 0


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_batches_are_ragged_and_well_formed(problem: Problem) -> None:
    options = problem.options
    assert (problem.labelled is not None) == (options.kind != "unlabelled")
    assert (problem.unlabelled is not None) == (options.kind != "labelled")
    for step in problem.steps():
        batch = step.batch
        lengths = (batch.x != PAD).sum(1)
        np.testing.assert_array_equal(batch.row_mask, lengths > 0)
        assert batch.row_mask[-1] != options.filler
        assert lengths[0] == options.shortest
        assert START not in batch.x
        for row, length in zip(batch.x[batch.row_mask], lengths[batch.row_mask], strict=True):
            assert list(row).index(END) == length - 1
            assert (row[length:] == PAD).all()
        observed = step is problem.labelled
        np.testing.assert_array_equal(batch.y != NO_LABEL, batch.row_mask & observed)
        assert batch.y.max() < options.label_count
        label_count = None if observed else options.label_count
        assert (batch.source is not None) == options.source
        if batch.source is not None:
            np.testing.assert_array_equal(batch.row_mask, (batch.source == END).sum(1) == 1)
        specs = noise_specs(problem.config.model, label_count, *batch.x.shape, source_steps=batch.source_steps)
        assert {name: spec.shape for name, spec in specs.items()} == {n: v.shape for n, v in step.noise.items()}


def test_problems_show_every_difference_that_matters() -> None:
    """No weight is zero, some rows fill their batch and some batches have columns of padding, masks drop something."""
    assert all((value != 0).all() for problem in PROBLEMS for value in problem.weights.values())
    steps = [step for problem in PROBLEMS for step in problem.steps()]
    assert {bool((step.batch.x[:, -1] != PAD).any()) for step in steps} == {True, False}
    masks = [mask for step in steps for name, mask in step.noise.items() if name != "z"]
    assert all(0.2 < mask.mean() < 0.95 for mask in masks if mask.size >= 12)
    assert any(not mask.all() for mask in masks)
    first = [step.noise["word_dropout"][:, 0] for step in steps if "word_dropout" in step.noise]
    assert not np.concatenate(first).all()  # START would be replaced here, were it not exempt
    priors = [problem.dimensions.label_prior for problem in PROBLEMS if problem.options.prior == "given"]
    assert all(len(set(prior)) == len(prior) for prior in priors)
    for problem in PROBLEMS:
        np.testing.assert_allclose(sum(problem.dimensions.label_prior), 1.0, rtol=1e-15)
