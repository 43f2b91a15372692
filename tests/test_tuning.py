"""Sweeps: spaces, what can be compared, trials that fail, going on after a kill, and what is left on file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import assert_one_error, rows_of
from fake_backend import FakeBackend
from toy import NAMES, TEXTS, write_toy
from toy import make_estimator as make

from seqssvae import tune
from seqssvae.cli.main import main
from seqssvae.config.settings import read_yaml
from seqssvae.errors import ConfigurationError, MissingPackageError, UserError
from seqssvae.runs.files import CALIBRATION, read_metrics
from seqssvae.runs.run import RunDirectory
from seqssvae.tuning.results import Trial, best_trial

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("fake_twins")

RATE = "optimizer.learning_rate"
COMMAND = ["tune", "--config=toy.yaml", "--data.train=train.tsv", "--backend=fake", "--output=sweep", "--quiet"]
COMMAND += [f"--space.{RATE}=log 1e-4 1e-1", "--space.model.cell=choice gru lstm", "--training.metric=elbo"]


@pytest.fixture(autouse=True)
def no_picture(request, monkeypatch):
    """No picture, which takes a second, but where it is looked at."""
    if "picture" not in request.node.name:
        monkeypatch.setattr("seqssvae.tuning.sweep.write_plot", lambda *given: None)


def small(space: dict, storage: object = None, **options: object):
    """A sweep in memory."""
    options = {"trials": 3, "output": "sweep", **options}
    model = make(**{"epochs": 2, "metric": "elbo", **options.pop("model", {})})
    return tune(model, TEXTS, NAMES, space=space, storage=storage or optuna.storages.InMemoryStorage(), **options)


# Trials


def test_the_best_is_the_first_of_those_that_no_other_exceeds():
    values = [(0.5, 0.9), (0.7, 0.8), (0.7, 0.6), (0.7, 0.6), (0.2, 0.1)]
    trials = [
        Trial(number, "complete", *(value, None, tie), 1, 1, 1.0, {}) for number, (value, tie) in enumerate(values)
    ]
    trials.append(Trial(5, "pruned", 0.99, None, 0.0, 1, 1, 1.0, {}))
    assert [best_trial(trials, metric).number for metric in ("accuracy", "elbo", "loss")] == [2, 1, 4]
    assert best_trial(trials[5:], "elbo") is None


def test_values_and_the_choice_are_those_of_the_validation_rows(tmp_path):
    tuned = small({RATE: "log 1e-4 1"}, output=tmp_path / "sweep", trials=4, pruner="none", keep_run=True)
    assert {trial.state for trial in tuned.trials} == {"complete"}
    for trial in (tuned.best, tuned.trials[-1]):
        model = make(epochs=2, metric="elbo", learning_rate=trial.values[RATE]).fit(TEXTS, NAMES)
        kept = [record for record in model.history_ if record.step == trial.step]
        assert kept[0].validation.elbo_per_symbol == trial.value
    assert tuned.best.value == max(trial.value for trial in tuned.trials)
    assert tuned.config.optimizer.learning_rate == tuned.best.values[RATE]
    best = make(config=tuned.config, epochs=None).fit(TEXTS, NAMES)
    assert best.history_[-1].validation.elbo_per_symbol in [trial.value for trial in tuned.trials]
    assert [path.name for path in (tmp_path / "sweep" / "runs").iterdir()] == [f"trial-{tuned.best.number}"]
    steps = {record["step"]: record["validation"]["elbo_per_symbol"] for record in read_metrics(tuned.run)}
    assert steps[tuned.best.step] == tuned.best.value


def test_a_trial_that_diverges_is_one_that_failed(tmp_path, monkeypatch):
    train = FakeBackend._train_step

    def diverging(self, step):
        totals = train(self, step)
        return totals._replace(loss=float("nan")) if self.config.optimizer.learning_rate > 0.01 else totals

    monkeypatch.setattr(FakeBackend, "_train_step", diverging)
    tuned = small({RATE: [0.005, 0.05]}, output=tmp_path / "sweep", trials=6, sampler="random", pruner="none")
    states = {trial.values[RATE]: (trial.state, trial.error) for trial in tuned.trials}
    assert states[0.005] == ("complete", None)
    assert states[0.05][0] == "failed"
    assert "Training diverged" in states[0.05][1]
    assert "Training diverged" in (tmp_path / "sweep" / "trials.tsv").read_text()
    with pytest.raises(UserError, match=r"None of 2 trials in .* came to its end: Training diverged"):
        small({RATE: [0.05, 0.5]}, output=tmp_path / "other", trials=2)


@pytest.mark.parametrize(
    ("error", "state"), [(MemoryError(), "failed"), (RuntimeError("CUDA out of memory"), "failed")]
)
def test_too_large_a_model_is_a_trial_that_failed(tmp_path, monkeypatch, error, state):
    train = FakeBackend.train

    def exhausted(self, steps):
        if self.config.model.latent_size == 9:
            raise error
        return train(self, steps)

    monkeypatch.setattr(FakeBackend, "train", exhausted)
    tuned = small({"model.latent_size": [2, 9]}, output=tmp_path / "sweep", trials=5, sampler="random")
    assert {(t.values["model.latent_size"], t.state, t.error) for t in tuned.trials if t.state != "pruned"} == {
        (2, "complete", None),
        (9, state, "There is not enough memory."),
    }


def test_a_fault_ends_the_sweep_and_its_trial_is_tried_again(tmp_path, monkeypatch):
    storage = optuna.storages.InMemoryStorage()
    with monkeypatch.context() as patch:
        patch.setattr(FakeBackend, "train", lambda self, steps: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small({RATE: "log 1e-4 1"}, storage, output=tmp_path / "sweep")
    trials = small({RATE: "log 1e-4 1"}, storage, output=tmp_path / "sweep").trials
    assert [trial.state for trial in trials] == ["interrupted", *["complete"] * 3]
    assert trials[0].values == trials[1].values


def test_a_hopeless_trial_is_ended_early(tmp_path):
    tuned = small({RATE: "log 1e-6 1"}, output=tmp_path / "sweep", trials=12, model={"epochs": 6})
    pruned = [trial for trial in tuned.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.evaluations < 6 for trial in pruned)
    assert np.median([trial.value for trial in pruned]) < tuned.best.value


def test_rows_must_serve_to_compare_trials(tmp_path):
    space = {RATE: "log 1e-4 1"}
    with pytest.raises(ConfigurationError, match="compared on validation rows, and there are none"):
        small(space, output=tmp_path / "sweep", model={"validation_fraction": 0.0})
    with pytest.raises(ConfigurationError, match="The recipe auto chooses by cross-validation itself"):
        small(space, output=tmp_path / "sweep", model={"recipe": "auto"})
    with pytest.raises(ConfigurationError, match="trials must be a whole number of at least 1"):
        small(space, output=tmp_path / "sweep", trials=0)
    with pytest.raises(ConfigurationError, match="pruner must be one of median, halving, none"):
        small(space, output=tmp_path / "sweep", pruner="medium")
    assert not (tmp_path / "sweep").exists()


def test_without_optuna_an_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'seqssvae\[tune\]'"):
        tune(make(), TEXTS, NAMES, space={RATE: "log 1e-4 1"}, output=tmp_path / "sweep")


# On file


def test_the_command_leaves_a_table_a_picture_and_a_configuration_that_fit_takes(workplace, capsys):
    (workplace / "spaces.yaml").write_text(f"{RATE}: log 1e-3 1e-1\nmodel:\n  latent_size: int 2 3\n")
    command = [*COMMAND, "--spaces=spaces.yaml", "--trials=3", "--keep-run"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "seqssvae fit --config sweep/best.yaml --recipe ssvae --backend fake --output RUN" in output.out
    header, *lines = rows_of(workplace / "sweep" / "trials.tsv")
    assert header[:3] == ["trial", "state", "value"]
    assert header[-4:] == [RATE, "model.latent_size", "model.cell", "error"]
    assert len(lines) == 3
    assert all(1e-4 <= float(line[-4]) <= 1e-1 and line[-3] in "23" and line[-2] in ("gru", "lstm") for line in lines)
    assert (workplace / "sweep" / "trials.svg").read_text().count("<svg") == 1
    best = max(lines, key=lambda line: float(line[2]))
    assert read_yaml("sweep/best.yaml")["optimizer"]["learning_rate"] == float(best[-4])
    assert main(["fit", "--config=sweep/best.yaml", "--recipe=ssvae", "--backend=fake", "--output=run", "--quiet"]) == 0
    kept = {record["step"]: record for record in read_metrics(workplace / "sweep" / "runs" / f"trial-{best[0]}")}
    assert CALIBRATION in RunDirectory(workplace / "sweep" / "runs" / f"trial-{best[0]}").files
    again = {record["step"]: record for record in read_metrics(workplace / "run")}
    assert {step: one["validation"] for step, one in kept.items()} == {
        step: o["validation"] for step, o in again.items()
    }
    assert main([*command[:-2], "--trials=4"]) == 0  # goes on
    assert [line[:3] for line in rows_of(workplace / "sweep" / "trials.tsv")[1:4]] == [line[:3] for line in lines]
    assert len(rows_of(workplace / "sweep" / "trials.tsv")) == 5


def test_mistakes_of_the_command_are_one_sentence_each_and_leave_nothing(workplace, capsys):
    for option, message in {
        "--space.optimizer.learning_rte=log 1 2": "did you mean --space.optimizer.learning_rate?",
        "--space.training.seed=int 0 9": "training.seed cannot be searched",
        "--sampler=grid": "--sampler must be one of tpe, random, not 'grid'",
        "--trials=0": "trials must be a whole number of at least 1",
        "--recipe=auto": "The recipe auto chooses",
        "--data.validation_fraction=0": "Trials are compared on validation rows",
        "--backend=absent": "seqssvae[absent]",
        "--spaces=none.yaml": "There is no configuration file none.yaml",
        "--storage=nonsense": "The storage nonsense cannot be used",
    }.items():
        assert main([*COMMAND, option]) == 2
        assert_one_error(capsys, message)
        assert not (workplace / "sweep").exists()
    (workplace / "sweep").mkdir()
    (workplace / "sweep" / "precious.txt").write_text("mine")
    assert main(COMMAND) == 2
    assert_one_error(capsys, "exists already and holds no sweep")
    assert main(["tune"]) == 2
    assert_one_error(capsys, "seqssvae tune needs --output")


def test_a_sweep_goes_on_with_what_it_was_begun_with_alone(workplace, capsys):
    assert main([*COMMAND, "--trials=1"]) == 0
    capsys.readouterr()
    for option, message in {
        "--model.latent_size=3": "model.latent_size: 2, which is 3 now",
        "--recipe=topics": "has recipe: 'ssvae', which is 'topics' now",
        "--space.model.dropout=uniform 0 0.5": "model.dropout: None, which is 'uniform 0.0 0.5' now",
    }.items():
        assert main([*COMMAND, "--trials=2", option]) == 2
        assert_one_error(capsys, message)
    write_toy(workplace / "train.tsv", seed=1)
    assert main([*COMMAND, "--trials=2"]) == 2
    assert_one_error(capsys, "rows.training")
    (workplace / "sweep" / "study.db").write_bytes(b"no database")
    assert main([*COMMAND, "--trials=2"]) == 2
    assert_one_error(capsys, "cannot be used")


def test_machines_share_a_storage(workplace, capsys):
    """Two directories, as of two machines, with one journal: the second goes on where the first was."""
    for output, trials in (("one", 2), ("two", 4)):
        command = [*COMMAND, f"--output={output}", "--storage=journal:shared.log", f"--trials={trials}", "--keep-run"]
        assert main(command) == 0
    first, second = (rows_of(workplace / name / "trials.tsv")[1:] for name in ("one", "two"))
    assert second[:2] == first
    assert len(second) == 4
    best = max((line for line in second if line[1] == "complete"), key=lambda line: float(line[2]))
    kept = [path.parent.parent.name for path in workplace.glob("*/runs/trial-*")]
    assert ("two" in kept) == (int(best[0]) > 1)


def test_what_is_tried_depends_on_the_seed_and_what_was_before(tmp_path):
    rates = [
        [trial.values[RATE] for trial in small({RATE: "log 1e-4 1"}, output=tmp_path / str(place), seed=seed).trials]
        for place, seed in enumerate((1, 1, 2))
    ]
    assert rates[0] == rates[1]
    assert not set(rates[0]) & set(rates[2])
    assert len(set(rates[0])) == 3


SCRIPT = Path(__file__).with_name("tuning_script.py")


def run_until(steps: int, output: str, place: Path) -> int:
    """Run the command in a process, which is killed after so many training steps; 0: not at all."""
    search = ["--trials=12", "--training.epochs=2", f"--output={output}"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(steps), *COMMAND, *search],
        cwd=place,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def test_a_kill_loses_nothing_but_the_trial_that_ran(workplace):
    assert run_until(17, "killed", workplace) == -signal.SIGKILL
    before = [line for line in rows_of(workplace / "killed" / "trials.tsv")[1:] if line[1] == "complete"]
    assert before
    assert run_until(40, "killed", workplace) == -signal.SIGKILL
    assert run_until(0, "killed", workplace) == 0
    assert main([*COMMAND, "--trials=12", "--training.epochs=2", "--output=whole"]) == 0
    killed, whole = (rows_of(workplace / name / "trials.tsv")[1:] for name in ("killed", "whole"))
    assert [line[1:7] for line in killed[: len(before)]] == [line[1:7] for line in before]
    assert sum(line[1] == "interrupted" for line in killed) == 2

    def without_times(lines):
        return [[*line[1:7], *line[8:]] for line in lines if line[1] != "interrupted"]

    assert without_times(killed) == without_times(whole)
    assert (workplace / "killed" / "best.yaml").read_text() == (workplace / "whole" / "best.yaml").read_text()
