"""The comparison of gradient estimators: what both twins measure in this process, and the command with its own."""

import json
from functools import cache

import numpy as np
import pytest
import yaml

from seqssvae.backend import Batch, Dimensions, Weights
from seqssvae.checks.gradient_estimators import (
    GradientEstimator,
    GradientQuality,
    Measurement,
    Setting,
    list_gradient_estimators,
    random_batch,
)
from seqssvae.checks.measuring import Measurer
from seqssvae.cli.arguments import parse_arguments
from seqssvae.cli.main import main
from seqssvae.cli.tables import gradient_estimators_table
from seqssvae.config import Config, DecoderConfig, EncoderConfig, ModelConfig, TrainingConfig
from seqssvae.data.corpus import Corpus
from seqssvae.errors import DataError
from seqssvae.parameters import initial_weights
from seqssvae.top_k import candidates, least_k

K, V = 5, 9
MODEL = ModelConfig(latent_size=2, encoder=EncoderConfig(embedding_size=3, hidden_size=4), decoder=DecoderConfig(3, 4))


@cache
def setting(twin: str) -> Setting:
    """A model whose q(y|x) has an opinion, and four rows."""
    generator = np.random.default_rng(0)
    config = Config(model=MODEL, training=TrainingConfig(precision="float64"))
    weights = initial_weights(MODEL, V, K, 0, "float64")
    weights["classifier.weight"] *= 3
    x = np.array([[4, 5, 6, 3], [7, 8, 3, 0], [5, 5, 3, 0], [8, 4, 6, 3]], np.int32)
    batch = Batch(x, np.full(4, -1, np.int32), np.ones(4, bool), np.arange(4, dtype=np.int32))
    prior = tuple(generator.dirichlet(np.ones(K)).tolist())
    return Setting(twin, config, Dimensions(V, prior), weights, batch)


@cache
def measured(twin: str, estimator: GradientEstimator) -> Measurer:
    return Measurer(setting(twin), estimator)


