"""The run directory: what is written, that it can be opened and resumed, and that nothing wrong is."""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_backend import FakeBackend
from safetensors.numpy import load_file, save_file
from toy import toy_config, toy_rows

from seqssvae.config import Config
from seqssvae.config.settings import to_dict
from seqssvae.data.prepare import Prepared, prepare_rows
from seqssvae.errors import RunError, UserError
from seqssvae.inference.evaluate import predict_proba
from seqssvae.runs.files import Schema, read_checkpoint, read_metrics
from seqssvae.runs.run import RunWriter, load_checkpoint, open_run
from seqssvae.runs.storage import write_files
from seqssvae.training.fit import FitResult, fit

FILES = {
    "config.yaml",
    "vocabulary.json",
    "weights.safetensors",
    "last.safetensors",
    "optimizer.safetensors",
    "state.json",
    "metrics.jsonl",
}


def schema_of(prepared: Prepared) -> Schema:
    return prepared.schema


def with_training(config: Config, **fields: object) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **fields))


def train(path: Path, config: Config, twin: type = FakeBackend, resume: Path | None = None) -> tuple:
    prepared = prepare_rows(toy_rows(), config, "memory")
    backend = twin(config, prepared.schema.dimensions)
    checkpoint = load_checkpoint(resume, schema_of(prepared), prepared.training) if resume else None
    writer = RunWriter(path, config, schema_of(prepared), backend.name, checkpoint or prepared.training)
    state = checkpoint.state if checkpoint else None
    return fit(config, prepared.training, prepared.validation, backend, [writer], state), backend, prepared


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory) -> tuple[Path, FitResult, FakeBackend, Prepared]:
    # with a learning rate at which the last weights are not the best
    config = toy_config()
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=3.0))
    path = tmp_path_factory.mktemp("runs") / "not" / "yet" / "there"
    return path, *train(path, with_training(config, metric="elbo", epochs=6))


@pytest.fixture
def trained(trained_once, tmp_path, fake_twins) -> tuple[Path, FitResult, FakeBackend, Prepared]:
    path, *rest = trained_once
    return shutil.copytree(path, tmp_path / "run"), *rest


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_run_holds_all_of_its_files_and_nothing_else(trained):
    path, result, backend, _ = trained
    assert set(content(path)) == FILES
    assert yaml.safe_load((path / "config.yaml").read_text()) == to_dict(backend.config)
    assert [record["step"] for record in read_metrics(path)] == [record.step for record in result.records]
    assert read_metrics(path)[0] == json.loads(json.dumps(result.records[0].to_dict()))


def test_a_run_opens_with_its_best_weights_in_either_twin(trained):
    path, result, backend, prepared = trained
    assert result.state.best_step < result.state.step
    expected = predict_proba(backend, prepared.validation, backend.config)
    for name in (None, "fake", "other"):
        run = open_run(path, name)
        assert run.backend.name == (name or "fake")
        assert (run.config, run.schema, run.step) == (backend.config, schema_of(prepared), result.state.best_step)
        np.testing.assert_array_equal(predict_proba(run.backend, prepared.validation, run.config), expected)
    last = load_file(path / "last.safetensors")
    np.testing.assert_array_equal(last["decoder.label_bias"], result.state.weights["decoder.label_bias"])
    assert not np.array_equal(last["decoder.label_bias"], backend.weights["decoder.label_bias"])


def test_a_checkpoint_is_read_as_it_was(trained):
    path, result, _, _ = trained
    checkpoint = read_checkpoint(path)
    for name in ("weights", "best_weights", "optimizer"):
        found, expected = getattr(checkpoint.state, name), getattr(result.state, name)
        assert found.keys() == expected.keys()
        for key in found:
            assert found[key].shape == expected[key].shape
            np.testing.assert_array_equal(found[key], expected[key])
    empty = {"weights": {}, "best_weights": {}, "optimizer": {}}
    assert dataclasses.replace(checkpoint.state, **empty) == dataclasses.replace(result.state, **empty)


def test_a_checkpoint_from_before_standard_errors_were_kept_is_read_without(trained):
    path, result, _, _ = trained
    state = json.loads((path / "state.json").read_text())
    assert state.pop("best_error") == result.state.best_error > 0
    (path / "state.json").write_text(json.dumps(state))
    assert read_checkpoint(path).state.best_error == 0


def test_metrics_written_after_the_checkpoint_are_left_out(trained):
    path, result, _, _ = trained
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10000}\n')
    assert len(read_metrics(path)) == len(result.records) + 1
    assert [record["step"] for record in read_checkpoint(path).history] == [record.step for record in result.records]


