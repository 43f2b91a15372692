"""`SequenceSSVAE` and what it is given: hyperparameters, labels of any type, missing labels, sequences."""

import dataclasses
import inspect

import numpy as np
import pytest
from fake_backend import FakeBackend
from sklearn.base import clone
from toy import NAMES, OTHER_NAMES, OTHER_TEXTS, TEXTS, toy_config
from toy import make_estimator as make

from seqssvae.config import Config, DataConfig
from seqssvae.config.settings import to_dict
from seqssvae.errors import BackendError, ConfigurationError, DataError, RunError
from seqssvae.estimator.fields import FIELDS, build_config
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE

pytestmark = pytest.mark.usefixtures("fake_twins")


def some_missing(labels: list, marker: object) -> list:
    return [label if index < 40 else marker for index, label in enumerate(labels)]


# Hyperparameters


def test_hyperparameters_are_keyword_only_and_stored_as_given():
    signature = inspect.signature(SequenceSSVAE)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in signature.parameters.values())
    given = {name: object() for name in signature.parameters}  # nothing is checked before fit
    assert SequenceSSVAE(**given).get_params() == given
    assert set(FIELDS) < set(signature.parameters)


def test_a_copy_has_the_same_hyperparameters_and_is_not_fitted():
    model = make(hidden_size=3).fit(TEXTS, NAMES)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert repr(copy).startswith(
        "SequenceSSVAE(backend='fake', recipe='ssvae', hidden_size=3, epochs=10, config=Config(...)"
    )
    with pytest.raises(RunError, match="not fitted yet"):
        copy.predict(TEXTS)


def test_set_params_refuses_what_there_is_not():
    assert make().set_params(hidden_size=5).hidden_size == 5
    with pytest.raises(ConfigurationError, match="has no parameter 'hiden_size'; it has backend, recipe, hidden_size"):
        make().set_params(hiden_size=5)


VALUES = {
    "cell": "lstm",
    "conditioning": "output",
    "dropout": 0.25,
    "word_dropout": 0.5,
    "encoder_word_dropout": 0.5,
    "alpha": 2.5,
    "gradient_estimator": "top_k",
    "k": 2,
    "learning_rate": 0.01,
    "metric": "loss",
    "validation_fraction": 0.2,
    "separator": " ",
}


def test_every_hyperparameter_but_those_of_the_class_itself_stands_for_fields():
    own = {"backend", "recipe", "missing", "device", "devices", "config", "verbose", "callbacks", "pretrained"}
    assert SequenceSSVAE().get_params().keys() - FIELDS.keys() == own


def test_the_defaults_are_those_of_the_configuration():
    assert build_config(SequenceSSVAE().get_params(), None) == Config()


@pytest.mark.parametrize("name", FIELDS)
def test_every_hyperparameter_sets_its_fields_and_no_others(name):
    value = VALUES.get(name, 3)
    estimator = SequenceSSVAE(config=toy_config(), **{name: value})
    before, after = to_dict(toy_config()), to_dict(build_config(estimator.get_params(), estimator.config))

    def get(settings, path):
        for part in path.split("."):
            settings = settings[part]
        return settings

    assert all(get(after, path) == value for path in FIELDS[name])
    for path in FIELDS[name]:
        section, _, field = path.rpartition(".")
        get(after, section)[field] = get(before, path)
    assert after == before


def test_a_wrong_hyperparameter_is_refused_by_fit():
    with pytest.raises(ConfigurationError, match=r"model\.encoder\.hidden_size must be a whole number"):
        make(hidden_size="big").fit(TEXTS, NAMES)
    with pytest.raises(ConfigurationError, match=r"config must be a seqssvae\.config\.Config, not dict"):
        make(config={}).fit(TEXTS, NAMES)
    with pytest.raises(BackendError, match=r"seqssvae\[absent\]"):
        make(backend="absent").fit(TEXTS, NAMES)


# Labels


