"""The objectives as Pyro ELBO objects that also keep the terms of the ELBO apart.

    labelled row      L(x, y) = E_q(z|x,y)[ log p(x|y,z) ] + log p(y) - beta * KL(q(z|x,y) || p(z))
    unlabelled row    U(x)    = sum_y q(y|x) * L(x, y) + H(q(y|x))
    minimised         -( sum L + sum U ) / rows  +  alpha * mean over labelled rows of -log q(y|x)
                      +  consistency * mean over unlabelled rows of C(x), where the objective has this term

    C(x) = -sum_y r(y) log q(y|x), with dropout, r proportional to q(y|x)^(1/temperature) without and held fixed, or
    to (q(y|x) p / (sum of q(y|x) over the batch + p))^(1/temperature), p the mean of p(y) over the batch

The KL of z is `log q(z|x,y) - log p(z)` at the drawn z. Instead of the sum over y, an estimate of it may be minimised
(`estimators.py`).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.traceenum_elbo import _compute_dice_elbo
from pyro.poutine import Trace
from torch import Tensor

from seqssvae.backend import ELBOTerms
from seqssvae.config import EstimatorName
from seqssvae_torch.estimators import GumbelSoftmaxELBO, LabelELBO, ScoreFunctionELBO, SequentialELBO, TopKELBO
from seqssvae_torch.model import SSVAE
from seqssvae_torch.modules import Encoding, Noise


class Rows(NamedTuple):
    """One batch on the device, and its noise.

    Args:
        x: Symbol ids.
        y: Label ids, or None where they are missing.
        row_mask: True for real rows.
        noise: As in `seqssvae.noise`.
        source: Symbol ids of the sources, or what is made of them; None where there are none.
    """

    x: Int[Tensor, "B T"]
    y: Int[Tensor, "B"] | None
    row_mask: Bool[Tensor, "B"]
    noise: Noise
    source: Int[Tensor, "B S"] | Encoding | None = None


class Estimator(NamedTuple):
    """What a step does with a missing label.

    Args:
        name: As in `seqssvae.config.ObjectiveConfig`.
        k: Of `top_k`.
        temperature: Of `gumbel_softmax`.
        baseline: Of `score_function`: what is expected of each row; None for nothing.
        particles: Number of draws of z and of a sampled y, in front of whose noise is a dimension if it is above 1.
    """

    name: EstimatorName = "enumerate"
    k: int = 1
    temperature: float = 1.0
    baseline: Float[Tensor, "B"] | None = None
    particles: int = 1


EXACT = Estimator()


class Consistency(NamedTuple):
    """The term that q(y|x) be the same with dropout as without.

    Args:
        weight: Of its mean over rows.
        temperature: Below 1, what q(y|x) is to be like is more certain than q(y|x).
        aligned: Whether what q(y|x) is to be like has the labels' shares of p(y) over the rows.
    """

    weight: float = 1.0
    temperature: float = 0.5
    aligned: bool = False


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

    def terms(self, row_mask: Bool[Tensor, "B"]) -> ELBOTerms:
        """Terms of each row, of the last evaluation; `classification` is 0."""
        model, guide = self.model_trace.nodes, self.guide_trace.nodes
        reconstruction = _unmasked(model["x"])
        kl_z = _unmasked(guide["z"]) - _unmasked(model["z"])
        kl_y = -_unmasked(model["y"])
        return _masked(_elbo_terms(reconstruction, kl_z, kl_y), row_mask)


class UnlabelledELBO(_Recorded, TraceEnum_ELBO):
    """`sum U` over unlabelled rows (its negative), with y summed out exactly, all labels at once."""

    def __init__(self) -> None:
        super().__init__(max_plate_nesting=1)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any) -> Float[Tensor, ""]:
        """The loss, with a gradient: `sum_y q(y|x) (log p(x, y, z) - log q(y, z|x))`.

        Pyro's own contracts any number of enumerated sites, and fetches from the device for each term whether all of
        its probabilities are above 0; this contracts y, for programs with the sites of `SSVAE`, and fetches nothing.
        Where y is enumerated one label after the other it is Pyro's own that does it.
        """
        traces = self._get_traces(model, guide, args, {})
        model_trace, guide_trace = next(traces)
        if "_enumerate_dim" not in guide_trace.nodes["y"]["infer"]:
            losses = [_compute_dice_elbo(model_trace, guide_trace), *(_compute_dice_elbo(*more) for more in traces)]
            return -sum(losses)
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        log_joint = sum(model_trace.nodes[name]["log_prob"] for name in "yzx")
        log_q = sum(guide_trace.nodes[name]["log_prob"] for name in "yz")
        return (guide_trace.nodes["y"]["unscaled_log_prob"].exp() * (log_q - log_joint)).sum()

    def log_weights(self) -> Float[Tensor, "K B"]:
        """log p(x, y, z) - log q(z|x,y) of each label, of the last evaluation."""
        model = self.model_trace.nodes
        return sum(_unmasked(model[name]) for name in "yzx") - _unmasked(self.guide_trace.nodes["z"])

    def terms(self, row_mask: Bool[Tensor, "B"]) -> ELBOTerms:
        """Terms of each row, of the last evaluation; `classification` is 0."""
        model, guide = self.model_trace.nodes, self.guide_trace.nodes
        log_q_y = _unmasked(guide["y"])
        q_y = log_q_y.exp()
        reconstruction = (q_y * _unmasked(model["x"])).sum(0)
        kl_z = (q_y * (_unmasked(guide["z"]) - _unmasked(model["z"]))).sum(0)
        kl_y = (q_y * (log_q_y - _unmasked(model["y"]))).sum(0)
        return _masked(_elbo_terms(reconstruction, kl_z, kl_y), row_mask)


def _log_prob_sum(trace: Trace) -> Float[Tensor, ""]:
    return sum(site["log_prob_sum"] for site in trace.nodes.values() if site["type"] == "sample")


def _unmasked(site: dict[str, Any]) -> Tensor:
    """Log-probability of a site without mask and scale; Pyro has already computed it for the ELBO."""
    return site["unscaled_log_prob"].detach()


def _elbo_terms(reconstruction: Tensor, kl_z: Tensor, kl_y: Tensor) -> ELBOTerms:
    """The ELBO's terms, beside which there are no others yet."""
    none = torch.zeros_like(kl_y)
    return ELBOTerms(reconstruction, kl_z, kl_y, none, none)


