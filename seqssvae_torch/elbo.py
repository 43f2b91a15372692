"""The exact objectives as Pyro ELBO objects that keep the terms of the ELBO apart.

    labelled row      L(x, y) = E_q(z|x,y)[ log p(x|y,z) ] + log p(y) - beta * KL(q(z|x,y) || p(z))
    unlabelled row    U(x)    = sum_y q(y|x) * L(x, y) + H(q(y|x))
    or, of fixed r    U_r(x)  = sum_y r(y) * L(x, y) + H(r)

The KL of z is `log q(z|x,y) - log p(z)` at the drawn z.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.poutine import Trace
from torch import Tensor

from seqssvae.backend import ELBOTerms


class _Recorded:
    """Keeps the traces of the last evaluation, from which the terms of the ELBO are read."""

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        elbo: Any = super()  # Pyro's ELBO class, which comes after this one in the order of bases
        self.model_trace, self.guide_trace = elbo._get_trace(model, guide, args, kwargs)
        return self.model_trace, self.guide_trace


class LabelledELBO(_Recorded, Trace_ELBO):
    """`sum L` over labelled rows (its negative, as Pyro minimises). Nothing is enumerated."""

    def differentiable_loss(self, model: Any, guide: Any, *args: Any) -> Float[Tensor, ""]:
        """The loss, with a gradient.

        Pyro's own fetches every site's value from the device, and whether it is a number; this fetches nothing.
        """
        model_trace, guide_trace = self._get_trace(model, guide, args, {})
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        return _log_prob_sum(guide_trace) - _log_prob_sum(model_trace)

    def terms(self, row_mask: Bool[Tensor, " B"]) -> ELBOTerms:
        """Terms of each row, of the last evaluation; `classification` is 0."""
        model, guide = self.model_trace.nodes, self.guide_trace.nodes
        kl_z = _unmasked(guide["z"]) - _unmasked(model["z"])
        return elbo_terms(_unmasked(model["x"]), kl_z, -_unmasked(model["y"]), row_mask)


class UnlabelledELBO(_Recorded, TraceEnum_ELBO):
    """`sum U` over unlabelled rows (its negative), with y summed out exactly, all labels at once."""

    def __init__(self) -> None:
        super().__init__(max_plate_nesting=1)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any) -> Float[Tensor, ""]:
        """The loss, with a gradient: `sum_y q(y|x) (log p(x, y, z) - log q(y, z|x))`.

        Pyro's own contracts any number of enumerated sites, and fetches from the device for each term whether all of
        its probabilities are above 0; this contracts y, for programs with the sites of `SSVAE`, and fetches nothing.
        """
        model_trace, guide_trace = next(self._get_traces(model, guide, args, {}))
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        log_joint = sum(model_trace.nodes[name]["log_prob"] for name in "yzx")
        log_q = sum(guide_trace.nodes[name]["log_prob"] for name in "yz")
        return (guide_trace.nodes["y"]["unscaled_log_prob"].exp() * (log_q - log_joint)).sum()

    def log_weights(self) -> Float[Tensor, "K B"]:
        """log p(x, y, z) - log q(z|x,y) of each label, of the last evaluation."""
        model = self.model_trace.nodes
        return sum(_unmasked(model[name]) for name in "yzx") - _unmasked(self.guide_trace.nodes["z"])

    def terms(self, row_mask: Bool[Tensor, " B"]) -> ELBOTerms:
        """Terms of each row, of the last evaluation; `classification` is 0."""
        model, guide = self.model_trace.nodes, self.guide_trace.nodes
        log_q_y = _unmasked(guide["y"])
        q_y = log_q_y.exp()
        reconstruction = (q_y * _unmasked(model["x"])).sum(0)
        kl_z = (q_y * (_unmasked(guide["z"]) - _unmasked(model["z"]))).sum(0)
        return elbo_terms(reconstruction, kl_z, (q_y * (log_q_y - _unmasked(model["y"]))).sum(0), row_mask)


class PosteriorELBO(UnlabelledELBO):
    """`sum U_r` over unlabelled rows (its negative), r held fixed: the best, which is `softmax_y L(x, y)`, or given.

    With the best r of temperature 1 it is `sum_x log sum_y exp L(x, y)`, and has that gradient.

    Args:
        row_mask: True for real rows.
        temperature: Of the best r, for each row.
        given: r, where it is given.
    """

    def __init__(
        self,
        row_mask: Bool[Tensor, " B"],
        temperature: Float[Tensor, " B"] | float = 1.0,
        given: Float[Tensor, "K B"] | None = None,
    ) -> None:
        super().__init__()
        self.row_mask, self.temperature, self.given = row_mask, temperature, given

    def differentiable_loss(self, model: Any, guide: Any, *args: Any) -> Float[Tensor, ""]:
        """The loss, with a gradient."""
        model_trace, guide_trace = next(self._get_traces(model, guide, args, {}))
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        elbo = sum(model_trace.nodes[name]["log_prob"] for name in "yzx") - guide_trace.nodes["z"]["log_prob"]
        self.r = (elbo.detach() / self.temperature).softmax(0) if self.given is None else self.given
        return torch.where(self.row_mask, torch.special.xlogy(self.r, self.r) - self.r * elbo, 0.0).sum()

    def terms(self, row_mask: Bool[Tensor, " B"]) -> ELBOTerms:
        """Terms of each row, of the last evaluation, averaged over r."""
        model, guide = self.model_trace.nodes, self.guide_trace.nodes
        reconstruction = (self.r * _unmasked(model["x"])).sum(0)
        kl_z = (self.r * (_unmasked(guide["z"]) - _unmasked(model["z"]))).sum(0)
        kl_y = (torch.special.xlogy(self.r, self.r) - self.r * _unmasked(model["y"])).sum(0)
        return elbo_terms(reconstruction, kl_z, kl_y, row_mask)


def _log_prob_sum(trace: Trace) -> Float[Tensor, ""]:
    return sum(site["log_prob_sum"] for site in trace.nodes.values() if site["type"] == "sample")


def _unmasked(site: dict[str, Any]) -> Tensor:
    """Log-probability of a site without mask and scale; Pyro has already computed it for the ELBO."""
    return site["unscaled_log_prob"].detach()


def elbo_terms(
    reconstruction: Float[Tensor, " B"],
    kl_z: Float[Tensor, " B"],
    kl_y: Float[Tensor, " B"],
    row_mask: Bool[Tensor, " B"],
) -> ELBOTerms:
    """The ELBO's terms of real rows; there are no others yet."""
    fillers = ~row_mask
    reconstruction, kl_z, kl_y = (term.masked_fill(fillers, 0.0) for term in (reconstruction, kl_z, kl_y))
    none = torch.zeros_like(kl_y)
    return ELBOTerms(reconstruction, kl_z, kl_y, none, none, none)
