"""The demonstration and the comparison behind it, with a fast double for the twins."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from fake_backend import FakeBackend
from toy import toy_config, toy_table

from seqssvae.backend import NO_LABEL
from seqssvae.cli.demo import QUICK_STEPS
from seqssvae.cli.main import main
from seqssvae.config import presets
from seqssvae.data.table import SymbolColumn
from seqssvae.datasets import load_peptides
from seqssvae.demo.experiment import LABELS_PER_CLASS, Experiment, classifier_config, prepare, run_pair, train_and_test
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import open_run


@pytest.fixture(autouse=True)
def presets_for_the_double(monkeypatch):
    """The fast double knows one conditioning only."""

    def conditioned(config):
        decoder = dataclasses.replace(config.model.decoder, conditioning="output")
        return dataclasses.replace(config, model=dataclasses.replace(config.model, decoder=decoder))

    for name, preset in list(presets.PRESETS.items()):
        made = presets.Preset(*(lambda side=side: conditioned(side()) for side in preset))
        monkeypatch.setitem(presets.PRESETS, name, made)


ROWS = toy_table(200, 200)


def few_labels(seed, development=False, rows=ROWS) -> Experiment:
    return prepare(rows, toy_config(), seed, development, labels_per_class=5)


def test_an_experiment_hides_all_labels_but_a_few():
    experiment = few_labels(seed=1)
    for label in (0, 1):
        assert np.sum(experiment.training.y == label) == 5
        assert np.sum(experiment.validation.y == label) == 5
    assert np.sum(experiment.training.y == NO_LABEL) == len(experiment.training) - 10 > 90
    assert not np.any(experiment.test.y == NO_LABEL)
    assert len(experiment.test) == pytest.approx(40, abs=2)
    assert abs(np.mean(experiment.test.y) - 0.5) < 0.05


def test_an_experiment_s_parts_do_not_share_rows():
    texts = [(*symbols, *f"{index:03d}") for index, symbols in enumerate(ROWS.sequences)]
    distinct = dataclasses.replace(ROWS, sequences=SymbolColumn.from_symbols(texts))
    for development in (False, True):
        experiment = few_labels(1, development, distinct)
        parts = [set(), set(), set()]
        for part, corpus in zip(parts, (experiment.training, experiment.validation, experiment.test), strict=True):
            part.update(tuple(experiment.schema.vocabulary.decode(sequence)) for sequence in corpus.sequences)
            assert len(part) == len(corpus)
        assert len(set.union(*parts)) == sum(map(len, parts))


def test_development_rows_are_never_test_rows():
    texts = [f"{index:03d}" for index in range(len(ROWS))]
    distinct = dataclasses.replace(ROWS, sequences=SymbolColumn.from_texts(texts, separator=""))

    def test_rows(seed, development=False):
        experiment = few_labels(seed, development, distinct)
        return {tuple(experiment.schema.vocabulary.decode(sequence)) for sequence in experiment.test.sequences}

    development = test_rows(0, development=True)
    assert development == test_rows(1, development=True)
    for seed in range(3):
        assert len(test_rows(seed)) == pytest.approx(40, abs=2)
        assert not development & test_rows(seed)
    assert test_rows(0) != test_rows(1)


def test_an_experiment_is_a_function_of_its_seed():
    first, again, other = (few_labels(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.training.y, again.training.y)
    np.testing.assert_array_equal(first.test.lengths, again.test.lengths)
    assert first.training.y.tolist() != other.training.y.tolist()


def test_both_models_get_the_same_steps_evaluations_and_rows():
    config = toy_config()
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, patience=0, standard_errors=0.0))
    experiment = few_labels(seed=3)
    pair = run_pair(experiment, config, FakeBackend)
    taken = [[record.step for record in model.result.records] for model in pair]
    assert taken[0] == taken[1]
    assert len(taken[0]) == config.training.epochs
    for model, name in zip(pair, ("classifier", "ssvae"), strict=True):
        assert model.config.objective.name == name
        assert model.config.training.seed == 3
        assert model.test.metrics.rows == len(experiment.test)
        best = max(
            model.result.records, key=lambda record: (record.validation.accuracy, -record.validation.classification)
        )
        assert model.result.best.step == best.step
        for key, value in model.result.state.best_weights.items():
            np.testing.assert_array_equal(model.backend.get_weights()[key], value)
    assert pair.classifier.test.metrics.elbo is None
    assert pair.ssvae.test.metrics.elbo < 0


def test_a_model_is_trained_from_the_experiment_s_seed():
    model = train_and_test(few_labels(seed=3), toy_config(), FakeBackend)
    assert model.config.training.seed == model.backend.config.training.seed == 3


def test_the_classifier_s_configuration_differs_only_in_its_objective_and_how_steps_are_counted():
    config = toy_config()
    baseline = classifier_config(config, few_labels(0).training)
    assert dataclasses.replace(baseline.objective, name="ssvae") == config.objective
    training = dataclasses.replace(config.training, epochs=1, max_steps=1, evaluation_interval=1)
    assert dataclasses.replace(baseline.training, epochs=1, max_steps=1, evaluation_interval=1) == training
    assert (baseline.model, baseline.optimizer, baseline.data) == (config.model, config.optimizer, config.data)


def test_what_the_classifier_has_of_its_own_is_dropout_and_optimiser():
    config = toy_config()
    encoder = dataclasses.replace(config.model.encoder, word_dropout=0.2)
    own = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dropout=0.4, latent_size=99, encoder=encoder),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.5),
    )
    baseline = classifier_config(config, few_labels(0).training, own)
    assert baseline.model == dataclasses.replace(config.model, dropout=0.4, encoder=encoder)
    assert baseline.optimizer == own.optimizer


def test_the_demo_prints_one_table_sequences_for_each_label_and_where_the_runs_are(
    tmp_path, monkeypatch, capsys, fake_twins
):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quick", "--seed=1"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    rows = [line for line in output.out.splitlines() if re.match(r"│ (fake|other) ", line)]
    assert len(rows) == 4
    for twin in ("fake", "other"):
        assert f"{twin}, generated for AMP:" in output.out
        assert f"{twin}, generated for UniProt:" in output.out
    generated = output.out.split("fake, generated for AMP:\n")[1].split("fake, generated for UniProt:\n")[0]
    assert len(generated.splitlines()) == 5
    assert f", of which {2 * LABELS_PER_CLASS} are labelled (50 of each of 2 classes); " in output.out
    for name in ("fake-classifier", "fake-ssvae", "other-classifier", "other-ssvae"):
        assert f"runs/demo/{name}" in output.out
        run = open_run(f"runs/demo/{name}")
        assert run.trained_by == name.partition("-")[0]
        assert run.config.training.seed == 1
        assert read_metrics(f"runs/demo/{name}")[-1]["step"] == QUICK_STEPS


def test_the_demo_s_table_holds_what_the_runs_do_on_the_test_rows(tmp_path, monkeypatch, capsys, fake_twins):
    from seqssvae.inference.evaluate import evaluate

    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quick", "--backends", "fake", "--output", "here"]) == 0
    output = capsys.readouterr().out
    for name in ("classifier", "ssvae"):
        run = open_run(f"here/fake-{name}")
        experiment = prepare(load_peptides(), run.config, seed=0)
        metrics = evaluate(run.backend, experiment.test, run.config, seed=0).metrics
        elbo = "-" if metrics.elbo_per_symbol is None else f"{metrics.elbo_per_symbol:.3f}"
        assert re.search(rf"│ +{metrics.accuracy:.3f} │ +{elbo} │", output)


def test_the_demo_refuses_a_directory_that_exists_and_finds_a_free_one_by_itself(
    tmp_path, monkeypatch, capsys, fake_twins
):
    monkeypatch.chdir(tmp_path)
    Path("runs/demo/mine").mkdir(parents=True)
    assert main(["demo", "--quick", "--backends", "fake", "--output", "runs/demo"]) == 2
    assert "runs/demo exists already" in capsys.readouterr().err
    assert main(["demo", "--quick", "--backends", "fake"]) == 0
    assert "runs/demo-2/fake-ssvae" in capsys.readouterr().out
    assert list(Path("runs/demo").iterdir()) == [Path("runs/demo/mine")]


def test_the_demo_names_the_extra_of_a_twin_that_is_not_installed(tmp_path, monkeypatch, capsys, fake_twins):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--quick", "--backends", "absent"]) == 2
    assert "seqssvae[absent]" in capsys.readouterr().err
    monkeypatch.setattr("seqssvae.backend.entry_points", lambda group: [])
    assert main(["demo", "--quick"]) == 2
    assert "No twin is installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
