"""`SequenceSSVAE` trained further: new rows, symbols and labels, passes, runs to start from, seeds, frames."""

import importlib.metadata
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fake_backend import BAG, FakeBackend
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from toy import NAMES, OTHER_NAMES, OTHER_TEXTS, SETTINGS, TEXTS, toy_config
from toy import make_estimator as make

from seqssvae.config import Config, DataConfig
from seqssvae.config.settings import from_dict, merge
from seqssvae.errors import ConfigurationError, DataError, RunError
from seqssvae.estimator.fields import known_hyperparameters
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.recipes.trained_on import TrainedOn

pytestmark = [pytest.mark.usefixtures("fake_twins"), pytest.mark.filterwarnings("ignore:The generator's bound")]
SMALL = {"hidden_size": 2, "decoder_hidden_size": 2, "embedding_size": 3, "latent_size": 2, "epochs": 1}
NEW_TEXTS, NEW_NAMES = ["xyzx", "yzxy", "zzxy", "xxyz"] * 4, ["new"] * 16


@pytest.fixture(autouse=True)
def no_reference(monkeypatch):
    """Other methods are not cross-validated, which takes long and is not looked at here."""
    monkeypatch.setattr(TrainedOn, "with_reference", lambda self, *rest: self)


QUICK = {"encoder": {"kind": "convolution", "widths": [1], "channels": 2}, "decoder": {"context": 0}}
"""Networks that JAX compiles in little time."""
EVEN = [text[:4] for text in TEXTS[:16]]
"""Texts of one length, for programs of one shape."""


def quick_model(twin: str, **hyperparameters: object) -> SequenceSSVAE:
    config = from_dict(merge(SETTINGS, {"model": QUICK, "training": {"buckets": 1}}))
    chosen = {"recipe": "ssvae", "epochs": 1, "max_steps": 1, "validation_fraction": 0.0, **hyperparameters}
    return SequenceSSVAE(backend=twin, config=config, **chosen)


@pytest.fixture
def real_twins(monkeypatch, fake_twins):
    monkeypatch.setattr("seqssvae.backend.entry_points", importlib.metadata.entry_points)


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_both_twins_go_on_from_what_they_know(twin, real_twins, tmp_path):
    model = quick_model(twin).fit(EVEN, NAMES[:16])
    before = model.fitted_.backend.get_weights()
    model.set_params(learning_rate=1e-30).fit(NEW_TEXTS, NEW_NAMES, warm_start=True)
    after = model.fitted_.backend.get_weights()
    assert model.classes_.tolist() == ["left", "new", "right"]
    np.testing.assert_array_equal(after["classifier.weight"][[0, 2]], before["classifier.weight"])
    np.testing.assert_array_equal(after["encoder.towers.0.embedding"][:8], before["encoder.towers.0.embedding"])
    np.testing.assert_array_equal(after["decoder.label_bias"][:8, [0, 2]], before["decoder.label_bias"])
    assert int(model.fitted_.backend.get_optimizer_state()["step"]) == 1
    model.partial_fit(EVEN, NAMES[:16])
    state = model.fitted_.backend.get_optimizer_state()
    assert int(state["step"]) > 1
    assert state["classifier.weight.exp_avg"].any()
    model.save(tmp_path / "run")
    tuned = SequenceSSVAE.from_pretrained(tmp_path / "run").fit(EVEN, NAMES[:16]).fitted_.backend.get_weights()
    kept = model.fitted_.backend.get_weights()["classifier.weight"]
    np.testing.assert_array_equal(tuned["classifier.weight"], kept[[0, 2]])


# fit(warm_start=True), partial_fit, from_pretrained


def test_a_warm_start_adds_labels_and_symbols_and_forgets_less_than_a_new_fit():
    model = make().fit(TEXTS, NAMES)
    model.set_params(epochs=2).fit(NEW_TEXTS, NEW_NAMES, warm_start=True)
    assert model.classes_.tolist() == ["left", "new", "right"]
    assert model.fitted_.schema.vocabulary.symbols == ("a", "b", "c", "d", "x", "y", "z")
    assert model.score(OTHER_TEXTS, OTHER_NAMES) > 0.6
    with pytest.raises(DataError, match="only the label 'new'"):
        make().fit(NEW_TEXTS, NEW_NAMES)
    assert make().fit(TEXTS, NAMES, warm_start=True).score(OTHER_TEXTS, OTHER_NAMES) > 0.8  # nothing was fitted


