"""Labels changed and latents between rows: both twins, symbol for symbol, against the oracle."""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from parity_tests import decoding
from parity_tests.cases import CASES
from parity_tests.problems import Options, Problem, make_problem
from parity_tests.twins import TWINS
from seqssvae.backend import NO_LABEL
from seqssvae.config import DecodingOptions
from seqssvae.data.corpus import Corpus
from seqssvae.data.vocabulary import PAD, UNK, Vocabulary
from seqssvae.inference.generate import Generated
from seqssvae.inference.transfer import interpolate, relabel

KINDS = [*((*options, False) for options in CASES), ("gru", "output", 1, True)]
LONGEST = 6
GREEDY = DecodingOptions(LONGEST, "greedy")


@cache
def problem_of(cell: str, conditioning: str, layers: int, source: bool) -> Problem:
    options = Options(
        cell=cell, conditioning=conditioning, decoder_layers=layers, kind="unlabelled", filler=False, source=source
    )
    return make_problem(options, seed=31)


@cache
def backend_of(name: str, *kind: Any) -> Any:
    return TWINS[name](problem_of(*kind)).backend


def rows_of(problem: Problem, y: np.ndarray) -> tuple[Corpus, Vocabulary]:
    assert problem.unlabelled is not None
    batch = problem.unlabelled.batch
    sources = None if batch.source is None else [row[row != PAD] for row in batch.source]
    corpus = Corpus.from_sequences([row[row != PAD] for row in batch.x], y, sources)
    return corpus, Vocabulary(tuple("abcdefgh"[: problem.dimensions.vocabulary_size - 4]), "")


def expected(problem: Problem, label: int, z: np.ndarray, source: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    return decoding.greedy(problem.oracle(), np.full(len(z), label), z, LONGEST, source, (UNK,))


def check_sequences(generated: list[Generated], vocabulary: Vocabulary, x: np.ndarray, log_p: np.ndarray) -> None:
    assert [one.symbols for one in generated] == [vocabulary.decode(row)[:LONGEST] for row in x]
    np.testing.assert_allclose([one.log_p for one in generated], log_p, rtol=1e-9)


@pytest.mark.parametrize(("kind", "given"), [*product(KINDS, (True,)), (KINDS[0], False)], ids=str)
def test_a_row_with_another_label_is_decoded_from_z_of_its_own(name: str, kind: Any, given: bool) -> None:
    problem = problem_of(*kind)
    assert problem.unlabelled is not None
    batch, oracle = problem.unlabelled.batch, problem.oracle()
    own = np.arange(len(batch.x)) % 3 if given else oracle.log_q_y(batch.x, source=batch.source).argmax(1)
    loc = oracle.posterior(batch.x, None, batch.source)[0]
    corpus, vocabulary = rows_of(problem, own if given else np.full(len(own), NO_LABEL))
    z = loc[own, np.arange(len(own))]
    backend, config = backend_of(name, *kind), problem.config
    relabelled = relabel(backend, vocabulary, corpus, 1, config, GREEDY)
    check_sequences(relabelled, vocabulary, *expected(problem, 1, z, batch.source))
    other = relabel(backend, vocabulary, corpus, 2, config, GREEDY)
    check_sequences(other, vocabulary, *expected(problem, 2, z, batch.source))
    assert not np.allclose([one.log_p for one in relabelled], [one.log_p for one in other])


@pytest.mark.parametrize("kind", KINDS[1:], ids=str)
def test_what_lies_between_two_rows_is_decoded_on_the_straight_line(name: str, kind: Any) -> None:
    problem = problem_of(*kind)
    assert problem.unlabelled is not None
    batch, pair = problem.unlabelled.batch, np.array([0, 2])
    corpus, vocabulary = rows_of(problem, np.full(len(batch.x), NO_LABEL))
    first, last = problem.oracle().posterior(batch.x, None, batch.source)[0][2][pair]
    z = np.array([first + share * (last - first) for share in (0, 0.25, 0.5, 0.75, 1)])
    source = None if batch.source is None else np.tile(batch.source[0], (5, 1))
    between = interpolate(backend_of(name, *kind), vocabulary, corpus.take(pair), 2, 5, problem.config, GREEDY)
    check_sequences(between, vocabulary, *expected(problem, 2, z, source))
