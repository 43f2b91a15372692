"""Nothing is computed twice: the matrix products of a step of either twin are those of the formula."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from benchmarks.flops import Product, jax_flops, necessary, torch_flops, total
from seqssvae.backend import Batch, Dimensions, TrainingStep
from seqssvae.config import Config, DecoderConfig, EncoderConfig, ModelConfig
from seqssvae_jax.backend import JaxBackend
from seqssvae_jax.ops import output_layer
from seqssvae_jax.ops import symbol_log_probs_custom_vjp as jax_likelihood
from seqssvae_torch.backend import TorchBackend
from seqssvae_torch.ops import symbol_log_probs_custom_vjp as torch_likelihood
from seqssvae_torch.ops.products import onednn_is_exact

K, B, T, V, H = 5, 4, 6, 11, 8


def config(cell: str, conditioning: str) -> Config:
    model = ModelConfig(
        cell=cell,
        latent_size=3,
        encoder=EncoderConfig(embedding_size=4, hidden_size=H),
        decoder=DecoderConfig(embedding_size=4, hidden_size=H, conditioning=conditioning),
    )
    return Config(model=model)


def step(labelled: bool = False) -> TrainingStep:
    x = np.random.default_rng(0).integers(4, V, (B, T)).astype(np.int32)
    x[:, -1] = 3
    y = np.arange(B, dtype=np.int32) % K if labelled else np.full(B, -1, np.int32)
    batch = Batch(x, y, np.ones(B, bool), np.arange(B, dtype=np.int32))
    return TrainingStep(batch if labelled else None, None if labelled else batch, 1.0, 1e-3, 0)


@pytest.fixture(scope="module", autouse=True)
def _products_tried() -> None:
    """What PyTorch tries once, before its first step, is no product of a step."""
    onednn_is_exact()


def counted(twin: str, settings: Config, taken: TrainingStep) -> int:
    dimensions = Dimensions(V, (1 / K,) * K)
    if twin == "torch":
        backend = TorchBackend(settings, dimensions)
        return torch_flops(lambda: backend.train([taken]))
    backend = JaxBackend(settings, dimensions)
    return jax_flops(backend._drawn_step, backend.state, *backend._inputs(taken))


def from_zeros(twin: str, cell: str) -> int:
    """In JAX one loop reads all steps of a direction, that from a state of zeros among them."""
    return 0 if twin == "torch" else 2 * 2 * B * H * (3 if cell == "gru" else 4) * H * (1 + 2)


@pytest.mark.parametrize("twin", ["torch", "jax"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("conditioning", ["init", "every_step", "output"])
def test_a_step_does_the_products_of_the_formula(twin, cell, conditioning):
    settings = config(cell, conditioning)
    # one-hot vectors of the labels are a product too, of no account in a model of any size
    labels = sum(
        2 * K * K * outputs * 2
        for outputs in {"init": (H, H), "every_step": (H, H, (3 if cell == "gru" else 4) * H), "output": (H, H, V)}[
            conditioning
        ]
    )
    classifier = 2 * B * 2 * H * K * (1 + 1 + 2)  # and once more for the weights that the objective will have
    expected = total(necessary(settings.model, K, B, T, V)) + labels + classifier
    expected += from_zeros(twin, cell)
    assert counted(twin, settings, step()) == expected


def test_with_many_symbols_one_unit_more_has_a_gradient(monkeypatch):
    settings = config("gru", "every_step")
    few = counted("jax", settings, step())
    monkeypatch.setattr(output_layer, "LARGE", 0)
    assert counted("jax", settings, step()) - few == 2 * K * B * T * V  # the bias's, beside H units


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_the_count_tells_a_decoder_that_projects_its_input_for_every_label(twin):
    settings = config("gru", "every_step")
    counts = necessary(settings.model, K, B, T, V)
    doubled = counts["decoder input"]._replace(rows=K * B * T)
    assert total({**counts, "decoder input": doubled}) > 1.05 * counted(twin, settings, step())


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_an_observed_label_costs_one_pass(twin):
    settings = config("gru", "every_step")
    one = counted(twin, settings, step(labelled=True))
    assert one == pytest.approx(total(necessary(settings.model, 1, B, T, V)) + from_zeros(twin, "gru"), rel=0.1)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    ("twin", "precision"),
    [
        ("torch", "float32"),
        ("torch", "float64"),
        ("jax", "float32"),
        pytest.param("jax", "float64", marks=pytest.mark.thorough),
    ],
)
def test_objectives_weigh_log_probabilities_as_they_said(twin, precision, labelled, monkeypatch):
    """Or else the gradient of the output layer would be computed twice."""
    held = []
    module = torch_likelihood if twin == "torch" else jax_likelihood
    original = module._common_factor

    def recorded(gradient, weights):
        result = original(gradient, weights)
        if twin == "torch":
            # by a factor of 1, which spares a pass over the gradient
            eps = torch.finfo(gradient.dtype).eps
            held.append(result is not None and float(result) == pytest.approx(1, abs=64 * eps))
        else:
            jax.debug.callback(lambda expected: held.append(bool(expected)), result[1])
        return result

    monkeypatch.setattr(module, "_common_factor", recorded)
    settings = config("gru", "every_step")
    settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, precision=precision))
    backend = (TorchBackend if twin == "torch" else JaxBackend)(settings, Dimensions(V, (1 / K,) * K))
    float(backend.train([step(labelled)])[0].loss)
    jax.effects_barrier()
    assert held == [True]


def test_a_product_costs_as_much_for_each_operand_that_learns():
    assert Product(2, 3, 5).flops == 3 * 60
    assert Product(2, 3, 5, times=7, backward=1).flops == 2 * 7 * 60
