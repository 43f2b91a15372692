"""The plug-in through the host's own command: real peptides and English forms, a third of whose labels are kept."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from seqssvae.cli.main import main
from seqssvae.datasets import load_dataset

ROWS = 200
SMALL = {
    "latent_size": 3,
    "encoder": {"embedding_size": 8, "hidden_size": 8},
    "decoder": {"embedding_size": 8, "hidden_size": 8},
}

ENGLISH = Path(__file__).parent / "data/english.tsv"
DRIVER = Path(__file__).parent / "yoyodyne_driver.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}

pytest.importorskip("yoyodyne", reason="the extra yoyodyne is not installed")


def config(place: Path, **init: Any) -> dict[str, Any]:
    """What a user would write."""
    return {
        "seed_everything": 3,
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(place)}},
        },
        "model": {
            "class_path": "seqssvae_torch.yoyodyne.SequenceSSVAE",
            "init_args": {"networks": SMALL, "objective": {"alpha": 5.0}, "compute_accuracy": True, **init},
        },
        "data": {
            "model_dir": str(place / "model"),
            "train": str(place / "train.tsv"),
            "val": str(place / "val.tsv"),
            "source_col": 1,
            "target_col": 1,
            "features_col": 2,
            "batch_size": 32,
        },
        "checkpoint": {"dirpath": str(place / "checkpoints"), "monitor": "val_loss", "save_last": True},
    }


def write(place: Path, name: str, rows: Sequence[Sequence[str]]) -> None:
    (place / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))


def transducing(place: Path, **init: Any) -> dict[str, Any]:
    """The same for forms of lemmas."""
    settings = config(place, **init)
    settings["data"] |= {"train": str(place / "forms.tsv"), "val": str(place / "more forms.tsv")}
    settings["data"] |= {"source_col": 1, "target_col": 2, "features_col": 3, "model_dir": str(place / "forms-logs")}
    settings["checkpoint"]["dirpath"] = str(place / "forms")
    return settings


def call(place: Path, command: str, settings: dict[str, Any]) -> None:
    """Run the host's own command."""
    (place / "config.yaml").write_text(yaml.safe_dump(settings))
    program = [str(Path(sys.executable).parent / "yoyodyne"), command, "--config", "config.yaml"]
    done = subprocess.run(program, cwd=place, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of peptides, and a model that was trained on them by the command."""
    place = tmp_path_factory.mktemp("yoyodyne")
    table = load_dataset("peptides")
    rows = [(text[:20], str(label)) for text, label in zip(table.sequences.joined(""), table.labels, strict=True)]
    chosen = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))[:ROWS]]
    train, val, test = chosen[:140], chosen[140:170], chosen[170:]
    write(place, "train", [(text, label if index % 3 == 0 else "") for index, (text, label) in enumerate(train)])
    write(place, "val", val)
    write(place, "test", test)
    write(place, "unlabelled", [(text, "") for text, _ in test])
    write(place, "wanted", [("", "AMP")] * 5 + [("", "UniProt")] * 5)
    write(place, "strange", [("AAK", "AMP"), ("GGG", "Protein")])
    forms = [line.split("\t") for line in ENGLISH.read_text().splitlines()]
    some = [row if index % 3 == 0 else [*row[:2], ""] for index, row in enumerate(forms[:160])]
    write(place, "forms", some)
    write(place, "more forms", forms[160:])
    write(place, "lemmas", [[lemma] for lemma, *_ in forms[160:]])
    call(place, "fit", config(place))
    return place


def predicting(place: Path, name: str, data: str, **init: Any) -> dict[str, Any]:
    """Settings that write predictions and posteriors of a file."""
    settings = config(place, **init)
    settings["data"] |= {"predict": str(place / data)}
    settings["prediction"] = {"path": str(place / f"{name}.txt")}
    path = {"path": str(place / f"{name}.posterior.tsv")}
    settings["trainer"]["callbacks"] = [{"class_path": "seqssvae_torch.yoyodyne.PosteriorWriter", "init_args": path}]
    return settings


def commands(place: Path) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """By name: a command, its settings, and whether it is given a checkpoint, which is where its settings say."""

    def with_data(**data: Any) -> dict[str, Any]:
        settings = config(place)
        settings["data"] |= data
        return settings

    def with_directory(name: str, settings: dict[str, Any], epochs: int) -> dict[str, Any]:
        settings["checkpoint"]["dirpath"], settings["data"]["model_dir"] = (
            str(place / name),
            str(place / f"{name}-logs"),
        )
        settings["trainer"]["max_epochs"] = epochs
        return settings

    def made_of(name: str, data: str, settings: dict[str, Any], **columns: Any) -> dict[str, Any]:
        predicted = predicting(place, name, data)
        settings["data"] |= {"predict": predicted["data"]["predict"], **columns}
        return settings | {"prediction": predicted["prediction"], "trainer": predicted["trainer"]}

    alone = {"train": None, "val": None, "target_col": 0, "features_col": 0}
    tagging = transducing(place, predicts="label")
    generating = transducing(place, predicts="generation", decoding="sample")
    unlabelled = config(place, labels=["AMP", "UniProt"], objective={"gradient_estimator": "score_function"})
    unlabelled["data"]["features_col"] = 0
    nameless = with_data(features_col=0)
    return {
        "resume": ("fit", with_directory("more", config(place), 3), True),
        "validate": ("validate", config(place), True),
        "test": ("test", with_data(test=str(place / "test.tsv")), True),
        "test unlabelled": ("test", with_data(test=str(place / "unlabelled.tsv")), True),
        "reconstruct": ("predict", predicting(place, "reconstruct", "unlabelled.tsv"), True),
        "label": ("predict", predicting(place, "label", "unlabelled.tsv", predicts="label"), True),
        "beam": ("predict", predicting(place, "beam", "test.tsv", beam_width=3), True),
        "sample": ("predict", predicting(place, "sample", "test.tsv", decoding="sample"), True),
        "generate": (
            "predict",
            predicting(place, "generate", "wanted.tsv", predicts="generation", decoding="sample"),
            True,
        ),
        "generate without": ("predict", predicting(place, "none", "unlabelled.tsv", predicts="generation"), True),
        "strange": ("fit", with_directory("a", with_data(val=str(place / "strange.tsv")), 1), False),
        "marker": ("fit", with_directory("b", config(place, missing="?"), 1), False),
        "nameless": ("fit", with_directory("c", nameless, 1), False),
        "wrong": ("fit", with_directory("d", config(place, objective={"k": -1}), 1), False),
        "other networks": ("validate", config(place, networks={**SMALL, "latent_size": 4}), True),
        "all unlabelled": ("fit", with_directory("none", unlabelled, 1), False),
        "forms": ("fit", transducing(place), False),
        "validate forms": ("validate", transducing(place), True),
        "inflect": ("predict", made_of("inflect", "more forms.tsv", transducing(place)), True),
        "inflect without": ("predict", made_of("alone", "lemmas.tsv", transducing(place), **alone), True),
        "tag": ("predict", made_of("tag", "more forms.tsv", deepcopy(tagging)), True),
        "tag alone": (
            "predict",
            made_of("tag alone", "lemmas.tsv", transducing(place, predicts="label"), **alone),
            True,
        ),
        "inflect by beam": ("predict", made_of("beams", "more forms.tsv", transducing(place, beam_width=3)), True),
        "draw": ("predict", made_of("draw", "more forms.tsv", generating), True),
        "encode": ("predict", made_of("back", "more forms.tsv", transducing(place, predicts="reconstruction")), True),
        "no source": ("predict", predicting(place, "no", "test.tsv", predicts="transduction"), True),
    }


@pytest.fixture(scope="module")
def results(place: Path) -> dict[str, dict[str, str]]:
    """What each command printed and ended with; they run in one process."""
    calls = {}
    for name, (command, settings, trained) in commands(place).items():
        path = place / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        first = "forms" if settings["checkpoint"]["dirpath"].endswith("forms") else "checkpoints"
        checkpoint = ["--ckpt_path", str(place / first / "last.ckpt")] if trained else []
        calls[name] = [command, "--config", str(path), *checkpoint]
    (place / "commands.json").write_text(json.dumps(calls))
    program = [sys.executable, str(DRIVER), "commands.json", "results.json"]
    done = subprocess.run(program, cwd=place, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((place / "results.json").read_text())


def lines(place: Path, name: str) -> list[str]:
    """Of what was predicted."""
    return (place / f"{name}.txt").read_text().splitlines()


def metrics(folder: Path) -> list[dict[str, str]]:
    """All lines of a run's log."""
    with next(folder.glob("lightning_logs/version_*/metrics.csv")).open(newline="") as file:
        return list(csv.DictReader(file))


def test_fit_logs_what_sweeps_and_stopping_need(place: Path) -> None:
    logged = metrics(place / "model")
    last = {name: float(value) for line in logged for name, value in line.items() if value}
    for name in ("loss", "reconstruction", "kl_z", "kl_y", "classification"):
        assert np.isfinite(last[f"val_{name}"])
        assert np.isfinite(last[f"train_{name}"])
    assert last["val_loss"] == pytest.approx(
        last["val_kl_z"] + last["val_kl_y"] - last["val_reconstruction"] + 5.0 * last["val_classification"], rel=1e-4
    )
    assert 0 <= last["val_label_accuracy"] <= 1
    assert 0 <= last["val_accuracy"] <= 1
    losses = [float(line["train_loss"]) for line in logged if line["train_loss"]]
    assert losses[1] < losses[0]


def test_training_goes_on_from_a_checkpoint(place: Path, results: dict[str, dict[str, str]]) -> None:
    assert results["resume"]["error"] == ""
    assert {line["epoch"] for line in metrics(place / "more-logs")} == {"2"}


def test_validate_and_test(results: dict[str, dict[str, str]]) -> None:
    assert "val_loss" in results["validate"]["output"]
    assert "test_label_accuracy" in results["test"]["output"]
    assert "test_loss" in results["test unlabelled"]["output"]
    assert "label_accuracy" not in results["test unlabelled"]["output"]


def test_predicts_reconstructions_labels_and_posteriors(place: Path, results: dict[str, dict[str, str]]) -> None:
    assert results["reconstruct"]["error"] == results["label"]["error"] == ""
    symbols = set("".join(row.split("\t")[0] for row in (place / "train.tsv").read_text().splitlines()))
    assert len(lines(place, "reconstruct")) == 30
    assert set("".join(lines(place, "reconstruct"))) <= symbols
    labels = lines(place, "label")
    assert set(labels) <= {"[AMP]", "[UniProt]"}
    with (place / "label.posterior.tsv").open(newline="") as file:
        header, *rows = list(csv.reader(file, delimiter="\t"))
    assert header == ["label", "AMP", "UniProt"]
    for (label, *probabilities), predicted in zip(rows, labels, strict=True):
        values = [float(value) for value in probabilities]
        assert sum(values) == pytest.approx(1, abs=1e-6)
        assert f"[{header[1 + int(np.argmax(values))]}]" == f"[{label}]" == predicted


def test_predicts_by_beam_and_by_sampling(place: Path, results: dict[str, dict[str, str]]) -> None:
    assert results["beam"]["error"] == results["sample"]["error"] == ""
    assert len(lines(place, "beam")) == 30
    for line in lines(place, "beam"):
        _, *rest = line.split("\t")
        scores = [float(value) for value in rest[::2]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
    assert lines(place, "sample") != lines(place, "reconstruct")


def test_generates_from_a_label_alone(place: Path, results: dict[str, dict[str, str]]) -> None:
    assert results["generate"]["error"] == ""
    generated = lines(place, "generate")
    assert len(generated) == 10
    assert len(set(generated)) > 5
    assert "A row without a label cannot say what to generate" in results["generate without"]["error"]


def test_mistakes_are_named(results: dict[str, dict[str, str]]) -> None:
    assert "strange.tsv, line 2: the label 'Protein'" in results["strange"]["error"]
    assert "No row of" in results["marker"]["error"]
    assert "name at least two classes by labels=" in results["nameless"]["error"]
    assert "objective.k must be a whole number of at least 0" in "".join(results["wrong"].values())
    assert "other model.init_args.networks" in results["other networks"]["error"]


def test_all_rows_may_be_without_a_label(place: Path, results: dict[str, dict[str, str]]) -> None:
    assert results["all unlabelled"]["error"] == ""
    logged = metrics(place / "none-logs")
    assert any(line.get("val_loss") for line in logged)
    assert not any(line.get("val_label_accuracy") for line in logged)


def test_makes_forms_of_lemmas(place: Path, results: dict[str, dict[str, str]]) -> None:
    done = ("forms", "inflect", "inflect without", "tag", "tag alone", "inflect by beam", "draw", "encode")
    assert {name: results[name]["error"] for name in done} == dict.fromkeys(done, "")
    for name in ("val_loss", "val_label_accuracy", "val_accuracy"):
        assert name in results["validate forms"]["output"]
    for name in ("inflect", "alone", "tag", "tag alone", "beams", "draw", "back"):
        assert len(lines(place, name)) == 40
    inflected = lines(place, "inflect")
    assert inflected[0] != inflected[1]  # of one lemma, with different tags
    assert lines(place, "alone")[0] == lines(place, "alone")[1]  # without
    assert lines(place, "draw") != inflected != lines(place, "back")
    assert set(lines(place, "tag alone")) <= {"[JJR]", "[JJS]", "[VBD]", "[VBG]", "[VBZ]"}
    with (place / "tag.posterior.tsv").open(newline="") as file:
        posterior = list(csv.DictReader(file, delimiter="\t"))
    assert [f"[{row['label']}]" for row in posterior] == lines(place, "tag")
    assert "predicts: transduction needs a source: set source_col" in results["no source"]["error"]


@pytest.mark.thorough
def test_a_run_of_forms_is_verified(place: Path, results: dict[str, dict[str, str]], monkeypatch: Any) -> None:
    """As one of peptides is, below."""
    monkeypatch.chdir(place)
    assert main(["import-yoyodyne", "forms/last.ckpt", "verified"]) == 0
    assert main(["verify", "verified", "--data", "more forms.tsv"]) == 0


@pytest.mark.thorough
def test_two_processes_train(place: Path) -> None:
    settings = config(place)
    settings["trainer"] |= {"devices": 2, "strategy": "ddp", "max_epochs": 1}
    settings["checkpoint"]["dirpath"], settings["data"]["model_dir"] = str(place / "two"), str(place / "two-logs")
    call(place, "fit", settings)
    assert (place / "two/last.ckpt").exists()


def test_a_checkpoint_becomes_a_run_of_either_twin(
    place: Path,
    results: dict[str, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    run = str(place / "run")

    def seqssvae(*arguments: str) -> str:
        status = main([*arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    seqssvae("import-yoyodyne", "checkpoints/last.ckpt", run)
    assert json.loads(seqssvae("verify", run, "--data", "test.tsv", "--json"))["agrees"]
    seqssvae("predict", run, "--data", "unlabelled.tsv", "--output", "labels.tsv", "--backend", "jax")
    with (place / "label.posterior.tsv").open(newline="") as theirs, (place / "labels.tsv").open(newline="") as ours:
        pairs = zip(csv.DictReader(theirs, delimiter="\t"), csv.DictReader(ours, delimiter="\t"), strict=True)
        for there, here in pairs:
            assert float(there["AMP"]) == pytest.approx(float(here["AMP"]), abs=1e-5)
    seqssvae("import-yoyodyne", "forms/last.ckpt", "forms-run")
    longest = ["--max-length", "128"]
    seqssvae("transduce", "forms-run", "--data", "more forms.tsv", "--output", "forms.out", *longest)
    with (place / "forms.out").open(newline="") as file:
        assert [row["sequence"] for row in csv.DictReader(file, delimiter="\t")] == lines(place, "inflect")
    assert main(["import-yoyodyne", "test.tsv", "other"]) == 2
    assert "test.tsv cannot be read as a checkpoint" in capsys.readouterr().err