@pytest.fixture(params=["torch", "jax"])
def twin(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_exact_ones_have_neither_bias_nor_variance(twin: str) -> None:
    exact = measured(twin, GradientEstimator("enumerate")).gradient(0)
    for quality in measured(twin, GradientEstimator("sequential")).qualities(exact, 2):
        assert max(quality) < 1e-12


@pytest.mark.parametrize("twin", ["torch", pytest.param("jax", marks=pytest.mark.thorough)])  # with the same gradients
@pytest.mark.usefixtures("unchecked")
def test_an_unbiased_one_has_a_bias_that_chance_explains_and_a_biased_one_has_not(twin: str) -> None:
    exact = measured(twin, GradientEstimator("enumerate")).gradient(0)
    top, least = (measured(twin, GradientEstimator("top_k", k)).qualities(exact, 60) for k in (2, 1))
    score = measured(twin, GradientEstimator("score_function")).qualities(exact, 60)
    gumbel = measured(twin, GradientEstimator("gumbel_softmax")).qualities(exact, 200)
    for quality in (*top, *least, *score):
        assert quality.bias < 3 * quality.chance
        assert quality.chance == pytest.approx(quality.deviation / np.sqrt(60))
    assert gumbel[1].bias > 3 * gumbel[1].chance
    assert top[1].deviation < least[1].deviation


def test_figures_are_those_of_the_definition(twin: str) -> None:
    exact = measured(twin, GradientEstimator("enumerate")).gradient(0)
    worker = measured(twin, GradientEstimator("top_k", 1))
    names = ("classifier.weight", "classifier.bias")

    def flat(gradients: Weights) -> np.ndarray:
        return np.concatenate([gradients[name].ravel() for name in names])

    errors = np.array([flat(worker.gradient(draw)) - flat(exact) for draw in range(7)])
    norm = np.linalg.norm(flat(exact))
    variance = errors.var(0, ddof=1).sum()
    quality = worker.qualities(exact, 7)[1]
    assert quality.deviation == pytest.approx(np.sqrt(variance) / norm)
    bias = max((errors.mean(0) ** 2).sum() - variance / 7, 0.0)
    assert quality.bias == pytest.approx(np.sqrt(bias) / norm)


def test_both_twins_find_the_same_gradients() -> None:
    for estimator in (
        GradientEstimator("enumerate"),
        GradientEstimator("top_k", 2),
        GradientEstimator("gumbel_softmax"),
    ):
        ours, theirs = (measured(twin, estimator).gradient(3) for twin in ("torch", "jax"))
        for name, value in ours.items():
            np.testing.assert_allclose(value, theirs[name], rtol=1e-8, atol=1e-12)


def test_a_step_takes_time_and_moves_nothing_much(twin: str) -> None:
    worker = measured(twin, GradientEstimator("top_k", 1))
    before = worker.twin.get_weights()
    assert worker.seconds() > 0
    assert all(np.abs(value - before[name]).max() < 1e-8 for name, value in worker.twin.get_weights().items())


def test_every_k_leaves_something_to_draw() -> None:
    assert [str(estimator) for estimator in list_gradient_estimators(5, [1, 3, 4])] == [
        "enumerate",
        "sequential",
        "top_k, k = 1",
        "top_k, k = 3",
        "gumbel_softmax",
        "score_function",
    ]
    assert [estimator.passes(5) for estimator in list_gradient_estimators(5, [1, 3])] == [5, 5, 2, 4, 1, 1]
    assert GradientEstimator("top_k", 4).passes(5) == 5


@pytest.mark.parametrize("label_count", [2, 3, 12, 45, 256])
def test_the_least_k_is_a_candidate_and_leaves_little(label_count: int) -> None:
    ks = candidates(label_count)
    assert ks[-1] == label_count
    assert all(k < label_count - 1 for k in ks[:-1])
    rest = np.sort(np.random.default_rng(label_count).random(len(ks)))[::-1]
    for bound in (0.01, 0.3, 0.99):
        k = least_k(label_count, rest, bound)
        place = ks.index(k)
        assert k == label_count or rest[place] <= bound
        assert all(rest[:place] > bound)


def test_a_batch_is_of_different_rows_without_labels() -> None:
    sequences = tuple(np.array([4] * length + [3], np.int32) for length in range(1, 8))
    corpus = Corpus.from_sequences(sequences, np.zeros(7, np.int32))
    batch = random_batch(corpus, 4, seed=1)
    assert len(set(batch.rows)) == 4
    assert (batch.y == -1).all()
    assert batch.x.shape[1] == max(len(sequences[row]) for row in batch.rows)
    assert (random_batch(corpus, 4, seed=1).rows == batch.rows).all()
    assert len(random_batch(corpus, 99, seed=1).rows) == 7
    with pytest.raises(DataError, match="no row"):
        random_batch(corpus.take(np.arange(0)), 4, 0)


@pytest.mark.thorough  # the command is run for a run of the recipe `auto` as well
def test_the_command_measures_in_processes_of_their_own(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    names = ["p", "q", "r", "s"]
    lines = [f"{''.join(generator.choice(list('abcd'), 5))}\t{names[row % 4]}" for row in range(24)]
    (tmp_path / "data.tsv").write_text("\n".join(lines) + "\n")
    small = {"embedding_size": 3, "hidden_size": 4}
    settings = {"model": {"latent_size": 2, "encoder": small, "decoder": small}, "training": {"batch_size": 6}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    call = ["gradient-estimators", "--config=small.yaml", "--data=data.tsv", "--backend=torch"]
    assert main([*call, "--k", "1", "--draws=3", "--repetitions=2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    by_name = {entry["estimator"]: entry for entry in report["estimators"]}
    assert list(by_name) == ["enumerate", "sequential", "top_k, k = 1", "gumbel_softmax", "score_function"]
    assert [entry["decoder_passes"] for entry in by_name.values()] == [4, 4, 2, 1, 1]
    assert by_name["sequential"]["every_weight"]["bias"] < 1e-5
    assert by_name["score_function"]["every_weight"]["deviation"] > 1e-3
    assert all(entry["milliseconds"] > 0 for entry in by_name.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs a run directory or --config FILE"),
        (["run", "--config", "c.yaml"], "one of the two"),
        (["--config", "c.yaml", "--backend", "torch", "--draws", "1"], "--draws must be a whole number of at least 2"),
        (["--config", "c.yaml", "--backend", "torch", "--k", "0"], "--k must be a whole number of at least 1"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("{}")
    (tmp_path / "data.tsv").write_text("abc\tx\n")
    assert main(["gradient-estimators", *arguments, "--data", "data.tsv"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_table_names_gradient_estimators_and_the_command_has_an_alias(capsys) -> None:
    quality = GradientQuality(0.5, 0.01, 2.0)
    measurement = Measurement(GradientEstimator("top_k", 2), 3, quality, quality, (1.0, 0.5, 2.0), None)
    table = gradient_estimators_table([measurement], "title", draws=7)
    assert [column.header for column in table.columns][:2] == ["gradient estimator", "decoder passes"]
    assert [next(iter(column.cells)) for column in table.columns] == [
        "top_k, k = 2",
        "3",
        "0.5",
        "2",
        "0.5",
        "2",
        "1",
        "-",
    ]
    assert parse_arguments(["estimators", "run", "--data", "rows.tsv"]) == parse_arguments(
        ["gradient-estimators", "run", "--data", "rows.tsv"]
    )