@pytest.mark.parametrize("stop", [7, 8])
def test_a_run_resumed_from_its_directory_ends_in_the_same_files(tmp_path, fake_twins, stop):
    config = with_training(toy_config(), evaluation_interval=4, patience=0)
    whole, _, _ = train(tmp_path / "whole", config)
    train(tmp_path / "part", with_training(config, max_steps=4 * (stop // 4)))
    resumed, _, _ = train(tmp_path / "rest", config, resume=tmp_path / "part")
    assert 0 < len(resumed.records) < len(whole.records)
    for name in ("weights", "last", "optimizer"):
        expected, found = (content(tmp_path / run)[f"{name}.safetensors"] for run in ("whole", "rest"))
        assert found == expected
    expected, found = (
        [{**record, "seconds": 0} for record in read_metrics(tmp_path / run)] for run in ("whole", "rest")
    )
    assert found == expected


def test_a_run_can_be_resumed_by_the_other_twin(tmp_path, fake_twins):
    train(tmp_path / "first", toy_config())
    config = with_training(toy_config(), epochs=6, patience=0)
    other = type("Other", (FakeBackend,), {"name": "other"})
    result, _, _ = train(tmp_path / "second", config, other, resume=tmp_path / "first")
    assert len(result.records) == 2
    assert open_run(tmp_path / "second").trained_by == "other"


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_what_exists_is_refused_and_untouched(tmp_path, fake_twins, kind):
    path = tmp_path / "run"
    if kind == "directory":
        path.mkdir()
        (path / "precious").write_text("x")
    elif kind == "file":
        path.write_text("x")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="exists already"):
        train(path, toy_config())
    assert os.listdir(tmp_path) == ["run"]
    assert kind != "directory" or content(path) == {"precious": b"x"}
    assert kind != "file" or path.read_text() == "x"


def test_a_directory_that_appears_while_training_is_prepared_is_not_taken(tmp_path, fake_twins):
    config = toy_config()
    prepared = prepare_rows(toy_rows(), config, "memory")
    path = tmp_path / "run"
    writer = RunWriter(path, config, schema_of(prepared), "fake", prepared.training)
    path.mkdir()
    (path / "precious").write_text("x")
    with pytest.raises(RunError, match="exists already"):
        fit(config, prepared.training, prepared.validation, FakeBackend(config, prepared.schema.dimensions), [writer])
    assert content(path) == {"precious": b"x"}


class Diverging(FakeBackend):
    diverges_at = 0

    def _train_step(self, step):
        totals = super()._train_step(step)
        return totals._replace(loss=math.nan) if step.step == self.diverges_at else totals


def test_a_run_that_diverges_before_its_first_evaluation_leaves_nothing(tmp_path, fake_twins):
    with pytest.raises(UserError, match="Training diverged"):
        train(tmp_path / "run", toy_config(), Diverging)
    assert os.listdir(tmp_path) == []


def test_a_run_that_diverges_later_leaves_its_diverges_at_checkpoint(tmp_path, fake_twins):
    config = with_training(toy_config(), evaluation_interval=2)
    twin = type("Later", (Diverging,), {"diverges_at": 5})
    with pytest.raises(UserError, match="those of step 4"):
        train(tmp_path / "run", config, twin)
    assert set(content(tmp_path / "run")) == FILES
    assert open_run(tmp_path / "run").step in (2, 4)
    resumed, _, _ = train(tmp_path / "on", config, resume=tmp_path / "run")
    whole, _, _ = train(tmp_path / "whole", config)
    np.testing.assert_array_equal(
        resumed.state.weights["decoder.label_bias"], whole.state.weights["decoder.label_bias"]
    )


def test_an_interrupted_write_leaves_the_old_files_and_no_others(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    write_files({first: b"old", second: b"old"})

    def fail(descriptor):
        raise OSError(28, "No space left on device", str(second))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="No space left"):
        write_files({first: b"new", second: b"new"})
    assert content(tmp_path) == {"first": b"old", "second": b"old"}


def edit_yaml(section: str, **fields):
    def edit(path: Path) -> None:
        settings = yaml.safe_load((path / "config.yaml").read_text())
        target = settings
        for name in section.split(".") if section else ():
            target = target[name]
        target.update(fields)
        (path / "config.yaml").write_text(yaml.safe_dump(settings))

    return edit


def edit_json(name: str, **fields):
    def edit(path: Path) -> None:
        stored = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps({**stored, **fields}))

    return edit


def edit_weights(change):
    def edit(path: Path) -> None:
        weights = load_file(path / "weights.safetensors")
        change(weights)
        save_file(weights, path / "weights.safetensors", metadata={"step": "1"})

    return edit


def put(name: str, text: bytes):
    return lambda path: (path / name).write_bytes(text)


BIAS = "classifier.bias"
DAMAGES = {
    "no configuration": (
        lambda path: (path / "config.yaml").unlink(),
        "is not a complete run directory: it has no config",
    ),
    "no vocabulary": (lambda path: (path / "vocabulary.json").unlink(), "it has no vocabulary.json"),
    "no weights": (lambda path: (path / "weights.safetensors").unlink(), "it has no weights.safetensors"),
    "no state": (lambda path: (path / "state.json").unlink(), "stopped before its first evaluation"),
    "unknown field": (
        edit_yaml("model.encoder", hiden_size=3),
        "config.yaml: model.encoder.hiden_size .* did you mean",
    ),
    "wrong value": (edit_yaml("model", latent_size=0), "config.yaml: model.latent_size must be"),
    "other size": (
        edit_yaml("model", latent_size=3),
        r"weights.safetensors: latent_encoder.loc.weight has shape \(2, 2\)",
    ),
    "many layers": (edit_yaml("model.encoder", layers=10**9), "config.yaml: 1000000001 recurrent layers are more"),
    "no YAML": (put("config.yaml", b"{"), "config.yaml:1: not valid YAML"),
    "code in YAML": (put("config.yaml", b"!!python/object/apply:os.system [exit]"), "config.yaml:1: not valid YAML"),
    "not UTF-8": (put("config.yaml", b"\xff"), "config.yaml: not UTF-8"),
    "no JSON": (put("vocabulary.json", b"{"), "vocabulary.json: not valid JSON"),
    "deep JSON": (put("vocabulary.json", b"[" * 100_000), "vocabulary.json: not valid JSON"),
    "no object": (put("vocabulary.json", b"[]"), "vocabulary.json: must hold a JSON object"),
    "later format": (edit_json("vocabulary.json", format=2), "vocabulary.json: format 2 is not 1"),
    "no symbols": (
        edit_json("vocabulary.json", vocabulary={"separator": ""}),
        "vocabulary.json: The stored vocabulary",
    ),
    "label twice": (edit_json("vocabulary.json", labels={"names": ["a", "a"]}), "vocabulary.json: .* 'a' is repeated"),
    "one label": (edit_json("vocabulary.json", labels={"names": ["a"]}), "label_prior must be a list of 1"),
    "no probabilities": (edit_json("vocabulary.json", label_prior=[0.5, 0.6]), "label_prior must be a list of 2"),
    "other vocabulary": (
        edit_json("vocabulary.json", vocabulary={"separator": "", "symbols": ["a"]}),
        r"has shape \(8, 3\), but config.yaml and vocabulary.json beside it ask for \(5, 3\)",
    ),
    "no safetensors": (
        put("weights.safetensors", b"PK\x03\x04 pickled"),
        "weights.safetensors: not a valid safetensors",
    ),
    "weight missing": (edit_weights(lambda w: w.pop(BIAS)), "weights.safetensors: classifier.bias is missing"),
    "weight unknown": (edit_weights(lambda w: w.update(x=w[BIAS])), "weights.safetensors: x is unknown"),
    "weight not finite": (
        edit_weights(lambda w: w[BIAS].fill(np.inf)),
        "classifier.bias holds values that are not finite",
    ),
    "other type": (
        edit_weights(lambda w: w.update({BIAS: w[BIAS].astype(np.float16)})),
        "classifier.bias is of type F16; must be one of",
    ),
    "other precision": (
        edit_weights(lambda w: w.update({BIAS: w[BIAS].astype(np.float64)})),
        "classifier.bias is of type float64, not float32",
    ),
    "nameless twin": (edit_json("state.json", backend=3), "state.json: backend is missing or of a wrong kind"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused_with_a_sentence_that_names_the_file(trained, damage):
    path = trained[0]
    inflict, message = DAMAGES[damage]
    inflict(path)
    with pytest.raises(RunError, match=message) as caught:
        open_run(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inflict", "message"),
    [
        (edit_json("state.json", step=3), "its files are from different steps"),
        (edit_json("state.json", best_step=1), "its files are from different steps"),
        (edit_json("state.json", epoch=-1), "state.json: epoch must not be below 0"),
        (edit_json("state.json", waited=None), "state.json: waited is missing"),
        (edit_json("state.json", best_error="0"), "state.json: best_error is missing or of a wrong kind"),
        (edit_json("state.json", best=[1]), "state.json: best must be null or a list of two numbers"),
        (edit_json("state.json", data="0"), "was trained on other rows than memory"),
        (put("metrics.jsonl", b"{}\n"), "metrics.jsonl:1: must be a JSON object with a step"),
        (put("metrics.jsonl", b'{"step": 1}\n{'), "metrics.jsonl:2: not valid JSON"),
        (put("optimizer.safetensors", b""), "optimizer.safetensors: not a valid safetensors"),
    ],
)
def test_a_run_whose_state_is_damaged_can_be_used_but_not_resumed(trained, inflict, message):
    path, _, _, prepared = trained
    inflict(path)
    assert open_run(path).step > 0
    with pytest.raises(RunError, match=message):
        load_checkpoint(path, schema_of(prepared), prepared.training)


def test_what_is_no_run_directory_is_said_to_be_none(tmp_path):
    with pytest.raises(RunError, match=r"There is no run directory .*nothing\."):
        open_run(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is not a run directory but a file"):
        open_run(tmp_path / "file")
