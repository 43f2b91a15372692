"""One prediction of several members: each is calibrated, and their probabilities are averaged with fitted weights."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int

from seqssvae.recipes.rows import log_normalised

LEAST_LOG = -50.0
"""Where log-probabilities are cut: a member that is certain and wrong is wrong by no more than this."""
CONCENTRATION = 0.1
"""Of the Dirichlet prior of the weights: below 1, so that a member that adds nothing gets none."""
ITERATIONS = 200


class Pool(NamedTuple):
    """How predictions are joined: `p(y|x) = sum_m weight_m softmax_y(log p_m(y|x) / temperature_m)`.

    Args:
        temperatures: Of each of M members.
        weights: Of each member; they sum to 1.
    """

    temperatures: Float[np.ndarray, " M"]
    weights: Float[np.ndarray, " M"]

    def log_proba(self, members: Sequence[Float[np.ndarray, "N K"]]) -> Float[np.ndarray, "N K"]:
        """Join the log-probabilities of the members."""
        calibrated = (
            np.exp(calibrate(scores, temperature))
            for scores, temperature in zip(members, self.temperatures, strict=True)
        )
        joined = sum(weight * p for weight, p in zip(self.weights, calibrated, strict=True))
        return np.log(np.maximum(joined, np.exp(LEAST_LOG)))


def calibrate(scores: Float[np.ndarray, "N K"], temperature: float) -> Float[np.ndarray, "N K"]:
    """Divide log-probabilities by a temperature and normalise them again (Guo et al. 2017, section 4.2)."""
    return log_normalised(np.maximum(log_normalised(scores.astype(float)), LEAST_LOG) / temperature)


def fit_temperature(scores: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"], prior_weight: float = 1.0) -> float:
    """Find the temperature with which rows that a member has not seen are most likely.

    Args:
        scores: log p(y|x) of these rows.
        y: Their labels.
        prior_weight: Precision of the normal prior of the logarithm of the temperature.
    """
    rows = np.arange(len(y))

    def loss(log_power: float) -> float:
        likelihood = calibrate(scores, float(np.exp(-log_power)))[rows, y].sum()
        return float(-likelihood + 0.5 * prior_weight * log_power**2)

    return float(np.exp(-scipy.optimize.minimize_scalar(loss, bounds=(-5.0, 3.0), method="bounded").x))


def fit_pool(members: Sequence[Float[np.ndarray, "N K"]], y: Int[np.ndarray, " N"]) -> Pool:
    """Fit temperatures and weights on rows that no member has seen.

    The weights are those of a mixture, by EM with a Dirichlet prior (the linear opinion pool of Stone 1961, fitted as
    in Smyth and Wolpert 1999, Linearly combining density estimators via stacking).

    Args:
        members: log p(y|x) of these rows, by member.
        y: Their labels.
    """
    count = len(members)
    temperatures = np.array([fit_temperature(scores, y) for scores in members])
    calibrated = [calibrate(scores, t) for scores, t in zip(members, temperatures, strict=True)]
    likelihood = np.exp([scores[np.arange(len(y)), y] for scores in calibrated])
    weights = np.full(count, 1.0 / count)
    for _ in range(ITERATIONS):
        shares = weights[:, None] * likelihood
        shares /= shares.sum(axis=0)
        weights = (shares.sum(axis=1) + CONCENTRATION) / (len(y) + CONCENTRATION * count)
    return Pool(temperatures, weights)


def pooled_out_of_fold(
    members: Sequence[Float[np.ndarray, "N K"]], y: Int[np.ndarray, " N"], folds: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "N K"]:
    """What a pool predicts for rows that neither its members nor its own weights have seen.

    Args:
        members: log p(y|x) of each row, by members that learned without the row's fold.
        y: Labels.
        folds: The number of each row's fold.
    """
    joined = np.zeros_like(members[0], dtype=float)
    for fold in np.unique(folds):
        held_out, others = folds == fold, folds != fold
        pool = fit_pool([scores[others] for scores in members], y[others])
        joined[held_out] = pool.log_proba([scores[held_out] for scores in members])
    return joined
