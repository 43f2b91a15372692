"""What is shown while a model trains: lines in a log, a bar on a terminal, and nothing with --quiet."""

import io
import re
import sys
from pathlib import Path

import pytest
from commands import FIT
from fit_problems import TRAINING, VALIDATION, build, make_config
from rich.console import Console
from toy import NAMES, TEXTS, make_estimator

from seqssvae.cli.main import main
from seqssvae.inference.metrics import Metrics
from seqssvae.runs.files import read_metrics
from seqssvae.training.fit import fit
from seqssvae.training.progress import progress
from seqssvae.training.progress_bar import ProgressBar
from seqssvae.training.progress_lines import SECONDS, SILENT_SECONDS, Progress, ProgressLines, describe
from seqssvae.training.state import Observer, Record, TrainingState

ROWS = Metrics(40, 20, 300, elbo=-12.0, elbo_per_symbol=-1.6, reconstruction=-10.5, kl_z=1.25, kl_y=0.25, accuracy=0.75)
TERMS = "accuracy 0.750, ELBO/symbol -1.600, reconstruction -10.500, KL of z 1.250, KL of y 0.250"


def make_record(step: int, epoch: int = 1, validation: Metrics | None = ROWS, training: Metrics = ROWS) -> Record:
    return Record(step, epoch, 1.0, 1.0, 0.01, 2.0, training, validation)


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    output = capsys.readouterr()
    assert output.out == ""
    return [line.removeprefix("seqssvae: ") for line in output.err.splitlines()]


# Lines


def test_a_line_says_where_training_stands_how_fast_it_is_and_how_long_it_takes(clock, capsys):
    lines = ProgressLines("training", clock=clock)
    lines.started(400, TrainingState())
    lines.advanced(64, 1, 1000)
    lines.advanced(100, 2, 600)
    clock.now += 20
    lines.evaluated(make_record(100, 2), TrainingState())
    assert printed(capsys) == [
        f"training: step 100 of 400, epoch 2, 80 rows/s; validation: {TERMS}; at most 0:01:00 left"
    ]
    lines.advanced(150, 3, 900)  # speed and time left are those since the last line
    clock.now += 30
    lines.evaluated(make_record(150, 3, None), TrainingState())
    assert printed(capsys) == [
        f"training: step 150 of 400, epoch 3, 30 rows/s; training: {TERMS}; at most 0:02:30 left"
    ]


def test_lines_are_not_soon_one_after_the_other(clock, capsys):
    lines = ProgressLines("training", clock=clock)
    lines.started(100, TrainingState())
    seen = []
    for step in range(1, 101):
        clock.now += 1.25
        lines.evaluated(make_record(step), TrainingState())
        seen += [step] if printed(capsys) else []
    assert seen == list(range(4, 101, 4))
    assert SECONDS == 5.0


def test_there_is_a_line_where_nothing_is_evaluated_for_long(clock, capsys):
    lines = ProgressLines("training", clock=clock)
    lines.started(400, TrainingState())
    clock.now += SILENT_SECONDS - 1
    lines.advanced(64, 1, 600)
    assert printed(capsys) == []
    clock.now += 1
    lines.advanced(100, 1, 600)
    assert printed(capsys) == ["training: step 100 of 400, epoch 1, 20 rows/s; at most 0:03:00 left"]


def test_a_training_that_goes_on_counts_its_own_steps(clock, capsys):
    lines = ProgressLines("training", clock=clock)
    lines.started(400, TrainingState(step=300))
    lines.advanced(350, 7, 500)
    clock.now += 10
    lines.evaluated(make_record(350, 7), TrainingState())
    (line,) = printed(capsys)
    assert line.startswith("training: step 350 of 400, epoch 7, 50 rows/s; ")
    assert line.endswith("; at most 0:00:10 left")


