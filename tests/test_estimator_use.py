"""`SequenceSSVAE` once it is fitted: predictions, embeddings, samples, scikit-learn's tools, and storage."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.validation import check_is_fitted
from toy import NAMES, OTHER_NAMES, OTHER_TEXTS, SETTINGS, TEXTS
from toy import make_estimator as make
from toy_runs import latest, without_manifest

from seqssvae.cli.main import main
from seqssvae.config.settings import from_dict, merge
from seqssvae.errors import ConfigurationError, DataError, RunError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.runs.run import open_run

pytestmark = pytest.mark.usefixtures("fake_twins")


def test_the_same_random_state_gives_the_same_model():
    first, second, other = (make(random_state=seed).fit(TEXTS, NAMES).predict_proba(TEXTS) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_transform_gives_the_embedding_of_each_sequence():
    model = make().fit(TEXTS, NAMES)
    embedding = model.transform(OTHER_TEXTS)
    vocabulary, table = model.fitted_.schema.vocabulary, model.fitted_.backend.weights["encoder.towers.0.embedding"]
    expected = [table[vocabulary.encode(list(text))].mean(axis=0)[:2] for text in OTHER_TEXTS]
    np.testing.assert_allclose(embedding, expected, rtol=1e-5)
    np.testing.assert_array_equal(make().fit_transform(TEXTS, NAMES), model.transform(TEXTS))


def test_score_counts_labelled_rows_only():
    model = make().fit(TEXTS, NAMES)
    predicted = model.predict(OTHER_TEXTS[:10]).tolist()
    wrong = {"left": "right", "right": "left"}
    y = [*predicted[:6], *(wrong[label] for label in predicted[6:8]), None, None]
    assert model.score(OTHER_TEXTS[:10], y) == 6 / 8
    with pytest.raises(DataError, match="no label to score"):
        model.score(TEXTS[:2], [None, None])


def test_samples_are_of_the_label():
    model = make().fit(TEXTS, [10 if name == "left" else 9 for name in NAMES])
    left, right = ("".join(model.sample(label, n=60, seed=1, max_length=20)) for label in (10, 9))
    share = [sum(symbol in "ab" for symbol in text) / len(text) for text in (left, right)]
    assert share[0] > 0.6 > 0.4 > share[1]
    assert len(set(model.sample(9, n=20, method="greedy", max_length=5))) == 1
    with pytest.raises(DataError, match="There is no label 'left'; known are 9, 10"):
        model.sample("left")


def test_cross_validation_and_grid_search_work():
    model = make(epochs=8)
    assert is_classifier(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The generator's bound")
        scores = cross_val_score(model, TEXTS, NAMES, cv=3)
        assert scores.shape == (3,)
        assert scores.mean() > 0.7
        rates = {"learning_rate": [1e-6, 0.05]}
        search = GridSearchCV(model, rates, scoring="neg_log_loss", cv=2).fit(TEXTS, NAMES)
    untrained, trained = search.cv_results_["mean_test_score"]
    assert untrained < trained - 0.1
    assert search.best_params_ == {"learning_rate": 0.05}
    assert search.predict(OTHER_TEXTS).shape == (40,)


def test_scikit_learn_knows_whether_it_is_fitted():
    with pytest.raises(NotFittedError):
        check_is_fitted(make())
    check_is_fitted(make(epochs=1).fit(TEXTS, NAMES))


# Storage


@pytest.mark.parametrize("labels", [("left", "right"), (10, 9), (1.5, 0.5), (True, False)])
def test_a_saved_model_is_the_same_in_either_twin(tmp_path, labels):
    y = [labels[0] if name == "left" else labels[1] for name in NAMES]
    model = make(missing=-7).fit([list(text) for text in TEXTS], y)
    model.save(tmp_path / "model")
    for name in (None, "other"):
        loaded = SequenceSSVAE.load(tmp_path / "model", backend=name)
        assert loaded.backend == (name or "fake")
        assert loaded.missing == -7
        assert loaded.classes_.tolist() == model.classes_.tolist()
        assert [type(value) for value in loaded.classes_.tolist()] == [type(value) for value in labels]
        np.testing.assert_array_equal(loaded.predict_proba(OTHER_TEXTS), model.predict_proba(OTHER_TEXTS))
        np.testing.assert_allclose(np.exp(loaded.predict_log_proba(OTHER_TEXTS)), model.predict_proba(OTHER_TEXTS))
        assert loaded.sample(labels[0], n=3) == model.sample(labels[0], n=3)
    loaded.save(tmp_path / "again")
    for name in ("weights.safetensors", "last.safetensors", "metrics.jsonl", "estimator.json"):
        assert (latest(tmp_path / "again") / name).read_bytes() == (latest(tmp_path / "model") / name).read_bytes()
    refitted = SequenceSSVAE.load(tmp_path / "model").fit([list(text) for text in TEXTS], y)
    np.testing.assert_array_equal(refitted.predict_proba(OTHER_TEXTS), model.predict_proba(OTHER_TEXTS))


def test_nan_as_the_marker_is_kept(tmp_path):
    y = [float("nan")] * 20 + [-1.0 if name == "left" else 1.0 for name in NAMES[20:]]
    model = make(missing=float("nan")).fit(TEXTS, y)
    assert "missing=nan" in repr(model)
    assert clone(model).missing is model.missing
    model.save(tmp_path / "model")
    loaded = SequenceSSVAE.load(tmp_path / "model")
    assert np.isnan(loaded.missing)
    assert loaded.score(TEXTS, y) == model.score(TEXTS[20:], y[20:])


def test_a_saved_model_is_a_run_that_the_command_line_opens(tmp_path, capsys):
    model = make().fit(TEXTS, NAMES)
    model.save(tmp_path / "model")
    assert open_run(tmp_path / "model").labels.names == ("left", "right")
    data = tmp_path / "data.tsv"
    data.write_text("".join(f"{text}\t{name}\n" for text, name in zip(OTHER_TEXTS, OTHER_NAMES, strict=True)))
    assert main(["evaluate", str(tmp_path / "model"), "--data", str(data), "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["metrics"]["accuracy"]
    assert accuracy == pytest.approx(model.score(OTHER_TEXTS, OTHER_NAMES))


def test_storage_refuses_what_it_cannot_keep(tmp_path):
    with pytest.raises(RunError, match="not fitted yet"):
        make().save(tmp_path / "model")
    tuples = make(epochs=1).fit(TEXTS, [("a", 1) if name == "left" else ("b", 2) for name in NAMES])
    with pytest.raises(ConfigurationError, match="Only labels that are texts or finite numbers can be saved"):
        tuples.save(tmp_path / "model")
    with pytest.raises(ConfigurationError, match="not inf"):
        make(epochs=1).fit(TEXTS, [0.0 if name == "left" else float("inf") for name in NAMES]).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    model = make(epochs=1).fit(TEXTS, NAMES)
    model.save(tmp_path / "model")
    with pytest.raises(RunError, match="exists already"):
        model.save(tmp_path / "model")
    old = without_manifest(tmp_path / "model", tmp_path / "old")
    (old / "estimator.json").write_text('{"classes": ["left"]}')
    with pytest.raises(RunError, match=r"estimator\.json: classes must be a list of 2 labels"):
        SequenceSSVAE.load(old)
    (old / "estimator.json").write_text('{"classes": ["left", {}]}')
    with pytest.raises(RunError, match=r"estimator\.json: labels and marker must be texts or numbers"):
        SequenceSSVAE.load(old)


def test_it_needs_no_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None; "
        "from seqssvae import SequenceSSVAE; print(SequenceSSVAE(epochs=3).get_params()['epochs'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


def test_no_label_where_none_is_probable_enough():
    model = make().fit(TEXTS, NAMES)
    sure = model.predict_proba(OTHER_TEXTS).max(axis=1)
    threshold = float(np.median(sure))
    labels = model.predict(OTHER_TEXTS, abstain_below=threshold)
    assert [label is None for label in labels] == (sure < threshold).tolist()
    kept = sure >= threshold
    assert labels[kept].tolist() == model.predict(OTHER_TEXTS)[kept].tolist()
    assert model.predict(OTHER_TEXTS, abstain_below=0.0).tolist() == model.predict(OTHER_TEXTS).tolist()
    with pytest.raises(ConfigurationError, match="abstain_below"):
        model.predict(OTHER_TEXTS, abstain_below=1.5)


def test_scores_are_log_likelihoods():
    model = make().fit(TEXTS, NAMES)
    scores = model.score_samples(OTHER_TEXTS, importance_samples=4, seed=1)
    lengths = np.array([len(text) + 1 for text in OTHER_TEXTS])  # END counts
    per_symbol = model.score_samples(OTHER_TEXTS, importance_samples=4, seed=1, per_symbol=True)
    np.testing.assert_allclose(per_symbol * lengths, scores)
    assert (scores < 0).all()
    with pytest.raises(ConfigurationError, match="importance_samples"):
        model.score_samples(OTHER_TEXTS, importance_samples=0)
    classifier = from_dict(merge(SETTINGS, {"objective": {"name": "classifier"}}))
    with pytest.raises(ConfigurationError, match="generator"):
        make(config=classifier).fit(TEXTS, NAMES).score_samples(OTHER_TEXTS)
