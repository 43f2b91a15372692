"""The exact objectives as NumPyro ELBO objects that keep the terms of the ELBO apart.

    labelled row      L(x, y) = E_q(z|x,y)[ log p(x|y,z) ] + log p(y) - beta * KL(q(z|x,y) || p(z))
    unlabelled row    U(x)    = sum_y q(y|x) * L(x, y) + H(q(y|x))

The KL of z is `log q(z|x,y) - log p(z)` at the drawn z.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO
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


class LabelledELBO(Trace_ELBO):
    """`sum L` over labelled rows (its negative, as NumPyro minimises). Nothing is enumerated."""

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


def elbo_terms(
    reconstruction: Float[Array, " B"], kl_z: Float[Array, " B"], kl_y: Float[Array, " B"], row_mask: Bool[Array, " B"]
) -> ELBOTerms:
    """The ELBO's terms of real rows; there are no others yet."""
    reconstruction, kl_z, kl_y = (jnp.where(row_mask, term, 0.0) for term in (reconstruction, kl_z, kl_y))
    none = jnp.zeros_like(kl_y)
    return ELBOTerms(reconstruction, kl_z, kl_y, none, none)
