"""The objectives of `estimators` with programs of one's own: a mixture written in plain Pyro and in plain NumPyro."""

from functools import cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as pdist
import pytest
import torch
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import TraceEnum_ELBO as NumPyroTraceEnum
from pyro.infer import SVI as PyroSVI
from pyro.infer import TraceEnum_ELBO as PyroTraceEnum

from seqssvae_jax import gradient_estimators as jax_estimators
from seqssvae_torch import gradient_estimators as torch_estimators

K = 5
X = np.random.default_rng(0).normal(size=(6, 2)) + 3 * np.eye(2)[[0, 0, 1, 1, 0, 1]]
CENTRES = np.random.default_rng(1).normal(size=(K, 2))
SLOPES = np.random.default_rng(2).normal(size=(K, 2))


def torch_programs(noise: torch.Tensor | None = None, kind: Any = pdist.Categorical) -> tuple[Any, Any]:
    """A mixture of K Gaussians with a latent shift z; the noise of z is given by label, `(K, B)`, or Pyro draws it."""

    def model(x: torch.Tensor) -> None:
        centres = pyro.param("centres", torch.tensor(CENTRES))
        with pyro.plate("rows", len(x)):
            y = torch_estimators.one_hot(
                pyro.sample("y", kind(logits=x.new_tensor([0.1 * k for k in range(K)]))), K, x.dtype
            )
            z = pyro.sample("z", pdist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", pdist.Normal(y @ centres + z[..., None], 1.0).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        slopes = pyro.param("slopes", torch.tensor(SLOPES))
        shift = pyro.param("shift", torch.tensor([0.1, -0.2, 0.3, 0.0, 0.2], dtype=torch.float64))
        with pyro.plate("rows", len(x)):
            y = torch_estimators.one_hot(pyro.sample("y", kind(logits=x @ slopes.T)), K, x.dtype)
            loc = x.mean(-1) + y @ shift
            if noise is None:
                pyro.sample("z", pdist.Normal(loc, 0.7))
            else:
                drawn = loc + 0.7 * noise[y.argmax(-1), torch.arange(len(x))]
                pyro.sample("z", pdist.Delta(drawn, log_density=pdist.Normal(loc, 0.7).log_prob(drawn)))

    return model, guide


def jax_programs(noise: jax.Array | None = None) -> tuple[Any, Any]:
    """The same model and guide in NumPyro."""

    def model(x: jax.Array) -> None:
        centres = numpyro.param("centres", jnp.array(CENTRES))
        with numpyro.plate("rows", len(x)):
            y = numpyro.sample("y", ndist.Categorical(logits=0.1 * jnp.arange(K)), infer={"enumerate": "parallel"})
            y = jax_estimators.one_hot(y, K, x.dtype)
            z = numpyro.sample("z", ndist.Normal(0.0, 1.0))
            numpyro.sample("x", ndist.Normal(y @ centres + z[..., None], 1.0).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        slopes = numpyro.param("slopes", jnp.array(SLOPES))
        shift = numpyro.param("shift", jnp.array([0.1, -0.2, 0.3, 0.0, 0.2]))
        with numpyro.plate("rows", len(x)):
            y = numpyro.sample("y", ndist.Categorical(logits=x @ slopes.T), infer={"enumerate": "parallel"})
            y = jax_estimators.one_hot(y, K, x.dtype)
            loc = x.mean(-1) + y @ shift
            if noise is None:
                numpyro.sample("z", ndist.Normal(loc, 0.7))
            else:
                drawn = loc + 0.7 * noise[y.argmax(-1), jnp.arange(len(x))]
                numpyro.sample("z", ndist.Delta(drawn, log_density=ndist.Normal(loc, 0.7).log_prob(drawn)))

    return model, guide


def exact() -> tuple[float, dict[str, np.ndarray]]:
    """The sum over labels, written out in PyTorch without Pyro."""
    noise = torch.tensor(np.random.default_rng(3).normal(size=(K, len(X))))
    x = torch.tensor(X)
    centres, slopes = (torch.tensor(value, requires_grad=True) for value in (CENTRES, SLOPES))
    shift = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.2], dtype=torch.float64, requires_grad=True)
    log_q = (x @ slopes.T).log_softmax(-1)
    log_p = torch.tensor([0.1 * k for k in range(K)], dtype=torch.float64).log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for k in range(K):
        loc = x.mean(-1) + shift[k]
        z = loc + 0.7 * noise[k]
        log_joint = log_p[k] - 0.5 * z**2 - 0.5 * ((x - centres[k] - z[:, None]) ** 2).sum(-1) - 1.5 * np.log(2 * np.pi)
        log_q_z = -0.5 * noise[k] ** 2 - np.log(0.7) - 0.5 * np.log(2 * np.pi)
        total = total + (log_q[:, k].exp() * (log_joint - log_q_z - log_q[:, k])).sum()
    gradients = torch.autograd.grad(-total, [centres, slopes, shift])
    return float(-total), dict(zip(("centres", "slopes", "shift"), (g.numpy() for g in gradients), strict=True))


