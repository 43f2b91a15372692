"""Rows without label that come from elsewhere: which they are, and that nothing is learned from them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import TEXTS, make_estimator, toy_config

from seqssvae.config.settings import from_dict
from seqssvae.data.in_memory import make_table
from seqssvae.data.prepare import prepare_table
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import END, SPECIALS
from seqssvae.recipes import auto
from seqssvae.recipes.auto import learning_rows
from seqssvae.recipes.familiar import LEAST_SHARE, are_familiar
from seqssvae.recipes.named import with_recipe

LABELS = [name if index < 24 else None for index, name in enumerate(["left", "right"] * 30)]
ELSEWHERE = ["wxyz" * (1 + index % 3) for index in range(40)]


def ragged(*rows: list[int]) -> RaggedArray:
    return RaggedArray.from_rows([[*row, END] for row in rows])


def prepared_with(others: list[str], **settings):
    config = from_dict(with_recipe("auto", {"data": {"minimum_count": 1, "validation_fraction": 0.0}, **settings}))
    return config, prepare_table(make_table(TEXTS + others, config.data, LABELS + [None] * len(others)), config)


def test_rows_of_symbols_that_no_labelled_row_has_are_not_familiar():
    labelled = ragged([4, 5], [5, 4, 4], [4, 5, 6])  # of the last row a third is in no other
    familiar = are_familiar(labelled, ragged([4, 4], [7, 8, 9], [4, 7], [7, 4, 8], []), 10)
    assert familiar.tolist() == [True, False, True, False, True]


def test_rows_differ_no_more_than_labelled_rows_do_from_each_other():
    labelled = ragged([4, 5, 6], [7, 8, 9], [10, 11, 12])  # words of which no two rows share one
    assert are_familiar(labelled, ragged([13, 14, 15], [13, 13]), 16).all()


def test_a_few_odd_rows_are_as_the_others():
    labelled, count = ragged([4, 5], [5, 4]), 40
    few, many = int(LEAST_SHARE * count) - 1, int(LEAST_SHARE * count)
    for odd in (few, many):
        familiar = are_familiar(labelled, ragged(*[[7, 8]] * odd, *[[4, 5]] * (count - odd)), 9)
        assert familiar.sum() == (count if odd == few else count - odd)


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 40))
def test_a_row_is_familiar_unless_more_than_half_of_it_is_unknown(seed, labelled, symbols):
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.full(symbols, 0.3))
    sizes = generator.integers(1, 20, labelled + 100)
    rows = [(4 + generator.choice(symbols, size, p=shares)).tolist() for size in sizes]
    familiar = are_familiar(ragged(*rows[:labelled]), ragged(*rows[labelled:]), 4 + symbols)
    known = set().union(*rows[:labelled])
    unknown = [np.mean([symbol not in known for symbol in row]) for row in rows[labelled:]]
    assert familiar[np.array(unknown) <= 0.5].all()


def test_there_may_be_no_rows_without_label():
    assert are_familiar(ragged([4]), ragged(), 5).tolist() == []


def test_candidates_learn_from_the_same_rows_as_without_those_from_elsewhere():
    texts = []
    for others in ([], ELSEWHERE):
        config, prepared = prepared_with(others)
        rows, symbols = learning_rows(config, prepared).unlabelled, prepared.schema.vocabulary.symbols
        texts.append(sorted("".join(symbols[symbol - len(SPECIALS)] for symbol in row[:-1]) for row in rows))
    assert texts[0] == texts[1] == sorted(text for text, label in zip(TEXTS, LABELS, strict=True) if label is None)


def test_neither_does_the_network_learn_from_them_and_it_is_said(fake_twins, monkeypatch):
    seen, before = [], auto.fit

    def note(config, training, *rest):
        seen.append(training)
        return before(config, training, *rest)

    monkeypatch.setattr(auto, "fit", note)
    config = toy_config()
    config = replace(config, objective=replace(config.objective, posterior="given"))
    with pytest.warns(UserWarning, match="Of 57 rows without label 30 consist mostly of symbols that no labelled row"):
        make_estimator(recipe="auto", config=config).fit(TEXTS + ELSEWHERE, LABELS + [None] * len(ELSEWHERE))
    assert np.sum(seen[-1].y < 0) <= len(TEXTS) - 24
