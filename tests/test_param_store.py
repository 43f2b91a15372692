"""Pyro's parameter store and models that share a name in it."""

import copy
import gc

import numpy as np
import pyro
import pytest
import torch
from pyro.contrib.autoname import scope
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from test_programs import CONFIG, OTHER, PRIOR, X, Y, joined

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
    losses = train(SSVAE(OTHER, 7, PRIOR))
    pyro.clear_param_store()
    assert train(SSVAE(OTHER, 7, PRIOR)) == losses


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


@pytest.mark.parametrize("names", [("one", "other"), ("ssvae", "ssvae")])
def test_two_models_of_one_program_both_train_or_are_refused(names):
    models = [SSVAE(config, 7, PRIOR, name=name) for config, name in zip((CONFIG, OTHER), names, strict=True)]
    model, guide = joined(models, scope)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    before = [model.get_weights() for model in models]
    if names[0] == names[1]:
        match = r"two models of one Pyro program have the name 'ssvae', .*: give each a name"
        with pytest.raises(ValueError, match=match):
            svi.step(torch.tensor(X), torch.tensor(Y))
    else:
        for _ in range(2):
            svi.step(torch.tensor(X), torch.tensor(Y))
    for model, weights in zip(models, before, strict=True):
        moved = {name.partition(".")[0] for name, old in weights.items() if (old != model.get_weights()[name]).any()}
        assert moved == (set() if names[0] == names[1] else {"encoder", "latent_encoder", "decoder"})


def test_one_models_guide_does_not_go_with_anothers_model():
    one, other = (SSVAE(CONFIG, 7, PRIOR, seed=seed) for seed in range(2))
    with pytest.raises(ValueError, match="two models of one Pyro program have the name 'ssvae'"):
        SVI(one.model, other.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO()).step(torch.tensor(X), torch.tensor(Y))
