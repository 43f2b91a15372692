"""scikit-learn's own checks of estimators: which hold of `SequenceSSVAE`, and why the others cannot.

They are made for tables of numbers. So the estimator is given a table's rows as sequences: of each number the place and
the nearest whole number are a symbol.
"""

import functools
import warnings
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator
from toy import toy_config

from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.recipes.trained_on import TrainedOn

NO_COLUMNS = "sequences have no columns: rows of any length, and of symbols never seen, are rows like others"
NO_NUMBERS = "it is of what numbers a table may hold, and symbols are no numbers"
NO_TABLE = "it is of kinds of tables, and sequences are lists"
REASONS = {
    "check_n_features_in": NO_COLUMNS,
    "check_n_features_in_after_fitting": NO_COLUMNS,
    "check_estimators_partial_fit_n_features": NO_COLUMNS,
    "check_estimators_empty_data_messages": NO_COLUMNS,
    "check_classifiers_train": NO_COLUMNS,
    "check_transformer_general": NO_COLUMNS,
    "check_complex_data": NO_NUMBERS,
    "check_estimators_nan_inf": NO_NUMBERS,
    "check_estimator_sparse_tag": NO_TABLE,
    "check_estimator_sparse_array": NO_TABLE,
    "check_estimator_sparse_matrix": NO_TABLE,
    "check_classifiers_regression_target": "numbers that are no whole ones may be labels",
    "check_supervised_y_2d": "a column of labels is taken without a warning: it can mean nothing else",
    "check_methods_sample_order_invariance": "score_samples draws z, whose noise goes with the place of a row",
    "check_methods_subset_invariance": "score_samples draws z, whose noise goes with the place of a row",
    "check_fit2d_1sample": "it wants other words in the error for a single row, which says that there is one label",
}
"""By check, why it does not hold."""
METHODS = ("fit", "partial_fit", "predict", "predict_proba", "predict_log_proba", "transform", "fit_transform", "score")


class OfNumbers(SequenceSSVAE):
    """The estimator of rows of numbers."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = True, False
        return tags


def symbols_of(X):
    if isinstance(X, list) and X and isinstance(X[0], list) and isinstance(X[0][0], str):
        return X  # by another method already
    rows = np.asarray(X, dtype=float)
    if rows.ndim != 2:
        raise ValueError("Reshape your data: Expected 2D array, got 1D array instead")
    return [[f"{place}:{np.clip(np.round(value), -3, 3):.0f}" for place, value in enumerate(row)] for row in rows]


def of_symbols(name):
    method = getattr(SequenceSSVAE, name)

    @functools.wraps(method)
    def call(self, X, *rest, **options):
        return method(self, symbols_of(X), *rest, **options)

    return call


for method_name in (*METHODS, "score_samples"):
    setattr(OfNumbers, method_name, of_symbols(method_name))


def test_the_checks_hold_that_apply_to_sequences(fake_twins, monkeypatch):
    monkeypatch.setattr(TrainedOn, "with_reference", lambda self, *rest: self)  # not looked at here, and slow
    model = OfNumbers(backend="fake", recipe="ssvae", config=toy_config(), epochs=6, random_state=0, missing="?")
    passed, failed = set(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator, check in estimator_checks_generator(model):
            name = getattr(check, "func", check).__name__
            try:
                check(estimator)
            except SkipTest:
                continue
            except Exception as error:
                failed[name] = error
            else:
                passed.add(name)
    assert set(failed) - set(REASONS) == set(), failed
    assert len(passed) > 30
    assert {"check_estimators_pickle", "check_fit_idempotent", "check_dict_unchanged"} <= passed


def test_the_estimator_itself_is_one_that_scikit_learn_can_copy(fake_twins):
    """Of one that does not take tables, this is all that scikit-learn checks."""
    with pytest.warns(UserWarning, match="Can't test estimator"):
        checks = [check for check in estimator_checks_generator(SequenceSSVAE()) if check[1](check[0]) is None]
    assert len(checks) >= 1
