"""How many generated sequences are different, new, and of their label: by hand, and mistakes."""

import numpy as np
import pytest
from toy import toy_texts

from seqssvae.errors import DataError
from seqssvae.recipes.novelty import check_generated

TEXTS, LABELS = toy_texts(80)


def test_shares_by_hand():
    generated = ["aabb", "aabb", "bbaa", TEXTS[0], "ccdd", "dddd", "cccc", "abba", "", "abab"]
    check = check_generated(generated, "left", TEXTS, LABELS)
    assert (check.count, check.labelled_rows) == (10, 80)
    assert check.unique == 0.9
    assert check.new == np.mean([text not in TEXTS for text in generated]) < 1
    clear = [0, 1, 2, 3, 4, 5, 6, 7, 9]  # the empty one has nothing to go by
    of_label = check_generated([generated[index] for index in clear], "left", TEXTS, LABELS).of_label
    assert of_label == pytest.approx(6 / 9)
    assert check_generated([generated[index] for index in clear], "right", TEXTS, LABELS).of_label == pytest.approx(
        3 / 9
    )


def test_the_classifier_is_as_good_as_cross_validation_says():
    """Against scikit-learn's own cross-validation of the same classifier; and by chance where labels say nothing."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, min_df=2),
        LogisticRegression(C=10.0, max_iter=300),
    )
    check = check_generated(["ab"], "left", TEXTS, LABELS)
    assert check.classifier_accuracy == pytest.approx(cross_val_score(model, TEXTS, LABELS).mean(), abs=0.06)
    shuffled = np.random.default_rng(0).permutation(LABELS)
    assert abs(check_generated(["ab"], "left", TEXTS, shuffled).classifier_accuracy - 0.5) < 0.2


def test_rows_without_label_count_as_known_and_teach_nothing():
    labels = [label if index < 40 else None for index, label in enumerate(LABELS)]
    check = check_generated([TEXTS[70], "abcd" * 9], "left", TEXTS, labels)
    assert (check.new, check.labelled_rows) == (0.5, 40)


def test_symbols_may_be_words():
    rows = [["buy", "now"], ["buy", "this"], ["see", "you"], ["see", "me"]] * 4
    check = check_generated([["buy", "you"], ["see", "now"], ["buy", "now"]], 1, rows, [1, 1, 0, 0] * 4)
    assert (check.unique, check.new) == (1, pytest.approx(2 / 3))
    assert check.classifier_accuracy == 1


@pytest.mark.parametrize(
    ("sequences", "label", "rows", "labels", "message"),
    [
        ([], "left", TEXTS, LABELS, "there are no sequences to check"),
        (["ab"], "left", [], [], "there are no rows to compare with"),
        (
            ["ab"],
            "up",
            TEXTS,
            LABELS,
            "at least two rows of the label 'up' and two of others, not 0 and 80 among the 80",
        ),
        (["ab"], "left", TEXTS[:4], ["left", "left", None, "right"], "not 2 and 1 among the 4 rows"),
        (["ab"], "left", TEXTS, LABELS[:3], "y must have an entry for each of the 80 sequences, not 3"),
    ],
)
def test_what_cannot_be_checked_is_refused(sequences, label, rows, labels, message):
    with pytest.raises(DataError, match=message):
        check_generated(sequences, label, rows, labels)
