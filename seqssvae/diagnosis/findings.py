"""What is wrong with a trained model, each as a sentence with what to do about it, and only where it is true.

A figure is held against a model only where chance does not explain it: beyond three standard errors, and not from fewer
than 20 rows (the generator: 10). Of labels, rows are what is counted that have one and were not learned from.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from seqssvae.diagnosis.label_use import LabelSeparation, LabelUse
from seqssvae.diagnosis.latents import LatentUse
from seqssvae.inference.agreement import Agreement

Level = Literal["warning", "note"]

IGNORED_SPREAD = 0.1
"""Nats a row between the most and the least likely label: a decoder whose labels differ by less ignores them."""
DEAD_KL = 0.1
"""Nats a row: a z that holds less is as good as none, even where a unit counts as active."""
SWALLOWED_SHARE, SWALLOWED_EXCESS = 0.5, 0.25
"""One label swallows the others if it is predicted for a greater share of rows, by so much more than is due."""
LEAST_ROWS = 20
"""Rows from which accuracy, calibration, z and generator are judged."""
LEAST_OF_LABEL = 10
"""Rows of a label from which its never being predicted says something, and training rows from which accuracy does."""
LEAST_COMPARED = 10
"""Rows from which the generator is compared with simple models, row by row."""
MEMORISED_GAP = 0.25
"""How much less of other rows than of its training rows a classifier that has memorised these gets right."""
CALIBRATION_GAP = 0.05
ERRORS = 3.0
RANDOM_LABELS = "labels look random"
MISCALIBRATED = "overconfident", "underconfident"
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
        f"The decoder ignores y: between labels, log p(x|y,z) differs by {separation.spread:.3f} nats a row at most.",
        "Train longer, or give the decoder the label at its output and less context (model.decoder.conditioning: "
        "output, model.decoder.context).",
    )


def dead_latent(latent: LatentUse, beta: float, generator_is_sound: bool) -> Finding | None:
    """Whether z holds nothing: a fault, unless the generator has a good bound without it.

    Args:
        latent: What z holds.
        beta: The greatest weight of its KL in training.
        generator_is_sound: Whether the ELBO is better than that of simple models.
    """
    active = int(latent.active.sum())
    if latent.rows < LEAST_ROWS or (active and latent.kl >= DEAD_KL):
        return None
    figures = f"z is dead: {active} of {len(latent.active)} units are active, and its KL is {latent.kl:.3f} nats a row"
    if beta <= 1 and generator_is_sound:
        return Finding(
            "z is dead",
            "note",
            f"{figures}; the generator has a good bound without it.",
            "Where you want an embedding, take that of encode --features, or lower objective.beta.maximum.",
        )
    return Finding(
        "z is dead",
        "warning",
        f"{figures}.",
        "Lower objective.beta.maximum, warm beta up over more steps (objective.beta.steps), or give the decoder less "
        "context (model.decoder.context).",
    )


def swallowing_label(held_out: LabelUse, every: LabelUse, names: Sequence[str]) -> Finding | None:
    """Whether one label is predicted for far more rows than are its own.

    Args:
        held_out: What is predicted of labelled rows that were not learned from.
        every: What is predicted of all rows, which decides where too few are labelled: then it is but a note.
        names: Names of the labels.
    """
    labelled = held_out.labelled_rows >= LEAST_ROWS
    use = held_out if labelled else every
    if use.rows < LEAST_ROWS:
        return None
    top = int(use.predicted.argmax())
    due = float(use.observed[top] / use.labelled_rows if labelled else use.prior[top])
    share, error = use.predicted[top] / use.rows, np.sqrt(due * (1 - due) / use.rows)
    if share <= SWALLOWED_SHARE or share - due <= max(SWALLOWED_EXCESS, ERRORS * error):
        return None
    compared = f"{due:.0%} of them have it" if labelled else f"p(y) is {due:.0%}"
    rows = f"{use.rows} {'labelled ' if labelled else ''}rows"
    return Finding(
        "one label swallows all",
        "warning" if labelled else "note",
        f"One label swallows the others: {names[top]!r} is predicted for {share:.0%} of {rows}, and {compared}.",
        "Have labels weigh more (objective.alpha), align them with p(y) (objective.consistency.aligned), or give more "
        "labelled rows of the others."
        if labelled
        else "Give labelled rows to know whether these rows are of that label.",
    )


def labels_never_predicted(held_out: LabelUse, every: LabelUse, names: Sequence[str]) -> Finding | None:
    """Which labels are predicted for no row although there are rows of theirs.

    Args:
        held_out: What is predicted of labelled rows that were not learned from.
        every: What is predicted of all rows.
        names: Names of the labels.
    """
    missing = np.flatnonzero((every.predicted == 0) & (held_out.observed >= LEAST_OF_LABEL))
    count = int((every.predicted > 0).sum())
    if len(missing):
        return Finding(
            "labels never predicted",
            "warning",
            f"Only {count} of {len(names)} labels are ever predicted; never are {_listed(missing, names)}.",
            "Give more labelled rows of them, or have labels weigh more (objective.alpha).",
        )
    unseen = np.flatnonzero((every.predicted == 0) & (every.prior * every.rows >= 2 * LEAST_OF_LABEL))
    if held_out.labelled_rows >= LEAST_ROWS or not len(unseen):
        return None
    return Finding(
        "labels never predicted",
        "note",
        f"Only {count} of {len(names)} labels are ever predicted; never are {_listed(unseen, names)}.",
        "Give labelled rows to know whether there are rows of theirs.",
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
    """How well the labels of training rows can be told by another method, in cross-validation.

    Args:
        method: What it is.
        agreement: Of its labels with theirs.
    """

    method: str
    agreement: Agreement


def random_labels(held_out: Agreement, reference: CrossValidated | None) -> Finding | None:
    """Whether labels are guessed: because nothing tells them, or because the model does not see what does.

    Args:
        held_out: Agreement of the model with labelled rows that were not learned from.
        reference: How another method does; None where there are too few rows to say.
    """
    if reference is None or held_out.learned:
        return None
    others = (
        f"{reference.method} agrees with {reference.agreement.rows} labelled training rows in cross-validation by a "
        f"kappa of {reference.agreement.kappa:.2f}"
    )
    if not held_out.guessed:
        if not reference.agreement.guessed:
            return None
        both = others
    else:
        both = (
            f"the model agrees with {held_out.rows} labelled rows that it has not learned from by a kappa of "
            f"{held_out.kappa:.2f}, where chance has 0, and {others}"
        )
    if not reference.agreement.learned:
        return Finding(
            RANDOM_LABELS,
            "warning",
            f"The labels look random: {both}.",
            "Check that labels belong to their rows: a shuffled column or a wrong separator does this.",
        )
    return Finding(
        "nothing learned of the labels",
        "warning",
        f"Nothing was learned of the labels: {both}.",
        "Train longer, have labels weigh more (objective.alpha), or check that these rows are of the same kind.",
    )


def memorised(held_out: LabelUse, trained: LabelUse, training_loss: float | None) -> Finding | None:
    """Whether the classifier knows its training rows by heart and little else.

    Args:
        held_out: What is predicted of labelled rows that were not learned from.
        trained: What is predicted of labelled rows that were.
        training_loss: -log q(y|x) of the latter in training, in nats, which decides where too few of them are at hand;
            None where it is not known.
    """
    accuracy, count, again = held_out.accuracy, held_out.labelled_rows, trained.labelled_rows
    if accuracy is None or count < LEAST_ROWS:
        return None
    variance = accuracy * (1 - accuracy) / count
    if trained.accuracy is not None and again >= LEAST_OF_LABEL:
        share, variance = trained.accuracy, variance + trained.accuracy * (1 - trained.accuracy) / again
        evidence = f"it gets {share:.0%} of {again} of them right"
    elif training_loss is not None:
        share = float(np.exp(-training_loss))
        evidence = f"in training it gave their labels a probability of {share:.0%}"
    else:
        return None
    if share - accuracy <= max(MEMORISED_GAP, ERRORS * np.sqrt(variance)):
        return None
    return Finding(
        "classifier memorised",
        "warning",
        f"The classifier memorised its training rows: {evidence}, and of {count} others it gets {accuracy:.0%} right.",
        "Use recipe: auto, more dropout (model.dropout), weight decay (optimizer.name: adamw, optimizer.weight_decay), "
        "or more labelled rows.",
    )


def miscalibrated(
    confidence: float, held_out: LabelUse, calibration_error: float, cross_validated: bool = False
) -> Finding | None:
    """Whether probabilities of the most probable label are too high or too low.

    Args:
        confidence: Their mean over labelled rows that were not learned from.
        held_out: What is predicted of these rows.
        calibration_error: The expected calibration error over them.
        cross_validated: Whether they were calibrated by cross-validation over the training rows.
    """
    accuracy, count = held_out.accuracy, held_out.labelled_rows
    if accuracy is None or count < LEAST_ROWS:
        return None
    gap, error = confidence - accuracy, np.sqrt(max(accuracy * (1 - accuracy), confidence * (1 - confidence)) / count)
    if abs(gap) <= max(CALIBRATION_GAP, ERRORS * error):
        return None
    advice = "Read them as an order, or use recipe: auto, whose probabilities are calibrated by cross-validation."
    if cross_validated:
        advice = "Read them as an order: these rows are of another kind than those learned from, or those were few."
    return Finding(
        MISCALIBRATED[0] if gap > 0 else MISCALIBRATED[1],
        "warning",
        f"Its probabilities are too {'high' if gap > 0 else 'low'}: the most probable label is said to have "
        f"{confidence:.0%} and is right for {accuracy:.0%} of {count} rows (expected calibration error "
        f"{calibration_error:.3f}).",
        advice,
    )


def unlabelled_rows(gain: tuple[float, float] | None) -> Finding | None:
    """Whether rows without label helped or hurt.

    Args:
        gain: Difference of accuracy between all candidates joined and the one that learns from labels alone, in
            cross-validation, and its standard error; None where that was not trained.
    """
    if gain is None or not abs(gain[0]) > ERRORS * gain[1]:
        return None
    difference, error = gain
    figures = f"{abs(difference):.1%} of the labelled rows (standard error {error:.1%}, cross-validated)"
    compared = "the candidates together get {} right, by {}, than the one that learns from labels alone"
    if difference > 0:
        sentence = f"Rows without label help: {compared.format('more', figures)}."
        return Finding("unlabelled rows help", "note", sentence, "")
    return Finding(
        "unlabelled rows hurt",
        "warning",
        f"Rows without label hurt: {compared.format('fewer', figures)}.",
        "Check that they are of the same kind as the labelled rows; recipe: labels leaves them out.",
    )


class Compared(NamedTuple):
    """A simple model of the symbols beside the generator.

    Args:
        nats_per_symbol: Its log-probability.
        ahead: By how much it is above the generator's bound, in nats a row.
        error: The standard error of that over rows.
    """

    nats_per_symbol: float
    ahead: float
    error: float


def weak_generator(nats_per_symbol: float, rows: int, baselines: Mapping[str, Compared]) -> Finding | None:
    """Whether the generator's bound is worse than simple models of the symbols.

    Args:
        nats_per_symbol: The bound.
        rows: The number of rows.
        baselines: The simple models, by name.
    """
    better = [
        f"{name}s ({one.nats_per_symbol:.3f})" for name, one in baselines.items() if one.ahead > ERRORS * one.error
    ]
    if not better or rows < LEAST_COMPARED:
        return None
    return Finding(
        "generator is weak",
        "warning",
        f"The generator's bound, {nats_per_symbol:.3f} nats a symbol, is worse than that of {' and of '.join(better)}.",
        "Train longer before you generate with it or compare its likelihoods; evaluate --importance-samples has a "
        "tighter bound.",
    )


def _listed(indices: np.ndarray, names: Sequence[str]) -> str:
    shown = [repr(names[index]) for index in indices[:SHOWN]]
    more = len(indices) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
