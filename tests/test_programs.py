"""The programs in the hands of people who write Pyro or NumPyro themselves: plain SVI loops, plain ELBO objects."""

import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pytest
import torch
from numpyro import handlers
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import Trace_ELBO as NumPyroTrace
from numpyro.infer import TraceEnum_ELBO as NumPyroTraceEnum
from pyro.infer import SVI as PyroSVI
from pyro.infer import Trace_ELBO as PyroTrace
from pyro.infer import TraceEnum_ELBO as PyroTraceEnum

from seqssvae.config import DecoderConfig, EncoderConfig, ModelConfig
from seqssvae_jax.model import SSVAE as JaxSSVAE
from seqssvae_torch.model import SSVAE as TorchSSVAE

CONFIG = ModelConfig(
    latent_size=2,
    encoder=EncoderConfig(embedding_size=3, hidden_size=4),
    decoder=DecoderConfig(3, 4, conditioning="every_step"),
)
OTHER = ModelConfig(
    latent_size=3,
    encoder=EncoderConfig(embedding_size=2, hidden_size=5),
    decoder=DecoderConfig(2, 5, conditioning="init"),
)
X = np.array([[4, 5, 4, 3], [6, 3, 0, 0], [5, 5, 3, 0]])
Y = np.array([0, 1, 1])
PRIOR = (0.5, 0.5)
NETWORKS = ("encoder", "classifier", "latent_encoder", "decoder")
pytestmark = pytest.mark.usefixtures("unchecked")  # the same programs are checked wherever a twin takes a step


def joined(models, scope):
    """A program and its guide of all these models, whose sites have a prefix each; `scope` is Pyro's or NumPyro's."""

    def of(program):
        def run(x, y):
            for number, model in enumerate(models):
                with scope(prefix=str(number)):
                    getattr(model, program)(x, y)

        return run

    return of("model"), of("guide")


