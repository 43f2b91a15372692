"""Pyro's parameter store and models that share a name in it."""

import copy
import gc

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from test_programs import CONFIG, PRIOR, X

from seqssvae.config import DecoderConfig, EncoderConfig, ModelConfig
from seqssvae_torch.model import SSVAE


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def steps_of(ssvae, optimizer=None):
    return SVI(
        ssvae.model, ssvae.guide, optimizer or pyro.optim.Adam({"lr": 0.02}), TraceEnum_ELBO(max_plate_nesting=1)
    )


def train(ssvae, count=6):
    pyro.set_rng_seed(0)
    svi = steps_of(ssvae)
    return [svi.step(torch.tensor(X)) for _ in range(count)]


def assert_same_weights(first, second):
    for name, value in first.get_weights().items():
        np.testing.assert_array_equal(value, second.get_weights()[name])


@pytest.mark.parametrize("keep", [True, False])
def test_a_second_model_of_the_same_name_trains_as_the_first_did(keep):
    first = SSVAE(CONFIG, 7, PRIOR)
    losses = train(first)
    after = copy.deepcopy(first)
    if not keep:
        del first
        gc.collect()
    second = SSVAE(CONFIG, 7, PRIOR)
    assert train(second) == losses
    assert_same_weights(second, after)
    if keep:
        assert_same_weights(first, after)
    stored = pyro.get_param_store()
    assert all(stored[f"ssvae$$${name}"] is value for name, value in second.named_parameters())


def test_a_model_of_other_sizes_can_have_the_name():
    train(SSVAE(CONFIG, 7, PRIOR))
    other = ModelConfig(
        latent_size=3,
        encoder=EncoderConfig(embedding_size=2, hidden_size=5),
        decoder=DecoderConfig(2, 5, conditioning="init"),
    )
    losses = train(SSVAE(other, 7, PRIOR))
    pyro.clear_param_store()
    assert train(SSVAE(other, 7, PRIOR)) == losses


def test_models_of_one_name_can_train_in_turns():
    alone = [SSVAE(CONFIG, 7, PRIOR, seed=seed, name=f"model{seed}") for seed in range(2)]
    shared = [SSVAE(CONFIG, 7, PRIOR, seed=seed) for seed in range(2)]
    for models in (alone, shared):
        pyro.set_rng_seed(0)
        trainers = [steps_of(model) for model in models]
        for _ in range(4):
            for svi in trainers:
                svi.step(torch.tensor(X))
    for one, other in zip(alone, shared, strict=True):
        assert_same_weights(one, other)


def test_what_the_store_was_loaded_with_is_copied_in(tmp_path):
    trained = SSVAE(CONFIG, 7, PRIOR)
    optimizer = pyro.optim.Adam({"lr": 0.02})
    pyro.set_rng_seed(0)
    for _ in range(3):
        steps_of(trained, optimizer).step(torch.tensor(X))
    pyro.get_param_store().save(tmp_path / "store")
    optimizer.save(tmp_path / "optimizer")
    pyro.clear_param_store()
    pyro.get_param_store().load(tmp_path / "store")
    loaded, on = SSVAE(CONFIG, 7, PRIOR, seed=5), pyro.optim.Adam({"lr": 0.02})
    on.load(tmp_path / "optimizer")
    assert loaded.registered() is loaded
    assert_same_weights(loaded, trained)
    for model, its in ((loaded, on), (trained, optimizer)):
        pyro.set_rng_seed(1)
        for _ in range(2):
            steps_of(model, its).step(torch.tensor(X))
    assert_same_weights(loaded, trained)


def test_loaded_values_of_another_shape_are_refused(tmp_path):
    train(SSVAE(CONFIG, 7, PRIOR), 1)
    pyro.get_param_store().save(tmp_path / "store")
    pyro.clear_param_store()
    pyro.get_param_store().load(tmp_path / "store")
    with pytest.raises(
        ValueError, match=r"has encoder.*of shape \(7, 3\) under the name 'ssvae', not \(9, 3\): pyro.clear"
    ):
        SSVAE(CONFIG, 9, PRIOR).registered()
