"""The oracle's networks: cells, masks, directions and pooling, by hand and against other ways of saying the same."""

import dataclasses
import math
from itertools import product

import numpy as np
import pytest

from parity_tests.arithmetic import log_normal, log_softmax, sigmoid, softplus
from parity_tests.fixtures import load_problems
from parity_tests.networks import Networks
from parity_tests.problems import Options, Problem, make_problem
from seqssvae.config import DecoderConfig, EncoderConfig, ModelConfig
from seqssvae.data.vocabulary import END, PAD, START, UNK
from seqssvae.parameters import parameter_shapes

PROBLEMS = load_problems()


def _logistic(a: float) -> float:
    return 1.0 / (1.0 + math.exp(-a))


def _scalar_networks(cell: str, **model_options: object) -> tuple[Networks, dict[str, np.ndarray]]:
    """Networks with all sizes 1, so that a step can be written out."""
    sizes = {"embedding_size": 1, "hidden_size": 1}
    decoder = DecoderConfig(**sizes, conditioning="every_step")
    model = ModelConfig(cell=cell, latent_size=1, encoder=EncoderConfig(**sizes, bidirectional=False), decoder=decoder)
    generator = np.random.default_rng(8)
    shapes = parameter_shapes(model, vocabulary_size=6, label_count=2)
    weights = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    return Networks(dataclasses.replace(model, **model_options), weights), weights


def _two_gru_steps(p: str, w: dict[str, np.ndarray], xs: list[float], h: float, added: tuple[float, ...]) -> float:
    (wr,), (wu,), (wn,) = w[f"{p}.weight_ih"]
    (vr,), (vu,), (vn,) = w[f"{p}.weight_hh"]
    br, bu, bn = w[f"{p}.bias"]
    (inner,) = w[f"{p}.bias_n"]
    for x in xs:
        r = _logistic(wr * x + br + added[0] + vr * h)
        u = _logistic(wu * x + bu + added[1] + vu * h)
        n = math.tanh(wn * x + bn + added[2] + r * (vn * h + inner))
        h = (1 - u) * n + u * h
    return h


def _two_lstm_steps(
    p: str, w: dict[str, np.ndarray], xs: list[float], h: float, c: float, added: tuple[float, ...]
) -> float:
    a, v, b = w[f"{p}.weight_ih"][:, 0], w[f"{p}.weight_hh"][:, 0], w[f"{p}.bias"]
    for x in xs:
        i, f, g, o = (a[n] * x + v[n] * h + b[n] + added[n] for n in range(4))
        c = _logistic(f) * c + _logistic(i) * math.tanh(g)
        h = _logistic(o) * math.tanh(c)
    return h


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_encoder_and_heads_by_hand(cell: str) -> None:
    """Two symbols, 4 and END, read by a network of size 1."""
    networks, w = _scalar_networks(cell)
    xs = [float(w["encoder.towers.0.embedding"][symbol, 0]) for symbol in (4, END)]
    prefix = "encoder.towers.0.layers.0.left_to_right"
    if cell == "gru":
        h = _two_gru_steps(prefix, w, xs, 0.0, (0.0,) * 3)
    else:
        h = _two_lstm_steps(prefix, w, xs, 0.0, 0.0, (0.0,) * 4)
    features = networks.encoder(np.array([4, END, PAD]), {})
    np.testing.assert_allclose(features[0], [h], rtol=1e-14)

    scores = [float(w["classifier.weight"][k, 0]) * h + float(w["classifier.bias"][k]) for k in range(2)]
    expected = [score - math.log(math.exp(scores[0]) + math.exp(scores[1])) for score in scores]
    np.testing.assert_allclose(networks.classifier(features), expected, rtol=1e-14)

    hidden = w["latent_encoder.hidden.weight"][0, 0] * h + w["latent_encoder.hidden.label_weight"][0, 1]
    hidden = math.tanh(hidden + w["latent_encoder.hidden.bias"][0])
    loc = w["latent_encoder.loc.weight"][0, 0] * hidden + w["latent_encoder.loc.bias"][0]
    scale = w["latent_encoder.scale.weight"][0, 0] * hidden + w["latent_encoder.scale.bias"][0]
    parameters = networks.latent_encoder(features, label=1)
    np.testing.assert_allclose(np.concatenate(parameters), [loc, math.log(1 + math.exp(scale)) + 1e-4], rtol=1e-13)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_decoder_by_hand(cell: str) -> None:
    """The second step's log-probability of symbol 5, behind START and 4, under label 1 and z = 0.6."""
    networks, w = _scalar_networks(cell)
    z, label = 0.6, 1
    hidden = w["decoder.initial.hidden.weight"][0, 0] * z + w["decoder.initial.hidden.label_weight"][0, label]
    hidden = math.tanh(hidden + w["decoder.initial.hidden.bias"][0])
    states = [
        math.tanh(a * hidden + b)
        for (a,), b in zip(w["decoder.initial.output.weight"], w["decoder.initial.output.bias"], strict=True)
    ]
    added = tuple(w["decoder.condition.weight"][:, 0] * z + w["decoder.condition.label_weight"][:, label])
    xs = [float(w["decoder.embedding"][symbol, 0]) for symbol in (START, 4)]
    if cell == "gru":
        h = _two_gru_steps("decoder.layers.0", w, xs, *states, added)
    else:
        h = _two_lstm_steps("decoder.layers.0", w, xs, *states, added)
    logits = w["decoder.output.weight"][:, 0] * h + w["decoder.output.bias"]
    expected = logits[5] - math.log(sum(math.exp(logits[v]) for v in (UNK, END, 4, 5)))
    log_p = networks.decoder(label, np.array([z]), [START, 4])[1]
    np.testing.assert_allclose(log_p[5], expected, rtol=1e-13)
    assert log_p[PAD] == log_p[START] == -np.inf
    scored = networks.log_probabilities(np.array([4, 5, END, PAD]), label, np.array([z]), {})
    np.testing.assert_allclose(scored[1], expected, rtol=1e-13)
    assert scored[3] == 0.0


