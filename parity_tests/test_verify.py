"""`seqssvae verify`: runs of either twin are certified, and whatever is altered in one twin is found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqssvae.checks.verify
import seqssvae.cli.checks
import seqssvae.recipes.network
from parity_tests.runs import fit, write_rows
from seqssvae.backend import Backend, GivenRows, Weights, get_backend
from seqssvae.checks.gradient_estimators import GradientEstimator
from seqssvae.checks.tolerances import relative_difference
from seqssvae.checks.verify import HALF_UNIT, compare_twins, given_rows, made_up_rows, sensitivities, verify
from seqssvae.cli.main import main
from seqssvae.errors import BackendError
from seqssvae.runs.run import RunDirectory
from seqssvae_jax.backend import JaxBackend
from seqssvae_torch.backend import TorchBackend

Run = tuple[Path, Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of each twin, and the rows it was trained on."""
    folder = tmp_path_factory.mktemp("runs")
    return {twin: fit(folder, twin) for twin in ("torch", "jax")}


def certificate(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["verify", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def in_float64(run: Path) -> tuple[Weights, tuple[GivenRows | None, GivenRows], list[Backend]]:
    """A run's weights, rows made up for it, and two backends that have them."""
    directory = RunDirectory(run)
    config, schema, (weights, _) = directory.config, directory.schema, directory.weights
    config = replace(config, training=replace(config.training, precision="float64"))
    backends = [get_backend("torch")(config, schema.dimensions) for _ in range(2)]
    for backend in backends:
        backend.set_weights(weights)
    return weights, given_rows(config, made_up_rows(config, schema, 0), len(schema.labels), 0), backends


def test_a_run_of_either_twin_verifies(runs: dict[str, Run], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run, rows = runs[name]
    status, report = certificate(capsys, run, "--data", rows)
    assert status == 0
    assert report["agrees"]
    assert (report["rows"], report["labelled_rows"]) == (60, 24)
    terms = {(one["precision"], one["term"]) for one in report["terms"]}
    assert {("float64", "loss"), ("float32", "kl_z, unlabelled rows"), ("float64", "q(y|x)")} <= terms
    gradients = {one["term"] for one in report["gradients"]}
    assert gradients == set(RunDirectory(run).weights[0])
    assert all(one["relative"] <= one["bound"] for one in report["terms"] + report["gradients"])
    bounds = {one["bound"] for one in report["terms"] + report["gradients"] if one["precision"] == "float64"}
    assert bounds == {0.0, 1e-9}


def test_rows_without_labels(runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.tsv").write_text("ab\t\nba\t\ncccc\t\n")
    status, report = certificate(capsys, runs["jax"][0], "--data", tmp_path / "rows.tsv")
    assert (status, report["rows"], report["labelled_rows"]) == (0, 3, 0)


def test_a_classifier_s_run_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, rows = fit(tmp_path, "torch", "--objective.name", "classifier")
    status, report = certificate(capsys, run, "--data", rows)
    assert status == 0
    assert next(one for one in report["terms"] if one["term"] == "loss")["torch"] > 0


@pytest.mark.parametrize(
    ("altered", "weight"), [(TorchBackend, "decoder.layers.0.bias_n"), (JaxBackend, "classifier.bias")]
)
def test_a_weight_altered_in_memory_is_found(
    runs: dict[str, Run],
    altered: Any,
    weight: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One entry, by a ten-thousandth, after the file was read."""
    original = altered.set_weights

    def set_weights(self: Any, weights: Any) -> None:
        changed = {name: np.array(value) for name, value in weights.items()}
        changed[weight].flat[0] += 1e-4
        original(self, changed)

    monkeypatch.setattr(altered, "set_weights", set_weights)
    status, report = certificate(capsys, runs["torch"][0], "--data", runs["torch"][1])
    assert status == 1
    assert not report["agrees"]
    assert "DIFFER" in report["verdict"]
    assert not all(one["holds"] for one in report["terms"] + report["gradients"] if one["precision"] == "float32")


@pytest.mark.thorough  # of one weight of either twin, above
def test_the_smallest_alteration_of_any_weight_is_found_in_float64(runs: dict[str, Run]) -> None:
    weights, rows, backends = in_float64(runs["jax"][0])
    gradients = backends[0].differentiate(*rows, 1.0).gradients
    for name in weights:
        altered = {key: value.astype(np.float64) for key, value in weights.items()}
        touched = np.unravel_index(np.abs(gradients[name]).argmax(), altered[name].shape)
        altered[name][touched] += 1e-6
        backends[1].set_weights(altered)
        (weights_differ, *terms), differ = compare_twins(backends[0], backends[1], *rows, "float64")
        assert not weights_differ.holds
        assert not all(one.holds for one in terms + differ), name


def test_a_float32_bound_is_wider_only_where_rounding_moves_more(runs: dict[str, Run]) -> None:
    """The sensitivity is that of the function: half a unit of the weights, and no more than its derivative says."""
    weights, rows, (backend, _) = in_float64(runs["torch"][0])
    moved = sensitivities(backend, *rows, 1.0, seed=0)
    derivatives = backend.differentiate(*rows, 1.0)
    steepest = sum(np.abs(derivatives.gradients[name] * weights[name]).sum() for name in weights)
    assert 0 < moved["loss"] <= 1.01 * HALF_UNIT * steepest / abs(derivatives.loss)
    after = backend.get_weights()
    assert all(relative_difference(weights[name].astype(np.float64), after[name]) == 0 for name in weights)


@pytest.fixture(scope="module")
def run_of_auto(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the recipe `auto`, whose objective is given the labels' probabilities; its z is made to hold nothing."""
    folder = tmp_path_factory.mktemp("auto")
    run, rows = folder / "run", write_rows(folder / "rows.tsv")
    small = ["--model.encoder.channels=4", "--model.encoder.embedding_size=4", "--model.decoder.hidden_size=4"]
    options = [*small, "--model.decoder.embedding_size=4", "--training.max_steps=6", "--training.buckets=1"]
    fit_auto = ["fit", "--data.train", str(rows), "--backend=torch", "--output", str(run), "--quiet"]
    with pytest.MonkeyPatch.context() as patch:  # its candidates are not what is verified
        patch.setattr(seqssvae.recipes.network, "STEPS", 6)
        assert main([*fit_auto, *options]) == 0
    return run, rows


def test_a_run_of_auto_verifies(
    run_of_auto: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, rows = run_of_auto
    assert RunDirectory(run).config.objective.posterior == "given"
    status, report = certificate(capsys, run, "--data", rows)
    assert status == 0, report["verdict"]
    assert main(["verify", str(run)]) == 0  # with rows that are made up
    lines = capsys.readouterr().out.splitlines()
    assert "rows made up of the run's symbols: The twins agree in all" in lines[-1]
    assert any("worst gradient" in line for line in lines)
    few = [GradientEstimator("enumerate"), GradientEstimator("score_function")]  # each has two processes of its own
    monkeypatch.setattr(seqssvae.cli.checks, "list_gradient_estimators", lambda label_count, ks: few)
    compare = ["gradient-estimators", str(run), "--data", str(rows), "--draws=2", "--repetitions=1", "--rows=4"]
    assert main([*compare, "--json"]) == 0
    estimators = json.loads(capsys.readouterr().out)["estimators"]
    assert [one["estimator"] for one in estimators] == ["enumerate", "score_function"]
    assert all(one["milliseconds"] > 0 for one in estimators)
    assert estimators[0]["every_weight"]["deviation"] < 1e-5 < estimators[1]["every_weight"]["deviation"]


def test_where_z_holds_nothing_rounding_on_the_way_is_no_difference(
    run_of_auto: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """q(z|x,y) is p(z) but for the last places of float32; an error of one twin alone is found even there."""
    directory = RunDirectory(run_of_auto[0])
    weights, step = directory.weights
    weights = {name: 1e-3 * value if name.startswith("latent_encoder") else value for name, value in weights.items()}
    weights["latent_encoder.scale.bias"] = np.full_like(weights["latent_encoder.scale.bias"], np.log(np.expm1(1.0)))
    directory.__dict__["weights"] = weights, step
    sound = verify(directory)
    assert sound.agrees, sound.verdict
    assert {one.bound for one in sound.gradients if one.precision == "float64"} == {1e-9}
    differentiate = JaxBackend.differentiate

    def wrong(self: JaxBackend, *arguments: Any, **others: Any) -> Any:
        derivatives = differentiate(self, *arguments, **others)
        if self.config.training.precision == "float64":
            return derivatives
        name = "latent_encoder.loc.weight"
        return derivatives._replace(gradients={**derivatives.gradients, name: derivatives.gradients[name] * 1.02})

    monkeypatch.setattr(JaxBackend, "differentiate", wrong)
    assert {one.term for one in verify(directory).failures} == {"latent_encoder.loc.weight"}


def test_a_missing_twin_is_named_and_the_status_is_2(
    runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def only_torch(name: str) -> Any:
        if name == "torch":
            return TorchBackend
        raise BackendError("The backend 'jax' needs jax, which is not installed: pip install 'seqssvae[jax]'.")

    monkeypatch.setattr(seqssvae.checks.verify, "get_backend", only_torch)
    assert main(["verify", str(runs["torch"][0])]) == 2
    assert "seqssvae[jax]" in capsys.readouterr().err


def test_mistakes_are_told_in_one_line(runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["nowhere"],
        [str(runs["jax"][0]), "--data", "nowhere.tsv"],
        [str(runs["jax"][0]), "--seed", "-1"],
    ):
        assert main(["verify", *arguments]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
