"""The exact objectives as NumPyro ELBO objects that keep the terms of the ELBO apart.

    labelled row      L(x, y) = E_q(z|x,y)[ log p(x|y,z) ] + log p(y) - beta * KL(q(z|x,y) || p(z))
    unlabelled row    U(x)    = sum_y q(y|x) * L(x, y) + H(q(y|x))
    or, of fixed r    U_r(x)  = sum_y r(y) * L(x, y) + H(r)

The KL of z is `log q(z|x,y) - log p(z)` at the drawn z.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, PRNGKeyArray
from numpyro import handlers
from numpyro.infer import TraceEnum_ELBO
from numpyro.infer.elbo import ELBO
from numpyro.infer.util import log_density
from numpyro.primitives import Messenger

from seqssvae.backend import ELBOTerms


class _Recorder(Messenger):
    """Keeps the sample sites that run inside it, in order."""

    def __init__(self) -> None:
        self.sites: list[dict[str, Any]] = []
        super().__init__()

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Called for each site after all other handlers have seen it."""
        if msg["type"] == "sample":
            self.sites.append(msg)

    def log_probs(self, names: str) -> list[Array]:
        """Log-probabilities of the last sites, masked as in the ELBO, which runs the guide and then the model."""
        last = self.sites[-len(names) :]
        assert "".join(site["name"] for site in last) == names, [site["name"] for site in self.sites]
        return [site["fn"].log_prob(site["value"]) for site in last]


class LabelledELBO(ELBO):
    """`sum L` over labelled rows (its negative, as NumPyro minimises). Nothing is enumerated.

    It is NumPyro's `Trace_ELBO`, but sites are added in the order of the programs. `Trace_ELBO` adds them in that of a
    set, which depends on `PYTHONHASHSEED`: then bits would differ, and each process would compile programs of its own.
    """

    def loss_with_mutable_state(
        self, rng_key: PRNGKeyArray, param_map: Any, model: Any, guide: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Minus the ELBO, as NumPyro's `SVI` asks for it. Programs have no mutable state."""
        model_key, guide_key = jax.random.split(rng_key)
        log_q, guide_trace = log_density(handlers.seed(guide, guide_key), args, kwargs, param_map)
        replayed = handlers.replay(handlers.seed(model, model_key), guide_trace)
        log_p, _ = log_density(replayed, args, kwargs, param_map)
        return {"loss": log_q - log_p, "mutable_state": None}

    def loss_and_terms(self, row_mask: Bool[Array, " B"], *args: Any) -> tuple[Float[Array, ""], ELBOTerms]:
        """The loss, and the terms of each row; `classification` is 0. Arguments as of `loss`."""
        recorder = _Recorder()
        with recorder:
            loss = self.loss(*args)
        log_q_z, log_p_y, log_p_z, log_p_x = recorder.log_probs("zyzx")
        return loss, elbo_terms(log_p_x, log_q_z - log_p_z, -log_p_y, row_mask)


class UnlabelledELBO(TraceEnum_ELBO):
    """`sum U` over unlabelled rows (its negative), with y summed out exactly, all labels at once."""

    def __init__(self) -> None:
        super().__init__(max_plate_nesting=1)

    def log_weights(self, *args: Any) -> Float[Array, "K B"]:
        """log p(x, y, z) - log q(z|x,y) of each label. Arguments as of `loss`."""
        recorder = _Recorder()
        with recorder:
            self.loss(*args)
        _, log_q_z, log_p_y, log_p_z, log_p_x = recorder.log_probs("yzyzx")
        return log_p_x + log_p_y + log_p_z - log_q_z

    def loss_and_terms(self, row_mask: Bool[Array, " B"], *args: Any) -> tuple[Float[Array, ""], ELBOTerms]:
        """The loss, and the terms of each row; `classification` is 0. Arguments as of `loss`."""
        recorder = _Recorder()
        with recorder:
            loss = self.loss(*args)
        log_q_y, log_q_z, log_p_y, log_p_z, log_p_x = recorder.log_probs("yzyzx")
        q_y = jnp.exp(log_q_y)
        reconstruction = (q_y * log_p_x).sum(0)
        kl_z = (q_y * (log_q_z - log_p_z)).sum(0)
        return loss, elbo_terms(reconstruction, kl_z, (q_y * (log_q_y - log_p_y)).sum(0), row_mask)


class PosteriorELBO(UnlabelledELBO):
    """`sum U_r` over unlabelled rows (its negative), r held fixed: the best, which is `softmax_y L(x, y)`, or given.

    With the best r of temperature 1 it is `sum_x log sum_y exp L(x, y)`, and has that gradient.

    Args:
        beta: Weight of z's terms.
        temperature: Of the best r, for each row.
        given: r, where it is given.
    """

    r: Float[Array, "K B"]

    def __init__(
        self,
        beta: Float[Array, ""] | float,
        temperature: Float[Array, " B"] | float = 1.0,
        given: Float[Array, "K B"] | None = None,
    ) -> None:
        super().__init__()
        self.beta, self.temperature, self.given = beta, temperature, given

    def loss_and_terms(self, row_mask: Bool[Array, " B"], *args: Any) -> tuple[Float[Array, ""], ELBOTerms]:
        """The loss, and the terms of each row, averaged over r. Arguments as of `loss`."""
        recorder = _Recorder()
        with recorder:
            self.loss(*args)
        _, log_q_z, log_p_y, log_p_z, log_p_x = recorder.log_probs("yzyzx")
        elbo = log_p_x + log_p_y - self.beta * (log_q_z - log_p_z)
        best = jax.nn.softmax(jax.lax.stop_gradient(elbo) / self.temperature, 0)
        self.r = best if self.given is None else self.given
        loss = jnp.where(row_mask, jax.scipy.special.xlogy(self.r, self.r) - self.r * elbo, 0.0).sum()
        reconstruction, kl_z = (self.r * log_p_x).sum(0), (self.r * (log_q_z - log_p_z)).sum(0)
        kl_y = (jax.scipy.special.xlogy(self.r, self.r) - self.r * log_p_y).sum(0)
        return loss, elbo_terms(reconstruction, kl_z, kl_y, row_mask)


def elbo_terms(
    reconstruction: Float[Array, " B"], kl_z: Float[Array, " B"], kl_y: Float[Array, " B"], row_mask: Bool[Array, " B"]
) -> ELBOTerms:
    """The ELBO's terms of real rows; there are no others yet."""
    reconstruction, kl_z, kl_y = (jnp.where(row_mask, term, 0.0) for term in (reconstruction, kl_z, kl_y))
    none = jnp.zeros_like(kl_y)
    return ELBOTerms(reconstruction, kl_z, kl_y, none, none, none)
