"""Objectives that choose which labels a program is run with: some, one, or one after the other.

They go with any NumPyro model and guide that have one discrete latent variable a row, such as

    def guide(x):
        with numpyro.plate("rows", len(x)):
            y = one_hot(numpyro.sample("y", Categorical(logits=classifier(x))), K)
            numpyro.sample("z", Normal(*encoder(x, y)).to_event(1))

of which three things are asked: the plate of rows is the last one (dimension -1); the distribution of the discrete site
is a `Categorical`, whose value the program turns into vectors by `one_hot`, in the guide and in the model; and what
depends on its value broadcasts over dimensions in front: it is run with vectors of shape `(S, B, K)`, for S labels of
each row at once, or `(B, K)`. With f(x, y) all log-probabilities but those of y, the ELBO of a row is

    U(x) = sum_y q(y|x) f(x, y) - KL(q(y|x) || p(y))

whose second part is exact in all of these objectives; they differ in what they make of the first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray
from numpyro import handlers
from numpyro.infer.elbo import ELBO
from numpyro.primitives import Messenger

Baseline = Float[Array, "..."] | float | Callable[..., Array] | None


def one_hot(y: Array, label_count: int, dtype: Any = jnp.float32) -> Float[Array, "*B L"]:
    """One-hot vectors of label ids of shape `(*B)`; vectors, which are floating-point numbers, are left as they are."""
    return y if jnp.issubdtype(y.dtype, jnp.floating) else jax.nn.one_hot(y, label_count, dtype=dtype)


class Estimate(NamedTuple):
    """An objective's value and its parts.

    Args:
        loss: Minus the ELBO, with the gradient that is to be followed.
        model: log-probabilities of the model's other sites by name: of each row, averaged over labels, without scale.
        guide: The same of the guide.
        kl: KL(q(y|x) || p(y)) of each row, without scale.
    """

    loss: Float[Array, ""]
    model: dict[str, Float[Array, "B"]]
    guide: dict[str, Float[Array, "B"]]
    kl: Float[Array, "B"]


class _Given(Messenger):
    """Sets the value of the discrete site as a function of its log-probabilities."""

    def __init__(self, fn: Any, site: str, choose: Callable[[Array], Array]) -> None:
        super().__init__(fn)
        self.site, self.choose = site, choose
        self.log_q: Array | None = None

    def process_message(self, msg: dict[str, Any]) -> None:
        """Called for each site before it has a value."""
        if msg["type"] == "sample" and msg["name"] == self.site:
            self.log_q = _log_probabilities(msg["fn"])
            msg["value"] = self.choose(self.log_q)

    def log_probabilities(self) -> Float[Array, "B K"]:
        """log q(y|x), once the guide has run."""
        if self.log_q is None:
            raise ValueError(f"the guide has no sample site {self.site!r}: name its discrete site by site=...")
        return self.log_q


class _Evaluated(NamedTuple):
    """A program run with chosen labels; S may be missing."""

    log_q: Float[Array, "B K"]
    kl: Float[Array, "B"]
    scale: Any
    mask: Any
    signal: Float[Array, "*S B"]
    shared: Any
    model: dict[str, Array]
    guide: dict[str, Array]


class LabelELBO(ELBO, ABC):
    """What these objectives have in common.

    Args:
        site: Name of the discrete site.
    """

    can_infer_discrete = True

    def __init__(self, site: str = "y") -> None:
        super().__init__()
        self.site = site

    @abstractmethod
    def estimate(
        self, rng_key: PRNGKeyArray, param_map: Mapping[str, Any], model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Estimate:
        """The objective on these arguments of model and guide, and its parts.

        Raises:
            ValueError: If the guide has no site of that name, or one that is not Categorical.
        """

    def loss_with_mutable_state(
        self, rng_key: PRNGKeyArray, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Minus the ELBO, as NumPyro's `SVI` asks for it. Programs with mutable state are not for these objectives."""
        loss = self.estimate(rng_key, param_map, model, guide, *args, **kwargs).loss
        return {"loss": loss, "mutable_state": None}

    def _run(
        self,
        rng_key: PRNGKeyArray,
        param_map: Mapping[str, Any],
        model: Any,
        guide: Any,
        args: Any,
        kwargs: Mapping[str, Any],
        choose: Callable[[Array], Array],
    ) -> _Evaluated:
        model_key, guide_key = jax.random.split(rng_key)
        guide = handlers.substitute(handlers.seed(guide, guide_key), data=param_map)
        given = _Given(guide, self.site, choose)
        guide_trace = handlers.trace(given).get_trace(*args, **kwargs)
        log_q = given.log_probabilities()
        model = handlers.substitute(handlers.seed(model, model_key), data=param_map)
        model_trace = handlers.trace(handlers.replay(model, guide_trace)).get_trace(*args, **kwargs)
        site = guide_trace[self.site]
        kl = (jnp.exp(log_q) * (log_q - _log_probabilities(model_trace[self.site]["fn"]))).sum(-1)
        found, signal, shared = [], jnp.zeros_like(kl), 0.0
        for sign, trace in ((1.0, model_trace), (-1.0, guide_trace)):
            found.append(self._sites(trace))
            for name, value in found[-1].items():
                scaled = sign * _scale(trace[name]) * value
                signal, shared = (signal + scaled, shared) if value.ndim else (signal, shared + scaled)
        fixed = (jax.tree.map(_fixed, sites) for sites in found)
        return _Evaluated(log_q, kl, _scale(site), _mask(site["fn"]), signal, shared, *fixed)

    def _sites(self, trace: dict[str, Any]) -> dict[str, Array]:
        """Log-probabilities of all other sample sites."""
        sites = ((name, site) for name, site in trace.items() if site["type"] == "sample" and name != self.site)
        return {name: site["fn"].log_prob(site["value"]) for name, site in sites}

    @staticmethod
    def _rows(run: _Evaluated, elbo: Float[Array, "B"]) -> Float[Array, "B"]:
        """The ELBO of each row that counts."""
        values = elbo - run.scale * run.kl
        return values if run.mask is None else jnp.where(run.mask, values, 0.0)


