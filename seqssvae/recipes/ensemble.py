"""Several members that learned from the same rows, and one prediction of them all."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from seqssvae.backend import Dimensions
from seqssvae.config.checks import is_number
from seqssvae.data.ragged import RaggedArray
from seqssvae.errors import RunError
from seqssvae.inference.agreement import Agreement, agreement
from seqssvae.recipes.bag import Bag
from seqssvae.recipes.linear import Linear
from seqssvae.recipes.markov import Markov
from seqssvae.recipes.network import BuildBackend, Networks, Promising
from seqssvae.recipes.pool import Pool, calibrate, fit_mixture, fit_pool, pooled_out_of_fold
from seqssvae.recipes.positional import Positional
from seqssvae.recipes.profile import Profile
from seqssvae.recipes.rows import Learned, LearningRows
from seqssvae.recipes.shares import unlabelled_shares

FORMAT = 2
LEAST_WEIGHT = 0.05
"""A member whose share in the pool would be less than this is left out, and need not be computed."""
MOST_ROWS = 4000
"""Rows without label by which the shares of their labels are estimated."""


class Member(Protocol):
    """What predicts the label of a row."""

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x)."""
        ...

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        ...


class Trial(NamedTuple):
    """How a candidate did in cross-validation over the labelled rows.

    Args:
        name: What it is.
        learns_from: Which rows it learns from.
        accuracy: The share of held-out rows whose most probable label is their label.
        standard_error: Of the accuracy.
        loss: The mean of -log p(y|x) of held-out rows, calibrated on these rows themselves.
        weight: Its share in the ensemble; None where it is no member.
        seconds: The time it took, the training of what is kept included.
    """

    name: str
    learns_from: str
    accuracy: float
    standard_error: float
    loss: float
    weight: float | None
    seconds: float


class Ensemble(NamedTuple):
    """Members and how their predictions are joined.

    Args:
        members: By name.
        pool: Their temperatures, weights and powers.
        label_count: K.
        trials: How each candidate did, and last the ensemble.
        chance: The probability that guessing the most frequent label does as well as the ensemble did.
        agreement: How far it agrees with labels in cross-validation; None of a run of an earlier version.
        unlabelled_gain: By how much the ensemble's accuracy is above that of the members that learn from labels alone,
            joined, and the standard error of the difference; None where it is not known.
    """

    members: Mapping[str, Member]
    pool: Pool
    label_count: int
    trials: Sequence[Trial]
    chance: float
    agreement: Agreement | None = None
    unlabelled_gain: tuple[float, float] | None = None

    @property
    def learned_nothing(self) -> bool:
        """Whether guessing could have done as well."""
        return self.chance > 0.05

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x) by all members together."""
        return self.pool.log_proba([member.log_proba(rows) for member in self.members.values()])

    def to_stored(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The ensemble as plain values and arrays by name."""
        arrays = {
            f"{name}.{key}": array for name, member in self.members.items() for key, array in member.to_arrays().items()
        }
        networks = [member for member in self.members.values() if isinstance(member, Networks)]
        settings = {
            "format": FORMAT,
            "members": list(self.members),
            "temperatures": self.pool.temperatures.tolist(),
            "weights": self.pool.weights.tolist(),
            "powers": None if self.pool.powers is None else self.pool.powers.tolist(),
            "label_count": self.label_count,
            "trials": [trial._asdict() for trial in self.trials],
            "chance": self.chance,
            "agreement": list(self.agreement) if self.agreement is not None and self.agreement.known else None,
            "unlabelled_gain": self.unlabelled_gain,
            "network": networks[0].settings() if networks else None,
        }
        return settings, arrays

    @classmethod
    def from_stored(
        cls,
        settings: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        dimensions: Dimensions,
        build: BuildBackend,
    ) -> "Ensemble":
        """The ensemble that these values and arrays are of.

        Args:
            settings: The values.
            arrays: The arrays.
            dimensions: Of the model that it is to predict beside.
            build: Builds the twin of members that are networks.

        Raises:
            RunError: If they are not of an ensemble.
        """
        try:
            if settings["format"] not in range(1, FORMAT + 1):
                raise ValueError(f"it is of format {settings['format']}, and this version reads {FORMAT}")
            count = len(dimensions.label_prior)
            if settings["label_count"] != count:
                raise ValueError(f"it is of {settings['label_count']} labels, not {count}")
            members = {name: _member(name, settings, arrays, dimensions, build) for name in settings["members"]}
            pool = Pool.from_stored(settings, len(members))
            trials = [_stored_trial(trial) for trial in settings["trials"]]
            if not trials:
                raise ValueError("there must be trials")
            gain = settings.get("unlabelled_gain")
            difference = None if gain is None else (float(gain[0]), float(gain[1]))
            stored = settings.get("agreement")
            agrees = None if stored is None else Agreement(int(stored[0]), float(stored[1]), float(stored[2]))
            return cls(members, pool, count, trials, float(settings["chance"]), agrees, difference)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise RunError(f"The ensemble cannot be read: {error!r}.") from error