def test_a_decoder_with_a_context_knows_its_last_inputs_alone() -> None:
    z = np.array([0.3, -0.8])
    for context in (0, 1, 2):
        oracle = make_problem(Options(context=context), seed=9).oracle()
        base = oracle.next_log_probabilities([4, 5, 6], 1, z)
        for place in range(3):
            other = [7 if t == place else symbol for t, symbol in enumerate([4, 5, 6])]
            changed = (oracle.next_log_probabilities(other, 1, z) != base).any()
            assert changed == (place >= 3 - context)
        first = oracle.next_log_probabilities([], 1, z)
        np.testing.assert_allclose(np.exp(first).sum(), 1.0, rtol=1e-12)
        assert (first != base).any() == (context > 0)


def test_a_context_by_hand() -> None:
    problem = make_problem(Options(context=2), seed=9)
    w, z = problem.weights, np.array([0.3, -0.8])
    seen = np.concatenate([np.zeros(6), w["decoder.embedding"][START]])
    hidden = np.tanh(w["decoder.context.weight"] @ seen + w["decoder.context.bias"])
    added = w["decoder.condition.weight"] @ z + w["decoder.condition.label_weight"][:, 1] + w["decoder.condition.bias"]
    conditioned = np.tanh(w["decoder.projection.weight"] @ hidden + added)
    logits = w["decoder.output.weight"] @ conditioned + w["decoder.output.bias"] + w["decoder.label_bias"][:, 1]
    possible = [v for v in range(9) if v not in (PAD, START)]
    expected = logits[possible] - np.log(np.exp(logits[possible]).sum())
    np.testing.assert_allclose(problem.oracle().next_log_probabilities([], 1, z)[possible], expected, rtol=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_decoder_by_hand_with_output_conditioning(cell: str) -> None:
    """With zero recurrent weights, h is read off the initial state, whose order is h of all layers, then c of all."""
    problem = make_problem(Options(cell=cell, conditioning="output", decoder_layers=2), seed=9)
    w = {name: np.zeros_like(v) if ".layers." in name else v for name, v in problem.weights.items()}
    states = np.tanh(w["decoder.initial_state"])
    of_second_layer = {
        "gru": states[5:10] / 2,  # u = 1/2 and n = 0, so half the initial h is left
        "lstm": np.tanh(states[15:20] / 2) / 2,  # all gates 1/2, so half the initial c is left
    }
    h = of_second_layer[cell]
    z = np.array([0.3, -0.8])
    condition = (
        w["decoder.condition.weight"] @ z + w["decoder.condition.label_weight"][:, 2] + w["decoder.condition.bias"]
    )
    o = np.tanh(w["decoder.projection.weight"] @ h + condition)
    logits = w["decoder.output.weight"] @ o + w["decoder.output.bias"] + w["decoder.label_bias"][:, 2]
    possible = [v for v in range(9) if v not in (PAD, START)]
    expected = logits - np.log(np.exp(logits[possible]).sum())
    log_p = problem.oracle(w).next_log_probabilities([], 2, z)
    np.testing.assert_allclose(log_p[possible], expected[possible], rtol=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("conditioning", ["every_step", "output"])
def test_what_the_upper_layer_gets(cell: str, conditioning: str) -> None:
    """With no input from below, the upper layer hears its own initial states and nothing that enters below."""
    problem = make_problem(Options(cell=cell, conditioning=conditioning, decoder_layers=2), seed=15)
    name = "decoder.initial_state" if conditioning == "output" else "decoder.initial.output.bias"
    upper = np.zeros_like(problem.weights["decoder.layers.1.weight_ih"])
    weights = {**problem.weights, "decoder.layers.1.weight_ih": upper}
    before = problem.oracle(weights).next_log_probabilities([4, 5], 1, np.array([0.5, -0.5]))
    for i, kind_and_layer in enumerate(product(("h", "c") if cell == "lstm" else ("h",), (0, 1))):
        changed = weights[name].copy()
        changed[5 * i : 5 * i + 5] += 0.5
        after = problem.oracle({**weights, name: changed}).next_log_probabilities([4, 5], 1, np.array([0.5, -0.5]))
        assert (after != before).any() == (kind_and_layer[1] == 1), kind_and_layer
    if conditioning == "every_step":
        for name in ("decoder.condition.weight", "decoder.condition.label_weight"):
            changed = weights[name] + 0.5
            after = problem.oracle({**weights, name: changed}).next_log_probabilities([4, 5], 1, np.array([0.5, -0.5]))
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_cells_are_those_of_pytorch(cell: str) -> None:
    """Two layers in both directions, on a row without padding; the one bias stands where PyTorch has two."""
    torch = pytest.importorskip("torch")
    problem = make_problem(Options(cell=cell, encoder_layers=2, bidirectional=True, pooling="last"), seed=10)
    network = getattr(torch.nn, cell.upper())(3, 4, num_layers=2, bidirectional=True, batch_first=True).double()
    state = {}
    for layer, (direction, suffix) in product(range(2), (("left_to_right", ""), ("right_to_left", "_reverse"))):
        prefix = f"encoder.towers.0.layers.{layer}.{direction}"
        bias, second = problem.weights[f"{prefix}.bias"], np.zeros(4 * (3 if cell == "gru" else 4))
        if cell == "gru":
            second[8:] = problem.weights[f"{prefix}.bias_n"]
        state[f"weight_ih_l{layer}{suffix}"] = problem.weights[f"{prefix}.weight_ih"]
        state[f"weight_hh_l{layer}{suffix}"] = problem.weights[f"{prefix}.weight_hh"]
        state[f"bias_ih_l{layer}{suffix}"] = bias
        state[f"bias_hh_l{layer}{suffix}"] = second
    network.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    row = np.array([4, 8, 1, 5, END])
    with torch.no_grad():
        outputs, _ = network(torch.tensor(problem.weights["encoder.towers.0.embedding"][row])[None])
    outputs = outputs[0].numpy()
    for pooling, expected in (
        ("last", np.concatenate([outputs[-1, :4], outputs[0, 4:]])),
        ("mean", outputs.mean(0)),
        ("max", outputs.max(0)),
    ):
        encoder = dataclasses.replace(problem.config.model.encoder, pooling=pooling)
        networks = Networks(dataclasses.replace(problem.config.model, encoder=encoder), problem.weights)
        np.testing.assert_allclose(networks.encoder(row, {})[0], expected, rtol=1e-12)
        np.testing.assert_allclose(networks.encoder(np.append(row, [PAD, PAD]), {})[0], expected, rtol=1e-12)


def test_separate_towers_serve_one_head_each() -> None:
    problem = make_problem(Options(separate=True, filler=False), seed=11)
    x = problem.unlabelled.batch.x
    for tower in range(2):
        weights = {
            name: value + 0.1 if name.startswith(f"encoder.towers.{tower}.") else value
            for name, value in problem.weights.items()
        }
        log_q_y_changed = problem.oracle(weights).log_q_y(x) != problem.oracle().log_q_y(x)
        loc_changed = problem.oracle(weights).posterior(x)[0] != problem.oracle().posterior(x)[0]
        assert log_q_y_changed.all() if tower == 0 else not log_q_y_changed.any()
        assert loc_changed.all() if tower == 1 else not loc_changed.any()


def test_embedding_is_the_posterior_mean_of_loc() -> None:
    problem = make_problem(Options(label_count=4, dropout=0.3, filler=False), seed=12)
    x, oracle = problem.unlabelled.batch.x, problem.oracle()
    loc, scale = oracle.posterior(x)
    assert loc.shape == scale.shape == (4, 4, 2)
    expected = np.einsum("bk,kbz->bz", np.exp(oracle.log_q_y(x)), loc)
    np.testing.assert_allclose(oracle.embedding(x), expected, rtol=1e-13)


def _dropout_problem() -> Problem:
    return make_problem(Options(cell="lstm", kind="unlabelled", dropout=0.3, word_dropout=0.4, filler=False), seed=13)


def test_kept_entries_are_scaled_up() -> None:
    """A mask that keeps all is the same as weights divided by the share kept."""
    problem = _dropout_problem()
    x, z = problem.unlabelled.batch.x, problem.unlabelled.noise["z"]
    kept = {name: np.ones_like(mask) for name, mask in problem.unlabelled.noise.items() if mask.dtype == bool}
    scaled = dict(problem.weights)
    for name in (
        "encoder.towers.0.embedding",
        "decoder.embedding",
        "classifier.weight",
        "latent_encoder.hidden.weight",
    ):
        scaled[name] = scaled[name] / 0.7
    oracle, other = problem.oracle(), problem.oracle(scaled)
    np.testing.assert_allclose(oracle.log_q_y(x, kept), other.log_q_y(x), rtol=1e-12)
    np.testing.assert_allclose(oracle.posterior(x, kept), other.posterior(x), rtol=1e-12)
    np.testing.assert_allclose(
        oracle.step_log_probabilities(x, z, kept), other.step_log_probabilities(x, z), rtol=1e-12
    )


def test_word_dropout_puts_unk_for_all_but_start() -> None:
    """With everything dropped it is as if every symbol but START had the embedding of UNK."""
    problem = _dropout_problem()
    x, z = problem.unlabelled.batch.x, problem.unlabelled.noise["z"]
    embedding = np.tile(problem.weights["decoder.embedding"][UNK], (9, 1))
    embedding[START] = problem.weights["decoder.embedding"][START]
    expected = problem.oracle({**problem.weights, "decoder.embedding": embedding}).step_log_probabilities(x, z)
    dropped = {"word_dropout": np.zeros(x.shape, dtype=bool)}
    np.testing.assert_allclose(problem.oracle().step_log_probabilities(x, z, dropped), expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["word_dropout", "decoder.embedding"])
def test_masks_act_on_their_own_row_from_their_own_step_on(name: str) -> None:
    problem = _dropout_problem()
    x, z = problem.unlabelled.batch.x.copy(), problem.unlabelled.noise["z"]
    x[1:3] = [[4, 5, 6, 7, 8, END]] * 2
    kept = np.ones((*x.shape, 6) if name == "decoder.embedding" else x.shape, dtype=bool)
    before = problem.oracle().step_log_probabilities(x, z, {name: kept})
    for t in range(6):
        mask = kept.copy()
        mask[1, t] = False
        changed = problem.oracle().step_log_probabilities(x, z, {name: mask}) != before
        first = t if (name, t) != ("word_dropout", 0) else 6  # START is never replaced
        assert changed[:, 1, first:].all()
        assert not changed[:, 1, :first].any()
        assert not np.delete(changed, 1, axis=1).any()


def test_masks_of_the_encoder_act_on_their_own_tower() -> None:
    problem = make_problem(Options(separate=True, dropout=0.3, filler=False), seed=14)
    x = problem.unlabelled.batch.x
    masks = {name: np.ones_like(mask) for name, mask in problem.unlabelled.noise.items() if mask.dtype == bool}
    before = problem.oracle().features(x, masks)
    for name, tower in product(("encoder.embedding", "features"), range(2)):
        mask = masks[f"{name}.{tower}"].copy()
        mask[2, 0] = False
        after = problem.oracle().features(x, {**masks, f"{name}.{tower}": mask})
        changed = [(after[i] != before[i]).any(1) for i in range(2)]
        np.testing.assert_array_equal(changed[tower], [False, False, True, False])
        assert not changed[1 - tower].any()
        if name == "features":
            assert after[tower][2, 0] == 0.0


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_features_of_filler_rows_are_zero(problem: Problem) -> None:
    for step in problem.steps():
        for features in problem.oracle().features(step.batch.x, step.noise):
            np.testing.assert_array_equal((features != 0).any(1), step.batch.row_mask)


def test_arithmetic_by_hand() -> None:
    a = np.array([-800.0, -1.0, 0.0, 2.0, 800.0])
    np.testing.assert_allclose(sigmoid(a), [0.0, 1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-2)), 1.0], atol=1e-16)
    np.testing.assert_allclose(softplus(a), [0.0, math.log1p(1 / math.e), math.log(2), math.log1p(math.e**2), 800.0])
    shifted = log_softmax(np.array([1e4, 1e4 + math.log(3.0), 5e4]), excluded=(2,))
    np.testing.assert_allclose(shifted, [math.log(0.25), math.log(0.75), -np.inf])
    density = log_normal(np.array([1.0]), np.array([3.0]), np.array([2.0]))
    np.testing.assert_allclose(density, math.log(math.exp(-0.5) / (2 * math.sqrt(2 * math.pi))))
