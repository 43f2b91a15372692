"""The members of an ensemble and how they are joined, against slow and independent computations."""

from collections import Counter

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from seqssvae.backend import Dimensions
from seqssvae.data.ragged import RaggedArray
from seqssvae.errors import RunError
from seqssvae.recipes.bag import Bag
from seqssvae.recipes.ensemble import ENSEMBLE, GIVEN_UP, NETWORK, Ensemble, learn_ensemble
from seqssvae.recipes.linear import Linear
from seqssvae.recipes.markov import Markov, NgramTree
from seqssvae.recipes.mixture import CountedRows, Mixture
from seqssvae.recipes.ngrams import NgramVocabulary, longest_order, ngram_codes
from seqssvae.recipes.pool import (
    PRECISION,
    Pool,
    calibrate,
    fit_mixture,
    fit_pool,
    fit_temperature,
    pooled_out_of_fold,
)
from seqssvae.recipes.rows import LearningRows, known_only, log_normalised, perplexity, stratified_folds
from seqssvae.recipes.shares import unlabelled_shares

SYMBOLS = st.lists(st.integers(4, 7), min_size=1, max_size=6)
START, END = 2, 3
SIZE = 8


def ragged(rows: list[list[int]]) -> RaggedArray:
    return RaggedArray.from_rows([[*row, END] for row in rows])


def toy_rows(count: int = 30, unlabelled: int = 60, seed: int = 0) -> LearningRows:
    """Two classes with different pairs of symbols."""
    generator = np.random.default_rng(seed)

    def row(label: int) -> list[int]:
        pair = [4, 5] if label == 0 else [5, 4]
        return [symbol for _ in range(generator.integers(1, 4)) for symbol in (*pair, int(generator.integers(6, 8)))]

    y = np.arange(count) % 2
    rows = ragged([row(label) for label in y])
    others = ragged([row(index % 2) for index in range(unlabelled)])
    return LearningRows(rows, y, others, 2, SIZE, stratified_folds(y, np.full(count, -1), 0))


@given(st.lists(SYMBOLS, min_size=1, max_size=5), st.integers(1, 4))
def test_codes_of_ngrams_are_those_of_the_symbols_before(rows, order):
    codes, place = ngram_codes(ragged(rows), SIZE, order), 0
    for row in rows:
        padded = [START] * (order - 1) + [*row, END]
        for end in range(len(row) + 1):
            window = padded[end : end + order]
            assert codes[place] == sum(symbol * SIZE**back for back, symbol in enumerate(reversed(window)))
            place += 1


def test_an_order_whose_codes_do_not_fit_is_refused():
    assert longest_order(10_000, 8) == 4
    with pytest.raises(OverflowError, match="no 64-bit code"):
        ngram_codes(ragged([[4]]), 10_000, 5)


@settings(deadline=None)
@given(st.lists(SYMBOLS, min_size=2, max_size=6), st.integers(1, 3))
def test_counts_are_those_of_ngrams_that_two_rows_have(rows, order):
    def ngrams(row: list[int]) -> Counter:
        padded = [START, *row, END]
        longer = [tuple(padded[i : i + n]) for n in range(2, order + 1) for i in range(len(padded) - n + 1)]
        return Counter([(symbol,) for symbol in row] + longer)

    counted = [ngrams(row) for row in rows]
    frequency = Counter(gram for one in counted for gram in one)
    vocabulary = NgramVocabulary.learn(ragged(rows), SIZE, order)
    kept = {gram for gram, count in frequency.items() if count >= 2}
    assert sum(map(len, vocabulary.codes)) == len(kept)
    matrix = vocabulary.count(ragged(rows)).toarray()
    expected = [sorted(count for gram, count in one.items() if gram in kept) for one in counted]
    assert [sorted(int(value) for value in row if value) for row in matrix] == expected


