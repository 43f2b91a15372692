"""The objectives as NumPyro ELBO objects that also keep the terms of the ELBO apart.

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO
from numpyro.primitives import Messenger

from seqssvae.backend import ELBOTerms
from seqssvae.config import EstimatorName
from seqssvae_jax.estimators import GumbelSoftmaxELBO, LabelELBO, ScoreFunctionELBO, SequentialELBO, TopKELBO
from seqssvae_jax.model import SSVAE
from seqssvae_jax.modules import Encoding, Noise


class Rows(NamedTuple):
    """One batch on the device, and its noise.

    Args:
        x: Symbol ids.
        y: Label ids, or None where they are missing.
        row_mask: True for real rows.
        noise: As in `seqssvae.noise`.
        source: Symbol ids of the sources, or what is made of them; None where there are none.
    """

    x: Int[Array, "B T"]
    y: Int[Array, "B"] | None
    row_mask: Bool[Array, "B"]
    noise: Noise
    source: Int[Array, "B S"] | Encoding | None = None


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
    temperature: Float[Array, ""] | float = 1.0
    baseline: Float[Array, "B"] | None = None
    particles: int = 1


EXACT = Estimator()


class Consistency(NamedTuple):
    """The term that q(y|x) be the same with dropout as without.

    Args:
        weight: Of its mean over rows.
        temperature: Below 1, what q(y|x) is to be like is more certain than q(y|x).
        aligned: Whether what q(y|x) is to be like has the labels' shares of p(y) over the rows.
    """

    weight: Float[Array, ""] | float = 1.0
    temperature: float = 0.5
    aligned: bool = False


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
        return loss, _elbo_terms(log_p_x, log_q_z - log_p_z, -log_p_y)


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
        return loss, _elbo_terms(reconstruction, kl_z, kl_y)


def _elbo_terms(reconstruction: Array, kl_z: Array, kl_y: Array) -> ELBOTerms:
    """The ELBO's terms, beside which there are no others yet."""
    none = jnp.zeros_like(kl_y)
    return ELBOTerms(reconstruction, kl_z, kl_y, none, none)


def negative_elbo(
    ssvae: SSVAE,
    rows: Rows,
    beta: Float[Array, ""] | float,
    features: tuple[Array, ...],
    label_gradient: float = 1.0,
    estimator: Estimator = EXACT,
) -> tuple[Float[Array, ""], ELBOTerms]:
    """`-sum L` or (an estimate of) `-sum U` over the rows of a batch, and the terms of each row."""
    if rows.y is None and estimator.name != "enumerate":
        return _estimated(ssvae, rows, beta, features, label_gradient, estimator)
    elbo = UnlabelledELBO() if rows.y is None else LabelledELBO()
    weights = _weights(ssvae, rows, features)
    arguments = rows.x, rows.y, rows.row_mask, beta, rows.noise, features, label_gradient, weights, rows.source
    return elbo.loss_and_terms(jax.random.key(0), {}, ssvae.model, ssvae.guide, *arguments)  # noise is given


def _estimated(
    ssvae: SSVAE,
    rows: Rows,
    beta: Float[Array, ""] | float,
    features: tuple[Array, ...],
    label_gradient: float,
    estimator: Estimator,
) -> tuple[Float[Array, ""], ELBOTerms]:
    noise, weights = rows.noise.get("y"), jnp.ones_like(rows.row_mask, ssvae.precision)
    elbo: LabelELBO
    match estimator.name:
        case "sequential":
            elbo = SequentialELBO()
            weights = _weights(ssvae, rows, features)
        case "top_k":
            assert noise is not None, "labels are drawn by the noise y"
            elbo = TopKELBO(estimator.k, noise=noise)
            log_q = jax.lax.stop_gradient(ssvae.classifier(features).logits)
            weights = elbo.weights(log_q, elbo.labels(log_q, noise))
        case "gumbel_softmax":
            elbo = GumbelSoftmaxELBO(estimator.temperature, noise=noise)
        case _:
            elbo = ScoreFunctionELBO(0.0 if estimator.baseline is None else estimator.baseline, noise=noise)
    arguments = rows.x, None, rows.row_mask, beta, rows.noise, features, label_gradient, weights, rows.source
    found = elbo.estimate(jax.random.key(0), {}, ssvae.model, ssvae.guide, *arguments)
    terms = _elbo_terms(found.model["x"], found.guide["z"] - found.model["z"], found.kl)
    return found.loss, ELBOTerms(*(jnp.where(rows.row_mask, term, 0.0) for term in terms))


def _weights(ssvae: SSVAE, rows: Rows, features: tuple[Array, ...]) -> Float[Array, "*B"]:
    """By what the negative ELBO multiplies log p(x|y,z), but for the sign."""
    if rows.y is not None:
        return jnp.ones_like(rows.y, ssvae.precision)
    return jax.lax.stop_gradient(ssvae.classifier(features).probs.T)


def rest_masses(ssvae: SSVAE, rows: Rows, candidates: tuple[int, ...]) -> Float[Array, "C"]:
    """The probability that q(y|x) leaves to all but the k most probable labels, for each k: the mean over real rows."""
    q = -jnp.sort(-ssvae.classifier(ssvae.read(rows.x, rows.source, rows.noise)).probs)
    of_rows = jnp.stack([q[:, k:].sum(-1) for k in candidates])
    return jnp.where(rows.row_mask, of_rows, 0.0).sum(-1) / jnp.maximum(rows.row_mask.sum(), 1)


