"""Temperatures of the network's own predictions, fitted on rows that were held out, and kept with the run."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import FIT, rows_of
from toy import NAMES, TEXTS, make_estimator, toy_config

from seqssvae.cli.main import main
from seqssvae.config.settings import from_dict
from seqssvae.data.corpus import encode_table
from seqssvae.data.table import Table
from seqssvae.errors import RunError
from seqssvae.recipes.calibration import label_metrics
from seqssvae.recipes.named import with_recipe
from seqssvae.recipes.pool import Pool
from seqssvae.recipes.predictors import fit_network_pool, predict_by_each_method, predict_log_proba
from seqssvae.runs.files import CALIBRATION, read_metrics
from seqssvae.runs.learned import read_network_pool
from seqssvae.runs.run import RunDirectory, open_run


def overconfident(power: float):
    """A twin to which texts that begin with `a` are `left` with a probability of .8, raised to a power."""

    def classify(x, source=None):
        log_p = np.log(np.where((x[:, :1] == 4), [0.8, 0.2], [0.2, 0.8]))
        return power * log_p - np.log(np.exp(power * log_p).sum(axis=1, keepdims=True))

    return SimpleNamespace(classify=classify)


@pytest.fixture
def held_out():
    """Rows of which four in five have the label that their first letter says."""
    texts = ["ab", "ba"] * 100
    labels = ["left" if (text[0] == "a") == (row % 5 > 0) else "right" for row, text in enumerate(texts)]
    estimator = make_estimator().fit(TEXTS, NAMES)
    table = Table.from_rows(texts, labels)
    return encode_table(table, estimator.fitted_.schema, toy_config().data, "truncate")


@pytest.mark.parametrize("power", [0.5, 1.0, 4.0])
def test_the_temperature_undoes_a_power(fake_twins, held_out, power):
    config = from_dict(with_recipe("labels", {}))
    twin = overconfident(power)
    pool = fit_network_pool(twin, config, held_out, 2)
    assert pool.temperatures == pytest.approx([power], rel=0.05)
    model = SimpleNamespace(backend=twin, config=config, ensemble=None, network_pool=pool)
    calibrated = label_metrics(predict_log_proba(model, held_out), held_out.y)
    model.network_pool = None
    raw = label_metrics(predict_log_proba(model, held_out), held_out.y)
    assert calibrated.calibration_error < 0.01
    assert (raw.calibration_error > 0.1) == (power != 1.0)
    assert calibrated.log_loss <= raw.log_loss + 1e-3
    assert calibrated.accuracy == raw.accuracy == 0.8


def test_each_way_to_predict_has_its_own_temperature(fake_twins, held_out, monkeypatch):
    """With log-odds of 3 and of -2, temperatures of 2 and 4, and weights of 1/4 and 3/4."""
    rows = held_out.take(np.arange(1))
    for name, odds in (("_classified", 3.0), ("_generative", -2.0)):
        scores = np.array([[odds, 0.0]])
        monkeypatch.setattr(f"seqssvae.recipes.predictors.{name}", lambda *given, scores=scores: scores)
    pool = Pool(np.array([2.0, 4.0]), np.array([0.25, 0.75]))
    model = SimpleNamespace(backend=None, config=toy_config(), ensemble=None, network_pool=pool)
    first, second = 1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(0.5))
    expected = {"classifier": first, "generative": second, "combined": 0.25 * first + 0.75 * second}
    for method, p in expected.items():
        assert np.exp(predict_log_proba(model, rows, method))[0, 0] == pytest.approx(p, rel=1e-9)
    by_method = predict_by_each_method(model, rows)
    assert {method: np.exp(log_p)[0, 0] for method, log_p in by_method.items()} == pytest.approx(expected, rel=1e-9)
    model.ensemble = SimpleNamespace(log_proba=lambda sequences: np.log([[0.9, 0.1]]))
    by_method = predict_by_each_method(model, rows, log_q_y=np.array([[1.0, 0.0]]))
    expected |= {"classifier": 1 / (1 + np.exp(-0.5)), "combined": 0.9}
    assert {method: np.exp(log_p)[0, 0] for method, log_p in by_method.items()} == pytest.approx(expected, rel=1e-9)


def test_without_labelled_rows_held_out_nothing_is_fitted(fake_twins, held_out):
    missing = held_out.with_labels(np.full(len(held_out), -1))
    assert fit_network_pool(overconfident(2.0), toy_config(), missing, 2) is None
    assert make_estimator(config=toy_config(), validation_fraction=0.0).fit(TEXTS, NAMES).fitted_.network_pool is None


def test_a_run_keeps_its_temperatures_and_predicts_by_them(workplace, capsys):
    assert main(FIT) == 0
    run = open_run("run")
    written = json.loads((RunDirectory("run").files.folder / CALIBRATION).read_text())
    assert run.network_pool.temperatures.tolist() == written["temperatures"]
    assert run.network_pool.weights.tolist() == written["weights"]
    for method, place in (("classifier", 0), ("generative", 1)):
        assert main(["predict", "run", "--data", "train.tsv", "--output", f"{method}.tsv", "--method", method]) == 0
        predicted = np.array([row[-2:] for row in rows_of(workplace / f"{method}.tsv")[1:]], float)
        bare = SimpleNamespace(backend=run.backend, config=run.config, ensemble=None, network_pool=None)
        corpus = run_rows(run)
        powers = np.exp(predict_log_proba(bare, corpus, method) / run.network_pool.temperatures[place])
        np.testing.assert_allclose(predicted, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)
    capsys.readouterr()


def run_rows(run):
    texts = [line.split("\t")[0] for line in Path("train.tsv").read_text().splitlines()]
    return encode_table(Table.from_rows(texts, [None] * len(texts)), run.schema, run.config.data, "truncate")


def test_a_run_that_goes_on_has_the_temperatures_of_its_last_weights(workplace, capsys):
    assert main(FIT) == 0
    first = open_run("run").network_pool
    assert main(["fit", "--resume", "run", "--training.epochs", "9"]) == 0
    again = open_run("run").network_pool
    assert again.temperatures.tolist() != first.temperatures.tolist()
    assert len(list((workplace / "run" / "checkpoints").iterdir())) == 2
    capsys.readouterr()


def test_temperatures_of_older_weights_are_not_written_over_newer_ones(workplace, capsys, monkeypatch):
    """A run that another process goes on with, while the first calibrates, keeps the other's checkpoints."""
    before = fit_network_pool

    def go_on_meanwhile(*given):
        monkeypatch.setattr("seqssvae.recipes.auto.fit_network_pool", before)
        assert main(["fit", "--resume", "run", "--training.epochs", "9", "--quiet"]) == 0
        return before(*given)

    monkeypatch.setattr("seqssvae.recipes.auto.fit_network_pool", go_on_meanwhile)
    assert main(FIT) == 0
    steps = [record["step"] for record in read_metrics("run")]
    assert RunDirectory("run").read_checkpoint().state.step == steps[-1]
    assert steps[-1] > 20
    capsys.readouterr()


