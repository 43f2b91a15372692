from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.data.splits import at_most_per_class, keep_labels_per_class, split
from seqssvae.errors import ConfigurationError

LABELS = st.lists(st.integers(-1, 3), min_size=1, max_size=60).map(np.array)
FRACTIONS = st.floats(0.0, 0.9)
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def grouped_labels(draw):
    y = draw(LABELS)
    return y, np.array(draw(st.lists(st.integers(-1, 7), min_size=len(y), max_size=len(y))), np.int32)


def plain_split(y, groups, fraction, seed):
    """What `split` does, row by row."""
    members, named = [], {}
    for row, group in enumerate(groups):
        if group in named:
            named[group].append(row)
            continue
        members.append([row])
        if group >= 0:
            named[group] = members[-1]
    members = [members[place] for place in np.random.default_rng([seed, 1]).permutation(len(members))]
    totals = Counter(y.tolist())
    wanted = {label: max(min(fraction * n, n - 1), min(1, n - 1)) for label, n in totals.items()}
    held_out, so_far = [False] * len(members), Counter()
    for _ in range(10):
        before = list(held_out)
        for place, rows in enumerate(members):
            size, sign = Counter(y[rows].tolist()), -1 if held_out[place] else 1
            distance = sum((so_far[label] - wanted[label]) ** 2 / totals[label] for label in totals)
            moved = {label: so_far[label] + sign * size[label] for label in totals}
            changed = sum((moved[label] - wanted[label]) ** 2 / totals[label] for label in totals)
            remain = all(moved[label] < totals[label] for label in size)
            if remain and changed < distance - 1e-12:
                held_out[place], so_far = not held_out[place], Counter(moved)
        if held_out == before:
            break
    return sorted(row for rows, out in zip(members, held_out, strict=True) if out for row in rows)


@given(grouped_labels(), st.booleans(), st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.77]), SEEDS)
def test_a_split_is_what_a_loop_over_rows_makes(rows, has_groups, fraction, seed):
    y, groups = rows
    first, second = split(y, groups if has_groups else None, fraction, seed)
    assert second.tolist() == plain_split(y, groups if has_groups else [-1] * len(y), fraction, seed)
    assert sorted([*first, *second]) == list(range(len(y)))


@given(grouped_labels(), FRACTIONS, SEEDS)
def test_both_parts_are_ascending_and_together_all_rows(rows, fraction, seed):
    y, groups = rows
    first, second = split(y, groups, fraction, seed)
    assert sorted([*first, *second]) == list(range(len(y)))
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()


@given(grouped_labels(), FRACTIONS, SEEDS)
def test_groups_never_straddle(rows, fraction, seed):
    y, groups = rows
    first, second = split(y, groups, fraction, seed)
    named = [{*groups[part].tolist()} - {-1} for part in (first, second)]
    assert not named[0] & named[1]


@given(grouped_labels(), FRACTIONS, SEEDS)
def test_every_label_remains(rows, fraction, seed):
    y, groups = rows
    first, _ = split(y, groups, fraction, seed)
    assert set(y[first]) == set(y)


def test_the_only_group_of_a_label_remains():
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    groups = np.array([2, 2, 2, 2, -1, -1, -1, -1])
    assert split(y, groups, 0.75, 0)[0][:4].tolist() == [0, 1, 2, 3]


@given(LABELS, st.floats(0.01, 0.9), SEEDS)
def test_each_label_is_held_out_in_its_share(y, fraction, seed):
    _, second = split(y, None, fraction, seed)
    for label in set(y):
        total, held_out = int((y == label).sum()), int((y[second] == label).sum())
        wanted = min(max(fraction * total, min(1, total - 1)), total - 1)
        assert abs(held_out - wanted) <= 0.5 + 1e-9
        assert held_out >= min(1, total - 1)


def test_rows_without_a_group_are_groups_of_their_own():
    y = np.repeat([0, 1], 20)
    expected = split(y, None, 0.25, 3)
    parts = split(y, np.full(40, -1), 0.25, 3)
    assert [part.tolist() for part in parts] == [part.tolist() for part in expected]


