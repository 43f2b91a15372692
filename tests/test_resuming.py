"""A run that is resumed keeps the length of its learning rate's schedule, unless another is asked for."""

import dataclasses
import json

import pytest
from commands import FIT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fit import TRAINING, VALIDATION, assert_same_weights, build, make_config
from toy_runs import without_manifest

from seqssvae.cli.main import main
from seqssvae.config import Config
from seqssvae.errors import ConfigurationError
from seqssvae.runs.files import read_metrics
from seqssvae.training.fit import fit
from seqssvae.training.schedules import learning_rate_at


def falling(schedule: str, max_steps: int, schedule_steps: int = 0, **training: object) -> Config:
    config = make_config(max_steps=max_steps, evaluation_interval=1, epochs=100, **training)
    rates = {"schedule": schedule, "schedule_steps": schedule_steps, "warmup_steps": 2}
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **rates))


def train(config: Config, resume=None):
    return fit(config, TRAINING, VALIDATION, build(config), resume=resume)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["linear", "cosine"]), st.integers(1, 9), st.integers(10, 14), st.integers(0, 20))
def test_a_part_of_a_run_is_that_part_of_the_whole(schedule, first, second, more):
    length = second + more
    whole = train(falling(schedule, second, length))
    part = train(falling(schedule, first, length))
    assert part.state.schedule_steps == length
    on = train(falling(schedule, second), part.state)  # the length is the run's own, whatever the configuration has
    assert [record.learning_rate for record in (*part.records, *on.records)] == [
        learning_rate_at(falling(schedule, second).optimizer, step, length) for step in range(second)
    ]
    assert_same_weights(on.state.weights, whole.state.weights)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_training_on_beyond_the_schedule_is_refused_unless_it_is_stretched(schedule):
    state = train(falling(schedule, 6)).state
    with pytest.raises(ConfigurationError, match=r"fallen to 0 after 6 steps, but training takes 9.*schedule_steps: 9"):
        train(falling(schedule, 9), state)
    with pytest.raises(ConfigurationError, match="fallen to 0 after 4 steps, but training takes 5"):
        train(falling(schedule, 5, 4))
    stretched = train(falling(schedule, 9, 9), state)
    config = falling(schedule, 9).optimizer
    assert [record.learning_rate for record in stretched.records] == [
        learning_rate_at(config, step, 9) for step in (6, 7, 8)
    ]


def test_a_constant_rate_has_no_end():
    state = train(falling("constant", 6)).state
    assert [record.learning_rate for record in train(falling("constant", 9), state).records] == [0.05] * 3


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_directory_keeps_the_length_of_the_schedule(workplace, capsys, earlier):
    arguments = ["--optimizer.schedule=cosine", "--training.patience=0", "--training.evaluation_interval=1"]
    assert main([*FIT, *arguments, "--training.max_steps=8"]) == 0
    old = without_manifest(workplace / "run", workplace / "old")
    state = json.loads((old / "state.json").read_text())
    assert state.pop("schedule_steps") == 8
    resume = "--resume=run"
    if earlier:  # as earlier versions wrote it
        (old / "state.json").write_text(json.dumps(state))
        resume = "--resume=old"
    assert main(["fit", resume, "--output=on", "--training.max_steps=12"]) == 2
    assert "stretch the schedule by optimizer.schedule_steps: 12" in capsys.readouterr().err
    assert not (workplace / "on").exists()
    longer = ["--training.max_steps=12", "--optimizer.schedule_steps=12"]
    assert main(["fit", resume, "--output=on", *longer]) == 0
    assert [record["step"] for record in read_metrics("on")] == list(range(1, 13))
