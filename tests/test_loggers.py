"""Loggers: what TensorBoard shows, what the other packages are given, and that none stops training."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import FIT, assert_one_error
from event_series import read, series
from fit_problems import TRAINING, VALIDATION, build, make_config

from seqssvae.cli.main import main
from seqssvae.config import Config
from seqssvae.config.settings import to_dict, to_yaml
from seqssvae.errors import ConfigurationError, MissingPackageError
from seqssvae.loggers import MLflowLogger, TensorBoardLogger, WandbLogger
from seqssvae.loggers.event_file import version_event
from seqssvae.loggers.logger import Logger, scalars
from seqssvae.loggers.named import named_logger
from seqssvae.runs.files import read_metrics
from seqssvae.training.fit import fit
from seqssvae.training.state import Observer, TrainingState

# TensorBoard


def test_tensorboard_shows_every_metric_of_every_evaluation(tmp_path):
    config = make_config(epochs=3)
    result = fit(config, TRAINING, VALIDATION, build(config), [TensorBoardLogger(tmp_path / "logs")])
    shown = read(tmp_path / "logs")
    assert set(shown.Tags()["scalars"]) == set(scalars(result.records[0]))
    for tag, value in (
        ("validation/accuracy", lambda one: one.validation.accuracy),
        ("training/elbo", lambda one: one.training.elbo),
        ("gradient_norm", lambda one: one.gradient_norm),
    ):
        expected = [(one.step, pytest.approx(value(one), rel=1e-6)) for one in result.records]
        assert series(tmp_path / "logs", tag) == expected
    (text,) = shown.Tensors("config")
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert [line.removeprefix("    ") for line in lines] == to_yaml(config).splitlines()


def test_scalars_leave_out_what_there_is_not():
    config = make_config(epochs=1)
    one = fit(config, TRAINING, VALIDATION, build(config)).records[0]
    values = scalars(one)
    assert values["validation/accuracy"] == one.validation.accuracy
    assert values["epoch"] == 1.0
    assert "training/accuracy" not in values
    assert "step" not in values
    assert not [name for name in scalars(one._replace(validation=None)) if name.startswith("validation/")]


def test_a_run_that_goes_on_is_one_curve(workplace):
    assert main([*FIT, "--training.patience=0", "--logger", "tensorboard"]) == 0
    assert main(["fit", "--resume=run", "--training.epochs=6", "--logger=tensorboard"]) == 0
    assert len(list(Path("run/tensorboard").iterdir())) == 2
    records = read_metrics("run")
    expected = [(one["step"], pytest.approx(one["validation"]["elbo"], rel=1e-6)) for one in records]
    assert series(Path("run/tensorboard"), "validation/elbo") == expected
    assert len(expected) == 6


def log_twice(folder: Path, records: list) -> list[int]:
    """Log three evaluations, go on from the first, and return the steps that TensorBoard shows."""
    logger = TensorBoardLogger(folder)
    for start, some in ((0, records), (records[0].step, records[1:])):
        logger.configured(Config())
        logger.started(9, TrainingState(step=start))
        for one in some:
            logger.evaluated(one, TrainingState())
        logger.finished(TrainingState())
    return [step for step, _ in series(folder, "training/loss")]


def test_no_step_is_there_twice_if_training_goes_on_from_before(tmp_path, monkeypatch):
    config = make_config(epochs=3)
    records = fit(config, TRAINING, VALIDATION, build(config)).records
    steps = [one.step for one in records]
    assert log_twice(tmp_path / "right", records) == steps
    monkeypatch.setattr("seqssvae.loggers.tensorboard.start_event", lambda now, step: version_event(now))
    assert log_twice(tmp_path / "wrong", records) == [*steps, *steps[1:]]


def test_a_run_without_metrics_has_no_events_and_does_not_block_its_name(workplace, monkeypatch):
    def stop(self, steps):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fake_backend.FakeBackend.train", stop)
        assert main([*FIT, "--logger=tensorboard"]) == 130
    assert not Path("run/tensorboard").exists()
    assert main([*FIT, "--logger=tensorboard"]) == 0
    assert len(list(Path("run/tensorboard").iterdir())) == 1


# Weights & Biases, MLflow


class Calls(list):
    """A list of calls, which makes functions that add to it."""

    def to(self, name: str, result: object = None):
        def call(*arguments, **keywords):
            self.append((name, arguments, keywords))
            return result

        return call


@pytest.fixture
def wandb(monkeypatch) -> Calls:
    calls = Calls()
    run = SimpleNamespace(
        config=SimpleNamespace(update=calls.to("config")), log=calls.to("log"), finish=calls.to("finish")
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None, init=calls.to("init", run)))
    return calls


@pytest.fixture
def mlflow(monkeypatch) -> Calls:
    calls = Calls()
    run = SimpleNamespace(data=SimpleNamespace(params={"training.seed": "0"}))
    module = SimpleNamespace(
        active_run=lambda: None,
        start_run=calls.to("start_run", run),
        log_params=calls.to("log_params"),
        log_metrics=calls.to("log_metrics"),
        end_run=calls.to("end_run"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return calls


def test_wandb_is_given_the_configuration_once_and_the_metrics_by_step(wandb):
    config = make_config(epochs=2)
    result = fit(config, TRAINING, VALIDATION, build(config), [WandbLogger("peptides")])
    assert wandb == [
        ("init", (), {"name": "peptides"}),
        ("config", (to_dict(config),), {"allow_val_change": True}),
        *(("log", (scalars(one),), {"step": one.step}) for one in result.records),
        ("finish", (), {"exit_code": 0}),
    ]


def test_mlflow_is_given_the_configuration_once_and_the_metrics_by_step(mlflow):
    config = make_config(epochs=2)
    result = fit(config, TRAINING, VALIDATION, build(config), [MLflowLogger("peptides")])
    names = [name for name, *_ in mlflow]
    count = names.count("log_params")
    assert names == ["start_run", *["log_params"] * count, "log_metrics", "log_metrics", "end_run"]
    assert mlflow[0][2] == {"run_name": "peptides"}
    given = [call[1][0] for call in mlflow[1 : 1 + count]]
    assert all(len(some) <= 100 for some in given)
    fields = {name: value for some in given for name, value in some.items()}
    assert fields["model.encoder.hidden_size"] == str(config.model.encoder.hidden_size)
    assert "training.seed" not in fields  # the run has it
    assert len(fields) == len(set(fields)) == sum(map(len, given))
    assert [call[1:] for call in mlflow if call[0] == "log_metrics"] == [
        ((scalars(one),), {"step": one.step}) for one in result.records
    ]


def test_a_run_that_is_active_already_is_used_and_stays_open(wandb, mlflow):
    modules = sys.modules["wandb"], sys.modules["mlflow"]
    modules[0].run, run = modules[0].init(), modules[1].start_run()
    modules[1].active_run = lambda: run
    wandb.clear()
    mlflow.clear()
    config = make_config(epochs=1)
    fit(config, TRAINING, VALIDATION, build(config), [WandbLogger(), MLflowLogger()])
    assert [name for name, *_ in wandb] == ["config", "log"]
    assert {name for name, *_ in mlflow} == {"log_params", "log_metrics"}


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(), "FAILED"), (KeyboardInterrupt(), "KILLED"), (None, "FINISHED")]
)
def test_a_training_that_fails_ends_as_failed(wandb, mlflow, error, status):
    class Ending(Observer):
        def evaluated(self, record, state):
            if error is not None:
                raise error

    config, loggers = make_config(epochs=1), [WandbLogger(), MLflowLogger()]
    for _ in range(2):  # what an earlier training did plays no part
        with nullcontext() if error is None else pytest.raises(type(error)):
            fit(config, TRAINING, VALIDATION, build(config), [*loggers, Ending()])
        assert wandb[-1] == ("finish", (), {"exit_code": int(error is not None)})
        assert mlflow[-1] == ("end_run", (status,), {})
        error, status = None, "FINISHED"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_before_anything_is_read(workplace, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    message = f"The logger {name} needs the package {name}, which is not installed: pip install 'seqssvae[{name}]'."
    with pytest.raises(MissingPackageError) as error:
        named_logger(name, "run")
    assert str(error.value) == message
    Path("train.tsv").unlink()
    assert main([*FIT, "--logger", name]) == 2
    assert_one_error(capsys, message)
    assert not Path("run").exists()


def test_the_command_line_takes_several_loggers_and_names_them_after_the_run(workplace, capsys, wandb, mlflow):
    assert main([*FIT, "--logger", "wandb", "mlflow", "tensorboard", "wandb"]) == 0
    assert [call[2] for call in wandb if call[0] == "init"] == [{"name": "run"}]
    assert [call[2] for call in mlflow if call[0] == "start_run"] == [{"run_name": "run"}]
    assert series(Path("run/tensorboard"), "training/elbo")
    assert main([*FIT, "--output=other", "--logger", "visdom"]) == 2
    assert "--logger must be one of tensorboard, wandb, mlflow, not 'visdom'." in capsys.readouterr().err


# What fails


class Failing(Logger):
    """Fails where it is told to."""

    name = "failing"

    def __init__(self, *places: str) -> None:
        super().__init__()
        self.places, self.done = places, []

    def _do(self, place: str) -> None:
        self.done.append(place)
        if place in self.places:
            raise OSError(28, "No space left on device")

    def open(self, config, step):
        self._do("open")

    def log(self, step, scalars):
        self._do("log")

    def close(self, error):
        self._do("close")


@pytest.mark.parametrize(
    ("places", "done"),
    [
        (("log",), ["open", "log", "close"]),
        (("close",), ["open", "log", "log", "log", "close"]),
        (("log", "close"), ["open", "log", "close"]),
    ],
)
def test_a_logger_that_fails_warns_once_and_training_goes_on(places, done):
    config, logger, other = make_config(epochs=3), Failing(*places), Failing()
    with pytest.warns(
        UserWarning, match=r"The logger failing failed .* training goes on: .*No space left on device\.$"
    ) as caught:
        result = fit(config, TRAINING, VALIDATION, build(config), [logger, other])
    assert len(caught) == 1
    assert len(result.records) == 3
    assert logger.done == done
    assert other.done == ["open", "log", "log", "log", "close"]


def test_a_logger_that_cannot_begin_is_an_error_before_training():
    config, logger = make_config(epochs=3), Failing("open")
    backend = build(config)
    with pytest.raises(ConfigurationError, match=r"The logger failing cannot begin: .*No space left on device\."):
        fit(config, TRAINING, VALIDATION, backend, [logger])
    assert (backend.train_calls, logger.done) == ([], ["open"])


def test_an_interruption_is_no_failure_of_a_logger():
    class Interrupted(Failing):
        def log(self, step, scalars):
            raise KeyboardInterrupt

    config = make_config(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        fit(config, TRAINING, VALIDATION, build(config), [Interrupted()])


def test_tensorboard_that_cannot_write_does_not_stop_training(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    config = make_config(epochs=2)
    with pytest.warns(UserWarning, match="The logger tensorboard failed"):
        result = fit(config, TRAINING, VALIDATION, build(config), [TensorBoardLogger(tmp_path / "logs")])
    assert len(result.records) == 2


def test_a_failure_is_one_warning_of_the_command_line(workplace, capsys, wandb):
    def fail(*_, **__):
        raise ConnectionError("network\nunreachable")

    sys.modules["wandb"].init().log = fail
    assert main([*FIT, "--logger=wandb"]) == 0
    _, line = capsys.readouterr().err.splitlines()
    assert line == (
        "seqssvae: warning: The logger wandb failed and sends nothing more; training goes on: network unreachable."
    )


# In Python


def test_json_lines_stay_what_they_are(workplace):
    assert main([*FIT, "--logger=tensorboard"]) == 0
    lines = (next(Path("run/checkpoints").glob("*/metrics.jsonl"))).read_text().splitlines()
    assert set(json.loads(lines[0])) == {
        *("step", "epoch", "seconds", "beta", "learning_rate", "gradient_norm", "training", "validation"),
        "standard_error",
    }
