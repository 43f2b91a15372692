"""The exact objectives of `elbo.py` as plain sums, without Pyro's traces: few operations, none of which waits.

What is computed is what the traces of `SSVAE` give, for which `elbo.py` is the reference.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqssvae.backend import ELBOTerms
from seqssvae_torch.distributions import DiagonalNormal
from seqssvae_torch.elbo import elbo_terms
from seqssvae_torch.model import SSVAE
from seqssvae_torch.modules import Encoding
from seqssvae_torch.rows import Number, Rows


class LabelTerms(NamedTuple):
    """The parts of L(x, y); K is 1 where the label is observed.

    Args:
        log_p_x: log p(x|y,z) at the drawn z.
        log_p_y: log p(y).
        kl_z: log q(z|x,y) - log p(z) at the drawn z.
    """

    log_p_x: Float[Tensor, "K B"]
    log_p_y: Float[Tensor, " K #B"]
    kl_z: Float[Tensor, "K B"]

    def elbo(self, beta: Number) -> Float[Tensor, "K B"]:
        """L(x, y)."""
        return self.log_p_x + self.log_p_y - beta * self.kl_z


def label_terms(ssvae: SSVAE, rows: Rows) -> LabelTerms:
    """The parts of L(x, y) of rows that are encoded: of every label, or of the observed one."""
    x, source = rows.x, rows.source
    assert isinstance(x, Encoding)
    assert source is None or isinstance(source, Encoding)
    log_p_y, size = torch.atleast_2d(ssvae.label_prior(source).logits), len(x.symbols)
    if rows.y is None:
        y, log_p_y = torch.eye(ssvae.label_count, dtype=log_p_y.dtype, device=log_p_y.device)[:, None], log_p_y.t()
    else:
        y = ssvae.one_hot(rows.y[None])
        log_p_y = torch.where(y > 0, log_p_y.expand(size, -1), 0.0).sum(-1)
    q_z, p_z = ssvae.latent_encoder(x, y, rows.noise), ssvae.latent_prior(source, y)
    z = q_z.rsample()
    log_p_x = ssvae.decoder(y, z, x.symbols.shape[1], source, rows.noise).log_prob(x.symbols)
    return LabelTerms(log_p_x, log_p_y, _log_ratio(q_z, p_z, z))


def _log_ratio(q_z: DiagonalNormal, p_z: DiagonalNormal, z: Float[Tensor, "K B Z"]) -> Float[Tensor, "K B"]:
    """log q(z) - log p(z) of diagonal Normals."""
    of_q = (z - q_z.loc) / q_z.scale if q_z.noise is None else q_z.noise
    of_p = (z - p_z.loc) / p_z.scale
    return (0.5 * (of_p.square() - of_q.square()) + p_z.scale.log() - q_z.scale.log()).sum(-1)


def negative_labelled(
    terms: LabelTerms, beta: Number, row_mask: Bool[Tensor, " B"]
) -> tuple[Float[Tensor, ""], ELBOTerms]:
    """`-sum L`, and the terms of each row."""
    loss = -torch.where(row_mask, terms.elbo(beta), 0.0).sum()
    with torch.no_grad():
        log_p_x, log_p_y, kl_z = (term[0] for term in terms)
        return loss, elbo_terms(log_p_x, kl_z, -log_p_y, row_mask)


def negative_unlabelled(
    ssvae: SSVAE, rows: Rows, terms: LabelTerms, beta: Number, label_gradient: float
) -> tuple[Float[Tensor, ""], ELBOTerms]:
    """`-sum U` with y summed out by q(y|x), and the terms of each row."""
    assert isinstance(rows.x, Encoding)
    logits = ssvae.classifier(rows.x).logits
    fixed = logits.detach()
    log_q_y = (fixed + label_gradient * (logits - fixed) if label_gradient else fixed).t()
    q_y = log_q_y.exp()
    loss = torch.where(rows.row_mask, q_y * (log_q_y - terms.elbo(beta)), 0.0).sum()
    with torch.no_grad():
        return loss, _averaged(terms, q_y, q_y * log_q_y, rows.row_mask)


def negative_with_posterior(
    rows: Rows, terms: LabelTerms, beta: Number, temperature: Float[Tensor, " B"] | float, given: Tensor | None
) -> tuple[Float[Tensor, ""], ELBOTerms, Float[Tensor, "K B"]]:
    """`-sum U_r` of the best r, or of the one given, the terms of each row, and r."""
    elbo = terms.elbo(beta)
    r = (elbo.detach() / temperature).softmax(0) if given is None else given
    entropies = torch.special.xlogy(r, r)
    loss = torch.where(rows.row_mask, entropies - r * elbo, 0.0).sum()
    with torch.no_grad():
        return loss, _averaged(terms, r, entropies, rows.row_mask), r


def _averaged(
    terms: LabelTerms, r: Float[Tensor, "K B"], entropies: Float[Tensor, "K B"], row_mask: Bool[Tensor, " B"]
) -> ELBOTerms:
    """The terms of each row, averaged over labels with probability r; `entropies` are `r log r`."""
    log_p_x, log_p_y, kl_z = terms
    return elbo_terms((r * log_p_x).sum(0), (r * kl_z).sum(0), (entropies - r * log_p_y).sum(0), row_mask)
