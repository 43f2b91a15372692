"""Runs go to a hub and come back: by the client's own uploads and downloads, against a small hub on this machine."""

import json
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from commands import assert_one_error
from fake_backend import FakeBackend
from hub_server import TOKEN, HubServer, hub_server
from toy import NAMES, OTHER_TEXTS, TEXTS, make_estimator, write_toy

from seqssvae.cli.main import main
from seqssvae.config.settings import from_dict
from seqssvae.errors import HubError, MissingPackageError, RunError
from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
from seqssvae.hub.sharing import pull_run, push_run
from seqssvae.runs.run import RunDirectory

huggingface_hub = pytest.importorskip("huggingface_hub")
REPOSITORY = "someone/peptides"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the client takes for its own, whose token it has."""
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)  # as HF_ENDPOINT has them when the client is loaded
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def as_one(path: Path) -> dict[str, bytes]:
    """All files of a directory, by their path in it."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def card_of(hub: HubServer) -> tuple[dict, str]:
    """The metadata and the text of the repository's card."""
    text = hub.files(REPOSITORY)["README.md"].decode()
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_a_run_comes_back_as_it_was(toy_run, hub, capsys, monkeypatch):
    assert main(["push", "run", REPOSITORY]) == 0
    assert capsys.readouterr().out == f"The run is at {hub.url}/{REPOSITORY}.\n"
    assert "PUT lfs" in hub.asked
    monkeypatch.delenv("HF_TOKEN")  # it is public
    assert main(["pull", REPOSITORY, "again"]) == 0
    newest = RunDirectory("run").files.folder.name
    mine = {name: content for name, content in as_one(Path("run")).items() if name == "latest.json" or newest in name}
    assert as_one(Path("again")) == mine
    write_toy(Path("new.tsv"), seed=3)
    for run in ("run", "again"):
        assert main(["predict", run, "--data", "new.tsv", "--output", f"{run}.tsv"]) == 0
    assert Path("run.tsv").read_text() == Path("again.tsv").read_text()
    capsys.readouterr()
    assert main(["pull", REPOSITORY, "again"]) == 2
    assert_one_error(capsys, "The output directory again exists already")
    assert not list(Path.cwd().glob(".again*"))


def test_a_second_run_takes_the_place_of_the_first(toy_run, hub, capsys):
    assert main(["push", "run", REPOSITORY]) == 0
    first = set(hub.files(REPOSITORY))
    assert main(["fit", "--resume", "run", "--training.epochs", "6", "--quiet"]) == 0
    assert main(["push", "run", REPOSITORY, "--private"]) == 0
    files = hub.files(REPOSITORY)
    assert len({name.split("/")[1] for name in files if name.startswith("checkpoints/")}) == 1
    assert first - set(files)
    assert not hub.private  # the repository was there
    assert main(["pull", REPOSITORY, "old", "--revision", hub.sha(REPOSITORY, 1)]) == 0
    assert RunDirectory("old").weights[1] <= RunDirectory("run").weights[1]
    assert set(as_one(Path("old"))) == {name for name in first if name not in ("README.md", ".gitattributes")}


def test_the_card_says_what_the_run_is(toy_run, hub, capsys):
    write_toy(Path("new.tsv"), seed=3, count=60, labelled=60)
    assert main(["push", "run", REPOSITORY, "--data", "new.tsv", "--private"]) == 0
    assert hub.private == {REPOSITORY}
    metadata, body = card_of(hub)
    assert metadata["library_name"] == "seqssvae"
    run = RunDirectory("run")
    best = next(line for line in map(json.loads, run.read_checkpoint().history) if line["step"] == run.weights[1])
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(best["validation"]["accuracy"], abs=1e-6)
    assert f"over {best['validation']['rows']} validation rows".lower() in body.lower()
    assert f"| elbo | {best['validation']['elbo']:.3f} | nats a row |" in body
    assert f'SequenceSSVAE.from_hub("{REPOSITORY}")' in body
    labelled = [int(count) for count in re.findall(r"^\| (?:left|right) \| (\d+) \|", body, re.MULTILINE)]
    assert sum(labelled) + best["validation"]["labelled_rows"] == 24
    assert "2 classes, 4 symbols." in body
    assert "Expected calibration error: 0." in body
    assert "was not checked" in body  # fake twins are not the two
    (configuration,) = re.findall(r"```yaml\n(.*?)```", body, re.DOTALL)
    assert from_dict(yaml.safe_load(configuration)) == run.config


def test_an_estimator_goes_and_comes(hub, monkeypatch):
    fake = SimpleNamespace(name="fake", load=lambda: FakeBackend)
    monkeypatch.setattr("seqssvae.backend.entry_points", lambda group: [fake])
    model = make_estimator().fit(TEXTS, [10 if name == "left" else 9 for name in NAMES])
    assert model.push_to_hub(REPOSITORY) == f"{hub.url}/{REPOSITORY}"
    again = SequenceSSVAE.from_hub(REPOSITORY)
    assert again.classes_.tolist() == [9, 10]
    np.testing.assert_array_equal(again.predict_proba(OTHER_TEXTS), model.predict_proba(OTHER_TEXTS))


class Bomb:
    """A pickle that makes a file when it is read."""

    def __reduce__(self):
        return Path("exploded").touch, ()


