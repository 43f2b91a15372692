"""What must not change the oracle's terms: padding, other rows and labels, a source without weights, filler rows."""

import dataclasses
import math

import numpy as np
import pytest

from parity_tests.fixtures import load_problems
from parity_tests.oracle_rows import Rows
from parity_tests.problems import Options, Problem, make_problem
from seqssvae.data.vocabulary import PAD

PROBLEMS = load_problems()
UNLABELLED = [problem for problem in PROBLEMS if problem.unlabelled]
LABELLED = [problem for problem in PROBLEMS if problem.labelled]


def _name(problem: Problem) -> str:
    return problem.name


def _with_padding(rows: Rows, columns: int) -> Rows:
    """The same rows, padded further; what is drawn for the new steps is opposite to what does nothing."""
    noise = {}
    for name, value in rows.noise.items():
        of_symbols = "encoder.embedding", "encoder.word", "decoder.embedding", "word_dropout", "source.embedding"
        of_steps = name.startswith(of_symbols)
        more = np.zeros((value.shape[0], columns, *value.shape[2:]), dtype=bool) if of_steps else value[:, :0]
        noise[name] = np.concatenate([value, more], axis=1)
    further = ((0, 0), (0, columns))
    source = None if rows.source is None else np.pad(rows.source, further, constant_values=PAD)
    return rows._replace(x=np.pad(rows.x, further, constant_values=PAD), noise=noise, source=source)


@pytest.mark.parametrize("problem", PROBLEMS, ids=_name)
def test_padding_behind_end_changes_nothing(problem: Problem) -> None:
    longer = [
        None if step is None else _with_padding(step.rows(), 2) for step in (problem.labelled, problem.unlabelled)
    ]
    loss = problem.objective(rows=longer)
    np.testing.assert_allclose(loss, problem.objective(), rtol=1e-14)


@pytest.mark.parametrize("problem", UNLABELLED, ids=_name)
def test_rows_and_labels_are_independent(problem: Problem) -> None:
    """Other noise of row 1, and another row 1, change row 1 alone; other noise of label 0, label 0 alone."""
    rows, oracle = problem.unlabelled.rows(), problem.oracle()
    before = oracle.unlabelled_terms(rows, 1.0)
    other_noise = {name: value.copy() for name, value in rows.noise.items()}
    other_noise["z"][:, 1] += 1.0
    other_x = rows.x.copy()
    other_x[1, 0] = 4 if other_x[1, 0] != 4 else 5
    after = oracle.unlabelled_terms(rows._replace(x=other_x, noise=other_noise), 1.0)
    assert not np.any(before.distillation)
    for name in set(before._fields) - {"distillation"}:
        changed = getattr(before, name) != getattr(after, name)
        assert np.all(changed[..., 1])
        assert not np.delete(changed, 1, axis=-1).any()
    other_noise = {**rows.noise, "z": rows.noise["z"].copy()}
    other_noise["z"][0] += 1.0
    after = oracle.unlabelled_terms(rows._replace(noise=other_noise), 1.0)
    real = problem.unlabelled.batch.row_mask
    for old, new in ((before.label_reconstruction, after.label_reconstruction), (before.label_kl_z, after.label_kl_z)):
        np.testing.assert_array_equal(old[0] != new[0], real)
        np.testing.assert_array_equal(old[1:], new[1:])


def test_a_source_that_nothing_listens_to_changes_nothing() -> None:
    """The model without a source is the special case."""
    problem = make_problem(Options(source=True, conditioning="output", attention=True), seed=10)
    weights = dict(problem.weights)
    for name in weights:
        if name.startswith(("label_predictor", "latent_predictor", "decoder.source", "decoder.attention")):
            weights[name] = np.zeros_like(weights[name])
    weights["latent_predictor.scale.bias"] = np.full(2, math.log(math.expm1(1.0 - 1e-4)))
    for name in ("classifier.weight", "latent_encoder.hidden.weight"):
        weights[name] = np.concatenate([weights[name][:, :8], np.zeros_like(weights[name][:, 8:])], 1)
    cut = {name: value[:, :8] for name, value in weights.items() if name.endswith(("classifier.weight",))}
    cut["latent_encoder.hidden.weight"] = weights["latent_encoder.hidden.weight"][:, :8]
    without = dataclasses.replace(problem.oracle(), weights={**weights, **cut})
    rows = problem.unlabelled.rows()
    expected = without.unlabelled_terms(rows._replace(source=None), 0.7)
    for with_source, term in zip(problem.oracle(weights).unlabelled_terms(rows, 0.7), expected, strict=True):
        np.testing.assert_allclose(with_source, term, rtol=1e-12)


@pytest.mark.parametrize("problem", LABELLED, ids=_name)
def test_filler_rows_weigh_nothing(problem: Problem) -> None:
    rows = problem.labelled.rows()
    more = {name: np.concatenate([value, value[:1]]) for name, value in rows.noise.items()}
    x = np.concatenate([rows.x, np.full_like(rows.x[:1], PAD)])
    source = rows.source
    if source is not None:
        source = np.concatenate([source, np.full_like(source[:1], PAD)])
    longer = Rows(x, np.append(rows.y, -1), more, source)
    for old, new in zip(
        problem.oracle().labelled_terms(rows, 0.5), problem.oracle().labelled_terms(longer, 0.5), strict=True
    ):
        np.testing.assert_array_equal(np.append(old, 0.0), new)
    unlabelled = None if problem.unlabelled is None else problem.unlabelled.rows()
    assert problem.objective(rows=(longer, unlabelled)) == problem.objective()
