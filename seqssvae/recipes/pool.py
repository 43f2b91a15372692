"""One prediction of several members: each is calibrated, and their probabilities are joined with fitted weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int

from seqssvae.config.checks import is_number
from seqssvae.recipes.rows import log_normalised

LEAST_LOG = -50.0
"""Where log-probabilities are cut: a member that is certain and wrong is wrong by no more than this."""
CONCENTRATION = 0.1
"""Of the Dirichlet prior of the weights: below 1, so that a member that adds nothing gets none."""
ITERATIONS = 200
PRECISION = 10.0
"""Of the normal prior of the powers, around equal ones that sum to 1: as much as some ten labelled rows say."""


class Pool(NamedTuple):
    """How predictions are joined, with `p_m(y|x) = softmax_y(log p_m(y|x) / temperature_m)` of each of M members.

    Without powers by their mixture, `sum_m weight_m p_m(y|x)`. With powers by the mean of the mixture and the
    normalised product `prod_m p_m(y|x)^power_m`. A mixture is robust: one member that is right is enough. A product
    lets evidence add up that members have from different parts of a row.

    Args:
        temperatures: Of each member.
        weights: Of each member in the mixture; they sum to 1.
        powers: Of each member in the product, none below 0.
    """

    temperatures: Float[np.ndarray, " M"]
    weights: Float[np.ndarray, " M"]
    powers: Float[np.ndarray, " M"] | None = None

    @property
    def shares(self) -> Float[np.ndarray, " M"]:
        """What each member contributes; the shares sum to 1."""
        if self.powers is None or not self.powers.any():
            return self.weights
        return (self.weights + self.powers / self.powers.sum()) / 2

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any], count: int) -> "Pool":
        """The pool of lists that a file holds.

        Args:
            stored: The lists, by name.
            count: M.

        Raises:
            ValueError: If they are not what a pool of so many members has.
        """
        bounds = {"temperatures": (1e-6, 1e6), "weights": (0, 1), "powers": (0, 1e6)}
        given = {name: stored.get(name) for name in cls._fields if name != "powers" or stored.get(name) is not None}
        for name, values in given.items():
            least, most = bounds[name]
            if not isinstance(values, list) or len(values) != count or not all(map(is_number, values)):
                raise ValueError(f"{name} must be {count} numbers.")
            if not all(least <= value <= most for value in values):
                raise ValueError(f"{name} must be numbers from {least:g} to {most:g}, not {values}.")
        pool = cls(**{name: np.array(values, float) for name, values in given.items()})
        if not np.isclose(pool.weights.sum(), 1):
            raise ValueError("the weights must sum to 1.")
        return pool

    def log_proba(self, members: Sequence[Float[np.ndarray, "N K"]]) -> Float[np.ndarray, "N K"]:
        """Join the log-probabilities of the members."""
        powers = np.zeros(len(self.weights)) if self.powers is None else self.powers
        joined, product = np.zeros(members[0].shape), np.zeros(members[0].shape)
        for scores, temperature, weight, power in zip(members, self.temperatures, self.weights, powers, strict=True):
            calibrated = calibrate(scores, temperature)
            joined += weight * np.exp(calibrated)
            product += power * calibrated
        if self.powers is not None:
            joined = (joined + np.exp(log_normalised(product))) / 2
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


def fit_mixture(members: Sequence[Float[np.ndarray, "N K"]], y: Int[np.ndarray, " N"]) -> Pool:
    """Fit temperatures and weights of a mixture on rows that no member has seen.

    The weights are found by EM with a Dirichlet prior (the linear opinion pool of Stone 1961, fitted as in Smyth and
    Wolpert 1999, Linearly combining density estimators via stacking).

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


def fit_pool(members: Sequence[Float[np.ndarray, "N K"]], y: Int[np.ndarray, " N"]) -> Pool:
    """Fit a mixture and a product on rows that no member has seen.

    The powers of the product (the logarithmic opinion pool: Genest and Zidek 1986, Combining probability distributions)
    are those with which the rows are most likely, under a normal prior around the geometric mean.

    Args:
        members: log p(y|x) of these rows, by member.
        y: Their labels.
    """
    mixture, count, rows = fit_mixture(members, y), len(members), np.arange(len(y))
    calibrated = np.stack([calibrate(scores, t) for scores, t in zip(members, mixture.temperatures, strict=True)])

    def loss(powers: Float[np.ndarray, " M"]) -> tuple[float, Float[np.ndarray, " M"]]:
        log_p, away = log_normalised(np.einsum("m,mnk->nk", powers, calibrated)), powers - 1 / count
        gradient = np.einsum("mnk,nk->m", calibrated, np.exp(log_p)) - calibrated[:, rows, y].sum(axis=1)
        return float(0.5 * PRECISION * away @ away - log_p[rows, y].sum()), gradient + PRECISION * away

    start, bounds = np.full(count, 1.0 / count), [(0.0, None)] * count
    minimum = scipy.optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return mixture._replace(powers=minimum.x)


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
