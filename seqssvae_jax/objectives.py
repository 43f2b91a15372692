"""The objectives as NumPyro ELBO objects that also keep the terms of the ELBO apart.

    labelled row      L(x, y) = E_q(z|x,y)[ log p(x|y,z) ] + log p(y) - beta * KL(q(z|x,y) || p(z))
    unlabelled row    U(x)    = sum_y q(y|x) * L(x, y) + H(q(y|x))
    minimised         -( sum L + sum U ) / rows  +  alpha * mean over labelled rows of -log q(y|x)

The KL of z is `log q(z|x,y) - log p(z)` at the drawn z.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO
from numpyro.primitives import Messenger

from seqssvae.backend import ELBOTerms
from seqssvae_jax.model import SSVAE
from seqssvae_jax.modules import Noise


class Rows(NamedTuple):
    """One batch on the device, and its noise.

    Args:
        x: Symbol ids.
        y: Label ids, or None where they are missing.
        row_mask: True for real rows.
        noise: As in `seqssvae.noise`.
    """

    x: Int[Array, "B T"]
    y: Int[Array, "B"] | None
    row_mask: Bool[Array, "B"]
    noise: Noise


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

    def loss_and_terms(self, *args: Any) -> tuple[Float[Array, ""], ELBOTerms]:
        """The loss, and the terms of each row; `classification` is 0. Arguments as of `loss`."""
        recorder = _Recorder()
        with recorder:
            loss = self.loss(*args)
        log_q_z, log_p_y, log_p_z, log_p_x = recorder.log_probs("zyzx")
        return loss, ELBOTerms(log_p_x, log_q_z - log_p_z, -log_p_y, jnp.zeros_like(log_p_y))


class UnlabelledELBO(TraceEnum_ELBO):
    """`sum U` over unlabelled rows (its negative), with y summed out exactly, all labels at once."""

    def __init__(self) -> None:
        super().__init__(max_plate_nesting=1)

    def loss_and_terms(self, *args: Any) -> tuple[Float[Array, ""], ELBOTerms]:
        """The loss, and the terms of each row; `classification` is 0. Arguments as of `loss`."""
        recorder = _Recorder()
        with recorder:
            loss = self.loss(*args)
        log_q_y, log_q_z, log_p_y, log_p_z, log_p_x = recorder.log_probs("yzyzx")
        q_y = jnp.exp(log_q_y)
        reconstruction = (q_y * log_p_x).sum(0)
        kl_z = (q_y * (log_q_z - log_p_z)).sum(0)
        kl_y = (q_y * (log_q_y - log_p_y)).sum(0)
        return loss, ELBOTerms(reconstruction, kl_z, kl_y, jnp.zeros_like(kl_y))


def negative_elbo(
    ssvae: SSVAE, rows: Rows, beta: Float[Array, ""] | float, features: tuple[Array, ...], label_gradient: float = 1.0
) -> tuple[Float[Array, ""], ELBOTerms]:
    """`-sum L` or `-sum U` over the rows of a batch, and the terms of each row."""
    elbo = UnlabelledELBO() if rows.y is None else LabelledELBO()
    unused = jax.random.key(0)  # noise is given
    return elbo.loss_and_terms(
        unused,
        {},
        ssvae.model,
        ssvae.guide,
        rows.x,
        rows.y,
        rows.row_mask,
        beta,
        rows.noise,
        features,
        label_gradient,
        _weights(ssvae, rows, features),
    )


def _weights(ssvae: SSVAE, rows: Rows, features: tuple[Array, ...]) -> Float[Array, "*B"]:
    """By what the negative ELBO multiplies log p(x|y,z), but for the sign."""
    if rows.y is not None:
        return jnp.ones_like(rows.y, ssvae.precision)
    return jax.lax.stop_gradient(ssvae.classifier(features).probs.T)


def evaluate(ssvae: SSVAE, rows: Rows) -> tuple[ELBOTerms, Float[Array, "B K"]]:
    """Terms of each row at beta 1, y summed out, and log q(y|x)."""
    features = ssvae.encoder(rows.x, rows.noise)
    _, terms = negative_elbo(ssvae, rows._replace(y=None), 1.0, features)
    return terms, ssvae.classifier(features).logits


def objective(
    ssvae: SSVAE,
    labelled: Rows | None,
    unlabelled: Rows | None,
    alpha: float,
    beta: Float[Array, ""] | float,
    generative: bool = True,
    label_gradient: float = 1.0,
) -> tuple[Float[Array, ""], tuple[ELBOTerms, ...]]:
    """What one training step minimises, and the terms of each row.

    Args:
        ssvae: The model.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is missing, or None.
        alpha: Weight of the classification term.
        beta: Weight of the KL of z.
        generative: False for the classification term alone (with weight 1).
        label_gradient: Share of the unlabelled rows' ELBO gradient that reaches q(y|x).
    """
    loss = jnp.zeros((), ssvae.precision)
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    real_rows = sum(rows.row_mask.sum() for rows in batches)
    terms = []
    for rows in batches:
        features = ssvae.encoder(rows.x, rows.noise)
        if generative:
            negative, row_terms = negative_elbo(ssvae, rows, beta, features, label_gradient)
            loss = loss + negative / real_rows
        else:
            row_terms = ELBOTerms(*jnp.zeros((4, len(rows.x)), loss.dtype))
        if rows.y is not None:
            surprise = jnp.where(rows.row_mask, -ssvae.classifier(features).log_prob(rows.y), 0.0)
            loss = loss + (alpha if generative else 1.0) * surprise.sum() / rows.row_mask.sum()
            row_terms = row_terms._replace(classification=surprise)
        terms.append(row_terms)
    return loss, tuple(terms)