def torch_solve(
    make: Any, given: np.ndarray | None = None, kind: Any = pdist.Categorical
) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of an objective, which may be given noise of labels."""
    pyro.clear_param_store()
    noise = torch.tensor(np.random.default_rng(3).normal(size=(K, len(X))))
    model, guide = torch_programs(noise, kind)
    objective = make(torch_estimators) if given is None else make(torch_estimators, torch.tensor(given))
    loss = objective.differentiable_loss(model, guide, torch.tensor(X))
    parameters = {name: pyro.get_param_store()._params[name] for name in ("centres", "slopes", "shift")}
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    pyro.clear_param_store()
    return float(loss.detach()), {name: g.numpy() for name, g in zip(parameters, gradients, strict=True)}


@cache
def jax_program(make: Any) -> Any:
    """What computes loss and gradients of an objective, compiled once for all noise."""
    noise = jnp.array(np.random.default_rng(3).normal(size=(K, len(X))))
    model, guide = jax_programs(noise)

    def loss(parameters: dict[str, jax.Array], *given: jax.Array) -> jax.Array:
        return make(jax_estimators, *given).loss(jax.random.key(0), parameters, model, guide, jnp.array(X))

    return jax.jit(jax.value_and_grad(loss))


def jax_solve(make: Any, given: np.ndarray | None = None) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of an objective, which may be given noise of labels."""
    with jax.enable_x64(True):
        shift = jnp.array([0.1, -0.2, 0.3, 0.0, 0.2])
        parameters = {"centres": jnp.array(CENTRES), "slopes": jnp.array(SLOPES), "shift": shift}
        value, gradients = jax_program(make)(parameters, *(() if given is None else (jnp.array(given),)))
        return float(value), {name: np.asarray(value) for name, value in gradients.items()}


SOLVE = {"torch": torch_solve, "jax": jax_solve}


def close(computed: Any, expected: Any) -> None:
    assert computed[0] == pytest.approx(expected[0], rel=1e-10)
    for name, value in expected[1].items():
        np.testing.assert_allclose(computed[1][name], value, rtol=1e-9, atol=1e-10)


@pytest.fixture(params=["torch", "jax"])
def solve(request: pytest.FixtureRequest) -> Any:
    """Loss and gradients, in one framework."""
    return SOLVE[request.param]


def test_sequential_and_a_full_top_k_are_the_sum_written_out(solve: Any) -> None:
    close(solve(lambda module: module.SequentialELBO()), exact())
    close(solve(lambda module: module.TopKELBO(K - 1)), exact())


def test_a_one_hot_site_is_as_good() -> None:
    close(torch_solve(lambda module: module.SequentialELBO(), kind=pdist.OneHotCategorical), exact())
    close(torch_solve(lambda module: module.TopKELBO(K), kind=pdist.OneHotCategorical), exact())


@pytest.mark.parametrize("k", [0, 1, 3])
def test_the_expectation_over_one_rows_label_is_exact(solve: Any, k: int) -> None:
    """All rows but one draw always the same label: what differs between that row's labels sums to its exact share."""
    log_q = X @ SLOPES.T
    log_q -= np.log(np.exp(log_q).sum(-1, keepdims=True))
    order = np.argsort(-log_q, kind="stable")
    values, gradients = 0.0, {}

    def draw(row: int, label: int) -> np.ndarray:
        noise = 1e6 * np.eye(K)[order[:, k]]
        noise[row] = 1e6 * np.eye(K)[label]
        return noise

    def objective(module: Any, noise: Any) -> Any:
        return module.TopKELBO(k, noise=noise) if k else module.ScoreFunctionELBO(0.5, noise=noise)

    base = solve(objective, draw(0, order[0, k]))
    for row in range(len(X)):
        rest = order[row, k:]
        shares = np.exp(log_q[row, rest]) / np.exp(log_q[row, rest]).sum()
        for label, share in zip(rest, shares, strict=True):
            solved = solve(objective, draw(row, label))
            values += share * (solved[0] - base[0])
            for name, value in solved[1].items():
                gradients[name] = gradients.get(name, 0.0) + share * (value - base[1][name])
    close((base[0] + values, {name: base[1][name] + value for name, value in gradients.items()}), exact())


