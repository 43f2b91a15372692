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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float
from numpyro import distributions as dist

from seqssvae.backend import ELBOTerms
from seqssvae.config import GradientEstimatorName, PosteriorName
from seqssvae.data.vocabulary import PAD
from seqssvae_jax.elbo import LabelledELBO, PosteriorELBO, UnlabelledELBO, elbo_terms
from seqssvae_jax.gradient_estimators import GumbelSoftmaxELBO, ScoreFunctionELBO, SequentialELBO, TopKELBO
from seqssvae_jax.handlers import GradientShare, GradientWeights
from seqssvae_jax.label_elbo import LabelELBO
from seqssvae_jax.model import SSVAE
from seqssvae_jax.modules import Encoding, symbols_of
from seqssvae_jax.rows import Rows, each_particle
from seqssvae_jax.sharing import total


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
    temperature: Float[Array, ""] | float = 1.0
    baseline: Float[Array, " B"] | None = None
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

    weight: Float[Array, ""] | float = 1.0
    temperature: float = 0.5
    aligned: bool = False
    realigned: bool = False
    label_shift: Sequence[float] | None = None

    def shifted(self, logits: Float[Array, "*#B K"]) -> Float[Array, "*#B K"]:
        """Log-probabilities of labels as frequent as in rows without label."""
        if self.label_shift is None:
            return logits
        return jax.nn.log_softmax(logits + jnp.array(self.label_shift, logits.dtype))


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
    beta: Float[Array, ""] | float,
    generative: bool = True,
    label_gradient: float = 1.0,
    estimator: GradientEstimator = EXACT,
    consistency: Consistency | None = None,
    posterior: Posterior = AMORTISED,
) -> tuple[Float[Array, ""], tuple[ELBOTerms, ...]]:
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
    loss = jnp.zeros((), ssvae.precision)
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    real_rows = total(jnp.asarray(sum(rows.row_mask.sum() for rows in batches)))
    terms = []
    for batch in batches:
        rows = encoded(ssvae, batch)
        if generative:

            def of_draw(drawn: Rows) -> tuple[Array, ELBOTerms]:
                return negative_elbo(ssvae, drawn, beta, label_gradient, estimator, posterior)

            draws = each_particle(of_draw, rows, estimator.particles)
            negative, row_terms = jax.tree.map(lambda of_draws: of_draws.mean(0), draws)
            loss = loss + negative / real_rows
        else:
            row_terms = ELBOTerms(*jnp.zeros((6, len(rows.row_mask)), loss.dtype))
        if rows.y is not None:
            cross_entropy = jnp.where(rows.row_mask, -label_posterior(ssvae, rows).log_prob(rows.y), 0.0)
            loss = loss + alpha * cross_entropy.sum() / total(rows.row_mask.sum())
            row_terms = row_terms._replace(classification=cross_entropy)
        elif posterior.name != "amortised":
            if not generative:
                row_terms = row_terms._replace(distillation=_distillation(ssvae, rows, given_posterior(ssvae, rows)))
            loss = loss + posterior.distillation * row_terms.distillation.sum() / real_rows
        if rows.y is None and consistency is not None:
            inconsistent = inconsistency(ssvae, batch, rows, consistency)
            loss = loss + consistency.weight * inconsistent.sum() / total(rows.row_mask.sum())
            row_terms = row_terms._replace(consistency=inconsistent)
        terms.append(row_terms)
    return loss, tuple(terms)


def encoded(ssvae: SSVAE, rows: Rows) -> Rows:
    """The rows with what the encoders make of them and of their sources, once for all that reads it."""
    source = ssvae.encode_source(rows.source, rows.noise)
    return rows._replace(x=ssvae.encode(rows.x, source, rows.noise), source=source)


def label_posterior(ssvae: SSVAE, rows: Rows) -> dist.CategoricalLogits:
    """q(y|x) of rows that are encoded."""
    assert isinstance(rows.x, Encoding)
    return ssvae.classifier(rows.x)


def negative_elbo(
    ssvae: SSVAE,
    rows: Rows,
    beta: Float[Array, ""] | float,
    label_gradient: float = 1.0,
    estimator: GradientEstimator = EXACT,
    posterior: Posterior = AMORTISED,
) -> tuple[Float[Array, ""], ELBOTerms]:
    """`-sum L` or (an estimate of) `-sum U` over the rows of a batch, and the terms of each row."""
    guide = GradientShare(ssvae.guide, "y", label_gradient)
    nothing: tuple[Array, dict] = jax.random.key(0), {}  # noise is given, and so are the weights
    arguments = rows.x, rows.y, rows.source, beta, rows.noise
    if rows.y is None and estimator.name != "enumerate":
        estimate = _label_elbo(rows, estimator).estimate(*nothing, ssvae.model, guide, *arguments)
        terms = elbo_terms(estimate.model["x"], estimate.guide["z"] - estimate.model["z"], estimate.kl, rows.row_mask)
        return estimate.loss, terms
    if rows.y is None and posterior.name != "amortised":
        given = given_posterior(ssvae, rows).T if posterior.name == "given" else None
        fixed = PosteriorELBO(beta, _temperature(ssvae, rows, posterior), given)
        model = ssvae.model if given is None else GradientWeights(ssvae.model, given)
        loss, terms = fixed.loss_and_terms(rows.row_mask, *nothing, model, ssvae.guide, *arguments)
        return loss, terms._replace(distillation=_distillation(ssvae, rows, fixed.r.T))
    elbo = UnlabelledELBO() if rows.y is None else LabelledELBO()
    q_y = jnp.ones_like(rows.row_mask, ssvae.precision)
    if rows.y is None:
        q_y = jax.lax.stop_gradient(label_posterior(ssvae, rows).probs.T)
    return elbo.loss_and_terms(rows.row_mask, *nothing, GradientWeights(ssvae.model, q_y), guide, *arguments)