def test_labels_of_other_types_than_texts_are_known_again():
    model = make().fit(TEXTS, [10 if name == "left" else 9 for name in NAMES])
    before = model.fitted_.backend.get_weights()[BAG]
    model.set_params(learning_rate=1e-30).fit(TEXTS, [10 if name == "left" else 11 for name in NAMES], warm_start=True)
    assert model.classes_.tolist() == [9, 10, 11]
    np.testing.assert_array_equal(model.fitted_.backend.get_weights()[BAG][:, :2], before)


def test_passes_over_rows_learn_what_training_does():
    model = make()
    assert model.partial_fit(TEXTS[:4], NAMES[:4]) is model
    steps = [model.history_[-1].step]
    for _ in range(8):
        for start in range(0, 60, 20):
            model.partial_fit(TEXTS[start : start + 20], NAMES[start : start + 20])
            steps.append(model.history_[-1].step)
    assert model.score(OTHER_TEXTS, OTHER_NAMES) > 0.8
    assert all(later > earlier for earlier, later in pairwise(steps))
    assert len(model.history_) == 25
    assert all(record.validation is None for record in model.history_)


def test_a_pass_needs_to_know_the_labels_once():
    with pytest.raises(DataError, match="only the label 'left'"):
        make().partial_fit(["ab", "ba"], ["left", "left"])
    model = make().partial_fit(["ab", "ba"], ["left", "left"], classes=np.array(["left", "right"]))
    assert model.partial_fit(["cd", "dd"], ["right", None]).classes_.tolist() == ["left", "right"]
    model.partial_fit(["pq"], ["other"])
    assert model.classes_.tolist() == ["left", "other", "right"]
    with pytest.raises(ConfigurationError, match="The recipe auto needs all rows at once"):
        make(recipe="auto").partial_fit(TEXTS, NAMES)


def test_a_pass_after_a_fit_goes_on_with_its_optimizer(tmp_path):
    model = make(learning_rate=0.01).fit(TEXTS, NAMES)
    step = model.fitted_.backend.step
    model.partial_fit(TEXTS[:4], NAMES[:4])
    assert model.fitted_.backend.step == step + 1
    model.save(tmp_path / "run")
    loaded = SequenceSSVAE.load(tmp_path / "run").partial_fit(TEXTS[:4], NAMES[:4])
    assert loaded.fitted_.backend.step == step + 2
    np.testing.assert_array_equal(
        loaded.predict_proba(TEXTS), model.partial_fit(TEXTS[:4], NAMES[:4]).predict_proba(TEXTS)
    )


def test_training_starts_from_a_run_with_labels_of_its_own(tmp_path):
    make().fit(TEXTS, NAMES).save(tmp_path / "run")
    few, labels = TEXTS[:8], ["left" if name == "left" else "other" for name in NAMES[:8]]
    model = SequenceSSVAE.from_pretrained(tmp_path / "run", epochs=1, validation_fraction=0.0)
    assert model.get_params()["pretrained"] == str(tmp_path / "run")
    with pytest.raises(RunError, match="not fitted"):
        model.predict(few)
    assert model.fit(few, labels).classes_.tolist() == ["left", "other"]
    known = make().fit(TEXTS, NAMES).fitted_.backend.get_weights()
    slow = clone(model).set_params(learning_rate=1e-30).fit(few, labels).fitted_.backend.get_weights()
    np.testing.assert_array_equal(slow["encoder.towers.0.embedding"], known["encoder.towers.0.embedding"])
    np.testing.assert_array_equal(slow[BAG][:, 0], known[BAG][:, 0])
    assert np.abs(slow[BAG][:, 1]).max() < 1e-20  # as in a new model
    assert cross_val_score(model, TEXTS, NAMES, cv=2).mean() > 0.7
    with pytest.raises(ConfigurationError, match=r"has other networks: its weight .* has the shape"):
        model.set_params(hidden_size=5).fit(few, labels)
    with pytest.raises(RunError, match=r"There is no run"):
        SequenceSSVAE.from_pretrained(tmp_path / "none")


# Validation rows, seeds, labels