def _masked(terms: ELBOTerms, row_mask: Bool[Tensor, "B"]) -> ELBOTerms:
    return ELBOTerms(*(torch.where(row_mask, term, 0.0) for term in terms))


def negative_elbo(
    ssvae: SSVAE,
    rows: Rows,
    beta: float,
    features: tuple[Tensor, ...],
    label_gradient: float = 1.0,
    estimator: Estimator = EXACT,
    share: Float[Tensor, ""] | float = 1.0,
) -> tuple[Float[Tensor, ""], ELBOTerms]:
    """`-sum L` or (an estimate of) `-sum U` over the rows of a batch, and the terms of each row.

    `share` is by what the objective multiplies it: that known, the gradient needs no pass over it for a factor.
    """
    if rows.y is None and estimator.name != "enumerate":
        return _estimated(ssvae, rows, beta, features, label_gradient, estimator)
    elbo = UnlabelledELBO() if rows.y is None else LabelledELBO()
    weights = -share * _weights(ssvae, rows, features)
    arguments = rows.x, rows.y, rows.row_mask, beta, rows.noise, features, label_gradient, weights, rows.source
    loss = elbo.differentiable_loss(ssvae.model, ssvae.guide, *arguments)
    return loss, elbo.terms(rows.row_mask)


def _estimated(
    ssvae: SSVAE,
    rows: Rows,
    beta: float,
    features: tuple[Tensor, ...],
    label_gradient: float,
    estimator: Estimator,
) -> tuple[Float[Tensor, ""], ELBOTerms]:
    noise, weights = rows.noise.get("y"), torch.ones_like(rows.row_mask, dtype=ssvae.log_prior.dtype)
    elbo: LabelELBO
    match estimator.name:
        case "sequential":
            encoders = ("encoder.", "source_encoder.")  # which are behind features and encoding
            named = ssvae.named_parameters()
            elbo = SequentialELBO(weight for name, weight in named if not name.startswith(encoders))
            weights = _weights(ssvae, rows, features)
        case "top_k":
            assert noise is not None, "labels are drawn by the noise y"
            elbo = TopKELBO(estimator.k, noise=noise)
            with torch.no_grad():
                log_q = ssvae.classifier(features).logits
                weights = elbo.weights(log_q, elbo.labels(log_q, noise))
        case "gumbel_softmax":
            elbo = GumbelSoftmaxELBO(estimator.temperature, noise=noise)
        case _:
            elbo = ScoreFunctionELBO(0.0 if estimator.baseline is None else estimator.baseline, noise=noise)
    arguments = rows.x, None, rows.row_mask, beta, rows.noise, features, label_gradient, weights, rows.source
    found = elbo.estimate(ssvae.model, ssvae.guide, *arguments)
    terms = _elbo_terms(found.model["x"], found.guide["z"] - found.model["z"], found.kl)
    return found.loss, _masked(terms, rows.row_mask)