@settings(deadline=None)
@given(st.lists(SYMBOLS, min_size=1, max_size=5), st.integers(1, 3), st.floats(0.1, 10.0))
def test_ngram_probabilities_are_those_of_the_hierarchy(rows, order, strength):
    """Each is the mean of a Dirichlet posterior, computed here for one n-gram at a time."""
    sequences = ragged(rows)
    tree = NgramTree(np.unique(ngram_codes(sequences, SIZE, order)), SIZE, order)
    background = np.full(len(tree.symbols), 1 / SIZE)
    counts = np.asarray(tree.count(sequences).sum(axis=0)).T
    log_p = tree.log_probabilities(counts, background, strength)[:, 0]
    windows = [
        ((START,) * (order - 1) + tuple([*row, END]))[end : end + order] for row in rows for end in range(len(row) + 1)
    ]

    def probability(window: tuple[int, ...]) -> float:
        if not window:
            return 1 / SIZE
        own = sum(other[-len(window) :] == window for other in windows)
        context = sum(other[-len(window) :][:-1] == window[:-1] for other in windows)
        return (own + strength * probability(window[1:])) / (context + strength)

    for window in set(windows):
        code = sum(symbol * SIZE**back for back, symbol in enumerate(reversed(window)))
        share = np.exp(log_p[np.searchsorted(tree.codes, code)])
        assert share == pytest.approx(probability(window), rel=1e-9)


def test_a_markov_model_gives_unseen_ngrams_the_probability_of_shorter_ones():
    rows = toy_rows()
    member = Markov.learn(rows, rows.label_shares).member
    log_likelihoods = member.log_likelihood(ragged([[4, 7, 7], [5, 4]]))
    alone = np.concatenate([member.log_likelihood(ragged([row])) for row in ([4, 7, 7], [5, 4])])
    np.testing.assert_allclose(log_likelihoods, alone, rtol=1e-12)


def test_members_learn_a_task_of_pairs_and_are_kept_as_arrays():
    rows, others = toy_rows(), toy_rows(seed=1)
    shares = np.array([0.5, 0.5])
    for kind, learned in {
        Linear: Linear.learn(rows),
        Bag: Bag.learn(rows, shares),
        Markov: Markov.learn(rows, shares),
    }.items():
        predicted = learned.member.log_proba(others.labelled)
        np.testing.assert_allclose(np.exp(predicted).sum(axis=1), 1.0)
        assert np.mean(predicted.argmax(axis=1) == others.y) > 0.9
        assert np.mean(learned.out_of_fold.argmax(axis=1) == rows.y) > 0.9
        again = kind.from_arrays(learned.member.to_arrays())
        np.testing.assert_array_equal(again.log_proba(others.labelled), predicted)


def counts_of(rows: LearningRows) -> tuple[CountedRows, Mixture]:
    vocabulary = NgramVocabulary.learn(rows.all_rows, SIZE, 2)
    unlabelled = vocabulary.count(rows.unlabelled)
    counted = CountedRows(vocabulary.count(rows.labelled), [unlabelled[::2], unlabelled[1::2]])

    def log_probabilities(counts: np.ndarray) -> np.ndarray:
        smoothed = counts + 0.5
        return np.log(smoothed / smoothed.sum(axis=0))

    return counted, Mixture(counted, rows.one_hot, rows.label_shares, rows.label_shares, log_probabilities)


def test_em_is_cross_fitted():
    """Five iterations, each E-step of a group without the group's own counts; with them the result is another."""
    counted, mixture = counts_of(toy_rows())
    results = {}
    for crossed in (True, False):
        observed = counted.labelled.toarray().T @ mixture.one_hot
        own = [np.zeros_like(observed)] * 2
        for _ in range(5):
            total = observed + sum(own)
            posteriors = []
            for group, mine in zip(counted.unlabelled, own, strict=True):
                scores = group.toarray() @ mixture.log_probabilities(total - mine * crossed) + np.log([0.5, 0.5])
                posteriors.append(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
            own = [group.toarray().T @ p for group, p in zip(counted.unlabelled, posteriors, strict=True)]
        results[crossed] = observed + sum(own)
    learned = mixture.learn(np.arange(30))
    np.testing.assert_allclose(learned, results[True], rtol=1e-9)
    assert np.abs(learned - results[False]).max() > 1e-6


def test_what_is_held_out_does_not_teach():
    """The scores of a fold are those of a mixture that never had its rows."""
    rows = toy_rows()
    _, mixture = counts_of(rows)
    scores = mixture.cross_validate(rows.folds)
    kept = np.flatnonzero(rows.folds != 0)
    alone = mixture.score(mixture.rows.labelled[np.flatnonzero(rows.folds == 0)], mixture.learn(kept))
    np.testing.assert_array_equal(scores[rows.folds == 0], alone)
    with_them = mixture.score(mixture.rows.labelled[np.flatnonzero(rows.folds == 0)], mixture.learn(np.arange(30)))
    assert np.abs(alone - with_them).max() > 1e-9


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.3, 5.0))
def test_the_temperature_is_found_again(seed, temperature):
    generator = np.random.default_rng(seed)
    true = log_normalised(2 * generator.normal(size=(4000, 3)))
    y = (true + generator.gumbel(size=true.shape)).argmax(axis=1)
    assert fit_temperature(true * temperature, y, prior_weight=0.0) == pytest.approx(temperature, rel=0.25)


