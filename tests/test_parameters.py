import dataclasses
import itertools

import numpy as np
import pytest

from seqssvae.config import DecoderConfig, EncoderConfig, ModelConfig, OptimizerConfig
from seqssvae.noise import NoiseSpec, noise_specs
from seqssvae.parameters import check_weights, feature_size, initial_weights, optimizer_shapes, parameter_shapes

GRU = ModelConfig(
    cell="gru",
    latent_size=3,
    encoder=EncoderConfig(embedding_size=5, hidden_size=4, bidirectional=False),
    decoder=DecoderConfig(embedding_size=6, hidden_size=7, layers=2, conditioning="output"),
)
# V 11, K 2; encoder: E 5, H 4, F 4; decoder: E 6, H 7; three gates
GRU_SHAPES = {
    "encoder.towers.0.embedding": (11, 5),
    "encoder.towers.0.layers.0.left_to_right.weight_ih": (12, 5),
    "encoder.towers.0.layers.0.left_to_right.weight_hh": (12, 4),
    "encoder.towers.0.layers.0.left_to_right.bias": (12,),
    "encoder.towers.0.layers.0.left_to_right.bias_n": (4,),
    "classifier.weight": (2, 4),
    "classifier.bias": (2,),
    "latent_encoder.hidden.weight": (4, 4),
    "latent_encoder.hidden.label_weight": (4, 2),
    "latent_encoder.hidden.bias": (4,),
    "latent_encoder.loc.weight": (3, 4),
    "latent_encoder.loc.bias": (3,),
    "latent_encoder.scale.weight": (3, 4),
    "latent_encoder.scale.bias": (3,),
    "decoder.embedding": (11, 6),
    "decoder.layers.0.weight_ih": (21, 6),
    "decoder.layers.0.weight_hh": (21, 7),
    "decoder.layers.0.bias": (21,),
    "decoder.layers.0.bias_n": (7,),
    "decoder.layers.1.weight_ih": (21, 7),
    "decoder.layers.1.weight_hh": (21, 7),
    "decoder.layers.1.bias": (21,),
    "decoder.layers.1.bias_n": (7,),
    "decoder.initial_state": (14,),
    "decoder.condition.weight": (7, 3),
    "decoder.condition.label_weight": (7, 2),
    "decoder.condition.bias": (7,),
    "decoder.projection.weight": (7, 7),
    "decoder.label_bias": (11, 2),
    "decoder.output.weight": (11, 7),
    "decoder.output.bias": (11,),
}

LSTM = ModelConfig(
    cell="lstm",
    latent_size=3,
    encoder=EncoderConfig(embedding_size=5, hidden_size=4, layers=2, bidirectional=True, separate=True),
    decoder=DecoderConfig(embedding_size=6, hidden_size=7, conditioning="every_step"),
)


def lstm_tower(tower):
    for layer, inputs in ((0, 5), (1, 8)):  # the second layer reads both directions of the first
        for direction in ("left_to_right", "right_to_left"):
            prefix = f"encoder.towers.{tower}.layers.{layer}.{direction}"
            yield f"{prefix}.weight_ih", (16, inputs)
            yield f"{prefix}.weight_hh", (16, 4)
            yield f"{prefix}.bias", (16,)
    yield f"encoder.towers.{tower}.embedding", (11, 5)


# V 11, K 3; encoder: E 5, H 4, F 8; decoder: E 6, H 7, four gates, states h and c
LSTM_SHAPES = {
    **dict(lstm_tower(0)),
    **dict(lstm_tower(1)),
    "classifier.weight": (3, 8),
    "classifier.bias": (3,),
    "latent_encoder.hidden.weight": (4, 8),
    "latent_encoder.hidden.label_weight": (4, 3),
    "latent_encoder.hidden.bias": (4,),
    "latent_encoder.loc.weight": (3, 4),
    "latent_encoder.loc.bias": (3,),
    "latent_encoder.scale.weight": (3, 4),
    "latent_encoder.scale.bias": (3,),
    "decoder.embedding": (11, 6),
    "decoder.layers.0.weight_ih": (28, 6),
    "decoder.layers.0.weight_hh": (28, 7),
    "decoder.layers.0.bias": (28,),
    "decoder.initial.hidden.weight": (7, 3),
    "decoder.initial.hidden.label_weight": (7, 3),
    "decoder.initial.hidden.bias": (7,),
    "decoder.initial.output.weight": (14, 7),
    "decoder.initial.output.bias": (14,),
    "decoder.condition.weight": (28, 3),
    "decoder.condition.label_weight": (28, 3),
    "decoder.output.weight": (11, 7),
    "decoder.output.bias": (11,),
}