def test_the_first_compilation_is_named_and_later_ones_where_they_take_a_while(clock, capsys):
    lines = ProgressLines("training", clock=clock)
    lines.started(400, TrainingState())
    for text in ("compiling a training step", "compiling an evaluation"):
        clock.now += SECONDS - 1
        lines.waiting(text)
    assert printed(capsys) == ["training: compiling a training step"]
    clock.now += 1
    lines.waiting("compiling a classifier")
    assert printed(capsys) == ["training: compiling a classifier"]


def test_candidates_are_named_with_their_fold(clock, capsys):
    lines = ProgressLines("candidates", clock=clock)
    lines.candidate("linear")
    lines.candidate("network")
    for _ in range(2):
        lines.started(10, TrainingState())
        clock.now += SECONDS
        lines.evaluated(make_record(10), TrainingState())
        lines.finished(TrainingState())
    assert [line.partition(":")[0] for line in printed(capsys)] == [
        "candidate linear",
        "candidate network",
        "candidate network, fold 1",
        "candidate network, fold 2",
    ]


def test_the_last_evaluation_is_shown_once_where_no_table_follows(clock, capsys):
    for summary, expected in ((False, []), (True, [f"training: step 20 of 20, epoch 1; validation: {TERMS}"])):
        lines = ProgressLines("training", summary, clock)
        lines.started(20, TrainingState())
        for step in (10, 20):
            lines.evaluated(make_record(step), TrainingState())
        lines.finished(TrainingState())
        lines.finished(TrainingState())
        assert printed(capsys) == expected


def test_a_classifier_has_no_terms_of_an_elbo():
    metrics = Metrics(40, 20, 300, loss=0.5, classification=0.5)
    record = make_record(5, 1, metrics)
    assert describe("fold", (5, 10, 1), None, record) == "fold: step 5 of 10, epoch 1; validation: classification 0.500"


# The bar


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def drawn(bar: ProgressBar) -> list[str]:
    """The lines of the bar as it is now."""
    paper = Console(file=io.StringIO(), width=120)
    paper.print(bar._bar.get_renderable())
    return [" ".join(line.split()) for line in paper.file.getvalue().splitlines()]


def test_the_bar_shows_steps_epoch_and_below_it_the_metrics(screen, capsys):
    bar = ProgressBar("training", screen)
    bar.started(400, TrainingState(step=100))
    assert re.fullmatch(r"training .* 100/400 .*", drawn(bar)[0])
    bar.waiting("compiling a training step")
    assert drawn(bar)[0].startswith("compiling a training step ")
    bar.advanced(200, 3, 1000)
    bar.evaluated(make_record(200, 3), TrainingState())
    first, second = drawn(bar)
    assert re.fullmatch(r"training .* 200/400 epoch 3.*", first)
    assert second == f"validation: {TERMS}"
    bar.finished(TrainingState())
    assert not bar._bar.live.is_started
    bar.started(10, TrainingState())  # another training
    (line,) = drawn(bar)
    assert " 0/10 " in line
    bar.close()
    assert printed(capsys) == []


def test_the_bar_knows_rows_a_second_from_steps_a_second(screen):
    bar = ProgressBar("training", screen)
    now = 0.0
    bar._bar.get_time = lambda: now
    bar.started(400, TrainingState(step=100))
    for step in range(110, 160, 10):  # 2 steps a second of 30 rows
        now += 5
        bar.advanced(step, 1, 300)
    assert "epoch 1, 60 rows/s" in drawn(bar)[0]
    bar.close()


def test_the_bar_names_a_candidate_and_leaves_a_line_where_it_is_asked_to(screen, capsys):
    with ProgressBar("candidates", screen) as bar:
        bar.candidate("bag")
        assert drawn(bar)[0].startswith("candidate bag ")
        assert bar._bar.live.is_started
    assert not bar._bar.live.is_started
    bar = ProgressBar("training", screen, summary=True)
    bar.started(20, TrainingState())
    bar.advanced(20, 4, 100)
    bar.evaluated(make_record(20, 4), TrainingState())
    bar.finished(TrainingState())
    (line,) = printed(capsys)
    assert re.fullmatch(rf"training: step 20 of 20, epoch 4(, \d+ rows/s)?; validation: {re.escape(TERMS)}", line)