def test_plain_svi_in_pyro() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    ssvae = TorchSSVAE(CONFIG, 7, PRIOR)
    optimizer = pyro.optim.Adam({"lr": 0.02})
    unlabelled = PyroSVI(ssvae.model, ssvae.guide, optimizer, PyroTraceEnum(max_plate_nesting=1))
    labelled = PyroSVI(ssvae.model, ssvae.guide, optimizer, PyroTrace())
    x, y = torch.tensor(X), torch.tensor(Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = [unlabelled.step(x) + labelled.step(x, y) for _ in range(80)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    pyro.clear_param_store()


def test_plain_svi_in_numpyro() -> None:
    ssvae = JaxSSVAE(CONFIG, 7, PRIOR)
    svi = NumPyroSVI(ssvae.model, ssvae.guide, numpyro.optim.Adam(0.02), NumPyroTraceEnum(max_plate_nesting=1))
    result = svi.run(jax.random.key(0), 80, jnp.array(X), progress_bar=False)
    assert np.mean(result.losses[-10:]) < 0.6 * np.mean(result.losses[:10])
    assert set(result.params) == {"ssvae"}
    trained = ssvae.bind(result.params["ssvae"])
    moved = {name for name, value in trained.get_weights().items() if (value != ssvae.get_weights()[name]).any()}
    assert {name.partition(".")[0] for name in moved} == set(NETWORKS)
    assert trained.classifier(trained.encode(jnp.array(X))).probs.shape == (3, 2)


@pytest.mark.parametrize("names", [("one", "other"), ("ssvae", "ssvae")])
def test_two_models_of_one_program_both_train_or_are_refused_in_numpyro(names) -> None:
    """What `test_param_store` says of Pyro."""
    models = [JaxSSVAE(config, 7, PRIOR, name=name) for config, name in zip((CONFIG, OTHER), names, strict=True)]
    programs = joined(models, partial(handlers.scope, hide_types=["param"]))
    svi = NumPyroSVI(*programs, numpyro.optim.Adam(0.02), NumPyroTrace())
    x, y = jnp.array(X), jnp.array(Y)
    if names[0] == names[1]:
        match = r"two models of one NumPyro program have the name 'ssvae', .*: give each a name"
        with pytest.raises(ValueError, match=match):
            svi.init(jax.random.key(0), x, y)
    else:
        first = svi.init(jax.random.key(0), x, y)
        assert set(svi.get_params(first)) == set(names)


def test_weights_of_other_sizes_are_refused_in_numpyro() -> None:
    other = JaxSSVAE(CONFIG, 9, PRIOR).parameters()
    ssvae = JaxSSVAE(CONFIG, 7, PRIOR)
    match = r"the weight encoder.*embedding has shape \(9, 3\), not \(7, 3\)"
    with pytest.raises(ValueError, match=match):
        ssvae.bind(other)
    with pytest.raises(ValueError, match=match), handlers.substitute(data={"ssvae": other}):
        ssvae.registered()


SOURCE = np.array([[4, 5, 3], [5, 3, 0], [4, 4, 3]])


def test_plain_svi_with_a_source_in_pyro() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    ssvae = TorchSSVAE(CONFIG, 7, PRIOR, source_vocabulary_size=6)
    elbo = PyroTraceEnum(max_plate_nesting=1)
    unlabelled = PyroSVI(ssvae.model, ssvae.guide, pyro.optim.Adam({"lr": 0.02}), elbo)
    losses = [unlabelled.step(torch.tensor(X), source=torch.tensor(SOURCE)) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    pyro.clear_param_store()


@pytest.mark.thorough  # without a source, above, and with one in Pyro
def test_plain_svi_with_a_source_in_numpyro() -> None:
    """Every network's weights are known to the program, and are learned."""
    ssvae = JaxSSVAE(CONFIG, 7, PRIOR, source_vocabulary_size=6)
    svi = NumPyroSVI(ssvae.model, ssvae.guide, numpyro.optim.Adam(0.02), NumPyroTraceEnum(max_plate_nesting=1))
    given = {"source": jnp.array(SOURCE)}
    first = svi.init(jax.random.key(0), jnp.array(X), **given)
    result = svi.run(jax.random.key(0), 60, jnp.array(X), **given, progress_bar=False, init_state=first)
    assert np.mean(result.losses[-10:]) < 0.7 * np.mean(result.losses[:10])
    names = {*NETWORKS, "source_encoder", "label_predictor", "latent_predictor"}
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), svi.get_params(first), result.params)["ssvae"]
    assert {name.partition(".")[0] for name, has_moved in moved.items() if has_moved} == names


def test_pyro_draws_z_when_no_noise_is_given() -> None:
    ssvae = TorchSSVAE(CONFIG, 7, PRIOR, name=None)
    elbo = PyroTraceEnum(max_plate_nesting=1)
    losses = []
    for seed in (0, 0, 1):
        pyro.set_rng_seed(seed)
        losses.append(elbo.loss(ssvae.model, ssvae.guide, torch.tensor(X)))
    assert losses[0] == losses[1] != losses[2]


def test_mean_loss_over_draws_is_the_same_in_both_twins() -> None:
    """Averaged over many draws of z, the frameworks' own random numbers do not matter."""
    torch_ssvae, jax_ssvae = TorchSSVAE(CONFIG, 7, PRIOR, name=None), JaxSSVAE(CONFIG, 7, PRIOR)
    pyro.set_rng_seed(0)
    elbo = PyroTraceEnum(max_plate_nesting=1)
    in_torch = [elbo.loss(torch_ssvae.model, torch_ssvae.guide, torch.tensor(X)) for _ in range(200)]
    numpyro_elbo = NumPyroTraceEnum(max_plate_nesting=1)
    draw = jax.jit(lambda key: numpyro_elbo.loss(key, {}, jax_ssvae.model, jax_ssvae.guide, jnp.array(X)))
    in_jax = [float(draw(key)) for key in jax.random.split(jax.random.key(0), 200)]
    error = np.sqrt(np.var(in_torch) / 200 + np.var(in_jax) / 200)
    assert np.mean(in_torch) == pytest.approx(np.mean(in_jax), abs=4 * error)


@pytest.mark.parametrize("conditioning", ["init", "every_step", "output"])
@pytest.mark.parametrize("with_source", [False, True])
def test_draws_in_front_of_the_rows_are_as_if_they_were_alone(conditioning, with_source) -> None:
    config = replace(CONFIG, decoder=DecoderConfig(3, 4, conditioning=conditioning))
    ssvae = TorchSSVAE(config, 7, PRIOR, precision="float64", source_vocabulary_size=6 if with_source else 0)
    source = ssvae.encode_source(torch.tensor(SOURCE)) if with_source else None
    z = torch.tensor(np.random.default_rng(0).normal(size=(2, 5, 3, 2)), requires_grad=True)
    enumerated = ssvae.one_hot(torch.arange(2)[:, None, None])
    at_once = ssvae.decoder(enumerated, z, 4, source).log_prob(torch.tensor(X))
    weights = torch.tensor(np.random.default_rng(1).normal(size=(2, 5, 3)))
    (slope,) = torch.autograd.grad((at_once * weights).sum(), z, retain_graph=True)
    labels = [ssvae.one_hot(torch.full((3,), k)) for k in (0, 1)]
    alone = [[ssvae.decoder(y, z[k, draw], 4, source) for draw in range(5)] for k, y in enumerate(labels)]
    one_by_one = torch.stack([torch.stack([one.log_prob(torch.tensor(X)) for one in ones]) for ones in alone])
    (slope_alone,) = torch.autograd.grad((one_by_one * weights).sum(), z)
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, slope_alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("observed", [False, True])
def test_particles_of_pyro_may_be_vectorised(observed) -> None:
    pyro.clear_param_store()
    ssvae = TorchSSVAE(CONFIG, 7, PRIOR)
    given = (torch.tensor(X), torch.tensor(Y) if observed else None)
    kind = PyroTrace if observed else PyroTraceEnum

    def losses(vectorised: bool, calls: int) -> np.ndarray:
        elbo = kind(num_particles=20, vectorize_particles=vectorised, max_plate_nesting=1)
        pyro.set_rng_seed(int(vectorised))
        return np.array([elbo.loss(ssvae.model, ssvae.guide, *given) for _ in range(calls)])

    at_once, one_by_one = losses(True, 40), losses(False, 8)
    error = np.sqrt(at_once.var() / 40 + one_by_one.var() / 8)
    assert abs(at_once.mean() - one_by_one.mean()) < 4 * error
    pyro.clear_param_store()
