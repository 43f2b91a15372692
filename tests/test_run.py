"""The run directory: what is written, and that it can be opened and resumed."""

import dataclasses
import json
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_backend import FakeBackend
from safetensors.numpy import load_file
from toy import toy_config, toy_table, write_toy
from toy_runs import latest, train, with_training, without_manifest

from seqssvae.cli.main import main
from seqssvae.config.settings import to_dict
from seqssvae.data.prepare import prepare_table
from seqssvae.errors import RunError, UserError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.inference.evaluate import predict_proba
from seqssvae.runs import checkpoints, storage
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import RunDirectory, open_run
from seqssvae.runs.writer import RunWriter
from seqssvae.training.fit import fit

FILES = {
    "config.yaml",
    "vocabulary.json",
    "weights.safetensors",
    "last.safetensors",
    "optimizer.safetensors",
    "state.json",
    "metrics.jsonl",
    "manifest.json",
}


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_a_run_holds_all_of_its_files_and_nothing_else(trained):
    path, result, backend, _ = trained
    assert set(os.listdir(path)) == {"latest.json", "checkpoints"}
    assert set(content(latest(path))) == FILES
    assert yaml.safe_load((latest(path) / "config.yaml").read_text()) == to_dict(backend.config)
    assert [record["step"] for record in read_metrics(path)] == [record.step for record in result.records]
    assert read_metrics(path)[0] == json.loads(json.dumps(result.records[0].to_dict()))


def test_a_run_opens_with_its_best_weights_in_either_twin(trained):
    path, result, backend, prepared = trained
    assert result.state.best_step < result.state.step
    expected = predict_proba(backend, prepared.validation, backend.config)
    for name in (None, "fake", "other"):
        run = open_run(path, name)
        assert run.backend.name == (name or "fake")
        assert (run.config, run.schema, run.step) == (backend.config, prepared.schema, result.state.best_step)
        np.testing.assert_array_equal(predict_proba(run.backend, prepared.validation, run.config), expected)
    last = load_file(latest(path) / "last.safetensors")
    np.testing.assert_array_equal(last["decoder.label_bias"], result.state.weights["decoder.label_bias"])
    assert not np.array_equal(last["decoder.label_bias"], backend.weights["decoder.label_bias"])


def test_a_checkpoint_is_read_as_it_was(trained):
    path, result, _, _ = trained
    checkpoint = RunDirectory(path).read_checkpoint()
    for name in ("weights", "best_weights", "optimizer"):
        arrays, expected = getattr(checkpoint.state, name), getattr(result.state, name)
        assert arrays.keys() == expected.keys()
        for key in arrays:
            assert arrays[key].shape == expected[key].shape
            np.testing.assert_array_equal(arrays[key], expected[key])
    empty = {"weights": {}, "best_weights": {}, "optimizer": {}}
    assert dataclasses.replace(checkpoint.state, **empty) == dataclasses.replace(result.state, **empty)


def test_an_old_run_opens_and_resumes(trained):
    """Version 0.1.0 wrote `objective.estimator`, and fields for experiments that are no more."""
    path, result, backend, prepared = trained
    path = without_manifest(path, path.with_name("old"))
    settings = yaml.safe_load((path / "config.yaml").read_text())
    settings["objective"]["estimator"] = settings["objective"].pop("gradient_estimator")
    settings["data"] |= {"labels_per_class": 5, "validation_labels_per_class": None}
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    directory = RunDirectory(path)
    assert directory.open().config == backend.config
    assert directory.resume(prepared.schema, prepared.training).state.step == result.state.step


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """How often each file of a run directory is read."""
    counts: Counter[str] = Counter()
    read_file = storage.read_file

    def counting(path, *arguments):
        counts[path.name] += 1
        return read_file(path, *arguments)

    monkeypatch.setattr(checkpoints, "read_file", counting)
    return counts


USED = {"config.yaml", "vocabulary.json", "state.json", "weights.safetensors", "manifest.json"}
"""The files that using a run takes."""