def test_shapes_of_a_gru():
    assert parameter_shapes(GRU, 11, 2) == GRU_SHAPES


def test_shapes_of_an_lstm():
    assert parameter_shapes(LSTM, 11, 3) == LSTM_SHAPES


def test_conditioning_at_the_start_lacks_the_condition_of_every_step():
    decoder = dataclasses.replace(LSTM.decoder, conditioning="init")
    shapes = parameter_shapes(dataclasses.replace(LSTM, decoder=decoder), 11, 3)
    conditions = {"decoder.condition.weight", "decoder.condition.label_weight"}
    assert shapes == {name: shape for name, shape in LSTM_SHAPES.items() if name not in conditions}


def test_feature_size_is_the_width_of_both_directions():
    assert feature_size(GRU) == 4
    assert feature_size(LSTM) == 8


def with_filters(kind):
    return dataclasses.replace(GRU, encoder=dataclasses.replace(GRU.encoder, kind=kind, widths=(1, 3), channels=2))


def test_a_convolution_has_the_filters_of_each_width_and_may_stand_beside_the_recurrence():
    filters = {f"encoder.towers.0.convolutions.{w}.weight": (2, 5 * w) for w in (1, 3)}
    filters |= {f"encoder.towers.0.convolutions.{w}.bias": (2,) for w in (1, 3)}
    for kind, size in (("convolution", 4), ("both", 8)):
        heads = {"classifier.weight": (2, size), "latent_encoder.hidden.weight": (4, size)}
        expected = {
            name: shape for name, shape in GRU_SHAPES.items() if kind == "both" or "towers.0.layers" not in name
        }
        assert parameter_shapes(with_filters(kind), 11, 2) == {**expected, **filters, **heads}
        assert feature_size(with_filters(kind)) == size


def with_context(count):
    return dataclasses.replace(GRU, decoder=dataclasses.replace(GRU.decoder, context=count, layers=1))


def test_a_decoder_with_a_context_has_a_layer_for_its_recurrence_and_one_without_any_no_embedding():
    replaced = ("decoder.layers", "decoder.initial_state")
    common = {name: shape for name, shape in GRU_SHAPES.items() if not name.startswith(replaced)}
    layer = {"decoder.context.weight": (7, 12), "decoder.context.bias": (7,)}
    assert parameter_shapes(with_context(2), 11, 2) == {**common, **layer}
    assert parameter_shapes(with_context(1), 11, 2)["decoder.context.weight"] == (7, 6)
    del common["decoder.embedding"], layer["decoder.context.weight"]
    assert parameter_shapes(with_context(0), 11, 2) == {**common, **layer}
    assert parameter_shapes(with_context(0), 11, 2, source_vocabulary_size=9)["decoder.source_state.weight"] == (7, 4)
    dropped = dataclasses.replace(with_context(0), dropout=0.5, word_dropout=0.5)
    assert not {"decoder.embedding", "word_dropout"} & noise_specs(dropped, 2, 3, 6).keys()


def test_the_source_of_a_convolution_is_read_by_a_recurrence():
    model = with_filters("convolution")
    shapes, recurrent = (parameter_shapes(of, 11, 2, source_vocabulary_size=9) for of in (model, GRU))
    apart = ("encoder.towers", "classifier", "latent_encoder.hidden.weight")
    assert {name: shape for name, shape in shapes.items() if not name.startswith(apart)} == {
        name: shape for name, shape in recurrent.items() if not name.startswith(apart)
    }
    assert shapes["classifier.weight"] == (2, 4 + 4)
    dropped = noise_specs(dataclasses.replace(model, dropout=0.5), 2, 3, 6, source_steps=5)
    assert (dropped["features.0"].shape, dropped["source.features"].shape) == ((3, 4), (3, 4))


@pytest.mark.parametrize(("model", "labels"), [(GRU, 2), (LSTM, 3)])
def test_first_weights_depend_on_the_seed_alone(model, labels):
    first = initial_weights(model, 11, labels, seed=5)
    np.random.seed(1)
    again = initial_weights(model, 11, labels, seed=5)
    other = initial_weights(model, 11, labels, seed=6)
    assert {name: weight.shape for name, weight in first.items()} == parameter_shapes(model, 11, labels)
    for name, weight in first.items():
        assert weight.dtype == np.float32
        assert (weight == again[name]).all()
        assert (weight == other[name]).all() == name.endswith(("bias", "bias_n", "initial_state"))


def test_precision_rounds_the_same_draw():
    double = initial_weights(GRU, 11, 2, seed=5, precision="float64")
    single = initial_weights(GRU, 11, 2, seed=5)
    for name, weight in double.items():
        assert weight.dtype == np.float64
        assert (weight.astype(np.float32) == single[name]).all()