LINEAR, POSITIONAL, BAG, MARKOV, PROFILE, NETWORK = "linear", "positional", "bag", "markov", "profile", "network"
ENSEMBLE = "ensemble"
"""Names of the members, and of all of them together."""
FROM_LABELS = LINEAR, POSITIONAL
"""Members that learn from labelled rows alone."""
KINDS: Mapping[str, Any] = {LINEAR: Linear, POSITIONAL: Positional, BAG: Bag, MARKOV: Markov, PROFILE: Profile}
"""The members that are no networks."""
GIVEN_UP = "all rows; given up after two folds"

TrainNetworks = Callable[[Float[np.ndarray, " K"], Promising], Learned | None]
"""Trains the networks, given the shares of the labels among rows without label, and what tells whether to go on."""


def learn_ensemble(rows: LearningRows, train: TrainNetworks | None, report: Callable[[str], None]) -> Ensemble:
    """Cross-validate all candidates, and join those that are of use.

    Args:
        rows: The rows to learn from.
        train: Trains the networks; None for an ensemble without.
        report: Called with the name of each candidate before it learns.
    """
    learned: dict[str, Learned] = {}
    seconds: dict[str, float] = {}
    given_up: list[Trial] = []

    def keep(name: str, learn: Callable[[], Learned | None]) -> None:
        report(name)
        began = time.perf_counter()
        result = learn()
        seconds[name] = time.perf_counter() - began
        if result is not None:
            learned[name] = result

    keep(LINEAR, lambda: Linear.learn(rows))
    linear = learned[LINEAR]
    keep(POSITIONAL, lambda: Positional.learn(rows))
    unlabelled = linear.member.log_proba(rows.unlabelled.take(np.arange(min(len(rows.unlabelled), MOST_ROWS))))
    shares = unlabelled_shares(unlabelled, linear.out_of_fold, rows.y, rows.label_shares)
    if len(rows.unlabelled):
        keep(BAG, lambda: Bag.learn(rows, shares))
        keep(MARKOV, lambda: Markov.learn(rows, shares))
        keep(PROFILE, lambda: Profile.learn(rows, shares))

    def promising(out_of_fold: Float[np.ndarray, "M K"], seen: Int[np.ndarray, " M"]) -> bool:
        """Whether a candidate adds to the others, or is not clearly worse than the best of them."""
        others = [one.out_of_fold[seen] for one in learned.values()]
        hits = [scores.argmax(axis=1) == rows.y[seen] for scores in (*others, out_of_fold)]
        behind = max((hit.astype(float) - hits[-1] for hit in hits[:-1]), key=lambda gap: float(gap.mean()))
        clearly = behind.mean() > 2 * behind.std() / np.sqrt(len(seen))
        pool = fit_mixture([*others, out_of_fold], rows.y[seen])
        go_on = not clearly or bool(pool.weights[-1] >= LEAST_WEIGHT)
        if not go_on:
            given_up.append(_trial(NETWORK, calibrate(out_of_fold, pool.temperatures[-1]), rows.y[seen], 0.0, 0.0))
        return go_on

    if train is not None:
        keep(NETWORK, lambda: train(shares, promising))
    dropped = [one._replace(learns_from=GIVEN_UP, seconds=seconds[one.name]) for one in given_up]
    return _joined(rows, learned, seconds, dropped)