def test_opening_a_run_reads_each_file_once(trained, reads):
    path, _, _, prepared = trained
    open_run(path)
    assert reads == dict.fromkeys({*USED, "latest.json"}, 1)
    reads.clear()
    directory = RunDirectory(path)
    directory.open()
    directory.resume(prepared.schema, prepared.training)
    assert reads == dict.fromkeys({*FILES, "latest.json"}, 1)
    reads.clear()
    SequenceSSVAE.load(path)
    assert reads == dict.fromkeys({*FILES, "latest.json"}, 1)


@pytest.mark.parametrize(
    ("command", "read"),
    [
        (["evaluate", "run", "--data=rows.tsv"], USED),
        (["predict", "run", "--data=rows.tsv", "--output=out.tsv"], USED),
        (["encode", "run", "--data=rows.tsv", "--output=out.tsv"], USED),
        (["generate", "run", "--label=left"], USED),
        (["fit", "--resume=run", "--output=on", "--training.epochs=5"], FILES),
    ],
)
def test_a_command_reads_each_file_of_a_run_once(toy_run, reads, command, read):
    write_toy(Path("rows.tsv"))
    reads.clear()
    assert main(command) == 0
    assert {name: count for name, count in reads.items() if name in FILES} == dict.fromkeys(read, 1)


def test_a_checkpoint_from_before_standard_errors_were_kept_is_read_without(trained):
    path, result, _, _ = trained
    path = without_manifest(path, path.with_name("old"))
    state = json.loads((path / "state.json").read_text())
    assert state.pop("best_error") == result.state.best_error > 0
    (path / "state.json").write_text(json.dumps(state))
    assert RunDirectory(path).read_checkpoint().state.best_error == 0


def test_metrics_written_after_the_checkpoint_are_left_out(trained):
    path, result, _, _ = trained
    path = without_manifest(path, path.with_name("old"))
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10000}\n')
    assert len(read_metrics(path)) == len(result.records) + 1
    history = map(json.loads, RunDirectory(path).read_checkpoint().history)
    assert [record["step"] for record in history] == [record.step for record in result.records]


@pytest.mark.parametrize("stop", [7, 8])
def test_a_run_resumed_from_its_directory_ends_in_the_same_files(tmp_path, fake_twins, stop):
    config = with_training(toy_config(), evaluation_interval=4, patience=0)
    whole, _, _ = train(tmp_path / "whole", config)
    train(tmp_path / "part", with_training(config, max_steps=4 * (stop // 4)))
    resumed, _, _ = train(tmp_path / "rest", config, resume=tmp_path / "part")
    assert 0 < len(resumed.records) < len(whole.records)
    for name in ("weights", "last", "optimizer"):
        expected, resumed_content = (
            content(latest(tmp_path / run))[f"{name}.safetensors"] for run in ("whole", "rest")
        )
        assert resumed_content == expected
    expected, metrics = (
        [{**record, "seconds": 0} for record in read_metrics(tmp_path / run)] for run in ("whole", "rest")
    )
    assert metrics == expected


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
    prepared = prepare_table(toy_table(), config)
    path = tmp_path / "run"
    writer = RunWriter(path, config, prepared.schema, "fake", prepared.training)
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


def test_a_run_that_diverges_before_its_first_evaluation_leaves_nothing_in_the_way(tmp_path, fake_twins):
    with pytest.raises(UserError, match="Training diverged"):
        train(tmp_path / "run", toy_config(), Diverging)
    with pytest.raises(RunError, match="has no trained weights yet; train it by seqssvae fit --resume"):
        open_run(tmp_path / "run")
    train(tmp_path / "run", toy_config())
    assert open_run(tmp_path / "run").step > 0


def test_a_run_that_diverges_later_leaves_its_diverges_at_checkpoint(tmp_path, fake_twins):
    config = with_training(toy_config(), evaluation_interval=2)
    twin = type("Later", (Diverging,), {"diverges_at": 5})
    with pytest.raises(UserError, match="those of step 4"):
        train(tmp_path / "run", config, twin)
    assert set(content(latest(tmp_path / "run"))) == FILES
    assert open_run(tmp_path / "run").step in (2, 4)
    resumed, _, _ = train(tmp_path / "on", config, resume=tmp_path / "run")
    whole, _, _ = train(tmp_path / "whole", config)
    np.testing.assert_array_equal(
        resumed.state.weights["decoder.label_bias"], whole.state.weights["decoder.label_bias"]
    )
