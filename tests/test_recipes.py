"""The recipe `auto`, what it is compared with, and three ways to predict, with a fast double of a twin."""

import json
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from commands import FIT
from toy import OTHER_NAMES, OTHER_TEXTS, TEXTS, make_estimator, write_toy

from seqssvae.cli.main import main
from seqssvae.config.settings import from_dict
from seqssvae.errors import ConfigurationError, DataError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.estimator.tuning import tune
from seqssvae.recipes.ensemble import ENSEMBLE, LINEAR, MARKOV
from seqssvae.recipes.named import RECIPES, recipe_settings, with_recipe

LABELS = [name if index < 24 else None for index, name in enumerate(["left", "right"] * 30)]


@cache
def fitted_once():
    """An estimator that the recipe `auto` fitted, which no test changes."""
    return make_estimator(recipe="auto").fit(TEXTS, LABELS)


@pytest.fixture
def fitted(fake_twins):
    return fitted_once()


def test_every_recipe_is_a_configuration_that_ones_own_fields_override():
    for name in RECIPES:
        assert from_dict(with_recipe(name, {"training": {"max_steps": 7}})).training.max_steps == 7
    assert from_dict(with_recipe("auto", {})).objective.posterior == "given"
    sampled = {"objective": {"gradient_estimator": "top_k"}}
    assert from_dict(with_recipe("auto", sampled)).objective.posterior == "amortised"
    with pytest.raises(ConfigurationError, match="recipe must be one of auto, ssvae"):
        recipe_settings("otto")
    with pytest.raises(ConfigurationError, match="recipe must be one of"):
        make_estimator(recipe="otto").fit(TEXTS, LABELS)


def test_auto_says_what_it_tried_and_predicts_with_all_that_is_of_use(fitted):
    names = [trial.name for trial in fitted.trials_]
    assert names[-1] == ENSEMBLE
    assert {LINEAR, MARKOV} <= set(names)
    assert fitted.trials_[-1].accuracy > 0.7
    ensemble = fitted.fitted_.ensemble
    assert sum(trial.weight for trial in fitted.trials_[:-1]) == pytest.approx(1.0, abs=0.1)
    expected = np.exp(ensemble.log_proba(fitted.fitted_.encode(OTHER_TEXTS, None).sequences))
    np.testing.assert_allclose(fitted.predict_proba(OTHER_TEXTS), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        fitted.predict_proba(OTHER_TEXTS), fitted.predict_proba(OTHER_TEXTS, method="combined")
    )
    assert fitted.score(OTHER_TEXTS, OTHER_NAMES) > 0.7


def test_the_network_has_its_own_predictions(fitted):
    classifier = fitted.predict_proba(OTHER_TEXTS, method="classifier")
    generative = fitted.predict_proba(OTHER_TEXTS, method="generative")
    network, rows = fitted.fitted_.backend, fitted.fitted_.encode(OTHER_TEXTS[:1], None)
    powers = np.exp(network.classify(rows.sequences[0][None])[0] / fitted.fitted_.network_pool.temperatures[0])
    np.testing.assert_allclose(classifier[0], powers / powers.sum(), rtol=1e-5)
    np.testing.assert_allclose(generative.sum(axis=1), 1.0)
    with pytest.raises(ConfigurationError, match="method must be classifier, generative or combined, not 'both'"):
        fitted.predict(OTHER_TEXTS, method="both")
    plain = make_estimator().fit(TEXTS, LABELS)
    parts = [plain.predict_proba(OTHER_TEXTS, method=name) for name in ("classifier", "generative")]
    joined = np.average(parts, axis=0, weights=plain.fitted_.network_pool.weights)
    np.testing.assert_allclose(plain.predict_proba(OTHER_TEXTS, method="combined"), joined, rtol=1e-6)
    np.testing.assert_array_equal(plain.predict_proba(OTHER_TEXTS), parts[0])
    alone = make_estimator(config=from_dict(with_recipe("labels", {}))).fit(TEXTS, LABELS)
    with pytest.raises(ConfigurationError, match="needs a generator"):
        alone.predict(OTHER_TEXTS, method="generative")


