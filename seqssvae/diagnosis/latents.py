"""How much of a row the latent z holds: KL and activity of each unit, and mutual information."""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float

from seqssvae.backend import Latents

ACTIVE = 0.01
"""A unit whose posterior mean has a greater variance over rows is active."""
MOST_ELEMENTS = 10**7
"""Most densities computed at once."""


class LatentUse(NamedTuple):
    """What z holds of rows x.

    Args:
        unit_kl: KL(q(z|x,y) || p(z)) of each unit, averaged over q(y|x) and rows, in nats.
        unit_variance: The variance over rows of each unit's posterior mean, where p(z) has mean 0 and variance 1.
        mutual_information: I(x; z) under q, in nats; None of a model with sources, whose p(z|source,y) is each row's.
        rows: The number of rows, whose logarithm no estimate of the mutual information can exceed.
    """

    unit_kl: Float[np.ndarray, " Z"]
    unit_variance: Float[np.ndarray, " Z"]
    mutual_information: float | None
    rows: int

    @property
    def active(self) -> Bool[np.ndarray, " Z"]:
        """Which units are active (Burda et al. 2016, section 5.2)."""
        return self.unit_variance > ACTIVE

    @property
    def kl(self) -> float:
        """KL(q(z|x,y) || p(z)), in nats a row."""
        return float(self.unit_kl.sum())


def latent_use(latents: Latents, log_q_y: Float[np.ndarray, "N K"], seed: int, has_source: bool = False) -> LatentUse:
    """Measure what z holds of these rows.

    The mutual information is the mean over rows of log q(z|x) - log q(z) at one z drawn from q(z|x), where q(z) is the
    mean of q(z|x) over these rows, y summed out of both.

    Args:
        latents: q(z|x,y) and p(z) of every row and label, arrays of shape (N, K, Z).
        log_q_y: log q(y|x).
        seed: Seed of the draws of y and z.
        has_source: Whether p(z) is another one for each row.

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, section 5.2, https://arxiv.org/abs/1509.00519: active
        units. Hoffman and Johnson 2016, ELBO surgery, equation 8: the mutual information.
    """
    loc, scale, prior_loc, prior_scale = (np.asarray(part, float) for part in latents)
    q_y = np.exp(np.asarray(log_q_y, float))
    ratio, moved = scale / prior_scale, (loc - prior_loc) / prior_scale
    kl = 0.5 * (ratio**2 + moved**2 - 1) - np.log(ratio)
    return LatentUse(
        np.einsum("nk,nkz->z", q_y, kl) / len(loc),
        np.einsum("nk,nkz->nz", q_y, moved).var(axis=0),
        None if has_source else _mutual_information(loc, scale, q_y, np.random.default_rng(seed)),
        len(loc),
    )


def _mutual_information(
    loc: Float[np.ndarray, "N K Z"],
    scale: Float[np.ndarray, "N K Z"],
    q_y: Float[np.ndarray, "N K"],
    generator: np.random.Generator,
) -> float:
    count, label_count, size = loc.shape
    rows = np.arange(count)
    # floored, since sums of probabilities may be below 1 by rounding
    y = np.minimum((np.cumsum(q_y, axis=1) < generator.random((count, 1))).sum(axis=1), label_count - 1)
    z = loc[rows, y] + scale[rows, y] * generator.normal(size=(count, size))
    with np.errstate(divide="ignore"):
        log_q_y = np.log(q_y)
    own, every = np.empty(count), np.empty(count)
    step = max(1, MOST_ELEMENTS // loc.size)
    for first in range(0, count, step):
        part = slice(first, first + step)
        standard = (z[part, None, None] - loc) / scale
        density = -0.5 * np.square(standard).sum(axis=-1) - np.log(scale).sum(axis=-1)
        of_rows = scipy.special.logsumexp(density + log_q_y, axis=2)
        own[part] = of_rows[np.arange(len(of_rows)), rows[part]]
        every[part] = scipy.special.logsumexp(of_rows, axis=1) - np.log(count)
    return max(0.0, float(np.mean(own - every)))