def given_posterior(ssvae: SSVAE, rows: Rows) -> Float[Array, "B K"]:
    """The posterior that came with the rows.

    Raises:
        ValueError: If none came.
    """
    if rows.posterior is None:
        raise ValueError("the rows have no posterior: give one as Batch.posterior.")
    return rows.posterior.astype(ssvae.precision)


def _distillation(ssvae: SSVAE, rows: Rows, r: Float[Array, "B K"]) -> Float[Array, " B"]:
    """The cross entropy of q(y|x) from a posterior, 0 for filler rows."""
    return jnp.where(rows.row_mask, -(r * label_posterior(ssvae, rows).logits).sum(-1), 0.0)


def _temperature(ssvae: SSVAE, rows: Rows, posterior: Posterior) -> Float[Array, " B"] | float:
    """The temperature of the exact posterior of each row."""
    if posterior.temperature is not None:
        return posterior.temperature
    lengths = (symbols_of(rows.x) != PAD).sum(1)
    return jnp.sqrt(jnp.maximum(lengths, 1).astype(ssvae.precision))


def _label_elbo(rows: Rows, estimator: GradientEstimator) -> LabelELBO:
    noise = rows.noise.get("y")
    match estimator.name:
        case "sequential":
            return SequentialELBO(max_plate_nesting=1)
        case "top_k":
            return TopKELBO(estimator.k, noise=noise, max_plate_nesting=1)
        case "gumbel_softmax":
            return GumbelSoftmaxELBO(estimator.temperature, noise=noise, max_plate_nesting=1)
        case _:
            baseline = 0.0 if estimator.baseline is None else estimator.baseline
            return ScoreFunctionELBO(baseline, noise=noise, max_plate_nesting=1)


def rest_masses(ssvae: SSVAE, rows: Rows, candidates: tuple[int, ...]) -> Float[Array, " C"]:
    """The probability that q(y|x) leaves to all but the k most probable labels, for each k: the mean over real rows."""
    q = -jnp.sort(-label_posterior(ssvae, encoded(ssvae, rows)).probs)
    of_rows = jnp.stack([q[:, k:].sum(-1) for k in candidates])
    sums = jnp.where(rows.row_mask, of_rows, 0.0).sum(-1)  # of several devices, each one's share of the mean
    return sums / jnp.maximum(total(rows.row_mask.sum()), 1)


def inconsistency(ssvae: SSVAE, rows: Rows, noisy: Rows, term: Consistency) -> Float[Array, " B"]:
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
    source = ssvae.encode_source(rows.source)
    log_q = term.shifted(ssvae.classifier(ssvae.encode(rows.x, source)).logits)
    log_p = term.shifted(ssvae.label_prior(source).logits)
    target = jax.lax.stop_gradient(_target(log_q, log_p, rows.row_mask, term))
    cross_entropy = -(target * term.shifted(label_posterior(ssvae, noisy).logits)).sum(-1)
    return jnp.where(rows.row_mask, cross_entropy, 0.0)


def _target(
    log_q: Float[Array, "B K"], log_p: Float[Array, "*#B K"], row_mask: Bool[Array, " B"], term: Consistency
) -> Float[Array, "B K"]:
    """What q(y|x) is to be."""
    if term.aligned:
        log_q = log_q + _alignment(log_q, log_p, row_mask)
    log_r = jax.nn.log_softmax(log_q / term.temperature)
    return jax.nn.softmax((log_r + _alignment(log_r, log_p, row_mask)) if term.realigned else log_r)


def _alignment(
    log_q_y: Float[Array, "B K"], log_p_y: Float[Array, "*#B K"], row_mask: Bool[Array, " B"]
) -> Float[Array, " K"]:
    """log(p / (sum of q + p)), p the mean of p(y) over the real rows, the sum over them as well."""
    real = row_mask[:, None]
    prior = total(jnp.where(real, jnp.exp(log_p_y), 0.0).sum(0)) / jnp.maximum(total(row_mask.sum()), 1)
    prior = jnp.maximum(prior, jnp.finfo(prior.dtype).tiny)  # of a label that is neither expected nor found
    return jnp.log(prior) - jnp.log(total(jnp.where(real, jnp.exp(log_q_y), 0.0).sum(0)) + prior)
