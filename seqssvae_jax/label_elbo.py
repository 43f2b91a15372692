"""What the objectives have in common that choose which labels a program is run with.

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
from jaxtyping import Float, PRNGKeyArray
from numpyro import handlers
from numpyro.infer.elbo import ELBO
from numpyro.primitives import Messenger

from seqssvae_jax.handlers import GradientWeights

Choice = Callable[[Float[Array, "B K"]], tuple[Array, Array]]


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


class LabelSite(Messenger):
    """Sets the value of the discrete site, as a function of its log-probabilities.

    Args:
        fn: A guide.
        site: Its name.
        choose: Returns the value, as one-hot vectors, and by what the log-probabilities of what depends on it will be
            multiplied.
    """

    def __init__(self, fn: Any, site: str, choose: Choice) -> None:
        super().__init__(fn)
        self.site, self.choose = site, choose
        self.log_q: Array | None = None
        self.weights: Array | None = None

    def process_message(self, msg: dict[str, Any]) -> None:
        """Called for each site before it has a value."""
        if msg["type"] == "sample" and msg["name"] == self.site:
            self.log_q = _log_probabilities(msg["fn"])
            msg["value"], self.weights = self.choose(self.log_q)

    def log_probabilities(self) -> Float[Array, "B K"]:
        """log q(y|x), once the guide has run."""
        if self.log_q is None:
            raise ValueError(f"the guide has no sample site {self.site!r}: name its discrete site by site=...")
        return self.log_q


class Evaluated(NamedTuple):
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
        choose: Choice,
    ) -> Evaluated:
        """The programs, with the labels that are chosen."""
        model_key, guide_key = jax.random.split(rng_key)
        guide = handlers.substitute(handlers.seed(guide, guide_key), data=param_map)
        given = LabelSite(guide, self.site, choose)
        guide_trace = handlers.trace(given).get_trace(*args, **kwargs)
        log_q = given.log_probabilities()
        model = handlers.substitute(handlers.seed(model, model_key), data=param_map)
        model = GradientWeights(model, given.weights)
        model_trace = handlers.trace(handlers.replay(model, guide_trace)).get_trace(*args, **kwargs)
        site = guide_trace[self.site]
        kl = (jnp.exp(log_q) * (log_q - _log_probabilities(model_trace[self.site]["fn"]))).sum(-1)
        found, signal, shared = [], jnp.zeros_like(kl), 0.0
        for sign, trace in ((1.0, model_trace), (-1.0, guide_trace)):
            found.append(self._sites(trace))
            for name, value in found[-1].items():
                scaled = sign * _scale(trace[name]) * value
                signal, shared = (signal + scaled, shared) if value.ndim else (signal, shared + scaled)
        fixed = (jax.lax.stop_gradient(sites) for sites in found)
        return Evaluated(log_q, kl, _scale(site), _mask(site["fn"]), signal, shared, *fixed)

    def _sites(self, trace: dict[str, Any]) -> dict[str, Array]:
        """Log-probabilities of all other sample sites."""
        sites = ((name, site) for name, site in trace.items() if site["type"] == "sample" and name != self.site)
        return {name: site["fn"].log_prob(site["value"]) for name, site in sites}

    @staticmethod
    def _rows(run: Evaluated, elbo: Float[Array, "B"]) -> Float[Array, "B"]:
        """The ELBO of each row that counts."""
        values = elbo - run.scale * run.kl
        return values if run.mask is None else jnp.where(run.mask, values, 0.0)


def averaged(sites: dict[str, Array], weights: Float[Array, "*S B"]) -> dict[str, Float[Array, "B"]]:
    """Log-probabilities of sites, averaged over labels with these weights."""
    return {
        name: (weights * value).reshape(-1, weights.shape[-1]).sum(0) for name, value in sites.items() if value.ndim
    }


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