def test_validation_rows_can_be_given():
    model = make(metric="elbo").fit(TEXTS, NAMES, validation=(OTHER_TEXTS, OTHER_NAMES))
    assert model.history_[-1].validation.rows == len(OTHER_TEXTS)
    assert model.history_[-1].training.rows % len(TEXTS) == 0
    few = [text for text in OTHER_TEXTS if "d" not in text]
    scored = make(metric="accuracy").fit(TEXTS, NAMES, validation=(few, [None] * (len(few) - 1) + ["left"]))
    assert scored.history_[-1].validation.labelled_rows == 1
    for wrong, message in {
        (("ab",),): r"must be a tuple \(X, y\)",
        (("ab",), ("up",)): "has the label 'up', which y has not",
        (("ab",), ("left", "left")): "y must have an entry for each",
    }.items():
        with pytest.raises(DataError, match=message):
            make().fit(TEXTS, NAMES, validation=wrong)


def test_candidates_do_not_learn_from_validation_rows_that_are_given():
    seen = make(recipe="auto", metric="elbo").fit(TEXTS, NAMES, validation=(OTHER_TEXTS, OTHER_NAMES))
    assert seen.fitted_.trained_on.labelled.sum() == len(TEXTS)


def test_a_seed_may_be_drawn_from_numpy_s_generators():
    def seeds(*states):
        models = [make(config=None, **SMALL, random_state=state).fit(TEXTS, NAMES) for state in states]
        return [model.fitted_.config.training.seed for model in models]

    state = np.random.RandomState(3)
    assert seeds(np.random.RandomState(3), state, state)[:2] == [np.random.RandomState(3).randint(2**31 - 1)] * 2
    assert len(set(seeds(state, state, np.random.default_rng(0)))) == 3
    assert seeds(np.random.default_rng(1)) == [int(np.random.default_rng(1).integers(2**31 - 1))]
    np.random.seed(5)
    first = seeds(None, None)
    np.random.seed(5)
    assert seeds(None, None) == first
    assert first[0] != first[1]
    assert make(epochs=1).fit(TEXTS, NAMES).fitted_.config.training.seed == toy_config().training.seed
    with pytest.raises(ConfigurationError, match=r"training\.seed must be a whole number"):
        make(random_state="x").fit(TEXTS, NAMES)


def test_labels_of_samples_are_drawn_from_their_prior_where_none_is_given():
    given = {"label_prior": "given", "label_prior_probabilities": [0.9, 0.1]}
    model = make(config=from_dict(merge(SETTINGS, {"model": given}))).fit(TEXTS, NAMES)
    drawn = []
    generate = FakeBackend.generate

    def watched(self, y, *rest, **options):
        drawn.extend(y)
        return generate(self, y, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeBackend, "generate", watched)
        texts = model.sample(n=200, seed=1, max_length=3)
    assert len(texts) == 200
    assert 0.82 < np.mean(np.array(drawn[:200]) == 0) < 0.97
    assert model.sample(None, n=5, seed=1) == model.sample(-1, n=5, seed=1) != model.sample(n=5, seed=2)
    assert model.sample(n=0) == []


def test_without_labels_or_with_one_an_error_says_what_to_do():
    for y in (None, [None] * 60, ["left"] * 60):
        with pytest.raises(DataError, match=r"list the classes: config=Config\(data=DataConfig\(labels="):
            make().fit(TEXTS, y)
    listed = Config(data=DataConfig(labels=["1", "2"]))
    with pytest.warns(UserWarning, match="no row has a label"):
        model = make(config=listed, metric="elbo", **SMALL).fit(TEXTS)
    assert model.classes_.tolist() == ["1", "2"]


# Hyperparameters


def test_a_loaded_estimator_knows_its_hyperparameters(tmp_path):
    model = make(config=None, hidden_size=3, embedding_size=3, alpha=2.5, random_state=4).fit(TEXTS, NAMES)
    model.save(tmp_path / "run")
    given = {name: value for name, value in model.get_params().items() if value is not None}
    loaded = SequenceSSVAE.load(tmp_path / "run")
    assert {name: value for name, value in loaded.get_params().items() if value is not None} == given
    assert repr(loaded) == repr(model)
    other = make(random_state=4).fit(TEXTS, NAMES)
    other.save(tmp_path / "other")
    assert SequenceSSVAE.load(tmp_path / "other").hidden_size == 2
    assert len(repr(SequenceSSVAE.load(tmp_path / "other"))) < 400
    assert known_hyperparameters(Config(), "ssvae") == {"random_state": 0}


