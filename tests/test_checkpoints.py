"""Checkpoints: whole at every moment, checked by their manifest, resumed in place, and kept between evaluations."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_backend import FakeBackend
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_config, toy_table
from toy_runs import latest, train, with_training, without_manifest

from seqssvae.cli.main import main
from seqssvae.data.prepare import prepare_table
from seqssvae.errors import RunError
from seqssvae.runs.checkpoints import write_checkpoint
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import RunDirectory, open_run
from seqssvae.runs.writer import RunWriter
from seqssvae.training.fit import fit
from seqssvae.training.state import TrainingState

CONFIG = with_training(toy_config(), evaluation_interval=4, patience=0, epochs=6)


class Killed(BaseException):
    """Stands for a signal that ends the process: nothing after it is done."""


def final(run: Path) -> dict[str, object]:
    """What a finished run holds, without the seconds that it took."""
    folder = latest(run)
    arrays = {name: (folder / f"{name}.safetensors").read_bytes() for name in ("weights", "last", "optimizer")}
    return {**arrays, "metrics": [{**record, "seconds": 0} for record in read_metrics(run)]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, object]:
    """A run that was never interrupted."""
    path = tmp_path_factory.mktemp("whole") / "run"
    train(path, CONFIG)
    return final(path)


def go_on(path: Path) -> None:
    train(path, CONFIG, resume=path)


# Written whole


def calls(monkeypatch, number: int | None) -> list[str]:
    """Have the process "killed" at a call of this number that changes the disk; without, count these calls."""
    made: list[str] = []
    for name in ("rename", "replace", "fsync", "mkdir", "rmdir", "unlink", "open"):
        original = getattr(os, name)

        def counting(*arguments, original=original, name=name, **keywords):
            if number is not None and len(made) >= number:
                raise Killed
            made.append(name)
            return original(*arguments, **keywords)

        monkeypatch.setattr(os, name, counting)
    return made


def test_a_run_that_is_killed_at_any_call_of_the_system_goes_on_to_the_same_bits(
    tmp_path, fake_twins, monkeypatch, whole
):
    with monkeypatch.context() as patch:
        made = calls(patch, None)
        train(tmp_path / "whole", CONFIG)
        count = len(made)
    assert count > 100
    for number in [0, 1, 2, 20, 21, 22, 24, *range(33, count, 29)]:
        path = tmp_path / f"run{number}"
        with monkeypatch.context() as patch:
            calls(patch, number)
            with pytest.raises(Killed):
                train(path, CONFIG)
        if (path / "latest.json").exists():
            checkpoint = RunDirectory(path).read_checkpoint()
            assert checkpoint.state.evaluations == len(checkpoint.history)
            go_on(path)
        else:
            train(path, CONFIG)
        assert final(path) == whole, number
        shutil.rmtree(path)


def test_what_is_named_is_on_the_disk_before_and_its_name_after(tmp_path, monkeypatch):
    """So that a power failure between any two of these calls leaves no name of what is not there."""
    done, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(("synced", os.fstat(number).st_ino)), fsync(number)))
    for name in ("rename", "replace"):
        naming, note = getattr(os, name), lambda old: done.append(("named", os.stat(old).st_ino))
        monkeypatch.setattr(os, name, lambda *paths, naming=naming, note=note: (note(paths[0]), naming(*paths)))
    write_checkpoint(tmp_path, 1, {"weights": b"1", "state": b"2"})
    folder = latest(tmp_path)
    expected = [("synced", folder / name) for name in ("weights", "state", "manifest.json")]
    expected += [("synced", folder), ("named", folder), ("synced", folder.parent)]
    expected += [("synced", tmp_path / "latest.json"), ("named", tmp_path / "latest.json"), ("synced", tmp_path)]
    assert done == [(what, path.stat().st_ino) for what, path in expected]


def test_the_last_two_checkpoints_are_kept(tmp_path, fake_twins):
    result, _, _ = train(tmp_path / "run", CONFIG)
    steps = [record.step for record in result.records][-2:]
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.name for path in kept] == [f"{step:08d}" for step in steps]
    assert latest(tmp_path / "run") == kept[1]
    assert RunDirectory(kept[0]).read_checkpoint().state.step == steps[0]


def test_a_reader_that_was_overtaken_by_later_checkpoints_reads_those(tmp_path, fake_twins):
    train(tmp_path / "run", with_training(CONFIG, max_steps=4))
    directory = RunDirectory(tmp_path / "run")
    assert directory.config.training.max_steps == 4
    result, _, _ = train(tmp_path / "run", CONFIG, resume=tmp_path / "run")
    assert len(result.records) > 2
    assert directory.open().step == result.state.best_step


def test_a_reader_of_the_state_that_was_overtaken_reads_a_later_one(tmp_path, fake_twins):
    train(tmp_path / "run", with_training(CONFIG, max_steps=4))
    directory = RunDirectory(tmp_path / "run")
    assert directory.files.folder.name == "00000004"
    result, _, _ = train(tmp_path / "run", CONFIG, resume=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "00000004").exists()
    assert directory.read_checkpoint().state.step == result.state.step


def test_two_processes_do_not_write_to_one_run(tmp_path, fake_twins):
    path, prepared = tmp_path / "run", prepare_table(toy_table(), CONFIG)
    backend = FakeBackend(CONFIG, prepared.schema.dimensions)
    weights = backend.get_weights()
    state = TrainingState(weights=weights, best_weights=weights, optimizer=backend.get_optimizer_state())
    first, second = (RunWriter(path, CONFIG, prepared.schema, "fake", prepared.training) for _ in range(2))
    first.started(1, state)
    with pytest.raises(RunError, match="Another process is training"):
        second.started(1, state)
    first.finished(state)
    second.started(1, state)
    second.finished(state)


# Resumed in place


@pytest.mark.parametrize("stop", [0, 4, 8])
def test_a_run_is_resumed_in_place(tmp_path, fake_twins, whole, stop):
    path = tmp_path / "run"
    if stop:
        train(path, with_training(CONFIG, max_steps=stop))
    else:
        with pytest.raises(KeyboardInterrupt):
            interrupted_fit(path, after=0)
    go_on(path)
    assert final(path) == whole
    assert os.listdir(tmp_path) == ["run"]


def test_an_old_run_is_resumed_in_place(tmp_path, fake_twins, whole):
    train(tmp_path / "run", with_training(CONFIG, max_steps=4))
    old = without_manifest(tmp_path / "run", tmp_path / "old")
    go_on(old)
    assert final(old) == whole
    assert set(os.listdir(old)) == {"checkpoints", "latest.json"}


def test_the_command_line_resumes_in_place(workplace, capsys):
    fit_ = [
        "fit",
        "--recipe=ssvae",
        "--config=toy.yaml",
        "--backend=fake",
        "--data.train=train.tsv",
        "--training.patience=0",
    ]
    assert main([*fit_, "--output=whole", "--training.epochs=6"]) == 0
    assert main([*fit_, "--output=run"]) == 0
    assert main(["fit", "--resume=run", "--training.epochs=6"]) == 0
    assert final(Path("run")) == final(Path("whole"))


@pytest.mark.parametrize("left", ["nothing", "a folder that was not finished", "files of an earlier version"])
def test_a_directory_left_without_a_checkpoint_does_not_block_its_name(tmp_path, fake_twins, whole, left):
    path = tmp_path / "run"
    (path / "checkpoints" / ".00000004.17").mkdir(parents=True)
    if left == "nothing":
        shutil.rmtree(path / "checkpoints")
    if left == "files of an earlier version":
        shutil.rmtree(path / "checkpoints")
        (path / "config.yaml").write_text("model: {}")
        (path / "vocabulary.json").write_text("{}")
    train(path, CONFIG)
    assert final(path) == whole


# Between evaluations


def interrupted_fit(path: Path, after: int, config=CONFIG) -> TrainingState:
    """Train until so many steps are taken, and then be told to stop."""
    prepared = prepare_table(toy_table(), config)
    backend = FakeBackend(config, prepared.schema.dimensions)
    if path.exists():
        checkpoint = RunDirectory(path).resume(prepared.schema, prepared.training)
        writer = RunWriter(path, config, prepared.schema, "fake", checkpoint, in_place=True)
    else:
        checkpoint, writer = None, RunWriter(path, config, prepared.schema, "fake", prepared.training)
    state = checkpoint.state if checkpoint else None
    if after == 0:
        writer.checkpointed = None  # there is nothing to keep yet

        def stop(steps):
            raise KeyboardInterrupt

        backend.train = stop
    fit(config, prepared.training, prepared.validation, backend, [writer], state, lambda: backend.step >= after)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("seqssvae.training.fit.CHUNK", 1)


@pytest.mark.parametrize("after", [1, 2, 5, 6, 11])
def test_a_run_that_is_told_to_stop_between_evaluations_goes_on_from_there(tmp_path, fake_twins, small_chunks, after):
    config = with_training(CONFIG, evaluation_interval=5)
    train(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        interrupted_fit(tmp_path / "run", after, config)
    assert RunDirectory(tmp_path / "run").read_checkpoint().state.step == after
    with pytest.raises(KeyboardInterrupt):
        interrupted_fit(tmp_path / "run", after + 2, config)
    train(tmp_path / "run", config, resume=tmp_path / "run")
    assert final(tmp_path / "run") == final(tmp_path / "whole")


def test_checkpoints_are_written_by_minutes_as_well(tmp_path, fake_twins, small_chunks, monkeypatch, whole):
    seen: list[int] = []
    checkpointed = RunWriter.checkpointed
    monkeypatch.setattr(
        RunWriter, "checkpointed", lambda self, state: (seen.append(state.step), checkpointed(self, state))
    )
    train(tmp_path / "none", CONFIG)
    assert seen == []
    config = with_training(CONFIG, checkpoint_minutes=1e-9)
    result, _, _ = train(tmp_path / "run", config)
    assert seen == [step for step in range(1, result.state.step) if step % 4]
    assert final(tmp_path / "run") == whole


def test_a_state_that_is_not_finite_is_not_kept(tmp_path, fake_twins, small_chunks):
    config = with_training(CONFIG, checkpoint_minutes=1e-9)

    class Diverging(FakeBackend):
        def _train_step(self, step):
            totals = super()._train_step(step)
            return totals._replace(loss=np.nan) if step.step == 5 else totals

    with pytest.raises(Exception, match="diverged"):
        train(tmp_path / "run", config, Diverging)
    assert RunDirectory(tmp_path / "run").read_checkpoint().state.step == 5


# Checksums


def changed(path: Path, name: str, change) -> None:
    file = latest(path) / name
    file.write_bytes(change(file.read_bytes()))


@given(data=st.data())
def test_a_file_that_was_changed_is_never_another_result_without_a_word(trained_once, data):
    path, _, _, _ = trained_once
    file = data.draw(st.sampled_from([*sorted(latest(path).iterdir()), path / "latest.json"]))
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        file.write_bytes(bytes(flipped))
        with pytest.raises(RunError) as caught:
            RunDirectory(path).read_checkpoint()
        assert "\n" not in str(caught.value)
    finally:
        file.write_bytes(content)


def test_weights_of_another_run_are_refused_unless_that_is_asked_for(tmp_path, workplace, toy_run, capsys):
    shutil.copytree("run", "other")
    weights = latest("run") / "weights.safetensors"
    changed(Path("other"), "weights.safetensors", lambda content: content[:-4] + b"\0\0\x80\x3f")
    shutil.copy(latest("other") / "weights.safetensors", weights)
    command = ["evaluate", "run", "--data=train.tsv"]
    assert main(command) == 2
    assert "weights.safetensors is not the file that manifest.json beside it describes" in capsys.readouterr().err
    assert main(["verify", "run"]) == 2
    assert main([*command, "--no-verify"]) == 0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("state.json", {"format": 2}, "format 2 is not 1, which this version reads"),
        ("state.json", {"format": "9"}, "format 9 is not 1"),
        ("vocabulary.json", {"format": 2}, "format 2 is not 1"),
    ],
)
def test_a_file_of_a_later_format_is_refused(trained, name, change, message):
    path = without_manifest(trained[0], trained[0].with_name("old"))
    stored = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps({**stored, **change}))
    with pytest.raises(RunError, match=message):
        open_run(path)


@pytest.mark.parametrize(
    "change", [lambda a: a.astype(np.int32), lambda a: a.astype(np.float64), lambda a: a[..., None]]
)
def test_the_optimisers_state_is_checked_as_weights_are(trained, change):
    from safetensors.numpy import load_file, save_file

    path = without_manifest(trained[0], trained[0].with_name("old"))
    file = path / "optimizer.safetensors"
    arrays = load_file(file)
    name = "classifier.bias.exp_avg"
    step = str(trained[1].state.step)
    save_file({**arrays, name: change(arrays[name])}, file, metadata={"step": step})
    with pytest.raises(RunError, match=f"optimizer.safetensors: {name} (is of type|has shape)"):
        RunDirectory(path).read_checkpoint()


def test_an_old_run_without_a_manifest_opens(trained):
    path, result, _, _ = trained
    old = without_manifest(path, path.with_name("old"))
    assert open_run(old).step == result.state.best_step
    state = RunDirectory(old).read_checkpoint().state
    assert dataclasses.replace(state, weights={}, best_weights={}, optimizer={}) == dataclasses.replace(
        result.state, weights={}, best_weights={}, optimizer={}
    )
