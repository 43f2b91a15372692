"""The configuration's classes: each checks its fields, and an error names the field and what is right."""

import dataclasses
import re

import pytest

from seqssvae.config import (
    BetaConfig,
    Config,
    ConsistencyConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TemperatureConfig,
    TrainingConfig,
    uses_unlabelled,
)
from seqssvae.errors import ConfigurationError, DataError, UserError

PATHS = {
    DataConfig: "data",
    EncoderConfig: "model.encoder",
    DecoderConfig: "model.decoder",
    ModelConfig: "model",
    BetaConfig: "objective.beta",
    TemperatureConfig: "objective.temperature",
    ConsistencyConfig: "objective.consistency",
    ObjectiveConfig: "objective",
    OptimizerConfig: "optimizer",
    TrainingConfig: "training",
}

WRONG = [
    (DataConfig, "validation_fraction", 0.95, "at most 0.9"),
    (DataConfig, "validation_fraction", -0.1, "of at least 0"),
    (DataConfig, "sequence_column", 0, "at least 1"),
    (DataConfig, "sequence_column", 1.0, "a whole number"),
    (DataConfig, "label_column", -1, "at least 0"),
    (DataConfig, "label_column", 1, "another column than data.sequence_column"),
    (DataConfig, "source_column", -1, "at least 0"),
    (DataConfig, "source_column", 1, "another column than data.sequence_column and data.label_column"),
    (DataConfig, "source_separator", "\t", "something else than a tab"),
    (DataConfig, "group_column", True, "a whole number"),
    (DataConfig, "format", "xlsx", "one of tsv, csv, fasta, jsonl, parquet, not 'xlsx'"),
    (DataConfig, "sequence_column", "", "a number or a name that is not empty"),
    (DataConfig, "id_column", -1, "at least 0"),
    (DataConfig, "labels_id_column", 0, "at least 1"),
    (DataConfig, "max_length", 0, "at least 1"),
    (DataConfig, "too_long", "cut", "one of skip, truncate, not 'cut'"),
    (DataConfig, "minimum_count", 0, "at least 1"),
    (DataConfig, "labels", ["A"], "at least two classes, not ['A']"),
    (DataConfig, "labels", ["A", "B", "A"], "without repetitions"),
    (DataConfig, "labels", ["A", ""], "non-empty names"),
    (EncoderConfig, "embedding_size", 0, "at least 1"),
    (EncoderConfig, "hidden_size", -3, "at least 1"),
    (EncoderConfig, "layers", 0, "at least 1"),
    (EncoderConfig, "kind", "lstm", "one of recurrent, convolution, both, not 'lstm'"),
    (EncoderConfig, "widths", (2, 0), "different whole numbers from 1 to 1000, not (2, 0)"),
    (EncoderConfig, "widths", (2, 2), "different whole numbers from 1 to 1000, not (2, 2)"),
    (EncoderConfig, "widths", (1.5,), "different whole numbers"),
    (EncoderConfig, "widths", (), "different whole numbers"),
    (EncoderConfig, "widths", "12", "a list of numbers, not '12'"),
    (EncoderConfig, "channels", 0, "at least 1"),
    (EncoderConfig, "pooling", "sum", "one of last, mean, max, not 'sum'"),
    (EncoderConfig, "word_dropout", -0.1, "of at least 0 and at most 1"),
    (DecoderConfig, "embedding_size", 0, "at least 1"),
    (DecoderConfig, "hidden_size", "64", "a whole number of at least 1 and at most 16384, not '64'"),
    (DecoderConfig, "layers", 0, "at least 1"),
    (DecoderConfig, "conditioning", "", "one of init, every_step, output"),
    (EncoderConfig, "widths", (2, 10**9), "different whole numbers from 1 to 1000"),
    (EncoderConfig, "layers", 10**6, "of at least 1 and at most 100, not 1000000"),
    (DecoderConfig, "hidden_size", 10**9, "of at least 1 and at most 16384, not 1000000000"),
    (ModelConfig, "latent_size", 10**9, "of at least 1 and at most 16384, not 1000000000"),
    (TrainingConfig, "steps_per_dispatch", 10**9, "of at least 1 and at most 10000, not 1000000000"),
    (DecoderConfig, "context", -1, "a whole number of at least 0 and at most 1000, not -1"),
    (DecoderConfig, "attention", "yes", "true or false, not 'yes'"),
    (ModelConfig, "cell", "rnn", "one of gru, lstm, not 'rnn'"),
    (ModelConfig, "latent_size", 0, "at least 1"),
    (ModelConfig, "dropout", 1.0, "at most 0.95"),
    (ModelConfig, "word_dropout", 1.1, "at most 1"),
    (ModelConfig, "label_prior", "flat", "one of uniform, empirical, given"),
    (BetaConfig, "schedule", "cosine", "one of constant, linear, cyclical"),
    (BetaConfig, "floor", 0.0, "above 0, not 0.0"),
    (BetaConfig, "maximum", 0.001, "of at least 0.01"),
    (BetaConfig, "steps", 0, "at least 1"),
    (ObjectiveConfig, "name", "vae", "one of ssvae, classifier"),
    (ObjectiveConfig, "alpha", float("nan"), "of at least 0, not nan"),
    (ObjectiveConfig, "label_gradient", 1.5, "at most 1"),
    (ObjectiveConfig, "batching", "both", "one of alternate, joint"),
    (OptimizerConfig, "name", "lion", "one of adam, adamw, sgd"),
    (OptimizerConfig, "learning_rate", 0.0, "above 0"),
    (OptimizerConfig, "learning_rate", float("inf"), "above 0, not inf"),
    (OptimizerConfig, "schedule", "step", "one of constant, linear, cosine"),
    (OptimizerConfig, "schedule_steps", -1, "at least 0"),
    (OptimizerConfig, "warmup_steps", -1, "at least 0"),
    (OptimizerConfig, "clip_norm", -1.0, "of at least 0"),
    (OptimizerConfig, "weight_decay", -1.0, "of at least 0"),
    (OptimizerConfig, "beta1", 1.0, "at most 0.9999"),
    (OptimizerConfig, "beta2", 1.0, "at most"),
    (OptimizerConfig, "epsilon", 0.0, "above 0"),
    (TemperatureConfig, "maximum", 0.1, "of at least 0.5"),
    (TemperatureConfig, "floor", 0.0, "above 0"),
    (TemperatureConfig, "steps", 0, "at least 1"),
    (ConsistencyConfig, "weight", -1.0, "of at least 0"),
    (ConsistencyConfig, "temperature", 0.0, "above 0"),
    (ConsistencyConfig, "steps", -1, "at least 0"),
    (ConsistencyConfig, "aligned", "yes", "true or false, not 'yes'"),
    (ConsistencyConfig, "realigned", 1, "true or false, not 1"),
    (ConsistencyConfig, "label_shift", (float("inf"), 0.0), "a list of numbers, not (inf, 0.0)"),
    (
        ObjectiveConfig,
        "gradient_estimator",
        "exact",
        "one of enumerate, sequential, top_k, gumbel_softmax, score_function",
    ),
    (ObjectiveConfig, "posterior", "best", "one of amortised, exact, given, not 'best'"),
    (ObjectiveConfig, "posterior_temperature", 0.0, "above 0"),
    (ObjectiveConfig, "distillation", -1.0, "of at least 0"),
    (ObjectiveConfig, "k", -1, "at least 0"),
    (ObjectiveConfig, "rest_mass", 0.0, "above 0"),
    (ObjectiveConfig, "baseline", "mean", "one of none, average, input"),
    (ObjectiveConfig, "baseline_decay", 1.0, "at most 0.9999"),
    (ObjectiveConfig, "num_particles", 0, "at least 1"),
    (TrainingConfig, "epochs", 0, "at least 1"),
    (TrainingConfig, "max_steps", -1, "at least 0"),
    (TrainingConfig, "budget", 0.0, "of at least 0.01 and at most 1000"),
    (TrainingConfig, "batch_size", 0, "at least 1"),
    (TrainingConfig, "labelled_batch_size", 0, "at least 1"),
    (TrainingConfig, "buckets", 0, "at least 1"),
    (TrainingConfig, "batch_symbols", -1, "at least 0"),
    (TrainingConfig, "steps_per_dispatch", 0, "at least 1"),
    (TrainingConfig, "evaluation_interval", -1, "at least 0"),
    (TrainingConfig, "deterministic", 1, "true or false, not 1"),
    (TrainingConfig, "metric", "f1", "one of accuracy, classification, elbo, loss"),
    (TrainingConfig, "matmul_precision", "low", "one of highest, high"),
    (TrainingConfig, "on_nonfinite", "go", "one of stop, skip"),
    (TrainingConfig, "patience", -1, "at least 0"),
    (TrainingConfig, "min_steps", -1, "at least 0"),
    (TrainingConfig, "standard_errors", -0.5, "at least 0"),
    (TrainingConfig, "checkpoint_minutes", -1.0, "at least 0"),
    (TrainingConfig, "seed", -1, "at least 0"),
    (TrainingConfig, "seed", 2**31, "below 2^31"),
    (TrainingConfig, "precision", "float16", "one of float32, float64"),
]