def test_an_estimator_that_is_not_fitted_says_so_to_scikit_learn():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        make().predict(TEXTS)
    with pytest.raises(RunError, match="not fitted yet"):
        make().transform(TEXTS)


# scikit-learn's tools


def test_frames_have_names_and_the_index_of_the_rows():
    model = make().fit(TEXTS, NAMES)
    series = pd.Series(OTHER_TEXTS, index=range(100, 140))
    array = model.transform(series)
    assert isinstance(array, np.ndarray)
    names = ["sequencessvae0", "sequencessvae1"]
    assert model.get_feature_names_out().tolist() == names
    frame = model.set_output(transform="pandas").transform(series)
    pd.testing.assert_frame_equal(frame, pd.DataFrame(array, columns=names, index=series.index))
    assert isinstance(clone(model).fit_transform(TEXTS, NAMES), pd.DataFrame)
    assert isinstance(model.set_output(transform=None).transform(series), pd.DataFrame)
    assert isinstance(model.set_output(transform="default").transform(series), np.ndarray)
    assert model.transform(series, features=True).shape == (40, 3)
    with pytest.raises(ConfigurationError, match="transform must be one of default, pandas, polars, not 'arrow'"):
        model.set_output(transform="arrow")


def test_it_is_a_part_of_pipelines_and_unions():
    parts = [("z", make(epochs=2)), ("n", CountVectorizer(analyzer="char"))]
    pipeline = make_pipeline(FeatureUnion(parts), LogisticRegression()).fit(TEXTS, NAMES)
    assert pipeline.score(OTHER_TEXTS, OTHER_NAMES) > 0.8
    assert pipeline[:-1].get_feature_names_out()[:2].tolist() == ["z__sequencessvae0", "z__sequencessvae1"]
    frame = FeatureUnion([("z", make(epochs=2))]).set_output(transform="pandas").fit_transform(TEXTS, NAMES)
    assert frame.shape == (60, 2)


def test_probabilities_can_be_calibrated():
    model = CalibratedClassifierCV(make(epochs=3), cv=2).fit(TEXTS, NAMES)
    np.testing.assert_allclose(model.predict_proba(OTHER_TEXTS).sum(axis=1), 1)
    assert model.score(OTHER_TEXTS, OTHER_NAMES) > 0.7


@pytest.mark.parametrize("marker", [np.nan, None])
def test_a_search_over_both_backends_takes_a_shuffled_series_with_missing_labels(marker):
    order = np.random.default_rng(0).permutation(60)
    frame = pd.DataFrame({"x": TEXTS, "y": [name if row % 3 else marker for row, name in enumerate(NAMES)]})
    frame = frame.iloc[order]
    folds = KFold(3, shuffle=True, random_state=0)
    grid = {"backend": ["fake", "other"], "learning_rate": [1e-9, 0.05]}
    search = GridSearchCV(make(epochs=6), grid, cv=folds, error_score="raise").fit(frame["x"], frame["y"])
    assert search.best_params_["learning_rate"] == 0.05
    assert set(search.best_estimator_.classes_) == {"left", "right"}
    assert search.score(OTHER_TEXTS, OTHER_NAMES) > 0.7
    scores = search.cv_results_["mean_test_score"].reshape(2, 2)
    np.testing.assert_array_equal(scores[0], scores[1])  # the same twin under two names
    (train, test), *_ = folds.split(frame)
    alone = make(epochs=6, learning_rate=0.05).fit(frame["x"].iloc[train], frame["y"].iloc[train])
    assert alone.score(frame["x"].iloc[test], frame["y"].iloc[test]) == search.cv_results_["split0_test_score"][1]


def test_a_search_over_the_two_twins(real_twins):
    series = pd.Series(EVEN).sample(frac=1, random_state=0)
    labels = pd.Series([name if row % 4 else np.nan for row, name in enumerate(NAMES[:16])]).loc[series.index]
    search = GridSearchCV(quick_model("torch"), {"backend": ["torch", "jax"]}, cv=KFold(2), error_score="raise")
    search.fit(series, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(series).shape == (16,)
