"""Both twins behind the `Backend` protocol: reproducible, restorable, proper as distributions."""

from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import seqssvae_jax.core
import seqssvae_torch.backend
from seqssvae.backend import Backend, Batch, Dimensions, GivenRows, TrainingStep, get_backend
from seqssvae.config import (
    Config,
    ConsistencyConfig,
    DecoderConfig,
    DecodingOptions,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainingConfig,
)
from seqssvae.errors import ConfigurationError
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.parameters import initial_weights
from seqssvae_jax import objectives as jax_objectives
from seqssvae_torch import objectives as torch_objectives

DIMENSIONS = Dimensions(7, (0.4, 0.6))
CONFIG = Config(
    model=ModelConfig(
        latent_size=2,
        encoder=EncoderConfig(embedding_size=3, hidden_size=4),
        decoder=DecoderConfig(3, 4, conditioning="output"),
        dropout=0.2,
        word_dropout=0.2,
    ),
    training=TrainingConfig(seed=5),
)
X = np.array([[4, 5, 4, 3], [6, 3, 0, 0], [5, 5, 3, 0], [0, 0, 0, 0]], np.int32)
REAL = np.array([True, True, True, False])
LABELLED = Batch(X, np.array([0, 1, 1, -1], np.int32), REAL, np.array([0, 1, 2, -1], np.int32))
UNLABELLED = replace(LABELLED, y=np.full(4, -1, np.int32))
STEPS = [TrainingStep(LABELLED, UNLABELLED, 0.5, 0.01, step) for step in range(4)]


@cache
def shared(name: str) -> Any:
    """One backend for all tests that put back what they change."""
    return get_backend(name)(CONFIG, DIMENSIONS)


@pytest.fixture(params=["torch", "jax"])
def backend(request: pytest.FixtureRequest) -> Any:
    backend = shared(request.param)
    state = backend.get_weights(), backend.get_optimizer_state()
    yield backend
    backend.set_weights(state[0])
    backend.set_optimizer_state(state[1])


def weights_after(backend: Backend, steps: list[TrainingStep]) -> dict[str, np.ndarray]:
    backend.train(steps)
    return backend.get_weights()


def test_starts_from_the_shared_weights(backend: Backend) -> None:
    expected = initial_weights(CONFIG.model, 7, 2, seed=5)
    weights = backend.get_weights()
    assert list(weights) == list(expected)
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)


def test_same_seed_same_run_bit_for_bit_also_when_resumed(backend: Backend) -> None:
    first = backend.get_weights(), backend.get_optimizer_state()
    whole = weights_after(backend, STEPS)
    backend.set_weights(first[0])
    backend.set_optimizer_state(first[1])
    backend.train(STEPS[:2])
    middle = backend.get_weights(), backend.get_optimizer_state()
    assert middle[1]["step"] == 2
    backend.train(STEPS[:1])  # something else in between
    backend.set_weights(middle[0])
    backend.set_optimizer_state(middle[1])
    resumed = weights_after(backend, STEPS[2:])
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert not np.array_equal(whole["classifier.weight"], first[0]["classifier.weight"])


def test_noise_depends_on_the_step(backend: Backend) -> None:
    start = backend.get_weights(), backend.get_optimizer_state()
    losses = []
    for step in (0, 0, 1):
        backend.set_weights(start[0])
        backend.set_optimizer_state(start[1])
        losses.append(float(backend.train([replace(STEPS[0], step=step)])[0].loss))
    assert losses[0] == losses[1] != losses[2]


def test_noise_depends_on_the_seed_of_the_run(backend: Backend) -> None:
    """With the same weights, rows and steps."""
    other = get_backend(backend.name)(replace(CONFIG, training=TrainingConfig(seed=6)), DIMENSIONS)
    other.set_weights(backend.get_weights())
    ours, again, theirs = (one.evaluate(UNLABELLED, 0).terms.kl_z for one in (backend, backend, other))
    np.testing.assert_array_equal(ours, again)
    assert (ours != theirs)[REAL].all()


