"""What is wrong with a trained model, each as a sentence with what to do about it, and only where it is true.

A figure from few rows is held against a model only where chance does not explain it: by three standard errors.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

from seqssvae.diagnosis.label_use import LabelSeparation, LabelUse
from seqssvae.diagnosis.latents import LatentUse

Level = Literal["warning", "note"]

IGNORED_SPREAD = 0.05
"""Nats a row: a decoder whose labels differ by less ignores them."""
DEAD_KL = 0.1
"""Nats a row: a z that holds less is as good as none, even where a unit counts as active."""
SWALLOWED_SHARE, SWALLOWED_EXCESS = 0.5, 0.25
"""One label swallows the others if it is predicted for a greater share of rows, by so much more than is due."""
LEAST_DUE = 10
"""Rows of a label from which its never being predicted says something."""
LEAST_LABELLED = 20
"""Labelled rows that have not been learned from, from which accuracy and calibration say something."""
LEAST_REFERENCE = 100
"""Rows over which another method must have been cross-validated to call labels random by that alone."""
MEMORISED_GAP = 0.25
"""How much less of other rows than of its training rows a classifier that has memorised these gets right."""
CALIBRATION_GAP = 0.05
ERRORS = 3.0
RANDOM_LABELS = "labels look random"
LEAST_CHANCE = 0.01
"""The probability of guessing as well from which labels count as guessed."""
SHOWN = 5
"""Most labels named in a sentence."""


class Finding(NamedTuple):
    """Something that a user should know of a model.

    Args:
        name: What it is, in a word or two.
        level: `warning` for what is wrong; `note` for what is good to know.
        sentence: What was found, with its figures.
        advice: What to do about it.
    """

    name: str
    level: Level
    sentence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.sentence} {self.advice}".strip()


def ignored_label(separation: LabelSeparation) -> Finding | None:
    """Whether the decoder ignores y."""
    if separation.spread >= IGNORED_SPREAD or len(separation.rows) < 2:
        return None
    return Finding(
        "decoder ignores y",
        "warning",
        f"The decoder ignores y: log p(x|y,z) of different labels differs by {separation.spread:.3f} nats a row.",
        "Give the decoder less context (model.decoder.context) or the label at its output "
        "(model.decoder.conditioning: output), or train longer.",
    )


def dead_latent(latent: LatentUse, beta: float, generator_is_sound: bool) -> Finding | None:
    """Whether z holds nothing: a fault, unless the generator has a good bound without it.

    Args:
        latent: What z holds.
        beta: The greatest weight of its KL in training.
        generator_is_sound: Whether the ELBO is better than that of simple models.
    """
    active = int(latent.active.sum())
    if active and latent.kl >= DEAD_KL:
        return None
    found = f"z is dead: its KL is {latent.kl:.3f} nats a row ({active} of {len(latent.active)} units are active)"
    if beta <= 1 and generator_is_sound:
        return Finding(
            "z is dead",
            "note",
            f"{found}, and the generator has a good bound without it.",
            "Where you want an embedding, take that of encode --features, or lower objective.beta.maximum.",
        )
    return Finding(
        "z is dead",
        "warning",
        f"{found}.",
        "Lower objective.beta.maximum, warm beta up over more steps (objective.beta.steps), or give the decoder less "
        "context (model.decoder.context).",
    )


def swallowing_label(use: LabelUse, names: Sequence[str]) -> Finding | None:
    """Whether one label is predicted for far more rows than is due."""
    top = int(use.predicted.argmax())
    share, due = use.predicted[top] / max(use.rows, 1), _due_shares(use)[top]
    error = np.sqrt(due * (1 - due) / max(use.rows, 1))
    if share <= SWALLOWED_SHARE or share - due <= max(SWALLOWED_EXCESS, ERRORS * error):
        return None
    return Finding(
        "one label swallows all",
        "warning",
        f"One label swallows the others: {_quoted(names[top])} is predicted for {share:.0%} of the rows, and {due:.0%} "
        "are due.",
        "Have labels weigh more (objective.alpha), align them with p(y) (objective.consistency.aligned), or give more "
        "labelled rows of the others.",
    )


def labels_never_predicted(use: LabelUse, names: Sequence[str]) -> Finding | None:
    """Which labels are predicted for no row although rows of theirs are due."""
    due = use.observed if use.labelled_rows == use.rows else _due_shares(use) * use.rows
    missing = np.flatnonzero((use.predicted == 0) & (due >= LEAST_DUE))
    if not len(missing):
        return None
    count = int((use.predicted > 0).sum())
    return Finding(
        "labels never predicted",
        "warning",
        f"Only {count} of {len(names)} labels are ever predicted; never are {_listed(missing, names)}.",
        "Give more labelled rows of them, or try recipe: auto, which weighs rare labels by cross-validation.",
    )


def labels_without_rows(labelled: Sequence[int] | np.ndarray, names: Sequence[str]) -> Finding | None:
    """Which labels were declared and have no labelled row to be learned from.

    Args:
        labelled: The number of labelled training rows of each label.
        names: Names of the labels.
    """
    missing = np.flatnonzero(np.asarray(labelled) == 0)
    if not len(missing) or not np.sum(labelled):
        return None
    return Finding(
        "labels without rows",
        "warning",
        f"{len(missing)} of {len(names)} labels have no labelled training row: {_listed(missing, names)}.",
        "Label rows of them, or leave them out of data.labels.",
    )


class CrossValidated(NamedTuple):
    """How well the labels of some rows can be told by another method, in cross-validation.

    Args:
        method: What it is.
        accuracy: The share of rows whose label it finds.
        rows: The number of rows.
        most_frequent: The share of the most frequent label.
        guessed: Whether guessing that label could have done as well.
    """

    method: str
    accuracy: float
    rows: int
    most_frequent: float
    guessed: bool


def random_labels(held_out: LabelUse, reference: CrossValidated | None) -> Finding | None:
    """Whether labels are guessed: because nothing tells them, or because the model does not see what does.

    Args:
        held_out: What is predicted of labelled rows that were not learned from.
        reference: How another method does; None where there are too few rows to say.
    """
    count = held_out.labelled_rows
    if reference is None or (count >= LEAST_LABELLED and not guessed(held_out)):
        return None
    if count < LEAST_LABELLED and reference.rows < LEAST_REFERENCE:
        return None
    accuracy = held_out.accuracy or 0.0
    ours = f"the model gets {accuracy:.0%} of {count} labelled rows right that it has not learned from"
    others = (
        f"{reference.method} gets {reference.accuracy:.0%} of {reference.rows} training rows in cross-validation, and "
        f"guessing the most frequent label {reference.most_frequent:.0%}"
    )
    both = f"{ours}, {others}" if count >= LEAST_LABELLED else others
    if reference.guessed:
        return Finding(
            RANDOM_LABELS,
            "warning",
            f"The labels look random: {both}.",
            "Check that labels belong to their rows: a shuffled column or a wrong separator does this.",
        )
    if count < LEAST_LABELLED:
        return None
    return Finding(
        "nothing learned of the labels",
        "warning",
        f"Nothing was learned of the labels: {both}.",
        "Train longer, raise objective.alpha, or use recipe: auto.",
    )


def memorised(held_out: LabelUse, training_accuracy: float | None, training_loss: float | None) -> Finding | None:
    """Whether the classifier knows its training rows by heart and little else.

    Args:
        held_out: What is predicted of rows that were not learned from.
        training_accuracy: The share of labelled training rows that it gets right; None where none were given.
        training_loss: Its -log q(y|x) on them in training, in nats; None where it is not known.
    """
    accuracy, count = held_out.accuracy, held_out.labelled_rows
    if accuracy is None or count < LEAST_LABELLED:
        return None
    if training_accuracy is None:
        if training_loss is None:
            return None
        training_accuracy = float(np.exp(-training_loss))  # not above the accuracy of a classifier that is sure
    gap, error = training_accuracy - accuracy, np.sqrt(accuracy * (1 - accuracy) / count)
    if gap <= max(MEMORISED_GAP, ERRORS * error):
        return None
    return Finding(
        "classifier memorised",
        "warning",
        f"The classifier memorised its training rows: it gets {training_accuracy:.0%} of them right, and "
        f"{accuracy:.0%} of {count} others.",
        "Use recipe: auto, more dropout (model.dropout), weight decay (optimizer.weight_decay), or more labelled rows.",
    )


def miscalibrated(confidence: float, held_out: LabelUse, calibration_error: float) -> Finding | None:
    """Whether probabilities of the most probable label are too high or too low.

    Args:
        confidence: Their mean over rows that were not learned from.
        held_out: What is predicted of these rows.
        calibration_error: The expected calibration error over them.
    """
    accuracy, count = held_out.accuracy, held_out.labelled_rows
    if accuracy is None or count < LEAST_LABELLED:
        return None
    gap, error = confidence - accuracy, np.sqrt(max(accuracy * (1 - accuracy), confidence * (1 - confidence)) / count)
    if abs(gap) <= max(CALIBRATION_GAP, ERRORS * error):
        return None
    return Finding(
        "overconfident" if gap > 0 else "underconfident",
        "warning",
        f"Its probabilities are too {'high' if gap > 0 else 'low'}: the most probable label is said to have "
        f"{confidence:.0%} and is right for {accuracy:.0%} of {count} rows (expected calibration error "
        f"{calibration_error:.3f}).",
        "Read them as an order, or use recipe: auto, whose probabilities are calibrated by cross-validation.",
    )


def unlabelled_rows(gain: tuple[float, float] | None) -> Finding | None:
    """Whether rows without label helped or hurt.

    Args:
        gain: Difference of accuracy to what labels alone give, in cross-validation, and its standard error; None where
            that was not trained.
    """
    if gain is None or not abs(gain[0]) > 2 * gain[1]:
        return None
    difference, error = gain
    figures = f"{abs(difference):.1%} of the labelled rows (standard error {error:.1%}, cross-validated)"
    if difference > 0:
        sentence = f"Rows without label help: more right, by {figures}, than by labels alone."
        return Finding("unlabelled rows help", "note", sentence, "")
    return Finding(
        "unlabelled rows hurt",
        "warning",
        f"Rows without label hurt: fewer right, by {figures}, than by labels alone.",
        "Check that they are of the same kind as the labelled rows; recipe: labels leaves them out.",
    )


def weak_generator(nats_per_symbol: float, baselines: Mapping[str, float]) -> Finding | None:
    """Whether the generator is worse than simple models of the symbols."""
    better = [f"{name}s ({value:.3f})" for name, value in baselines.items() if value > nats_per_symbol]
    if not better:
        return None
    return Finding(
        "generator is weak",
        "warning",
        f"The generator's bound, {nats_per_symbol:.3f} nats a symbol, is worse than that of {' and of '.join(better)}.",
        "Train longer before you generate with it or compare its likelihoods.",
    )


def guessed(use: LabelUse) -> bool:
    """Whether guessing the most frequent label could have done as well on enough labelled rows."""
    count = use.labelled_rows
    hits, most = int(use.hits.sum()), float(use.observed.max() / max(count, 1))
    return count >= LEAST_LABELLED and chance(hits, count, most) > LEAST_CHANCE


def chance(hits: int, rows: int, share: float) -> float:
    """The probability of at least so many hits where each row is one with this probability."""
    return float(scipy.stats.binom.sf(hits - 1, rows, share))


def _due_shares(use: LabelUse) -> np.ndarray:
    """The shares of labels that should be predicted: those of labelled rows where there are enough, or p(y)."""
    return use.observed / use.labelled_rows if use.labelled_rows >= LEAST_LABELLED else use.prior


def _listed(indices: np.ndarray, names: Sequence[str]) -> str:
    shown = [_quoted(names[index]) for index in indices[:SHOWN]]
    more = len(indices) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _quoted(name: str) -> str:
    return repr(name)
