"""Objectives that choose which labels a program is run with: some, one, or one after the other.

Each is a `LabelELBO`, whose module says with which programs they go.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray
from numpyro import handlers

from seqssvae_jax.distributions import one_hot
from seqssvae_jax.label_elbo import Estimate, Evaluated, LabelELBO, LabelSite, averaged, one_label, weighed

Baseline = Float[Array, "..."] | float | Callable[..., Array] | None


class ChosenLabelsELBO(LabelELBO):
    """What the objectives have in common that run a program once, with labels chosen for each row.

    Args:
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which labels are drawn; None: it is drawn.
        max_plate_nesting: As of `LabelELBO`.
    """

    def __init__(
        self, site: str = "y", noise: Float[Array, "B K"] | None = None, max_plate_nesting: int | None = None
    ) -> None:
        super().__init__(site, max_plate_nesting)
        self.noise = noise

    def estimate(
        self, rng_key: PRNGKeyArray, param_map: Mapping[str, Any], model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Estimate:
        """As `LabelELBO.estimate`."""
        keys = jax.random.split(rng_key, 2)
        chosen: list[Any] = []

        def choose(log_q: Float[Array, "B K"]) -> tuple[Array, Array]:
            noise = jax.random.gumbel(keys[0], log_q.shape, log_q.dtype) if self.noise is None else self.noise
            labels, vectors = self._choose(log_q, noise)
            chosen.append(labels)
            return vectors, self._weights(jax.lax.stop_gradient(log_q), labels)

        run = self._run(keys[1], param_map, model, guide, args, kwargs, choose)
        loss = -((self._elbo(run, chosen[0], args, kwargs) - run.weighted_kl).sum() + run.shared)
        weights = self._weights(jax.lax.stop_gradient(run.log_q), chosen[0])
        return Estimate(loss, averaged(run.model, weights), averaged(run.guide, weights), jax.lax.stop_gradient(run.kl))

    @abstractmethod
    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[Any, Float[Array, "*S B K"]]:
        """The labels that the program is run with, and their vectors."""

    @abstractmethod
    def _elbo(self, run: Evaluated, labels: Any, args: Any, kwargs: Any) -> Float[Array, " B"]:
        """An estimate of sum_y q(y|x) f(x, y), for each row."""

    def _weights(self, log_q: Float[Array, "B K"], labels: Any) -> Float[Array, "*S B"]:
        """The weights by which f of each label counts."""
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
        max_plate_nesting: As of `LabelELBO`.

    References:
        Liu et al. 2019, Rao-Blackwellized Stochastic Gradients for Discrete Distributions, equation 7,
        https://arxiv.org/abs/1810.04777.
    """

    def __init__(
        self,
        k: int,
        site: str = "y",
        noise: Float[Array, "B K"] | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}.")
        super().__init__(site, noise, max_plate_nesting)
        self.k = k

    def labels(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> Int[Array, "S B"]:
        """Ids of the labels in C, the most probable first, and behind them of the one drawn."""
        log_q = jax.lax.stop_gradient(log_q)
        if self.k >= log_q.shape[-1] - 1:
            return jax.lax.top_k(log_q, log_q.shape[-1])[1].T
        top = jax.lax.top_k(log_q, self.k)[1]
        drawn = _without(log_q + noise, top, -jnp.inf).argmax(-1, keepdims=True)
        return jnp.concatenate([top, drawn], -1).T

    def weights(self, log_q: Float[Array, "B K"], labels: Int[Array, "S B"]) -> Float[Array, "S B"]:
        """q(y|x) of the labels in C, and what is left of 1."""
        if len(labels) == log_q.shape[-1]:
            return jnp.exp(jnp.take_along_axis(log_q, labels.T, -1)).T
        top = labels[: self.k].T
        rest = _without(jnp.exp(log_q), top, 0.0).sum(-1, keepdims=True)
        return jnp.concatenate([jnp.exp(jnp.take_along_axis(log_q, top, -1)), rest], -1).T

    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[Array, Float[Array, "S B K"]]:
        labels = self.labels(log_q, noise)
        return labels, one_hot(labels, log_q.shape[-1], log_q.dtype)

    def _weights(self, log_q: Float[Array, "B K"], labels: Int[Array, "S B"]) -> Float[Array, "S B"]:
        return self.weights(log_q, labels)

    def _elbo(self, run: Evaluated, labels: Int[Array, "S B"], args: Any, kwargs: Any) -> Float[Array, " B"]:
        weights, signal = self.weights(run.log_q, labels), run.signal
        if signal.ndim == 1:  # nothing depends on the label
            return signal
        if len(weights) == run.log_q.shape[-1]:
            return weighed(weights, signal).sum(0)
        (q, rest), fixed = (weights[:-1], weights[-1]), jax.lax.stop_gradient(weights)
        known, drawn = signal[:-1], signal[-1]
        baseline = weighed(fixed[:-1], jax.lax.stop_gradient(known)).sum(0) / fixed[:-1].sum(0)
        log_q_drawn = jnp.take_along_axis(run.log_q, labels[-1][:, None], -1)[:, 0]
        score = weighed(fixed[-1], jax.lax.stop_gradient(drawn) - baseline) * _gradient_only(log_q_drawn)
        return weighed(q, known).sum(0) + weighed(fixed[-1], drawn) + score + baseline * _gradient_only(rest)


class GumbelSoftmaxELBO(ChosenLabelsELBO):
    """Draws one label, and passes a gradient as if it had been a mixture of all: biased, with little variance.

    The straight-through estimator: the program is run with the one-hot vector of the greatest entry of
    log q(y|x) + noise; its gradient is that of softmax((log q(y|x) + noise) / temperature).

    Args:
        temperature: Of the mixture, above 0: the lower, the less bias and the more variance.
        site: Name of the discrete site.
        noise: Standard Gumbel noise; None: it is drawn.
        max_plate_nesting: As of `LabelELBO`.

    References:
        Jang et al. 2017, Categorical Reparameterization with Gumbel-Softmax, section 2.2,
        https://arxiv.org/abs/1611.01144; Maddison et al. 2017, The Concrete Distribution,
        https://arxiv.org/abs/1611.00712.
    """

    def __init__(
        self,
        temperature: float | Array = 1.0,
        site: str = "y",
        noise: Float[Array, "B K"] | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(site, noise, max_plate_nesting)
        self.temperature = temperature

    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[None, Float[Array, "B K"]]:
        perturbed = log_q + noise
        mixture = jax.nn.softmax(perturbed / self.temperature)
        return None, one_hot(perturbed.argmax(-1), log_q.shape[-1], log_q.dtype) + _gradient_only(mixture)

    def _elbo(self, run: Evaluated, labels: None, args: Any, kwargs: Any) -> Float[Array, " B"]:
        return run.signal


class ScoreFunctionELBO(ChosenLabelsELBO):
    """Draws one label y and multiplies grad log q(y|x) with how much better than expected it was: unbiased.

        f(y) with the gradient grad f(y) + (f(y) - b) grad log q(y|x)

    Args:
        baseline: b, which must not depend on y: a number, one for each row, or a function of the arguments of model
            and guide that returns either. None: the mean of f over the other rows of the batch. Rows whose y is masked
            have none, so that filler rows, whose f is 0, have no gradient.
        site: Name of the discrete site.
        noise: Standard Gumbel noise that decides which label is drawn; None: it is drawn.
        max_plate_nesting: As of `LabelELBO`.

    References:
        Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning;
        Mnih & Gregor 2014, Neural Variational Inference and Learning in Belief Networks, section 2.3,
        https://arxiv.org/abs/1402.0030.
    """

    def __init__(
        self,
        baseline: Baseline = None,
        site: str = "y",
        noise: Float[Array, "B K"] | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(site, noise, max_plate_nesting)
        self.baseline = baseline

    def _choose(self, log_q: Float[Array, "B K"], noise: Float[Array, "B K"]) -> tuple[Array, Float[Array, "B K"]]:
        drawn = (jax.lax.stop_gradient(log_q) + noise).argmax(-1)
        return drawn, one_hot(drawn, log_q.shape[-1], log_q.dtype)

    def _elbo(self, run: Evaluated, labels: Int[Array, " B"], args: Any, kwargs: Any) -> Float[Array, " B"]:
        log_q_drawn = jnp.take_along_axis(run.log_q, labels[:, None], -1)[:, 0]
        advantage = jax.lax.stop_gradient(run.signal) - run.counted * self._expected(run, args, kwargs)
        return run.signal + advantage * _gradient_only(log_q_drawn)

    def _expected(self, run: Evaluated, args: Any, kwargs: Any) -> Any:
        if self.baseline is not None:
            return self.baseline(*args, **kwargs) if callable(self.baseline) else self.baseline
        signal = jax.lax.stop_gradient(run.signal)
        return ((run.counted * signal).sum() - signal) / jnp.maximum(run.counted.sum() - 1, 1)


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
        label_count = self._label_count(param_map, model, guide, args, kwargs)

        def of_label(y: Int[Array, ""], key: PRNGKeyArray) -> Estimate:
            run = self._run(key, param_map, model, guide, args, kwargs, lambda log_q: one_label(log_q, y))
            q, share = jnp.exp(run.log_q[:, y]), 1 / label_count  # share of what does not depend on the label
            loss = -((weighed(q, run.signal) - share * run.weighted_kl).sum() + share * run.shared)
            fixed = jax.lax.stop_gradient(q)
            terms = averaged(run.model, fixed), averaged(run.guide, fixed)
            return Estimate(loss, *terms, share * jax.lax.stop_gradient(run.kl))

        def add(total: Estimate, label: tuple[Array, Array]) -> tuple[Estimate, None]:
            return jax.tree.map(jnp.add, total, jax.checkpoint(of_label)(*label)), None

        labels = jnp.arange(label_count), jax.random.split(rng_key, label_count)
        shapes = jax.eval_shape(of_label, *jax.tree.map(lambda part: part[0], labels))
        zeros = jax.tree.map(lambda part: jnp.zeros(part.shape, part.dtype), shapes)
        return jax.lax.scan(add, zeros, labels)[0]

    def _label_count(self, param_map: Mapping[str, Any], model: Any, guide: Any, args: Any, kwargs: Any) -> int:
        nesting = self._nesting(param_map, model, guide, args, kwargs)
        seeded = handlers.substitute(handlers.seed(guide, 0), data=param_map)

        def log_q() -> Float[Array, "B K"]:
            given = LabelSite(seeded, self.site, lambda log_q: (jnp.zeros_like(log_q), log_q[:, 0]), nesting)
            given(*args, **kwargs)
            return given.log_probabilities()

        return jax.eval_shape(log_q).shape[-1]


def _without(values: Float[Array, "B K"], labels: Int[Array, "B C"], value: float) -> Float[Array, "B K"]:
    """The same, but for another value at these labels."""
    return values.at[jnp.arange(len(values))[:, None], labels].set(value)


def _gradient_only(value: Array) -> Array:
    """0, with the gradient of the value; of what is impossible, none."""
    finite = jnp.where(jnp.isfinite(value), value, 0.0)
    return finite - jax.lax.stop_gradient(finite)