def test_filler_rows_weigh_nothing(backend: Backend) -> None:
    cut = [
        replace(batch, x=batch.x[:3], y=batch.y[:3], row_mask=REAL[:3], rows=batch.rows[:3]) for batch in (UNLABELLED,)
    ]
    terms = backend.evaluate(UNLABELLED, 0).terms
    assert all(values[3] == 0 for values in terms)
    assert np.isfinite(backend.evaluate(cut[0], 0).terms.reconstruction).all()
    totals = backend.train([STEPS[0]])[0]
    assert (float(totals.rows), float(totals.labelled_rows), float(totals.symbols)) == (6, 3, 18)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_consistency_term_has_the_weight_of_its_step(name: str) -> None:
    objective = ObjectiveConfig(consistency=ConsistencyConfig(weight=3.0))
    model = replace(CONFIG.model, encoder=replace(CONFIG.model.encoder, word_dropout=0.4))
    config = replace(CONFIG, model=model, objective=objective)
    with_term, without = (
        get_backend(name)(of_run, DIMENSIONS) for of_run in (config, replace(config, objective=ObjectiveConfig()))
    )
    given = [
        GivenRows(batch, draw_noise(noise_specs(model, labels, *X.shape), np.random.default_rng(2)))
        for batch, labels in ((LABELLED, None), (UNLABELLED, 2))
    ]
    plain, full, part, none = (
        without.differentiate(*given, 0.5),
        with_term.differentiate(*given, 0.5),
        with_term.differentiate(*given, 0.5, consistency=0.6),
        with_term.differentiate(*given, 0.5, consistency=0.0),
    )
    term = full.unlabelled.consistency
    assert (term[:3] > 0).all()
    assert term[3] == 0
    assert not plain.unlabelled.consistency.any()
    assert not full.labelled.consistency.any()
    for derivatives, weight in ((full, 3.0), (part, 0.6), (none, 0.0)):
        assert derivatives.loss == pytest.approx(plain.loss + weight * term[:3].mean(), rel=1e-5)
    for key, gradient in plain.gradients.items():
        np.testing.assert_allclose(none.gradients[key], gradient, rtol=1e-5, atol=1e-6)
        expected = gradient + 0.2 * (full.gradients[key] - gradient)
        np.testing.assert_allclose(part.gradients[key], expected, rtol=1e-4, atol=1e-5)
    moved = {key for key in plain.gradients if np.abs(full.gradients[key] - plain.gradients[key]).max() > 1e-4}
    assert {"classifier.weight", "encoder.towers.0.embedding"} <= moved
    assert not any(key.startswith(("decoder", "latent_encoder")) for key in moved)


