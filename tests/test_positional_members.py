"""Members that know at which place a symbol stands, against slow and independent computations."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_recipe_members import SIZE, SYMBOLS, ragged

from seqssvae.recipes.linear import Linear
from seqssvae.recipes.places import Places
from seqssvae.recipes.positional import Positional
from seqssvae.recipes.profile import Profile, smoothed
from seqssvae.recipes.rows import LearningRows, stratified_folds


def at_places(row: list[int], from_end: bool) -> list[tuple[str, int, int]]:
    places = [("start", place, symbol) for place, symbol in enumerate(row)]
    return places + ([("end", place, symbol) for place, symbol in enumerate(row[::-1])] if from_end else [])


def aligned(count: int, length: int, seed: int) -> tuple[list[list[int]], np.ndarray]:
    """Rows of random symbols whose label is what stands at the third place: the symbol 4 and any other."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(4, 8, (count, length))
    y = np.arange(count) % 2
    rows[:, 2] = np.where(y == 0, 4, generator.integers(5, 8, count))
    return rows.tolist(), y


def learning_rows(seed: int = 0, labelled: int = 40, unlabelled: int = 200) -> LearningRows:
    rows, y = aligned(labelled, 9, seed)
    others, _ = aligned(unlabelled, 9, seed + 1000)
    return LearningRows(ragged(rows), y, ragged(others), 2, SIZE, stratified_folds(y, np.full(len(y), -1), 0))


@given(st.lists(SYMBOLS, min_size=1, max_size=6), st.lists(SYMBOLS, min_size=1, max_size=3))
def test_places_are_those_of_symbols_that_two_rows_have(rows, others):
    places = Places.learn(ragged(rows), SIZE, 2)
    frequent = max(Counter(map(len, rows)).values())
    assert places.from_end == (frequent < 0.9 * len(rows))
    occurrences = Counter(place for row in rows for place in at_places(row, places.from_end))
    kept = {place for place, count in occurrences.items() if count >= 2}
    assert len(places.codes) == len(kept)
    assert len(np.unique(places.place)) == len({place[:2] for place in kept})
    counted = places.count(ragged(others)).toarray()
    assert set(np.unique(counted)) <= {0.0, 1.0}
    expected = [sum(place in kept for place in at_places(row, places.from_end)) for row in others]
    np.testing.assert_array_equal(counted.sum(axis=1), expected)


def test_of_very_many_places_the_most_frequent_are_taken(monkeypatch):
    monkeypatch.setattr("seqssvae.recipes.places.MOST_WEIGHTS", 6)
    rows = ragged([[4, 5], [4, 6], [4, 6], [5, 6], [5, 5]])  # at the start 4 three times and 5 twice, then 6 and 5
    places = Places.learn(rows, SIZE, 3)
    np.testing.assert_array_equal(places.codes, [4, SIZE + 6])


def test_a_profile_has_the_mean_of_the_posterior_at_each_place():
    rows = [[4, 5], [4, 6], [5, 6], [5, 5], [4, 6]]
    places = Places.learn(ragged(rows), SIZE, 2)
    counts = places.count(ragged(rows)).toarray()
    of_label = counts[[0, 1, 4]].sum(axis=0)[:, None]
    log_p = smoothed(places, counts.sum(axis=0))(of_label)
    # at the first place 4 stands in three rows and 5 in two; in those of the label, three times 4
    background = np.array([3.5, 2.5]) / 6
    strength = np.exp(-np.sum(background * np.log(background)))
    expected = (np.array([3, 0]) + strength * background) / (3 + strength)
    np.testing.assert_allclose(np.exp(log_p[:2, 0]), expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_p[2:, 0]).sum(), 1.0, rtol=1e-12)


def test_members_that_know_places_learn_what_ngrams_cannot():
    rows, other = learning_rows(), learning_rows(seed=7)
    shares = np.array([0.5, 0.5])
    right = {}
    for kind, learned in {
        Positional: Positional.learn(rows),
        Profile: Profile.learn(rows, shares),
        Linear: Linear.learn(rows),
    }.items():
        predicted = learned.member.log_proba(other.labelled)
        np.testing.assert_allclose(np.exp(predicted).sum(axis=1), 1.0)
        right[kind] = np.mean(predicted.argmax(axis=1) == other.y)
        again = kind.from_arrays(learned.member.to_arrays())
        np.testing.assert_array_equal(again.log_proba(other.labelled), predicted)
        if kind is not Linear:
            assert np.mean(learned.out_of_fold.argmax(axis=1) == rows.y) > 0.75
    assert min(right[Positional], right[Profile]) > 0.85
    assert right[Linear] < 0.75


@pytest.mark.parametrize("kind", [Positional, Profile])
def test_rows_that_share_no_place_teach_the_shares_of_labels_alone(kind):
    """Of rows without a symbol in common nothing can be learned, and nothing breaks."""
    y = np.array([0, 0, 0, 1])
    rows = ragged([[4], [5], [6], [7]])
    few = LearningRows(rows, y, ragged([[4, 5]]).take(np.zeros(0, int)), 2, SIZE, np.array([0, 1, 0, 1]))
    learned = kind.learn(few) if kind is Positional else kind.learn(few, few.label_shares)
    predicted = learned.member.log_proba(rows)
    assert np.isfinite(predicted).all()
    assert np.isfinite(learned.out_of_fold).all()
    assert (predicted.argmax(axis=1) == 0).all()
