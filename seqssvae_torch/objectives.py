"""What a training step minimises.

    labelled row      L(x, y) = E_q(z|x,y)[ log p(x|y,z) ] + log p(y) - beta * KL(q(z|x,y) || p(z))
    unlabelled row    U(x)    = sum_y q(y|x) * L(x, y) + H(q(y|x))
    minimised         -( sum L + sum U ) / rows  +  alpha * mean over labelled rows of -log q(y|x)
                      +  consistency * mean over unlabelled rows of C(x), where the objective has this term

Where labels are weighted by another posterior r than q(y|x), `U_r(x) - distillation * D(x)` stands for U(x), with
D(x) = -sum_y r(y) log q(y|x), r held fixed and by itself proportional to exp(L(x, y) / temperature).

    C(x) = -sum_y r(y) log q(y|x), with dropout, r proportional to q(y|x)^(1/temperature) without and held fixed, or
    to (q(y|x) p / (sum of q(y|x) over the batch + p))^(1/temperature), p the mean of p(y) over the batch

Instead of the sum over y, an estimate of it may be minimised (`gradient_estimators.py`).
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from pyro import distributions as dist
from torch import Tensor

from seqssvae.backend import ELBOTerms
from seqssvae.config import GradientEstimatorName, PosteriorName
from seqssvae.data.vocabulary import PAD
from seqssvae_torch.elbo import LabelledELBO, PosteriorELBO, UnlabelledELBO, elbo_terms
from seqssvae_torch.gradient_estimators import GumbelSoftmaxELBO, ScoreFunctionELBO, SequentialELBO, TopKELBO
from seqssvae_torch.handlers import GradientShare, GradientWeights
from seqssvae_torch.label_elbo import LabelELBO
from seqssvae_torch.model import SSVAE
from seqssvae_torch.modules import Encoding, symbols_of
from seqssvae_torch.ops import takes_few_calls
from seqssvae_torch.plain_elbo import label_terms, negative_labelled, negative_unlabelled, negative_with_posterior
from seqssvae_torch.rows import Number, Rows, particles
from seqssvae_torch.sharing import total


class GradientEstimator(NamedTuple):
    """What a step does with a missing label.

    Args:
        name: As in `seqssvae.config.ObjectiveConfig`.
        k: Of `top_k`.
        temperature: Of `gumbel_softmax`.
        baseline: Of `score_function`: what is expected of each row; None for nothing.
        particles: Number of draws of z and of a sampled y, in front of whose noise is a dimension if it is above 1.
    """

    name: GradientEstimatorName = "enumerate"
    k: int = 1
    temperature: Number = 1.0
    baseline: Float[Tensor, " B"] | None = None
    particles: int = 1


EXACT = GradientEstimator()


class Consistency(NamedTuple):
    """The term that asks q(y|x) to be the same with dropout as without.

    Args:
        weight: Of its mean over rows.
        temperature: Below 1, the target of q(y|x) is more certain than q(y|x).
        aligned: Whether the target has the labels' shares of p(y) over the rows.
        realigned: Whether it is given them once more behind the temperature.
        label_shift: What is added to the logits of every label; None: nothing.
    """

    weight: Number = 1.0
    temperature: float = 0.5
    aligned: bool = False
    realigned: bool = False
    label_shift: Sequence[float] | Float[Tensor, " K"] | None = None

    def shifted(self, logits: Float[Tensor, "*#B K"]) -> Float[Tensor, "*#B K"]:
        """Log-probabilities of labels as frequent as in rows without label."""
        if self.label_shift is None:
            return logits
        shift = torch.as_tensor(self.label_shift, dtype=logits.dtype, device=logits.device)
        return (logits + shift).log_softmax(-1)


class Posterior(NamedTuple):
    """By what labels are weighted where they are missing.

    Args:
        name: As in `seqssvae.config.ObjectiveConfig`.
        temperature: Of `exact`; None: the square root of the row's number of symbols.
        distillation: Weight of the cross entropy of q(y|x) from it.
    """

    name: PosteriorName = "amortised"
    temperature: float | None = 1.0
    distillation: float = 1.0


AMORTISED = Posterior()


def objective(
    ssvae: SSVAE,
    labelled: Rows | None,
    unlabelled: Rows | None,
    alpha: float,
    beta: Number,
    generative: bool = True,
    label_gradient: float = 1.0,
    estimator: GradientEstimator = EXACT,
    consistency: Consistency | None = None,
    posterior: Posterior = AMORTISED,
) -> tuple[Float[Tensor, ""], tuple[ELBOTerms, ...]]:
    """What one training step minimises, and the terms of each row.

    Args:
        ssvae: The model.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is missing, or None.
        alpha: Weight of the classification term.
        beta: Weight of the KL of z.
        generative: False for a loss without the ELBO.
        label_gradient: Share of the unlabelled rows' ELBO gradient that reaches q(y|x).
        estimator: What is done with a missing label.
        consistency: A further term on rows whose label is missing; None: there is none.
        posterior: By what labels are weighted where they are missing.
    """
    loss = ssvae.log_prior.new_zeros(())
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    real_rows = total(torch.as_tensor(sum(rows.row_mask.sum() for rows in batches)))
    terms = []
    for batch in batches:
        rows = encoded(ssvae, batch)
        if generative:
            share = torch.ones_like(loss) / (estimator.particles * real_rows)  # in the precision of the loss
            draws = [
                negative_elbo(ssvae, drawn, beta, label_gradient, estimator, posterior, share)
                for drawn in particles(rows, estimator.particles)
            ]
            loss = loss + share * reduce(add, (negative for negative, _ in draws))
            row_terms = _mean([of_draw for _, of_draw in draws])
        else:
            row_terms = ELBOTerms(*torch.zeros(6, len(rows.row_mask), dtype=loss.dtype, device=loss.device))
        if rows.y is not None:
            chosen = ssvae.one_hot(rows.y) * rows.row_mask[:, None] > 0  # whose gradient is a sum in any order
            cross_entropy = -torch.where(chosen, label_posterior(ssvae, rows).logits, 0.0).sum(-1)
            loss = loss + alpha * cross_entropy.sum() / total(rows.row_mask.sum())
            row_terms = row_terms._replace(classification=cross_entropy.detach())
        elif posterior.name != "amortised":
            if not generative:
                row_terms = row_terms._replace(distillation=_distillation(ssvae, rows, given_posterior(ssvae, rows)))
            loss = loss + posterior.distillation * row_terms.distillation.sum() / real_rows
            row_terms = row_terms._replace(distillation=row_terms.distillation.detach())
        if rows.y is None and consistency is not None:
            inconsistent = inconsistency(ssvae, batch, rows, consistency)
            loss = loss + consistency.weight * inconsistent.sum() / total(rows.row_mask.sum())
            row_terms = row_terms._replace(consistency=inconsistent.detach())
        terms.append(row_terms)
    return loss, tuple(terms)


def _mean(draws: Sequence[ELBOTerms]) -> ELBOTerms:
    if len(draws) == 1:
        return draws[0]
    return ELBOTerms(*(sum(of_draws) / len(draws) for of_draws in zip(*draws, strict=True)))


def encoded(ssvae: SSVAE, rows: Rows) -> Rows:
    """The rows with what the encoders make of them and of their sources, once for all that reads it."""
    source = ssvae.encode_source(rows.source, rows.noise)
    return rows._replace(x=ssvae.encode(rows.x, source, rows.noise), source=source)


def label_posterior(ssvae: SSVAE, rows: Rows) -> dist.Categorical:
    """q(y|x) of rows that are encoded."""
    assert isinstance(rows.x, Encoding)
    return ssvae.classifier(rows.x)


def negative_elbo(
    ssvae: SSVAE,
    rows: Rows,
    beta: Number,
    label_gradient: float = 1.0,
    estimator: GradientEstimator = EXACT,
    posterior: Posterior = AMORTISED,
    share: Float[Tensor, ""] | float = 1.0,
) -> tuple[Float[Tensor, ""], ELBOTerms]:
    """`-sum L` or (an estimate of) `-sum U` over the rows of a batch, and the terms of each row.

    Of the terms `distillation` alone has a gradient. `share` is by what the objective multiplies the loss: that known,
    the gradient needs no pass over it for a factor.
    """
    exact = rows.y is not None or estimator.name == "enumerate"
    if exact and takes_few_calls(ssvae.log_prior):
        return _plain_negative_elbo(ssvae, rows, beta, label_gradient, posterior)
    guide = GradientShare("y", label_gradient)(ssvae.guide)
    arguments = rows.x, rows.y, rows.source, beta, rows.noise
    if not exact:
        estimate = _label_elbo(ssvae, rows, estimator).estimate(ssvae.model, guide, *arguments)
        terms = elbo_terms(estimate.model["x"], estimate.guide["z"] - estimate.model["z"], estimate.kl, rows.row_mask)
        return estimate.loss, terms
    if rows.y is None and posterior.name != "amortised":
        given = given_posterior(ssvae, rows).t() if posterior.name == "given" else None
        fixed = PosteriorELBO(rows.row_mask, _temperature(ssvae, rows, posterior), given)
        model = ssvae.model if given is None else GradientWeights(-share * given)(ssvae.model)
        loss = fixed.differentiable_loss(model, ssvae.guide, *arguments)
        terms = fixed.terms(rows.row_mask)
        return loss, terms._replace(distillation=_distillation(ssvae, rows, fixed.r.t()))
    elbo = UnlabelledELBO() if rows.y is None else LabelledELBO()
    with torch.no_grad():
        q_y = torch.ones_like(rows.row_mask, dtype=ssvae.log_prior.dtype)
        if rows.y is None:
            q_y = label_posterior(ssvae, rows).probs.t()
    loss = elbo.differentiable_loss(GradientWeights(-share * q_y)(ssvae.model), guide, *arguments)
    return loss, elbo.terms(rows.row_mask)


def _plain_negative_elbo(
    ssvae: SSVAE, rows: Rows, beta: Number, label_gradient: float, posterior: Posterior
) -> tuple[Float[Tensor, ""], ELBOTerms]:
    """What `negative_elbo` computes where no label is sampled, without Pyro's handlers."""
    terms = label_terms(ssvae, rows)
    if rows.y is not None:
        return negative_labelled(terms, beta, rows.row_mask)
    if posterior.name == "amortised":
        return negative_unlabelled(ssvae, rows, terms, beta, label_gradient)
    given = given_posterior(ssvae, rows).t() if posterior.name == "given" else None
    temperature = _temperature(ssvae, rows, posterior)
    loss, of_rows, r = negative_with_posterior(rows, terms, beta, temperature, given)
    return loss, of_rows._replace(distillation=_distillation(ssvae, rows, r.t()))