def test_a_pool_prefers_what_knows_and_its_weights_sum_to_one():
    generator = np.random.default_rng(0)
    true = log_normalised(3 * generator.normal(size=(500, 3)))
    y = (true + generator.gumbel(size=true.shape)).argmax(axis=1)
    noise = log_normalised(3 * generator.normal(size=true.shape))
    pool = fit_pool([noise, true], y)
    assert pool.weights.sum() == pytest.approx(1.0)
    assert pool.weights[1] > 0.9
    assert pool.shares[1] > 0.8
    assert pool.shares.sum() == pytest.approx(1.0)
    joined = pool.log_proba([noise, true])
    np.testing.assert_allclose(np.exp(joined).sum(axis=1), 1.0, rtol=1e-6)
    calibrated = [np.exp(calibrate(*one)) for one in zip([noise, true], pool.temperatures, strict=True)]
    mixture = sum(weight * p for weight, p in zip(pool.weights, calibrated, strict=True))
    product = np.prod([p**power for power, p in zip(pool.powers, calibrated, strict=True)], axis=0)
    product /= product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(joined), (mixture + product) / 2, rtol=1e-9)
    alone = fit_mixture([noise, true], y)
    np.testing.assert_allclose(np.exp(alone.log_proba([noise, true])), mixture, rtol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_no_other_powers_are_better(seed):
    """The posterior density of the powers, by scipy's own density of the normal prior, is less at all neighbours."""
    generator = np.random.default_rng(seed)
    members = [log_normalised(generator.normal(scale=2.0, size=(40, 3))) for _ in range(3)]
    y = (sum(members) + generator.gumbel(size=(40, 3))).argmax(axis=1)
    pool = fit_pool(members, y)
    calibrated = [calibrate(*one) for one in zip(members, pool.temperatures, strict=True)]

    def density(powers: np.ndarray) -> float:
        scores = sum(power * scores for power, scores in zip(powers, calibrated, strict=True))
        likelihood = scipy.special.log_softmax(scores, axis=1)[np.arange(40), y].sum()
        return likelihood + scipy.stats.norm(1 / 3, PRECISION**-0.5).logpdf(powers).sum()

    for step in 1e-2 * np.concatenate([np.eye(3), -np.eye(3)]):
        other = np.maximum(pool.powers + step, 0.0)
        assert density(other) <= density(pool.powers) + 1e-6


def test_evidence_from_different_parts_adds_up_in_a_product():
    """Two members that know independent halves: the product of their odds is right, and a mixture is not."""
    generator = np.random.default_rng(3)
    y = generator.integers(0, 2, 2000)
    parts = [log_normalised(np.stack([-x, x], axis=1)) for x in generator.normal(2.0 * y - 1, 1.0, size=(2, 2000))]
    pool = fit_pool(parts, y)
    np.testing.assert_allclose(pool.powers / pool.temperatures, 1.0, rtol=0.15)
    losses = [-fit(parts, y).log_proba(parts)[np.arange(2000), y].mean() for fit in (fit_pool, fit_mixture)]
    assert losses[0] < losses[1] - 0.01


def test_weights_of_a_pool_do_not_know_the_rows_that_they_are_judged_by():
    generator = np.random.default_rng(1)
    folds, y = np.arange(20) % 2, generator.integers(0, 2, 20)
    members = [log_normalised(generator.normal(size=(20, 2))) for _ in range(2)]
    joined = pooled_out_of_fold(members, y, folds)
    pool: Pool = fit_pool([scores[folds == 1] for scores in members], y[folds == 1])
    np.testing.assert_allclose(joined[folds == 0], pool.log_proba([scores[folds == 0] for scores in members]))


@pytest.mark.parametrize("planted", [(0.5, 0.5), (0.85, 0.15), (0.1, 0.9)])
def test_the_shares_of_labels_among_other_rows_are_found(planted):
    generator = np.random.default_rng(2)

    def rows(shares: tuple[float, float], count: int) -> tuple[np.ndarray, np.ndarray]:
        y = generator.choice(2, size=count, p=shares)
        x = generator.normal(2.0 * y - 1.0, 1.0)
        return log_normalised(np.stack([-x, x], axis=1)), y

    labelled, y = rows((0.5, 0.5), 200)
    unlabelled, _ = rows(planted, 4000)
    shares = unlabelled_shares(unlabelled, labelled, y, np.array([0.5, 0.5]))
    np.testing.assert_allclose(shares, planted, atol=0.06)
    assert shares.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(unlabelled_shares(unlabelled[:0], labelled, y, np.array([0.5, 0.5])), [0.5, 0.5])


@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(0, 5), st.integers(0, 99))
def test_folds_are_stratified_and_keep_groups_whole(labels, group_count, seed):
    y = np.array(labels)
    groups = np.arange(len(y)) % group_count if group_count else np.full(len(y), -1)
    folds = stratified_folds(y, groups, seed)
    assert set(folds) == set(range(folds.max() + 1))
    for group in np.unique(groups[groups >= 0]):
        assert len(set(folds[groups == group])) == 1
    if not group_count and folds.max() > 0:
        for label in np.unique(y):
            counts = np.bincount(folds[y == label], minlength=folds.max() + 1)
            assert counts.max() - counts.min() <= 1