def _joined(
    rows: LearningRows, learned: dict[str, Learned], seconds: dict[str, float], dropped: Sequence[Trial]
) -> Ensemble:
    scores = {name: one.out_of_fold for name, one in learned.items()}
    pool = fit_pool(list(scores.values()), rows.y)
    kept = [name for name, share in zip(scores, pool.shares, strict=True) if share >= LEAST_WEIGHT]
    weights = dict(zip(scores, pool.shares, strict=True))
    trials = [
        _trial(
            name, calibrate(scores[name], temperature), rows.y, weights[name] if name in kept else 0.0, seconds[name]
        )
        for name, temperature in zip(scores, pool.temperatures, strict=True)
    ]
    trials += dropped
    pool = fit_pool([scores[name] for name in kept], rows.y)
    joined = pooled_out_of_fold(list(scores.values()), rows.y, rows.folds)
    trials.append(_trial(ENSEMBLE, joined, rows.y, None, sum(seconds.values())))
    hits = int(np.sum(joined.argmax(axis=1) == rows.y))
    most = float(np.bincount(rows.y).max() / len(rows.y))
    chance = float(scipy.stats.binom.sf(hits - 1, len(rows.y), most))
    gain = None
    if len(rows.unlabelled):
        from_labels = [scores[name] for name in FROM_LABELS]
        alone = pooled_out_of_fold(from_labels, rows.y, rows.folds).argmax(axis=1) == rows.y
        moved = (joined.argmax(axis=1) == rows.y).astype(float) - alone
        gain = float(moved.mean()), float(moved.std() / np.sqrt(len(moved)))
    members = {name: learned[name].member for name in kept}
    observed, given = (np.bincount(part, minlength=rows.label_count) for part in (rows.y, joined.argmax(axis=1)))
    return Ensemble(members, pool, rows.label_count, trials, chance, agreement(observed, given, hits), gain)


def _trial(
    name: str, log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"], weight: float | None, seconds: float
) -> Trial:
    accuracy = float(np.mean(log_p.argmax(axis=1) == y))
    error = float(np.sqrt(accuracy * (1 - accuracy) / len(y)))
    loss = float(-np.mean(log_p[np.arange(len(y)), y]))
    learns_from = "labelled rows" if name in FROM_LABELS else "all rows"
    return Trial(name, learns_from, accuracy, error, loss, None if weight is None else float(weight), seconds)


def _stored_trial(stored: Mapping[str, Any]) -> Trial:
    trial = Trial(**stored)
    numbers = (trial.accuracy, trial.standard_error, trial.loss, trial.weight or 0.0, trial.seconds)
    if not all(isinstance(text, str) for text in (trial.name, trial.learns_from)) or not all(map(is_number, numbers)):
        raise TypeError(f"a trial is two texts and five numbers, not {stored}")
    return trial


def _member(
    name: str,
    settings: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    dimensions: Dimensions,
    build: BuildBackend,
) -> Member:
    own = {key.partition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{name}.")}
    if name == NETWORK:
        return Networks.from_arrays(own, settings["network"], dimensions, build)
    member: Member = KINDS[name].from_arrays(own)
    every_symbol = np.arange(dimensions.vocabulary_size, dtype=np.int32)
    log_p = member.log_proba(RaggedArray.from_lengths(every_symbol, np.array([len(every_symbol)])))
    if log_p.shape != (1, len(dimensions.label_prior)) or not np.isfinite(log_p).all():
        raise ValueError(f"the arrays of {name} are not of {len(dimensions.label_prior)} labels")
    return member