def test_groups_are_held_out_in_about_the_share():
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 100, size=2000)
    y = generator.integers(0, 2, size=2000)
    _, second = split(y, groups, 0.2, 0)
    for label in (0, 1):
        assert (y[second] == label).sum() == pytest.approx(200, abs=20)


def test_few_labels_keep_their_share_beside_many_missing_ones():
    unlabelled = np.random.default_rng(7).integers(1, 40, size=100)
    y = np.concatenate([[group % 2] * 3 + [-1] * count for group, count in enumerate(unlabelled)])
    groups = np.repeat(np.arange(100), unlabelled + 3)
    for seed in range(40):
        _, second = split(y, groups, 0.2, seed)
        assert [(y[second] == label).sum() for label in (0, 1)] == pytest.approx([30, 30], abs=3)
        assert (y[second] == -1).sum() == pytest.approx(0.2 * unlabelled.sum(), abs=15)


@given(grouped_labels(), st.floats(0.05, 0.9), SEEDS)
def test_same_seed_same_split(rows, fraction, seed):
    y, groups = rows
    again = split(y, groups, fraction, seed)
    assert [part.tolist() for part in split(y, groups, fraction, seed)] == [part.tolist() for part in again]


def test_other_seed_other_split_and_every_row_has_its_turn():
    y = np.repeat([0, 1, -1], 20)
    held_out = [frozenset(split(y, None, 0.2, seed)[1].tolist()) for seed in range(60)]
    assert len(set(held_out)) > 50
    assert frozenset.union(*held_out) == set(range(60))


@pytest.mark.parametrize("groups", [None, np.zeros(4, np.int32)])
def test_nothing_is_held_out_where_the_fraction_is_zero(groups):
    first, second = split(np.zeros(4, dtype=np.int32), groups, 0.0, 0)
    assert first.tolist() == [0, 1, 2, 3]
    assert second.tolist() == []


def test_no_rows():
    assert [part.tolist() for part in split(np.zeros(0, dtype=np.int32), None, 0.5, 0)] == [[], []]


@given(LABELS, st.integers(1, 5), SEEDS)
def test_so_many_labels_of_each_class_are_kept(y, count, seed):
    y = np.concatenate([y, np.repeat([0, 1], count)])
    kept = keep_labels_per_class(y, count, "ab", seed)
    assert [(kept == label).sum() for label in range(2)] == [count, count]
    assert (kept != -1).sum() == 2 * count
    assert (kept[kept != -1] == y[kept != -1]).all()


def test_greater_counts_keep_the_same_labels_and_more():
    y = np.repeat([0, 1, -1], 30)
    few, many = (set(np.flatnonzero(keep_labels_per_class(y, count, "ab", 5) >= 0)) for count in (4, 9))
    assert few < many


def test_kept_labels_depend_on_the_seed_and_leave_y_alone():
    y = np.repeat([0, 1], 30)
    kept = {tuple(keep_labels_per_class(y, 5, "ab", seed)) for seed in range(20)}
    assert len(kept) == 20
    assert tuple(keep_labels_per_class(y, 5, "ab", 0)) in kept
    assert y.tolist() == [0] * 30 + [1] * 30


def test_too_few_labels_of_a_class():
    y = np.array([0, 0, 0, 1, 1, -1])
    with pytest.raises(ConfigurationError, match=r"^Only 2 rows are labelled 'UniProt', fewer than the 3 to keep\.$"):
        keep_labels_per_class(y, 3, ("AMP", "UniProt"), 0)


@given(LABELS, st.integers(1, 5), SEEDS)
def test_at_most_so_many_rows_of_each_class_are_chosen(y, count, seed):
    chosen = at_most_per_class(y, count, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert Counter(y[chosen].tolist()) == {k: min(count, n) for k, n in Counter(y[y >= 0].tolist()).items()}