def test_symbols_are_letters_or_words_by_their_perplexity():
    assert perplexity(np.array([3, 3, 3, 0])) == pytest.approx(3.0)
    assert not toy_rows().symbols_are_words
    words = RaggedArray.from_rows([[symbol, END] for symbol in range(4, 104)] * 2)
    rows = LearningRows(words, np.arange(200) % 2, words, 2, 104, np.arange(200) % 5)
    assert rows.symbols_are_words
    assert known_only(ragged([[4, 6]]), np.array([True] * 6 + [False] * 2)).values.tolist() == [4, 1, END]


def test_a_candidate_that_is_given_up_is_told_all_the_same():
    rows = toy_rows()
    seen = np.flatnonzero(rows.folds < 2)

    def hopeless(shares, promising):
        wrong = log_normalised(-5.0 * np.eye(2)[rows.y[seen]])
        assert not promising(wrong, seen)
        return None

    ensemble = learn_ensemble(rows, hopeless, lambda name: None)
    (trial,) = [one for one in ensemble.trials if one.name == NETWORK]
    assert (trial.accuracy, trial.weight, trial.learns_from) == (0.0, 0.0, GIVEN_UP)
    assert NETWORK not in ensemble.members
    assert ensemble.trials[-1].name == ENSEMBLE
    assert trial.seconds < ensemble.trials[-1].seconds


def test_an_ensemble_that_was_stored_before_there_were_powers_is_a_mixture():
    ensemble, dimensions = learn_ensemble(toy_rows(), None, lambda name: None), Dimensions(8, (0.5, 0.5))
    settings_, arrays = ensemble.to_stored()
    again = Ensemble.from_stored(settings_, arrays, dimensions, None)
    rows = toy_rows().labelled
    np.testing.assert_array_equal(again.log_proba(rows), ensemble.log_proba(rows))
    earlier = Ensemble.from_stored({**settings_, "format": 1, "powers": None}, arrays, dimensions, None)
    mixture = ensemble.pool._replace(powers=None)
    members = [member.log_proba(rows) for member in ensemble.members.values()]
    np.testing.assert_array_equal(earlier.log_proba(rows), mixture.log_proba(members))
    for damaged in ({"format": 3}, {"powers": [1.0]}, {"weights": [1.0]}):
        with pytest.raises(RunError, match="The ensemble cannot be read"):
            Ensemble.from_stored({**settings_, **damaged}, arrays, dimensions, None)