@pytest.mark.usefixtures("unchecked")
def test_the_mean_of_the_other_rows_is_a_baseline_that_lessens_variance() -> None:
    deviations = {}
    for baseline in (None, 0.0):
        slopes = []
        for seed in range(200):
            noise = torch.tensor(np.random.default_rng(seed).gumbel(size=(len(X), K)))
            elbo = torch_estimators.ScoreFunctionELBO(baseline, noise=noise)
            slopes.append(torch_solve(lambda _, elbo=elbo: elbo)[1]["slopes"])
        deviations[baseline] = np.std(slopes, axis=0).mean()
        error = np.std(slopes, axis=0) / np.sqrt(len(slopes))
        assert (np.abs(np.mean(slopes, 0) - exact()[1]["slopes"]) < 5 * error + 1e-9).all()
    assert deviations[None] < 0.8 * deviations[0.0]


OBJECTIVES = {
    "top_k": lambda module: module.TopKELBO(1),
    "score_function": lambda module: module.ScoreFunctionELBO(),
    "gumbel_softmax": lambda module: module.GumbelSoftmaxELBO(0.7),
    "sequential": lambda module: module.SequentialELBO(),
}


NAMES = [
    pytest.param(name, marks=() if name in ("top_k", "score_function") else pytest.mark.thorough) for name in OBJECTIVES
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NAMES)
def test_plain_svi_in_pyro_comes_near_the_enumerated_bound(name: str) -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide = torch_programs()
    x = torch.tensor(X)
    svi = PyroSVI(model, guide, pyro.optim.Adam({"lr": 0.03}), OBJECTIVES[name](torch_estimators))
    first = np.mean([svi.evaluate_loss(x) for _ in range(100)])
    for _ in range(400):
        svi.step(x)
    last = np.mean([svi.evaluate_loss(x) for _ in range(100)])
    assert last < first - 5
    enumerated = pyro.poutine.block(pyro.infer.config_enumerate(guide), expose=["y", "z"])
    exact_loss = np.mean([PyroTraceEnum(max_plate_nesting=1).loss(model, enumerated, x) for _ in range(100)])
    assert last == pytest.approx(exact_loss, abs=1.5)
    pyro.clear_param_store()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NAMES)
def test_plain_svi_in_numpyro_comes_near_the_enumerated_bound(name: str) -> None:
    model, guide = jax_programs()
    x = jnp.array(X)
    svi = NumPyroSVI(model, guide, numpyro.optim.Adam(0.03), OBJECTIVES[name](jax_estimators))
    result = svi.run(jax.random.key(0), 400, x, progress_bar=False)
    assert result.losses[-100:].mean() < result.losses[:20].mean() - 4
    elbo = NumPyroTraceEnum(max_plate_nesting=1)
    exact_loss = np.mean(
        [elbo.loss(key, result.params, model, guide, x) for key in jax.random.split(jax.random.key(1), 20)]
    )
    assert float(result.losses[-100:].mean()) == pytest.approx(exact_loss, abs=2.0)


def test_draws_differ_from_call_to_call_and_repeat_with_the_seed() -> None:
    model, guide = torch_programs()
    losses = []
    for seed in (0, 0, 1):
        pyro.set_rng_seed(seed)
        losses.append(torch_estimators.ScoreFunctionELBO().loss(model, guide, torch.tensor(X)))
    assert losses[0] == losses[1] != losses[2]
    pyro.clear_param_store()
    programs, elbo = jax_programs(), jax_estimators.ScoreFunctionELBO()
    given = [elbo.loss(jax.random.key(seed), {}, *programs, jnp.array(X)) for seed in (0, 0, 1)]
    assert given[0] == given[1] != given[2]


def test_mistakes_are_named(solve: Any) -> None:
    with pytest.raises(ValueError, match="no sample site 'label'"):
        solve(lambda module: module.TopKELBO(1, site="label"))
    with pytest.raises(ValueError, match="no sample site 'label'"):
        solve(lambda module: module.SequentialELBO(site="label"))
    with pytest.raises(ValueError, match="k must be at least 1"):
        solve(lambda module: module.TopKELBO(0))


@pytest.mark.usefixtures("unchecked")
def test_more_labels_summed_out_leave_less_to_chance() -> None:
    deviations = []
    for k in (1, 2, 3):
        slopes = [
            torch_solve(
                lambda module, k=k, seed=seed: module.TopKELBO(
                    k, noise=torch.tensor(np.random.default_rng(seed).gumbel(size=(len(X), K)))
                )
            )[1]["slopes"]
            for seed in range(60)
        ]
        deviations.append(np.std(slopes, axis=0).mean())
    assert all(after < before for before, after in pairwise(deviations))