def test_nothing_that_a_stranger_writes_is_trusted(toy_run, hub, capsys):
    assert main(["push", "run", REPOSITORY]) == 0
    files, place = hub.files(REPOSITORY), RunDirectory("run").files.folder.name
    bomb, fine = pickle.dumps(Bomb()), dict(files)
    for name in ("model.pkl", f"checkpoints/{place}/extra.safetensors", f"checkpoints/{place}/../../evil.json", "x.py"):
        files[name] = bomb
    assert main(["pull", REPOSITORY, "again"]) == 0
    assert set(as_one(Path("again"))) == {*fine} - {"README.md", ".gitattributes"}
    assert set(hub.fetched) == set(as_one(Path("again")))
    shutil.rmtree("again")
    changed = ("config.yaml", "weights.safetensors", "optimizer.safetensors", "baselines.json", "manifest.json")
    for name in ("latest.json", *(f"checkpoints/{place}/{name}" for name in changed)):
        files.update(fine)
        files[name] = fine[name][:-1] + bytes([fine[name][-1] ^ 1])
        capsys.readouterr()
        assert main(["pull", REPOSITORY, "again"]) == 2
        assert_one_error(capsys, f"The repository {REPOSITORY}: ")
        assert not Path("again").exists()
    files.update(fine)
    files[f"checkpoints/{place}/config.yaml"] = b"#" * (1 << 18) + b"#"
    hub.fetched.clear()
    assert main(["pull", REPOSITORY, "again"]) == 2
    assert_one_error(capsys, "bytes, which is too many")
    assert not [name for name in hub.fetched if name.endswith("config.yaml")]
    assert not Path("exploded").exists()
    assert not list(Path.cwd().glob(".again*"))


def test_what_the_latest_checkpoint_does_not_need_is_not_fetched(toy_run, hub, capsys):
    assert main(["push", "run", REPOSITORY]) == 0
    newest = RunDirectory("run").files.folder.name
    others = {f"checkpoints/{number:08d}/weights.safetensors": b"0" * 100 for number in range(900, 920)}
    hub.files(REPOSITORY).update(others)
    hub.fetched.clear()
    pull_run(REPOSITORY, "again")
    assert not [name for name in hub.fetched if "checkpoints/" in name and f"checkpoints/{newest}/" not in name]
    assert not [name for name in as_one(Path("again")) if "00000900" in name]
    capsys.readouterr()


@pytest.mark.parametrize("token", ["hf_SECRET\nmore", "hf_SECRET ET", "hf_SECRÉT", ""])
def test_a_token_that_cannot_be_one_is_neither_sent_nor_shown(toy_run, hub, token):
    with pytest.raises(HubError, match="The token is not one") as caught:
        pull_run(REPOSITORY, "again", token=token)
    assert "SECR" not in str(caught.value)
    with pytest.raises(HubError, match="The token is not one"):
        push_run("run", REPOSITORY, "", token=token)
    assert hub.asked == []


def test_a_token_may_have_blanks_around_it(toy_run, hub, capsys):
    push_run("run", REPOSITORY, "", token=f" {TOKEN}\n")
    pull_run(REPOSITORY, "again", token=f"{TOKEN}\n")
    capsys.readouterr()


def test_a_directory_that_is_not_empty_is_left_alone(toy_run, hub, capsys):
    assert main(["push", "run", REPOSITORY]) == 0
    (Path("again") / "checkpoints").mkdir(parents=True)  # as a run leaves it that never began
    hub.fetched.clear()
    with pytest.raises(RunError, match="The directory again is not empty"):
        pull_run(REPOSITORY, "again")
    assert hub.fetched == []
    capsys.readouterr()


def test_a_full_disk_is_not_the_network(toy_run, hub, capsys, monkeypatch):
    assert main(["push", "run", REPOSITORY]) == 0

    def full(*given, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", full)
    with pytest.raises(RunError, match=r"again: cannot be written \(No space left on device\)"):
        pull_run(REPOSITORY, "again")
    assert not list(Path.cwd().glob(".again*"))
    capsys.readouterr()


def test_a_damaged_run_is_not_pushed(toy_run, hub, capsys):
    weights = RunDirectory("run").files.folder / "optimizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["push", "run", REPOSITORY, "--no-verify"]) == 2
    assert_one_error(capsys, "optimizer.safetensors is not the file that manifest.json beside it describes")
    assert not hub.commits


def test_mistakes_are_one_sentence(toy_run, hub, capsys, monkeypatch):
    def refused(words, message):
        capsys.readouterr()
        assert main(words) == 2
        assert_one_error(capsys, message)

    pull = ["pull", REPOSITORY, "again"]
    refused(pull, f"There is no repository {REPOSITORY}, or it is private")
    refused(["pull", "a b/c", "again"], "'a b/c' is no name of a repository; give one as USER/NAME.")
    refused(["push", "run", "a/b/c"], "'a/b/c' is no name of a repository; give one as USER/NAME.")
    refused(["push", "nothing", REPOSITORY], "There is no run directory nothing.")
    hub.commits[REPOSITORY] = [{"config.json": b"{}"}]
    refused(pull, f"The repository {REPOSITORY} holds no run of seqssvae: there is no latest.json in it.")
    refused([*pull, "--revision", "v2"], f"The repository {REPOSITORY} has no such revision.")
    hub.private.add(REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", "another")
    refused(pull, "or it is private and your token does not open it")
    refused(["push", "run", REPOSITORY], "Your token is not one that may use")
    monkeypatch.delenv("HF_TOKEN")
    refused(["push", "run", REPOSITORY], "There is no token to write to the hub with: set HF_TOKEN")
    assert hub.commits[REPOSITORY] == [{"config.json": b"{}"}]


def test_without_a_network_or_the_package(toy_run, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for words in (["pull", REPOSITORY, "again"], ["push", "run", REPOSITORY]):
        assert main(words) == 2
        assert_one_error(capsys, "The hub cannot be reached (")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'seqssvae\[hub\]'"):
        pull_run(REPOSITORY, "again")