def test_what_auto_learned_is_in_the_run_directory(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    loaded = SequenceSSVAE.load(tmp_path / "run")
    assert loaded.recipe == "auto"
    np.testing.assert_array_equal(loaded.predict_proba(OTHER_TEXTS), fitted.predict_proba(OTHER_TEXTS))
    assert loaded.fitted_.ensemble.trials == fitted.fitted_.ensemble.trials
    for method in ("classifier", "generative"):
        probabilities, expected = (one.predict_proba(OTHER_TEXTS, method=method) for one in (loaded, fitted))
        np.testing.assert_array_equal(probabilities, expected)


def test_nothing_is_learned_from_random_labels_and_it_is_said(fake_twins):
    generator = np.random.default_rng(0)
    random = [str(generator.choice(["left", "right"])) if label else None for label in LABELS]
    with pytest.warns(UserWarning, match="Nothing was learned about the labels"):
        make_estimator(recipe="auto").fit(TEXTS, random)


def test_rows_of_another_kind_do_no_harm(fake_twins):
    """With rows without label that are of other symbols, the accuracy is about that of labels alone."""
    foreign = ["".join(np.random.default_rng(index).choice(list("wxyz"), 6)) for index in range(80)]
    labelled = [(text, label) for text, label in zip(TEXTS, LABELS, strict=True) if label]
    texts, labels = [text for text, _ in labelled], [label for _, label in labelled]
    alone = make_estimator(recipe="auto").fit(texts, labels).score(OTHER_TEXTS, OTHER_NAMES)
    mixed = make_estimator(recipe="auto").fit(texts + foreign, labels + [None] * 80).score(OTHER_TEXTS, OTHER_NAMES)
    assert mixed >= alone - 0.08


def test_where_nothing_can_be_compared_the_network_is_trained_alone(fake_twins):
    few = [label if index < 2 else None for index, label in enumerate(LABELS)]
    with pytest.warns(UserWarning, match="too few labelled rows"):
        model = make_estimator(recipe="auto", metric="elbo").fit(TEXTS, few)
    assert model.trials_ == []
    assert model.fitted_.ensemble is None
    assert model.fitted_.config.objective.posterior == "amortised"
    with pytest.warns(UserWarning, match="All labelled rows are of one group"):
        make_estimator(recipe="auto", metric="elbo").fit(TEXTS, LABELS, groups=["one"] * 24 + [None] * 36)
    with pytest.raises(DataError, match="Nothing can be compared"):
        make_estimator().compare(TEXTS, few)


@pytest.mark.thorough  # as by the command line, below
def test_compare_puts_this_tool_beside_others(fake_twins):
    comparisons = make_estimator(recipe="auto").compare(TEXTS, LABELS)
    assert len(comparisons) == 5
    assert comparisons[-1].name == "seqssvae, recipe auto"
    for one in comparisons:
        assert 0 <= one.low <= one.accuracy <= one.high <= 1


def test_the_command_line_fits_predicts_resumes_and_compares(workplace, capsys):
    fit = [argument for argument in FIT if argument not in ("--recipe", "ssvae")]
    assert main(fit) == 0
    assert "cross-validation over the labelled rows" in capsys.readouterr().out
    write_toy(workplace / "more.tsv", seed=3)
    outputs = []
    for method in ([], ["--method=combined"], ["--method=classifier"], ["--method=generative"]):
        assert main(["predict", "run", "--data=more.tsv", "--output=labels.tsv", "--overwrite", *method]) == 0
        outputs.append((workplace / "labels.tsv").read_text())
    assert outputs[0] == outputs[1]
    assert len(set(outputs[1:3])) == 2
    assert main(["fit", "--resume=run", "--output=on"]) == 0
    assert main(["predict", "on", "--data=more.tsv", "--output=on.tsv"]) == 0
    assert (workplace / "on.tsv").read_text() == outputs[0]
    capsys.readouterr()
    assert main(["compare", "--config=toy.yaml", "--data.train=train.tsv", "--backend=fake", "--json"]) == 0
    comparisons = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in comparisons][-1] == "seqssvae, recipe auto"
    assert all(0 <= entry["low"] <= entry["accuracy"] <= entry["high"] <= 1 for entry in comparisons)


@pytest.mark.parametrize("call", ["fit", "compare", "tune"])
def test_a_device_that_is_not_there_is_said_before_anything_is_computed(call, workplace, capsys, monkeypatch):
    """Candidates may take minutes, and the network that needs the device comes last."""
    computing = ("estimator.fitting.learn", "cli.fit.learn", "cli.compare.compare", "estimator.sequence_ssvae.compare")
    for name in (*computing, "cli.tune.sweep", "estimator.tuning.sweep"):
        monkeypatch.setattr(f"seqssvae.{name}", lambda *given, **named: pytest.fail("something was computed"))
    own = {"fit": ["--output=out"], "tune": ["--output=out", "--space.optimizer.learning_rate=log 1e-3 1e-1"]}
    assert main([call, *own.get(call, []), "--backend=fake", "--device=abacus", "--data.train=train.tsv"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "seqssvae: error: Fake has no device 'abacus' here."
    assert not Path("out").exists()
    model = make_estimator(recipe="ssvae" if call == "tune" else "auto", device="abacus")
    method = partial(tune, model, space={"optimizer.learning_rate": "log 1e-3 1e-1"}, output="out")
    with pytest.raises(ConfigurationError, match="Fake has no device"):
        (method if call == "tune" else getattr(model, call))(TEXTS, LABELS)