def _weights(ssvae: SSVAE, rows: Rows, features: tuple[Tensor, ...]) -> Float[Tensor, "*B"]:
    """By what the negative ELBO multiplies log p(x|y,z), but for the sign."""
    with torch.no_grad():
        if rows.y is not None:
            return torch.ones_like(rows.y, dtype=ssvae.log_prior.dtype)
        return ssvae.classifier(features).probs.t()


def rest_masses(ssvae: SSVAE, rows: Rows, candidates: tuple[int, ...]) -> Float[Tensor, "C"]:
    """The probability that q(y|x) leaves to all but the k most probable labels, for each k: the mean over real rows."""
    with torch.no_grad():
        q = ssvae.classifier(ssvae.read(rows.x, rows.source, rows.noise)).probs.sort(-1, descending=True).values
        of_rows = torch.stack([q[:, k:].sum(-1) for k in candidates])
        return torch.where(rows.row_mask, of_rows, 0.0).sum(-1) / rows.row_mask.sum().clamp(min=1)


def encoded(ssvae: SSVAE, rows: Rows) -> tuple[Rows, tuple[Tensor, ...]]:
    """The rows with what is made of their sources, if they have any, and their features."""
    rows = rows._replace(source=ssvae.encode_source(rows.source, rows.noise))
    return rows, ssvae.read(rows.x, rows.source, rows.noise)


def particles(rows: Rows, count: int) -> Iterator[Rows]:
    """The rows with the noise of one draw of z and y after the other."""
    for place in range(count):
        drawn = {name: rows.noise[name][place] for name in ("z", "y") if name in rows.noise} if count > 1 else {}
        yield rows._replace(noise={**rows.noise, **drawn})


def evaluate(ssvae: SSVAE, rows: Rows) -> tuple[ELBOTerms, Float[Tensor, "B K"]]:
    """Terms of each row at beta 1, y summed out, and log q(y|x)."""
    with torch.no_grad():
        rows, features = encoded(ssvae, rows)
        elbo = UnlabelledELBO()
        arguments = rows.x, None, rows.row_mask, 1.0, rows.noise, features
        elbo.loss(ssvae.model, ssvae.guide, *arguments, source=rows.source)
        return elbo.terms(rows.row_mask), ssvae.classifier(features).logits


def importance_bound(ssvae: SSVAE, rows: Rows, count: int) -> Float[Tensor, "B"]:
    """A lower bound of log p(x) of each row, from so many draws of z, whose noise has a dimension in front if above 1.

    `log( sum_y p(y) / P * sum_p p(x|y,z_p) p(z_p) / q(z_p|x,y) )`: y is summed out, z is drawn from q(z|x,y).

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519.
    """
    with torch.no_grad():
        (rows, features), total = encoded(ssvae, rows), None
        for drawn in particles(rows, count):
            elbo = UnlabelledELBO()
            arguments = rows.x, None, rows.row_mask, 1.0, drawn.noise, features
            elbo.loss(ssvae.model, ssvae.guide, *arguments, source=rows.source)
            weights = elbo.log_weights().logsumexp(0)
            total = weights if total is None else torch.logaddexp(total, weights)
        assert total is not None
        return torch.where(rows.row_mask, total - math.log(count), 0.0)