def test_a_terminal_has_a_bar_and_a_log_has_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert type(progress("training")) is ProgressLines
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert type(progress("training")) is ProgressBar
    assert type(progress("training", quiet=True)) is Progress
    monkeypatch.setenv("TERM", "dumb")
    assert type(progress("training")) is ProgressLines
    monkeypatch.setattr(sys, "stderr", None)
    assert type(progress("training")) is Progress


# What observers are told


def test_observers_are_told_configuration_epoch_and_rows():
    class Told(Observer):
        def __init__(self):
            self.configs, self.advances, self.rows = [], [], 0

        def configured(self, config):
            self.configs.append(config)

        def started(self, total_steps, state):
            assert self.configs

        def advanced(self, step, epoch, rows):
            self.advances.append((step, epoch))
            self.rows += rows

    told, config = Told(), make_config(epochs=3)
    result = fit(config, TRAINING, VALIDATION, build(config), [told])
    assert told.configs == [config]
    assert told.advances == [(record.step, record.epoch) for record in result.records]
    assert told.rows == sum(record.training.rows for record in result.records) > 0


# The commands


def test_fit_prints_lines_where_stderr_is_no_terminal_and_the_table_after_them(workplace, capsys, monkeypatch):
    monkeypatch.setattr("seqssvae.training.progress_lines.SECONDS", 0.0)
    assert main(FIT) == 0
    output = capsys.readouterr()
    steps = [record["step"] for record in read_metrics("run")]
    announcement, *lines = output.err.splitlines()
    assert " training rows, " in announcement
    for line, step in zip(lines, steps, strict=True):
        assert line.startswith(f"seqssvae: training: step {step} of ")
        assert "; validation: accuracy " in line
    assert output.out.splitlines()[-1] == "The run is in run."


def test_fit_names_the_candidates_of_the_recipe(workplace, capsys):
    arguments = [argument for argument in FIT if argument not in ("--recipe", "ssvae")]
    assert main([*arguments, "--training.epochs=1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    names = [f"seqssvae: candidate {name}" for name in ("linear", "positional", "bag", "markov", "profile", "network")]
    assert [line for line in lines if line in names] == names


@pytest.mark.parametrize("recipe", ["ssvae", "auto"])
def test_quiet_prints_errors_and_warnings_only(workplace, capsys, monkeypatch, recipe):
    monkeypatch.setattr("seqssvae.training.progress_lines.SECONDS", 0.0)
    assert main([*FIT, "--recipe", recipe, "--training.epochs=1", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert all(line.startswith("seqssvae: warning: ") for line in output.err.splitlines())
    assert Path("run/latest.json").exists()
    assert main([*FIT, "--quiet"]) == 2
    assert "run exists already" in capsys.readouterr().err


def test_quiet_warns_of_a_generator_that_is_worse_than_counting(workplace, capsys):
    assert main([*FIT, "--training.epochs=1"]) == 0
    assert "The generator's bound" in capsys.readouterr().out
    assert main([*FIT, "--training.epochs=1", "--output=quiet", "--quiet"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("seqssvae: warning: The generator's bound")


@pytest.mark.usefixtures("fake_twins")
@pytest.mark.filterwarnings("ignore:The generator's bound")
def test_an_estimator_is_silent_unless_it_is_verbose(capsys):
    make_estimator(epochs=2).fit(TEXTS, NAMES)
    assert printed(capsys) == []
    model = make_estimator(epochs=2, verbose=1).fit(TEXTS, NAMES)
    announcement, line, *sentences = printed(capsys)
    assert announcement.startswith(
        "46 training rows, 46 of them labelled (left 23, right 23), and 14 validation rows; 4 symbols;"
    )
    assert re.match(rf"training: step {model.history_[-1].step} of \d+, epoch 2, .*; validation: accuracy ", line)
    assert all(sentence.endswith(".") for sentence in sentences)  # what the diagnosis says
