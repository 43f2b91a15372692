"""Configuration as YAML and dictionaries: what goes in comes out, and every mistake is named by its path."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import (
    BetaConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainingConfig,
)
from seqssvae.config.fields import check_fields, expected_value, field_paths
from seqssvae.config.settings import RENAMED, from_dict, merge, parse_yaml, read_yaml, to_dict, to_yaml, upgraded
from seqssvae.errors import ConfigurationError

TEXTS = st.text(min_size=1, max_size=6)
CONFIGS = st.builds(
    Config,
    data=st.builds(
        DataConfig,
        train=st.none() | TEXTS,
        separator=st.text(st.characters(exclude_characters="\t", exclude_categories=["Cs"]), max_size=3),
        header=st.booleans(),
        labels=st.none() | st.lists(TEXTS, min_size=2, max_size=4, unique=True),
        validation_fraction=st.floats(0, 0.9),
    ),
    model=st.builds(
        ModelConfig,
        cell=st.sampled_from(["gru", "lstm"]),
        encoder=st.builds(EncoderConfig, hidden_size=st.integers(1, 9), separate=st.booleans()),
        decoder=st.builds(DecoderConfig, conditioning=st.sampled_from(["init", "every_step", "output"])),
    ),
    objective=st.builds(ObjectiveConfig, alpha=st.floats(0, 1e6), beta=st.builds(BetaConfig, floor=st.floats(1e-9, 1))),
    optimizer=st.builds(OptimizerConfig, learning_rate=st.floats(1e-12, 1e3)),
    training=st.builds(TrainingConfig, seed=st.integers(0, 2**31 - 1)),
)


@given(CONFIGS)
def test_a_configuration_survives_yaml(config):
    text = to_yaml(config)
    assert from_dict(parse_yaml(text, "text")) == config
    assert yaml.safe_load(text) == to_dict(config)  # other readers of YAML find the same in it


def test_fields_left_out_keep_their_defaults():
    config = from_dict({"model": {"encoder": {"hidden_size": 7}}, "data": None})
    assert config.model.encoder == dataclasses.replace(EncoderConfig(), hidden_size=7)
    assert config.model.decoder == DecoderConfig()
    assert config.data == DataConfig()
    assert from_dict({}) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {encoder: {hiden_size: 3}}",
            "model.encoder.hiden_size is not a field .* mean model.encoder.hidden_size?",
        ),
        ("model: {hidden_size: 3}", "model.hidden_size is not a field .* mean model.encoder.hidden_size?"),
        ("optimiser: {name: sgd}", "optimiser is not a field .* mean optimizer?"),
        ("objective: {beta: {cycle: 3}}", "objective.beta.cycle is not a field .* mean objective.beta.schedule?"),
        ("seed: 3", "seed is not a field .* mean training.seed?"),
        ("zzz: 3", "zzz is not a field .* known here are data, model, objective, optimizer, training"),
        ("1: 2", "1 is not a field"),
        ("model: 3", "model is a section of fields, not 3"),
        ("model: {encoder: [3]}", r"model.encoder is a section of fields, not \[3\]"),
        ("model: {cell: rnn}", "model.cell must be one of gru, lstm, not 'rnn'"),
        ("model: {latent_size: 1.5}", "model.latent_size must be a whole number, not 1.5"),
        ("model: {latent_size: true}", "model.latent_size must be a whole number, not True"),
        ("model: {latent_size: null}", "model.latent_size must be a whole number, not None"),
        ("model: {latent_size: 0}", "model.latent_size must be a whole number of at least 1 and at most 16384, not 0"),
        ("model: {dropout: high}", "model.dropout must be a number, not 'high'"),
        ("model: {dropout: .nan}", "model.dropout must be a number, not '.nan'"),
        (f"model: {{latent_size: {'9' * 30}}}", "model.latent_size must be a number of at most 18 digits, not 9999"),
        ("data: {train: 3}", "data.train must be text"),
        ("data: {header: no}", "data.header must be true or false, not 'no'"),
        ("data: {labels: [1, 2]}", "data.labels must be a list of texts"),
        ("data: {labels: ab}", "data.labels must be a list of texts"),
        (
            "model: {label_prior: given, label_prior_probabilities: [a]}",
            "model.label_prior_probabilities must be a list of",
        ),
        ("objective: {beta: {floor: 0}}", "objective.beta.floor must be a number above 0, not 0"),
    ],
)
def test_a_wrong_field_is_named_with_its_path_and_the_file(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"my.yaml: {message}") as caught:
        from_dict(read_yaml(path), str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: {a", "my.yaml:1: not valid YAML"),
        (b"data:\n  train: a\n  train: b", "my.yaml:3: not valid YAML: 'train' is given twice"),
        (b"? [a]\n: b", "a field's name must be a word"),
        (b"just text", "my.yaml: must hold sections"),
        (b"- model", "my.yaml: must hold sections"),
        (b"!!python/object/apply:os.getcwd []", "the tag .* has no use here"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"a: \x00", "not valid YAML"),
        (b"[" * 20_000, "not valid YAML"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_huge_value_makes_a_short_message(tmp_path):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ConfigurationError) as caught:
        check_fields({"data": {"labels": parse_yaml(bomb, "text")["i"]}})
    assert len(str(caught.value)) < 500


def test_a_missing_file_is_named():
    with pytest.raises(ConfigurationError, match=r"There is no configuration file nowhere\.yaml"):
        read_yaml("nowhere.yaml")


def test_yaml_is_read_as_people_mean_it():
    text = "optimizer: {learning_rate: 1e-3}\ndata: {labels: [no, yes], train: 'null', separator: ''}"
    config = from_dict(parse_yaml(text, "text"))
    assert config.optimizer.learning_rate == 0.001
    assert config.data.labels == ("no", "yes")
    assert (config.data.train, config.data.separator) == ("null", "")
    assert parse_yaml("", "text") == {}


def test_overrides_replace_single_fields():
    settings = {"model": {"cell": "lstm", "encoder": {"layers": 2}}}
    merged = merge(settings, {"model": {"encoder": {"hidden_size": 3}}, "training": {"seed": 1}})
    assert merged == {"model": {"cell": "lstm", "encoder": {"layers": 2, "hidden_size": 3}}, "training": {"seed": 1}}
    assert settings == {"model": {"cell": "lstm", "encoder": {"layers": 2}}}


def test_every_field_has_a_path_and_a_description():
    paths = list(field_paths())
    assert len(paths) == len(set(paths))
    assert {"data.train", "model.encoder.pooling", "objective.beta.floor", "training.precision"} <= set(paths)
    assert all(expected_value(path) for path in paths)
    assert expected_value("training.precision") == "one of float32, float64, bf16"
    assert expected_value("model.nothing") is None


OLD = Path(__file__).parent / "data/config-0.1.0.yaml"
"""The configuration of a run as it was written before some fields were renamed or removed."""


def test_the_configuration_of_an_old_run_is_read_by_the_present_names():
    settings = parse_yaml(OLD.read_text(), "old")
    assert all(field in settings[section] for section, names in RENAMED.items() for field in names)
    with pytest.raises(ConfigurationError, match=r"old: data\.labels_per_class is not a field of the configuration"):
        from_dict(settings, "old")
    config = from_dict(upgraded(settings), "old")
    assert (config.objective.gradient_estimator, config.objective.k) == ("top_k", 2)
    assert (config.data.train, config.data.validation_fraction) == ("train.tsv", 0.25)
    assert config.model.encoder == dataclasses.replace(EncoderConfig(), embedding_size=3, hidden_size=2)
    assert upgraded(to_dict(config)) == to_dict(config)
    assert settings == parse_yaml(OLD.read_text(), "old")  # the argument is left as it was