def inconsistency(
    ssvae: SSVAE, rows: Rows, features: tuple[Tensor, ...], temperature: float, aligned: bool = False
) -> Float[Tensor, "B"]:
    """C of each row, 0 for filler rows: the cross entropy of q(y|x) of these features from what it is without noise.

    Args:
        ssvae: The model.
        rows: The rows, sources as they were given.
        features: Their features, with the noise of the step.
        temperature: Below 1, what is without noise is made more certain.
        aligned: Whether it is first multiplied by p / (sum of q(y|x) over the real rows + p), so that labels have about
            the shares of p, the mean of p(y) over these rows: as if one row more were known to be like p, lest a label
            that none of the rows has be divided by 0.

    References:
        Xie et al. 2020, Unsupervised Data Augmentation for Consistency Training, equation 1 and section 2.3,
        https://arxiv.org/abs/1904.12848. The noise is dropout, as in the Pi-model of Laine & Aila 2017
        (https://arxiv.org/abs/1610.02242), and the symbols that the encoder is not shown. Alignment: Berthelot et al.
        2020, ReMixMatch, section 3.1, https://arxiv.org/abs/1911.09785 (there with the mean over the last 128 batches).
    """
    with torch.no_grad():
        source = ssvae.encode_source(rows.source)
        certain = ssvae.classifier(ssvae.read(rows.x, source)).logits
        if aligned:
            certain = certain + _alignment(certain, ssvae.label_prior(source).logits, rows.row_mask)
        wanted = (certain / temperature).softmax(-1)
    found = -(wanted * ssvae.classifier(features).logits).sum(-1)
    return torch.where(rows.row_mask, found, 0.0)


def _alignment(
    log_q_y: Float[Tensor, "B K"], log_p_y: Float[Tensor, "*#B K"], row_mask: Bool[Tensor, "B"]
) -> Float[Tensor, "K"]:
    """log(p / (sum of q + p)), p the mean of p(y) over the real rows, the sum over them as well."""
    real = row_mask[:, None]
    prior = torch.where(real, log_p_y.exp(), 0.0).sum(0) / row_mask.sum().clamp(min=1)
    prior = prior.clamp(min=torch.finfo(prior.dtype).tiny)  # of a label that is neither expected nor found
    return prior.log() - (torch.where(real, log_q_y.exp(), 0.0).sum(0) + prior).log()


def objective(
    ssvae: SSVAE,
    labelled: Rows | None,
    unlabelled: Rows | None,
    alpha: float,
    beta: float,
    generative: bool = True,
    label_gradient: float = 1.0,
    estimator: Estimator = EXACT,
    consistency: Consistency | None = None,
) -> tuple[Float[Tensor, ""], tuple[ELBOTerms, ...]]:
    """What one training step minimises, and the terms of each row.

    Args:
        ssvae: The model.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is missing, or None.
        alpha: Weight of the classification term.
        beta: Weight of the KL of z.
        generative: False for the classification term alone (with weight 1).
        label_gradient: Share of the unlabelled rows' ELBO gradient that reaches q(y|x).
        estimator: What is done with a missing label.
        consistency: A further term on rows whose label is missing; None: there is none.
    """
    loss = ssvae.log_prior.new_zeros(())
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    real_rows = sum(rows.row_mask.sum() for rows in batches)
    terms = []
    for batch in batches:
        rows, features = encoded(ssvae, batch)
        if generative:
            share = torch.ones_like(loss) / (estimator.particles * real_rows)  # in the precision of the loss
            found = [
                negative_elbo(ssvae, drawn, beta, features, label_gradient, estimator, share)
                for drawn in particles(rows, estimator.particles)
            ]
            loss = loss + share * sum(negative for negative, _ in found)
            row_terms = ELBOTerms(
                *(sum(of_draws) / len(found) for of_draws in zip(*(t for _, t in found), strict=True))
            )
        else:
            row_terms = ELBOTerms(*torch.zeros(5, len(rows.x), dtype=loss.dtype, device=loss.device))
        if rows.y is not None:
            surprise = torch.where(rows.row_mask, -ssvae.classifier(features).log_prob(rows.y), 0.0)
            loss = loss + (alpha if generative else 1.0) * surprise.sum() / rows.row_mask.sum()
            row_terms = row_terms._replace(classification=surprise.detach())
        elif consistency is not None:
            disagreement = inconsistency(ssvae, batch, features, consistency.temperature, consistency.aligned)
            loss = loss + consistency.weight * disagreement.sum() / rows.row_mask.sum()
            row_terms = row_terms._replace(consistency=disagreement.detach())
        terms.append(row_terms)
    return loss, tuple(terms)