def _averaged(sites: dict[str, Array], weights: Float[Array, "*S B"]) -> dict[str, Float[Array, "B"]]:
    return {
        name: (weights * value).reshape(-1, weights.shape[-1]).sum(0) for name, value in sites.items() if value.ndim
    }


class ChosenLabelsELBO(LabelELBO):
    """What the objectives have in common that run a program once, with labels chosen for each row.

    Args:
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which labels are drawn; None: it is drawn.
    """

    def __init__(self, site: str = "y", noise: Float[Array, "B K"] | None = None) -> None:
        super().__init__(site)
        self.noise = noise

    def estimate(
        self, rng_key: PRNGKeyArray, param_map: Mapping[str, Any], model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Estimate:
        """As `LabelELBO.estimate`."""
        keys = jax.random.split(rng_key, 2)
        chosen: list[Any] = []

        def choose(log_q: Float[Array, "B K"]) -> Float[Array, "*S B K"]:
            noise = jax.random.gumbel(keys[0], log_q.shape, log_q.dtype) if self.noise is None else self.noise
            labels, vectors = self._choose(log_q, noise)
            chosen.append(labels)
            return vectors

        run = self._run(keys[1], param_map, model, guide, args, kwargs, choose)
        loss = -(self._rows(run, self._elbo(run, chosen[0], args, kwargs)).sum() + run.shared)
        weights = self._weights(jax.lax.stop_gradient(run.log_q), chosen[0])
        return Estimate(loss, _averaged(run.model, weights), _averaged(run.guide, weights), _fixed(run.kl))

    @abstractmethod
    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[Any, Float[Array, "*S B K"]]:
        """The labels that the program is run with, and their vectors."""

    @abstractmethod
    def _elbo(self, run: _Evaluated, labels: Any, args: Any, kwargs: Any) -> Float[Array, "B"]:
        """An estimate of sum_y q(y|x) f(x, y), for each row."""

    def _weights(self, log_q: Float[Array, "B K"], labels: Any) -> Float[Array, "*S B"]:
        """By what f of each label counts."""
        return jnp.ones_like(log_q[:, 0])


class TopKELBO(ChosenLabelsELBO):
    """Sums out the k most probable labels of each row and draws one of the others: unbiased in value and gradient.

        sum_{y in C} q(y) f(y) + (1 - q(C)) f(v),    v ~ q restricted to the labels that are not in C

    The gradient has for v the term (1 - q(C)) (f(v) - b) grad log q(v) + b grad (1 - q(C)), where the control variate b
    is the mean of f over C, which does not depend on v. With k of at least K - 1 nothing is left to draw, and it is the
    exact sum.

    Args:
        k: How many labels are summed out, at least 1.
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which label is drawn; None: it is drawn.

    References:
        Liu et al. 2019, Rao-Blackwellized Stochastic Gradients for Discrete Distributions, equation 7,
        https://arxiv.org/abs/1810.04777.
    """

    def __init__(self, k: int, site: str = "y", noise: Float[Array, "B K"] | None = None) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}.")
        super().__init__(site, noise)
        self.k = k

    def labels(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> Int[Array, "S B"]:
        """Ids of the labels in C, the most probable first, and behind them of the one drawn."""
        log_q = _fixed(log_q)
        if self.k >= log_q.shape[-1] - 1:
            return jax.lax.top_k(log_q, log_q.shape[-1])[1].T
        top = jax.lax.top_k(log_q, self.k)[1]
        drawn = _without(log_q + noise, top).argmax(-1, keepdims=True)
        return jnp.concatenate([top, drawn], -1).T

    def weights(self, log_q: Float[Array, "B K"], labels: Int[Array, "S B"]) -> Float[Array, "S B"]:
        """q(y|x) of the labels in C, and what is left of 1."""
        if len(labels) == log_q.shape[-1]:
            return jnp.exp(jnp.take_along_axis(log_q, labels.T, -1)).T
        top = labels[: self.k].T
        rest = jnp.exp(jax.nn.logsumexp(_without(log_q, top), -1, keepdims=True))
        return jnp.concatenate([jnp.exp(jnp.take_along_axis(log_q, top, -1)), rest], -1).T

    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[Array, Float[Array, "S B K"]]:
        labels = self.labels(log_q, noise)
        return labels, one_hot(labels, log_q.shape[-1], log_q.dtype)

    def _weights(self, log_q: Float[Array, "B K"], labels: Int[Array, "S B"]) -> Float[Array, "S B"]:
        return self.weights(log_q, labels)

    def _elbo(self, run: _Evaluated, labels: Int[Array, "S B"], args: Any, kwargs: Any) -> Float[Array, "B"]:
        weights, signal = self.weights(run.log_q, labels), run.signal
        if len(weights) == run.log_q.shape[-1]:
            return (weights * signal).sum(0)
        (q, rest), fixed = (weights[:-1], weights[-1]), _fixed(weights)
        known, drawn = signal[:-1], signal[-1]
        baseline = (fixed[:-1] * _fixed(known)).sum(0) / fixed[:-1].sum(0)
        log_q_drawn = jnp.take_along_axis(run.log_q, labels[-1][:, None], -1)[:, 0]
        score = fixed[-1] * (_fixed(drawn) - baseline) * _gradient_only(log_q_drawn)
        return (q * known).sum(0) + fixed[-1] * drawn + score + baseline * _gradient_only(rest)


class GumbelSoftmaxELBO(ChosenLabelsELBO):
    """Draws one label, and passes a gradient as if it had been a mixture of all: biased, with little variance.

    The straight-through estimator: the program is run with the one-hot vector of the greatest entry of
    log q(y|x) + noise; its gradient is that of softmax((log q(y|x) + noise) / temperature).

    Args:
        temperature: Of the mixture, above 0: the lower, the less bias and the more variance.
        site: Name of the discrete site.
        noise: Standard Gumbel noise; None: it is drawn.

    References:
        Jang et al. 2017, Categorical Reparameterization with Gumbel-Softmax, section 2.2,
        https://arxiv.org/abs/1611.01144; Maddison et al. 2017, The Concrete Distribution,
        https://arxiv.org/abs/1611.00712.
    """

    def __init__(
        self, temperature: float | Array = 1.0, site: str = "y", noise: Float[Array, "B K"] | None = None
    ) -> None:
        super().__init__(site, noise)
        self.temperature = temperature

    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[None, Float[Array, "B K"]]:
        perturbed = log_q + noise
        mixture = jax.nn.softmax(perturbed / self.temperature)
        return None, one_hot(perturbed.argmax(-1), log_q.shape[-1], log_q.dtype) + _gradient_only(mixture)

    def _elbo(self, run: _Evaluated, labels: None, args: Any, kwargs: Any) -> Float[Array, "B"]:
        return run.signal


class ScoreFunctionELBO(ChosenLabelsELBO):
    """Draws one label y and multiplies grad log q(y|x) with how much better than expected it was: unbiased.

        f(y) with the gradient grad f(y) + (f(y) - b) grad log q(y|x)

    Args:
        baseline: b, which must not depend on y: a number, one for each row, or a function of the arguments of model
            and guide that returns either. None: the mean of f over the other rows of the batch.
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which label is drawn; None: it is drawn.

    References:
        Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning;
        Mnih & Gregor 2014, Neural Variational Inference and Learning in Belief Networks, section 2.3,
        https://arxiv.org/abs/1402.0030.
    """

    def __init__(self, baseline: Baseline = None, site: str = "y", noise: Float[Array, "B K"] | None = None) -> None:
        super().__init__(site, noise)
        self.baseline = baseline

    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[Array, Float[Array, "B K"]]:
        drawn = (_fixed(log_q) + noise).argmax(-1)
        return drawn, one_hot(drawn, log_q.shape[-1], log_q.dtype)

    def _elbo(self, run: _Evaluated, labels: Int[Array, "B"], args: Any, kwargs: Any) -> Float[Array, "B"]:
        log_q_drawn = jnp.take_along_axis(run.log_q, labels[:, None], -1)[:, 0]
        surprise = _fixed(run.signal) - self._expected(run, args, kwargs)
        return run.signal + surprise * _gradient_only(log_q_drawn)

    def _expected(self, run: _Evaluated, args: Any, kwargs: Any) -> Any:
        if self.baseline is not None:
            return self.baseline(*args, **kwargs) if callable(self.baseline) else self.baseline
        signal = _fixed(run.signal)
        real = jnp.broadcast_to(jnp.asarray(True if run.mask is None else run.mask, signal.dtype), signal.shape)
        return ((real * signal).sum() - signal) / jnp.maximum(real.sum() - 1, 1)


class SequentialELBO(LabelELBO):
    """The exact sum over labels, one after the other: the loss and gradient of enumeration in the memory of one label.

    A scan over labels, of which nothing is kept: each is computed again on the way back. The guide runs for each label:
    what does not depend on y had better be an argument.

    Args:
        site: Name of the discrete site.
    """

    def estimate(
        self, rng_key: PRNGKeyArray, param_map: Mapping[str, Any], model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Estimate:
        """As `LabelELBO.estimate`."""
        label_count = self._label_count(param_map, guide, args, kwargs)

        def of_label(y: Int[Array, ""], key: PRNGKeyArray) -> Estimate:
            def choose(log_q: Float[Array, "B K"]) -> Float[Array, "B K"]:
                return jnp.broadcast_to(jax.nn.one_hot(y, label_count, dtype=log_q.dtype), log_q.shape)

            run = self._run(key, param_map, model, guide, args, kwargs, choose)
            q, share = jnp.exp(run.log_q[:, y]), 1 / label_count  # share of what does not depend on the label
            loss = -(self._rows(run._replace(kl=share * run.kl), q * run.signal).sum() + share * run.shared)
            of_model, of_guide = _averaged(run.model, _fixed(q)), _averaged(run.guide, _fixed(q))
            return Estimate(loss, of_model, of_guide, share * _fixed(run.kl))

        def add(total: Estimate, label: tuple[Array, Array]) -> tuple[Estimate, None]:
            return jax.tree.map(jnp.add, total, jax.checkpoint(of_label)(*label)), None

        labels = jnp.arange(label_count), jax.random.split(rng_key, label_count)
        shapes = jax.eval_shape(of_label, *jax.tree.map(lambda part: part[0], labels))
        zeros = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), shapes)
        return jax.lax.scan(add, zeros, labels)[0]

    def _label_count(self, param_map: Mapping[str, Any], guide: Any, args: Any, kwargs: Any) -> int:
        seeded = handlers.substitute(handlers.seed(guide, 0), data=param_map)

        def log_q() -> Float[Array, "B K"]:
            given = _Given(seeded, self.site, jnp.zeros_like)
            given(*args, **kwargs)
            return given.log_probabilities()

        return jax.eval_shape(log_q).shape[-1]


def _log_probabilities(fn: Any) -> Float[Array, "*B K"]:
    """Of a Categorical, whatever it is wrapped in."""
    while not hasattr(fn, "logits"):
        if not hasattr(fn, "base_dist"):
            raise ValueError(f"the discrete site must have a Categorical distribution, not {type(fn).__name__}.")
        fn = fn.base_dist
    return jax.nn.log_softmax(fn.logits)


def _mask(fn: Any) -> Any:
    """Of a distribution, or None."""
    while hasattr(fn, "base_dist"):
        if hasattr(fn, "_mask"):
            return fn._mask
        fn = fn.base_dist
    return None


def _scale(site: dict[str, Any]) -> Any:
    return 1.0 if site["scale"] is None else site["scale"]


def _without(values: Float[Array, "B K"], labels: Int[Array, "B C"]) -> Float[Array, "B K"]:
    """The same, but -inf at these labels."""
    return values.at[jnp.arange(len(values))[:, None], labels].set(-jnp.inf)


def _fixed(value: Array) -> Array:
    """The same, without a gradient."""
    return jax.lax.stop_gradient(value)


def _gradient_only(value: Array) -> Array:
    """0, with the gradient of the value."""
    return value - _fixed(value)