@pytest.mark.parametrize(("section", "name", "value", "expected"), WRONG)
def test_wrong_value_names_field_and_remedy(section, name, value, expected):
    with pytest.raises(ConfigurationError) as caught:
        section(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{PATHS[section]}.{name} must be ")
    assert expected in message
    assert "\n" not in message


def test_every_constrained_field_is_tested():
    free = {
        DataConfig: {"train", "validation", "separator", "header", "labels_file"},
        EncoderConfig: {"bidirectional", "separate"},
        ModelConfig: {"encoder", "decoder", "label_prior_probabilities"},
        ObjectiveConfig: {"beta", "temperature", "consistency", "labelled_ratio"},
    }
    tested = {(section, name) for section, name, _, _ in WRONG}
    for section in PATHS:
        for field in dataclasses.fields(section):
            assert ((section, field.name) in tested) != (field.name in free.get(section, set()))


@pytest.mark.parametrize(
    ("section", "keywords"),
    [
        (DataConfig, {"validation_fraction": 0.0, "label_column": 0, "group_column": 3, "labels": ["B", "A"]}),
        (DataConfig, {"sequence_column": 2, "label_column": 1}),
        (ModelConfig, {"dropout": 0.95, "word_dropout": 1}),
        (EncoderConfig, {"kind": "both", "widths": [3, 1], "channels": 1}),
        (ConsistencyConfig, {"aligned": True, "realigned": True, "label_shift": [0.0, -1.5]}),
        (ObjectiveConfig, {"posterior": "exact", "posterior_temperature": None, "distillation": 0}),
        (BetaConfig, {"floor": 1.0, "maximum": 1.0}),
        (ObjectiveConfig, {"alpha": 0}),
        (ObjectiveConfig, {"batching": "alternate", "labelled_ratio": 7}),
        (OptimizerConfig, {"clip_norm": 0, "beta1": 0, "name": "adamw", "weight_decay": 0.1}),
        (TrainingConfig, {"seed": 2**31 - 1, "patience": 0}),
    ],
)
def test_values_at_the_bounds_are_accepted(section, keywords):
    made = section(**keywords)
    assert {name: getattr(made, name) for name in keywords} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in keywords.items()
    }