def encoded(ssvae: SSVAE, rows: Rows) -> tuple[Rows, tuple[Array, ...]]:
    """The rows with what is made of their sources, if they have any, and their features."""
    rows = rows._replace(source=ssvae.encode_source(rows.source, rows.noise))
    return rows, ssvae.read(rows.x, rows.source, rows.noise)


def each_particle(function: Any, rows: Rows, count: int) -> Any:
    """A function of the rows with the noise of one draw of z and y after the other: its results, stacked."""
    if count == 1:
        return jax.tree.map(lambda part: part[None], function(rows))

    def one(_: None, noise: Noise) -> tuple[None, Any]:
        return None, function(rows._replace(noise={**rows.noise, **noise}))

    return jax.lax.scan(one, None, {name: rows.noise[name] for name in ("z", "y") if name in rows.noise})[1]


def evaluate(ssvae: SSVAE, rows: Rows) -> tuple[ELBOTerms, Float[Array, "B K"]]:
    """Terms of each row at beta 1, y summed out, and log q(y|x)."""
    rows, features = encoded(ssvae, rows)
    _, terms = negative_elbo(ssvae, rows._replace(y=None), 1.0, features)
    return terms, ssvae.classifier(features).logits


def importance_bound(ssvae: SSVAE, rows: Rows, count: int) -> Float[Array, "B"]:
    """A lower bound of log p(x) of each row, from so many draws of z, whose noise has a dimension in front if above 1.

    `log( sum_y p(y) / P * sum_p p(x|y,z_p) p(z_p) / q(z_p|x,y) )`: y is summed out, z is drawn from q(z|x,y).

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519.
    """
    rows, features = encoded(ssvae, rows)

    def log_weights(drawn: Rows) -> Float[Array, "B"]:
        arguments = rows.x, None, rows.row_mask, 1.0, drawn.noise, features, 1.0, None, rows.source
        found = UnlabelledELBO().log_weights(jax.random.key(0), {}, ssvae.model, ssvae.guide, *arguments)
        return jax.nn.logsumexp(found, 0)

    total = jax.nn.logsumexp(each_particle(log_weights, rows, count), 0)
    return jnp.where(rows.row_mask, total - math.log(count), 0.0)


def inconsistency(
    ssvae: SSVAE, rows: Rows, features: tuple[Array, ...], temperature: float, aligned: bool = False
) -> Float[Array, "B"]:
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
    source = ssvae.encode_source(rows.source)
    certain = ssvae.classifier(ssvae.read(rows.x, source)).logits
    if aligned:
        certain = certain + _alignment(certain, ssvae.label_prior(source).logits, rows.row_mask)
    wanted = jax.lax.stop_gradient(jax.nn.softmax(certain / temperature))
    found = -(wanted * ssvae.classifier(features).logits).sum(-1)
    return jnp.where(rows.row_mask, found, 0.0)


def _alignment(
    log_q_y: Float[Array, "B K"], log_p_y: Float[Array, "*#B K"], row_mask: Bool[Array, "B"]
) -> Float[Array, "K"]:
    """log(p / (sum of q + p)), p the mean of p(y) over the real rows, the sum over them as well."""
    real = row_mask[:, None]
    prior = jnp.where(real, jnp.exp(log_p_y), 0.0).sum(0) / jnp.maximum(row_mask.sum(), 1)
    prior = jnp.maximum(prior, jnp.finfo(prior.dtype).tiny)  # of a label that is neither expected nor found
    return jnp.log(prior) - jnp.log(jnp.where(real, jnp.exp(log_q_y), 0.0).sum(0) + prior)


def objective(
    ssvae: SSVAE,
    labelled: Rows | None,
    unlabelled: Rows | None,
    alpha: float,
    beta: Float[Array, ""] | float,
    generative: bool = True,
    label_gradient: float = 1.0,
    estimator: Estimator = EXACT,
    consistency: Consistency | None = None,
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
        estimator: What is done with a missing label.
        consistency: A further term on rows whose label is missing; None: there is none.
    """
    loss = jnp.zeros((), ssvae.precision)
    batches = [rows for rows in (labelled, unlabelled) if rows is not None]
    real_rows = sum(rows.row_mask.sum() for rows in batches)
    terms = []
    for batch in batches:
        rows, features = encoded(ssvae, batch)
        if generative:

            def of_draw(drawn: Rows, features: tuple[Array, ...] = features) -> tuple[Array, ELBOTerms]:
                return negative_elbo(ssvae, drawn, beta, features, label_gradient, estimator)

            found = each_particle(of_draw, rows, estimator.particles)
            negative, row_terms = jax.tree.map(lambda of_draws: of_draws.mean(0), found)
            loss = loss + negative / real_rows
        else:
            row_terms = ELBOTerms(*jnp.zeros((5, len(rows.x)), loss.dtype))
        if rows.y is not None:
            surprise = jnp.where(rows.row_mask, -ssvae.classifier(features).log_prob(rows.y), 0.0)
            loss = loss + (alpha if generative else 1.0) * surprise.sum() / rows.row_mask.sum()
            row_terms = row_terms._replace(classification=surprise)
        elif consistency is not None:
            disagreement = inconsistency(ssvae, batch, features, consistency.temperature, consistency.aligned)
            loss = loss + consistency.weight * disagreement.sum() / rows.row_mask.sum()
            row_terms = row_terms._replace(consistency=disagreement)
        terms.append(row_terms)
    return loss, tuple(terms)