@pytest.mark.parametrize("twin", [(torch_objectives, torch.tensor), (jax_objectives, jnp.array)], ids=["torch", "jax"])
def test_a_label_too_improbable_for_its_precision_is_not_aligned(twin) -> None:
    objectives, array = twin
    log_q, log_p = (array(np.array(rows, np.float32)) for rows in ([[-200.0, 0.0], [-200.0, 0.0]], [-200.0, 0.0]))
    alignment = np.asarray(objectives._alignment(log_q, log_p, array(np.array([True, True]))))
    np.testing.assert_allclose(alignment, [0.0, -np.log(3.0)], atol=1e-6)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_step_takes_the_weight_of_consistency_that_it_carries(name: str) -> None:
    config = replace(CONFIG, objective=ObjectiveConfig(consistency=ConsistencyConfig(weight=3.0)))
    backend = get_backend(name)(config, DIMENSIONS)
    first = backend.get_weights(), backend.get_optimizer_state()
    losses = []
    for weight in (0.0, 1.0, 3.0, None):
        backend.set_weights(first[0])
        backend.set_optimizer_state(first[1])
        (total,) = backend.train([replace(STEPS[0], consistency=weight)])
        losses.append(float(total.loss))
        mean = float(total.terms.consistency) / 3
    assert losses[1] - losses[0] == pytest.approx(mean, rel=1e-3)
    assert losses[2] - losses[0] == pytest.approx(3 * mean, rel=1e-3)
    assert losses[3] == losses[2]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_is_as_deterministic_as_it_is_told_to_be(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config, devices = replace(CONFIG, training=replace(CONFIG.training, deterministic=wanted)), []

    def in_one_order(device: Any) -> Any:
        devices.append(device.type)
        return nullcontext()

    monkeypatch.setattr(seqssvae_torch.precision, "deterministic", in_one_order)
    backend = get_backend("torch")(config, DIMENSIONS)
    for compute in (lambda: backend.train(STEPS[:1]), lambda: backend.evaluate(STEPS[0].unlabelled, 0)):
        devices.clear()
        compute()
        assert set(devices) == ({"cpu"} if wanted else set())
    monkeypatch.setattr(seqssvae_jax.core, "compiler_options", lambda *given: devices.append(given))
    get_backend("jax")(config, DIMENSIONS)
    assert devices[-1] == ("cpu", wanted)


def test_probability_of_all_sequences_is_one(backend: Backend) -> None:
    """Every array of four ids that the distribution can produce, at one y and z."""
    symbols, arrays = (1, 4, 5, 6), []
    for length in range(4):
        arrays += [[*word, 3, *[0] * (3 - length)] for word in product(symbols, repeat=length)]
    arrays += [list(word) for word in product(symbols, repeat=4)]
    x = np.array(arrays, np.int32)
    assert len(x) == 1 + 4 + 16 + 64 + 256
    log_prob = _log_prob(backend, x, np.full(len(x), 1), np.tile(np.float32([[0.3, -1.0]]), (len(x), 1)))
    assert np.exp(log_prob.astype(float)).sum() == pytest.approx(1.0, abs=1e-5)


def test_samples_have_the_frequencies_of_their_probabilities(backend: Backend) -> None:
    count = 4000
    y, z = np.ones(count, np.int32), np.tile(np.float32([[0.3, -1.0]]), (count, 1))
    x, log_prob = backend.generate(y, DecodingOptions(1, allow_unknown=True), seed=0, z=z)
    again, _ = backend.generate(y, DecodingOptions(1, allow_unknown=True), seed=0, z=z)
    other, _ = backend.generate(y, DecodingOptions(1, allow_unknown=True), seed=1, z=z)
    assert np.array_equal(x, again)
    assert not np.array_equal(x, other)
    for row in np.unique(x, axis=0):
        here = (x == row).all(1)
        expected = float(np.exp(log_prob[here][0]))
        assert here.mean() == pytest.approx(expected, abs=5 * np.sqrt(expected / count))


def test_wide_beam_finds_the_most_probable_sequence(backend: Backend) -> None:
    y, z = np.array([0, 1], np.int32), np.float32([[0.3, -1.0], [1.0, 0.2]])
    best, score = backend.generate(y, DecodingOptions(2, "beam", 40, allow_unknown=True), seed=0, z=z)
    symbols = (1, 4, 5, 6)
    arrays = (
        [[3, 0, 0]]
        + [[a, 3, 0] for a in symbols]
        + [[a, b, c] for a, b in product(symbols, repeat=2) for c in (*symbols, 3)]
    )
    x = np.array(arrays, np.int32)
    for row in range(2):
        log_prob = _log_prob(backend, x, np.full(len(x), y[row]), np.tile(z[row], (len(x), 1)))
        assert best[row].tolist() == x[log_prob.argmax()].tolist()
        assert score[row] == pytest.approx(log_prob.max(), abs=1e-5)


def test_embedding_and_classifier_agree_with_the_evaluation(backend: Backend) -> None:
    log_q_y = backend.classify(X)
    assert np.exp(log_q_y).sum(1) == pytest.approx(np.ones(4), abs=1e-6)
    assert np.allclose(backend.evaluate(UNLABELLED, 0).log_q_y, log_q_y, atol=1e-6)
    assert backend.encode(X).shape == (4, 2)


def test_wrong_weights_are_refused_and_change_nothing(backend: Backend) -> None:
    before = backend.get_weights()
    with pytest.raises(ValueError, match=r"classifier\.bias has shape"):
        backend.set_weights({**before, "classifier.bias": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="oddity is unknown"):
        backend.set_weights({**before, "oddity": np.zeros(3, np.float32)})
    after = backend.get_weights()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_unknown_device_is_named(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no device 'abacus'"):
        get_backend(name)(CONFIG, DIMENSIONS, "abacus")
    with pytest.raises(ConfigurationError, match="no device 'abacus'"):
        get_backend(name).check_device("abacus")
    get_backend(name).check_device(None)
    get_backend(name).check_device("cpu:0")


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_what_names_no_device_that_can_compute_is_one_line(name: str) -> None:
    for device in ("meta", "mps", "xla", "cpu:x"):
        with pytest.raises(ConfigurationError, match=f"has no device '{device}' here .*: try cpu") as caught:
            get_backend(name)(CONFIG, DIMENSIONS, device)
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_clipping_and_first_step_by_hand(optimizer: str) -> None:
    """The first step of Adam is the learning rate times the sign; of SGD, the clipped gradient."""
    from seqssvae_torch.backend import TorchBackend

    decay = 0.1 if optimizer == "adamw" else 0.0
    config = replace(
        CONFIG,
        optimizer=OptimizerConfig(name=optimizer, clip_norm=0.01, weight_decay=decay, epsilon=1e-30),
        objective=ObjectiveConfig(name="classifier"),
        training=TrainingConfig(precision="float64"),
    )
    backend = TorchBackend(config, DIMENSIONS)
    before = backend.get_weights()
    rows = backend.rows(LABELLED, True, {"z": np.zeros((4, 2))})
    loss, _ = backend.loss(rows, None, 1.0)
    loss.backward()
    gradients = {name: p.grad.numpy().copy() for name, p in backend.ssvae.named_parameters() if p.grad is not None}
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
    assert norm > 0.01
    totals = backend.train_on(rows, None, 1.0, 0.5)
    assert float(totals.gradient_norm) == pytest.approx(norm)
    after, name = backend.get_weights(), "classifier.weight"
    expected = {
        "sgd": before[name] - 0.5 * gradients[name] * 0.01 / norm,
        "adam": before[name] - 0.5 * np.sign(gradients[name]),
        "adamw": before[name] - 0.5 * (np.sign(gradients[name]) + 0.1 * before[name]),
    }
    assert np.allclose(after[name], expected[optimizer], atol=1e-12)


def _log_prob(backend: Any, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    if backend.name == "torch":
        import torch

        with torch.no_grad():
            ssvae = backend.ssvae
            decoder = ssvae.decoder(ssvae.one_hot(torch.from_numpy(y).long()), torch.from_numpy(z), x.shape[1])
            return decoder.log_prob(torch.from_numpy(x).long()).numpy()
    import jax.numpy as jnp

    ssvae = backend.ssvae.bind(backend.state.weights)
    return np.asarray(ssvae.decoder(ssvae.one_hot(jnp.array(y)), jnp.array(z), x.shape[1]).log_prob(jnp.array(x)))