@pytest.mark.parametrize(
    "content",
    [
        {"temperatures": [1.0, 2.0], "weights": [1.0]},
        {"temperatures": [1.0, -2.0], "weights": [0.5, 0.5]},
        {"temperatures": [1.0, 2.0], "weights": [0.5, 0.6]},
        {"temperatures": [1.0, True], "weights": [0.5, 0.5]},
        {"temperatures": [], "weights": []},
        {"temperatures": [1.0], "weights": [1.0]},
        {"temperatures": [1e-320, 1.0], "weights": [0.5, 0.5]},
        {"temperatures": "1.0", "weights": [1.0]},
        {"weights": [1.0]},
        {"temperatures": [1.0, 1e400], "weights": [0.5, 0.5]},
    ],
)
def test_damaged_temperatures_are_one_sentence(toy_run, content):
    files = RunDirectory(toy_run, verify=False).files
    (files.folder / CALIBRATION).write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"calibration\.json"):
        read_network_pool(files, 2)


def test_a_weight_may_be_next_to_nothing(toy_run):
    """As that of a way to predict that adds nothing, fitted on a million rows."""
    files = RunDirectory(toy_run, verify=False).files
    (files.folder / CALIBRATION).write_text(json.dumps({"temperatures": [1.0, 2.0], "weights": [1 - 1e-7, 1e-7]}))
    assert read_network_pool(files, 2).weights.tolist() == [1 - 1e-7, 1e-7]


def test_equal_weights_and_no_temperature_are_what_there_is_without(fake_twins):
    model = make_estimator().fit(TEXTS, NAMES)
    rows = model.fitted_.encode(TEXTS, None)
    plain, unit = (model.fitted_._replace(network_pool=pool) for pool in (None, Pool(np.ones(2), np.full(2, 0.5))))
    for method in ("classifier", "generative", "combined"):
        np.testing.assert_array_equal(predict_log_proba(plain, rows, method), predict_log_proba(unit, rows, method))
