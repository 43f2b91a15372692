"""Run directories that are damaged: each is refused with a sentence that names the file and what is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from toy import NAMES, TEXTS, make_estimator
from toy_runs import without_manifest

from seqssvae.errors import RunError
from seqssvae.runs.run import RunDirectory, open_run


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
    "many layers": (edit_yaml("model.encoder", layers=10**9), "config.yaml: model.encoder.layers must be a whole"),
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
    path = without_manifest(trained[0], trained[0].with_name("old"))
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
        (edit_json("state.json", kept=["1", 0]), "state.json: kept must be null or a list of two numbers"),
        (edit_json("state.json", data="0"), "was trained on other rows than memory"),
        (put("metrics.jsonl", b"{}\n"), "metrics.jsonl:1: must be a JSON object with a step"),
        (put("metrics.jsonl", b'{"step": 1}\n{'), "metrics.jsonl:2: not valid JSON"),
        (put("optimizer.safetensors", b""), "optimizer.safetensors: not a valid safetensors"),
    ],
)
def test_a_run_whose_state_is_damaged_can_be_used_but_not_resumed(trained, inflict, message):
    path, _, _, prepared = trained
    path = without_manifest(path, path.with_name("old"))
    inflict(path)
    assert open_run(path).step > 0
    with pytest.raises(RunError, match=message):
        RunDirectory(path).resume(prepared.schema, prepared.training)


def edit_ensemble(change):
    def edit(path: Path) -> None:
        stored = json.loads((path / "ensemble.json").read_text())
        change(stored)
        (path / "ensemble.json").write_text(json.dumps(stored))

    return edit


@pytest.fixture
def learned(tmp_path_factory, fake_twins):
    """A run with an ensemble, which is made once."""
    path = tmp_path_factory.getbasetemp() / "learned" / "run"
    if path.exists():
        return path.with_name("old")
    make_estimator(recipe="auto").fit(TEXTS, [*NAMES[:40], *[None] * 20]).save(path)
    return without_manifest(path, path.with_name("old"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(label_count=3), "it is of 3 labels, not 2"),
        (lambda s: s.update(label_count=[]), r"it is of \[\] labels, not 2"),
        (lambda s: s.update(members=[], temperatures=[], weights=[], powers=[]), "the weights must sum to 1"),
        (lambda s: s["temperatures"].__setitem__(0, 0), "temperatures must be numbers from 1e-06 to 1e"),
        (lambda s: s["weights"].__setitem__(0, 0.9), "the weights must sum to 1"),
        (lambda s: s["weights"].pop(), "weights must be . numbers"),
        (lambda s: s.update(powers=[-1.0] * len(s["members"])), "powers must be numbers from 0 to"),
        (lambda s: s.update(format=9), "it is of format 9, and this version reads 2"),
        (lambda s: s["trials"][0].update(accuracy="high"), "a trial is two texts and five numbers"),
        (lambda s: s["trials"][0].update(name=None), "a trial is two texts and five numbers"),
        (lambda s: s["network"]["model"]["encoder"].update(channels=16_000), "the weight encoder"),
        (lambda s: s["arrays"].update({"network.x": s["arrays"].pop("network.known")}), "network.x"),
    ],
)
def test_an_ensemble_that_is_damaged_is_refused_before_it_predicts(learned, tmp_path, fake_twins, change, message):
    path = Path(shutil.copytree(learned, tmp_path / "run"))
    edit_ensemble(change)(path)
    with pytest.raises(RunError, match=message) as caught:
        open_run(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_directory_is_said_to_be_none(tmp_path):
    with pytest.raises(RunError, match=r"There is no run directory .*nothing\."):
        open_run(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is not a run directory but a file"):
        open_run(tmp_path / "file")