@pytest.mark.parametrize("other", [{"conditioning": "init"}, {"conditioning": "every_step"}, {"layers": 2}])
def test_a_decoder_with_a_context_has_no_recurrence_to_configure(other):
    with pytest.raises(ConfigurationError, match=r"^model\.decoder\.context goes with .*output and .*layers: 1\.$"):
        DecoderConfig(context=2, **other)


def test_another_posterior_is_summed_out_and_the_exact_one_needs_an_elbo():
    with pytest.raises(ConfigurationError, match=r"^objective\.posterior: given goes with .*estimator: enumerate\.$"):
        ObjectiveConfig(posterior="given", gradient_estimator="top_k")
    with pytest.raises(ConfigurationError, match=r"^objective\.posterior: exact goes with objective\.name: ssvae"):
        ObjectiveConfig(posterior="exact", name="classifier")
    assert uses_unlabelled(ObjectiveConfig(posterior="given", name="classifier"))
    assert not uses_unlabelled(ObjectiveConfig(name="classifier"))


def test_what_is_aligned_once_more_is_aligned_once():
    with pytest.raises(ConfigurationError, match=r"^objective\.consistency\.realigned goes with .*aligned: true\.$"):
        ConsistencyConfig(realigned=True)


def test_labelled_ratio_above_one_needs_alternate_batching():
    with pytest.raises(ConfigurationError, match=r"^objective\.labelled_ratio .*joint.* at most 1, not 2"):
        ObjectiveConfig(batching="joint", labelled_ratio=2)
    with pytest.raises(
        ConfigurationError, match=r"objective\.labelled_ratio .*alternate.* above 0 and at most 1000, not 0"
    ):
        ObjectiveConfig(batching="alternate", labelled_ratio=0)


def test_weight_decay_is_for_adamw():
    with pytest.raises(ConfigurationError, match=r"weight_decay is for optimizer\.name: adamw"):
        OptimizerConfig(name="adam", weight_decay=0.1)


@pytest.mark.parametrize(
    ("prior", "probabilities", "expected"),
    [
        ("given", None, "goes with model.label_prior: given, and only with it"),
        ("uniform", [0.5, 0.5], "goes with model.label_prior: given, and only with it"),
        ("given", [0.5, 0.6], "must be a list that sums to 1, not [0.5, 0.6]"),
        ("given", [1.0, 0.0], "must be numbers above 0"),
    ],
)
def test_given_label_prior(prior, probabilities, expected):
    with pytest.raises(ConfigurationError, match=re.escape(f"model.label_prior_probabilities {expected}")):
        ModelConfig(label_prior=prior, label_prior_probabilities=probabilities)


def test_configuration_is_frozen_and_hashable():
    config = Config(data=DataConfig(labels=["A", "B"]), model=ModelConfig(label_prior="empirical"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.cell = "lstm"
    assert hash(config) == hash(dataclasses.replace(config))
    assert config != Config()


def test_user_errors_are_one_family():
    assert issubclass(ConfigurationError, UserError)
    assert issubclass(DataError, UserError)
    assert issubclass(ConfigurationError, ValueError)