@pytest.mark.parametrize(
    ("left", "right", "marker"),
    [
        ("left", "right", None),
        ("left", "right", -1),
        (np.str_("left"), np.str_("right"), None),
        (10, 9, -1),
        (np.int64(0), np.int64(1), np.int64(-1)),
        (0.5, 1.5, None),
        (True, False, None),
        (("a", 1), ("b", 2), None),
    ],
)
def test_labels_of_any_type_come_back_as_they_were(left, right, marker):
    y = some_missing([left if name == "left" else right for name in NAMES], marker)
    model = make().fit(TEXTS, y)
    expected = sorted([left, right])
    assert model.classes_.tolist() == expected
    predicted = model.predict(OTHER_TEXTS)
    assert len(predicted) == len(OTHER_TEXTS)
    truth = [left if name == "left" else right for name in OTHER_NAMES]
    assert np.mean([given == label for given, label in zip(predicted.tolist(), truth, strict=True)]) > 0.8
    probabilities = model.predict_proba(OTHER_TEXTS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert model.classes_[probabilities.argmax(axis=1)].tolist() == predicted.tolist()


def test_missing_labels_are_unlabelled_rows():
    seen = []

    class Watched(FakeBackend):
        def train(self, steps):
            seen.extend(steps)
            return super().train(steps)

    y = some_missing(NAMES, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqssvae.estimator.fitting.get_backend", lambda name: Watched)
        make(patience=0).fit(TEXTS, y)
    unlabelled = {int(row) for step in seen for row in step.unlabelled.rows[step.unlabelled.row_mask]}
    labelled = {int(row) for step in seen for row in step.labelled.rows[step.labelled.row_mask]}
    assert (len(unlabelled), len(labelled)) == (15, 30)  # a quarter of 20 and of 40 is held out


def test_the_marker_of_a_missing_label_can_be_another():
    y = some_missing([-1 if name == "left" else 1 for name in NAMES], 0)
    model = make(missing=0).fit(TEXTS, y)
    assert model.classes_.tolist() == [-1, 1]
    assert model.score(TEXTS, y) == np.mean(model.predict(TEXTS[:40]) == y[:40])
    text = make(missing="?").fit(TEXTS, some_missing(NAMES, "?"))
    assert text.classes_.tolist() == ["left", "right"]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([-1 if name == "left" else 1 for name in NAMES], "y has the labels -1 and 1, but -1 marks a missing label"),
        (np.array([-1.0, 1.0] * 30), "y has the labels -1 and 1, but -1 marks a missing label"),
        (["left"] * 60, "y has only the label 'left'"),
        ([None] * 60, "y has no label"),
        (None, "y has no label"),
        (["left", 3] * 30, "labels of one type that can be hashed and sorted"),
        ([["left"], ["right"]] * 30, "one label in each entry, a text or a number, not a list"),
        (["", "right"] * 30, "a label that is an empty text"),
        (NAMES[:-1], "y must have an entry for each of the 60 sequences, not 59"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(y, message):
    with pytest.raises(DataError, match=message):
        make().fit(TEXTS, y)


def test_labels_listed_in_the_configuration_need_not_all_be_there():
    listed = dataclasses.replace(toy_config(), data=DataConfig(labels=["right", "left", "up"]))
    with pytest.warns(UserWarning, match="no row has the label up"):
        model = make(config=listed).fit(TEXTS, NAMES)
    assert model.classes_.tolist() == ["right", "left", "up"]
    with (
        pytest.warns(UserWarning, match="no row has the label up"),
        pytest.raises(DataError, match="the label 'down' was never seen in training"),
    ):
        make(config=listed).fit(TEXTS, ["down", *NAMES[1:]])


# Sequences


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("abc", "X must be a list of sequences"),
        (3, "X must be a list of sequences"),
        ([], "X is empty"),
        (["ab", ""], r"X\[1\] is an empty sequence"),
        (["ab", ["a"]], r"X\[1\] must be a text, as X\[0\] is, not list"),
        ([["a"], "ab"], r"X\[1\] must be a list of symbols, as X\[0\] is, not str"),
        ([["a"], 3], r"X\[1\] must be a list of symbols, as X\[0\] is, not int"),
        ([["a"], [3]], r"X\[1\] must hold symbols that are texts"),
        ([["a"], [""]], r"X\[1\] must hold symbols that are texts and not empty"),
        ([b"ab"], r"X\[0\] must be a text or a list of symbols, not bytes"),
    ],
)
def test_what_are_no_sequences_is_refused(X, message):
    with pytest.raises(DataError, match=message):
        make().fit(X, NAMES)
    with pytest.raises(DataError, match=message):
        make().fit(TEXTS, NAMES).predict(X)


def test_texts_and_lists_and_separated_texts_are_the_same_sequences():
    as_texts = make().fit(TEXTS, NAMES)
    as_lists = make().fit([list(text) for text in TEXTS], NAMES)
    as_words = make(separator=" ").fit([" ".join(text) for text in TEXTS], NAMES)
    as_array = make().fit(np.array(TEXTS), np.array(NAMES))
    expected = as_texts.predict_proba(TEXTS)
    np.testing.assert_array_equal(as_lists.predict_proba([list(text) for text in TEXTS]), expected)
    np.testing.assert_array_equal(as_words.predict_proba([" ".join(text) for text in TEXTS]), expected)
    np.testing.assert_array_equal(as_array.predict_proba(np.array(TEXTS)), expected)
    (text,), (symbols,), (words,) = (model.sample("left", seed=5) for model in (as_texts, as_lists, as_words))
    assert text == "".join(symbols) == words.replace(" ", "")
    assert isinstance(symbols, list)


def test_long_sequences_are_left_out_in_training_and_cut_afterwards_with_a_warning():
    model = make(max_length=10)
    with pytest.warns(UserWarning, match="X: 1 of 61 rows left out: longer than 10 symbols"):
        model.fit([*TEXTS, "a" * 11], [*NAMES, "left"])
    with pytest.warns(UserWarning, match="X: 1 of 2 sequences cut to 10 symbols"):
        probabilities = model.predict_proba(["a" * 10, "a" * 50])
    np.testing.assert_array_equal(probabilities[0], probabilities[1])
    with pytest.warns(UserWarning, match="X: 1 symbols are not in the vocabulary"):
        model.predict(["aq"])


def test_groups_are_not_split():
    groups = [index // 6 for index in range(60)]
    prepared = []
    with pytest.MonkeyPatch.context() as patch:
        from seqssvae.estimator import rows as estimator

        original = estimator.prepare_table
        patch.setattr(estimator, "prepare_table", lambda *given: prepared.append(original(*given)) or prepared[0])
        make(epochs=1).fit(TEXTS, NAMES, groups)
    trained, held_out = set(prepared[0].training.groups), set(prepared[0].validation.groups)
    assert held_out
    assert not trained & held_out
    with pytest.raises(DataError, match="groups must have an entry for each of the 60 sequences, not 1"):
        make().fit(TEXTS, NAMES, ["a"])


def test_a_device_is_given_by_its_name(fake_twins, tmp_path):
    with pytest.raises(ConfigurationError, match="device must be a name, such as cpu or cuda:1, not 5"):
        make(device=5).fit(TEXTS, NAMES)
    make(epochs=1).fit(TEXTS, NAMES).save(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="device must be a name"):
        SequenceSSVAE.load(tmp_path / "run", device=5)