def test_weights_differ_from_each_other():
    weights = initial_weights(LSTM, 11, 3, seed=0)
    drawn = [weight.ravel()[:3].tolist() for name, weight in weights.items() if weight.any()]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))


@pytest.mark.parametrize("model", [GRU, LSTM])
def test_first_recurrent_weights_are_orthogonal_by_gate(model):
    weights = initial_weights(model, 11, 2, seed=3, precision="float64")
    for name, weight in weights.items():
        if name.endswith("weight_hh"):
            size = weight.shape[1]
            for gate in weight.reshape(-1, size, size):
                np.testing.assert_allclose(gate @ gate.T, np.eye(size), atol=1e-12)


def test_first_matrices_are_within_glorots_bound():
    weight = initial_weights(ModelConfig(), 30, 2, seed=0)["latent_encoder.hidden.weight"]  # 128 x 256
    bound = np.sqrt(6 / (128 + 256))
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert abs(weight.mean()) < 0.01 * bound


def test_check_weights_accepts_what_fits():
    check_weights(initial_weights(GRU, 11, 2, seed=0), parameter_shapes(GRU, 11, 2))


def test_check_weights_names_what_does_not_fit():
    shapes = parameter_shapes(GRU, 11, 2)
    weights = initial_weights(GRU, 11, 2, seed=0)
    missing = {name: weight for name, weight in weights.items() if name != "classifier.bias"}
    with pytest.raises(ValueError, match=r"^the weight classifier\.bias is missing\.$"):
        check_weights(missing, shapes)
    with pytest.raises(ValueError, match=r"classifier\.weight has shape \(4, 2\), not \(2, 4\)"):
        check_weights({**weights, "classifier.weight": weights["classifier.weight"].T}, shapes)
    with pytest.raises(ValueError, match=r"the weight classifier\.bias_2 is unknown"):
        check_weights({**weights, "classifier.bias_2": np.zeros(2)}, shapes)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_state_of_adam(name):
    assert optimizer_shapes(OptimizerConfig(name=name), {"a": (2, 3), "b": (4,)}) == {
        "step": (),
        "a.exp_avg": (2, 3),
        "a.exp_avg_sq": (2, 3),
        "b.exp_avg": (4,),
        "b.exp_avg_sq": (4,),
    }


def test_state_of_sgd():
    assert optimizer_shapes(OptimizerConfig(name="sgd"), {"a": (2, 3)}) == {"step": (), "a.momentum": (2, 3)}


def test_noise_of_a_missing_label_is_indexed_by_label():
    assert noise_specs(GRU, 2, rows=8, time_steps=9) == {"z": NoiseSpec("normal", (2, 8, 3))}
    assert noise_specs(GRU, None, rows=8, time_steps=9) == {"z": NoiseSpec("normal", (8, 3))}


def test_noise_of_dropout():
    model = dataclasses.replace(LSTM, dropout=0.25, word_dropout=0.5)
    assert noise_specs(model, 3, rows=8, time_steps=9) == {
        "z": NoiseSpec("normal", (3, 8, 3)),
        "encoder.embedding.0": NoiseSpec("keep", (8, 9, 5), 0.75),
        "encoder.embedding.1": NoiseSpec("keep", (8, 9, 5), 0.75),
        "features.0": NoiseSpec("keep", (8, 8), 0.75),
        "features.1": NoiseSpec("keep", (8, 8), 0.75),
        "decoder.embedding": NoiseSpec("keep", (8, 9, 6), 0.75),
        "word_dropout": NoiseSpec("keep", (8, 9), 0.5),
    }
    assert set(noise_specs(model, 3, rows=8, time_steps=9, training=False)) == {"z"}


def test_noise_of_symbols_hidden_from_the_encoder():
    model = dataclasses.replace(GRU, encoder=dataclasses.replace(GRU.encoder, word_dropout=0.25))
    specs = noise_specs(model, 2, rows=8, time_steps=9, source_steps=7)
    assert specs == {"z": NoiseSpec("normal", (2, 8, 3)), "encoder.word_dropout": NoiseSpec("keep", (8, 9), 0.75)}
    assert set(noise_specs(model, 2, rows=8, time_steps=9, training=False)) == {"z"}


def test_noise_of_one_tower():
    model = dataclasses.replace(GRU, dropout=0.25)
    assert set(noise_specs(model, 2, rows=8, time_steps=9)) == {
        "z",
        "encoder.embedding.0",
        "features.0",
        "decoder.embedding",
    }