def given_posterior(ssvae: SSVAE, rows: Rows) -> Float[Tensor, "B K"]:
    """The posterior that came with the rows.

    Raises:
        ValueError: If none came.
    """
    if rows.posterior is None:
        raise ValueError("the rows have no posterior: give one as Batch.posterior.")
    return rows.posterior.to(ssvae.log_prior.dtype)


def _distillation(ssvae: SSVAE, rows: Rows, r: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """The cross entropy of q(y|x) from a posterior, 0 for filler rows."""
    return torch.where(rows.row_mask, -(r * label_posterior(ssvae, rows).logits).sum(-1), 0.0)


def _temperature(ssvae: SSVAE, rows: Rows, posterior: Posterior) -> Float[Tensor, " B"] | float:
    """The temperature of the exact posterior of each row."""
    if posterior.temperature is not None:
        return posterior.temperature
    lengths = (symbols_of(rows.x) != PAD).sum(1)
    return lengths.clamp(min=1).to(ssvae.log_prior.dtype).sqrt()


def _label_elbo(ssvae: SSVAE, rows: Rows, estimator: GradientEstimator) -> LabelELBO:
    noise = rows.noise.get("y")
    match estimator.name:
        case "sequential":
            encoders = ("encoder.", "source_encoder.")  # whose outputs are arguments
            named = ssvae.named_parameters()
            parameters = (weight for name, weight in named if not name.startswith(encoders))
            return SequentialELBO(parameters, max_plate_nesting=1)
        case "top_k":
            return TopKELBO(estimator.k, noise=noise, max_plate_nesting=1)
        case "gumbel_softmax":
            return GumbelSoftmaxELBO(estimator.temperature, noise=noise, max_plate_nesting=1)
        case _:
            baseline = 0.0 if estimator.baseline is None else estimator.baseline
            return ScoreFunctionELBO(baseline, noise=noise, max_plate_nesting=1)


def rest_masses(ssvae: SSVAE, rows: Rows, candidates: tuple[int, ...]) -> Float[Tensor, " C"]:
    """The probability that q(y|x) leaves to all but the k most probable labels, for each k: the mean over real rows."""
    with torch.no_grad():
        q = label_posterior(ssvae, encoded(ssvae, rows)).probs.sort(-1, descending=True).values
        of_rows = torch.stack([q[:, k:].sum(-1) for k in candidates])
        return total(torch.where(rows.row_mask, of_rows, 0.0).sum(-1)) / total(rows.row_mask.sum()).clamp(min=1)


def inconsistency(ssvae: SSVAE, rows: Rows, noisy: Rows, term: Consistency) -> Float[Tensor, " B"]:
    """C of each row, 0 for filler rows: the cross entropy of q(y|x) with the step's noise from its target without.

    If it is aligned, the target is first multiplied by p / (sum of q(y|x) over the real rows + p), so that labels have
    about the shares of p, the mean of p(y) over these rows. It is as if one row more were known to be like p, so that
    a label that none of the rows has is not divided by 0.

    Args:
        ssvae: The model.
        rows: The rows as they were given.
        noisy: The same rows, encoded with the noise of the step.
        term: Says what the target is like.

    References:
        Xie et al. 2020, Unsupervised Data Augmentation for Consistency Training, equation 1 and section 2.3,
        https://arxiv.org/abs/1904.12848. The noise is dropout, as in the Pi-model of Laine & Aila 2017
        (https://arxiv.org/abs/1610.02242), and the symbols that the encoder is not shown. Alignment: Berthelot et al.
        2020, ReMixMatch, section 3.1, https://arxiv.org/abs/1911.09785 (there with the mean over the last 128 batches).
        The shift of labels: Menon et al. 2021, Long-tail learning via logit adjustment, section 4,
        https://arxiv.org/abs/2007.07314.
    """
    with torch.no_grad():
        source = ssvae.encode_source(rows.source)
        log_q = term.shifted(ssvae.classifier(ssvae.encode(rows.x, source)).logits)
        log_p = term.shifted(ssvae.label_prior(source).logits)
        target = _target(log_q, log_p, rows.row_mask, term)
    cross_entropy = -(target * term.shifted(label_posterior(ssvae, noisy).logits)).sum(-1)
    return torch.where(rows.row_mask, cross_entropy, 0.0)


def _target(
    log_q: Float[Tensor, "B K"], log_p: Float[Tensor, "*#B K"], row_mask: Bool[Tensor, " B"], term: Consistency
) -> Float[Tensor, "B K"]:
    """What q(y|x) is to be."""
    if term.aligned:
        log_q = log_q + _alignment(log_q, log_p, row_mask)
    log_r = (log_q / term.temperature).log_softmax(-1)
    return ((log_r + _alignment(log_r, log_p, row_mask)) if term.realigned else log_r).softmax(-1)


def _alignment(
    log_q_y: Float[Tensor, "B K"], log_p_y: Float[Tensor, "*#B K"], row_mask: Bool[Tensor, " B"]
) -> Float[Tensor, " K"]:
    """log(p / (sum of q + p)), p the mean of p(y) over the real rows, the sum over them as well."""
    real = row_mask[:, None]
    prior = total(torch.where(real, log_p_y.exp(), 0.0).sum(0)) / total(row_mask.sum()).clamp(min=1)
    prior = prior.clamp(min=torch.finfo(prior.dtype).tiny)  # of a label that is neither expected nor found
    return prior.log() - (total(torch.where(real, log_q_y.exp(), 0.0).sum(0)) + prior).log()
