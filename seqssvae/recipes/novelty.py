"""Whether generated sequences are new, differ from each other, and are of the label that they were asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Int

from seqssvae.backend import NO_LABEL
from seqssvae.data.corpus import NO_GROUP
from seqssvae.data.in_memory import read_labels
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import END, SPECIALS, UNK
from seqssvae.errors import DataError
from seqssvae.recipes.linear import Linear
from seqssvae.recipes.rows import LearningRows, stratified_folds


@dataclass(frozen=True)
class GeneratedCheck:
    """What generated sequences are like beside rows with labels.

    Args:
        count: The number of sequences.
        unique: The share of different ones: 1 if no two are the same.
        new: The share of those that are none of the rows.
        of_label: The share that has the wanted label by a classifier that learned from the rows alone.
        classifier_accuracy: The share of labelled rows that it is right about, in cross-validation: it cannot say more
            of the generated sequences than of these.
        labelled_rows: How many rows it learned from.
    """

    count: int
    unique: float
    new: float
    of_label: float
    classifier_accuracy: float
    labelled_rows: int


def check_labels(label: Any, labels: Sequence[Any]) -> None:
    """Check that a classifier can learn what is of a label and what is not.

    Args:
        label: The label.
        labels: The label of each row, None where it is missing.

    Raises:
        DataError: If there are not at least two rows of the label and two of others.
    """
    of_wanted, labelled = sum(name == label for name in labels), sum(name is not None for name in labels)
    if min(of_wanted, labelled - of_wanted) < 2:
        raise DataError(
            f"a classifier needs at least two rows of the label {label!r} and two of others, not {of_wanted} and "
            f"{labelled - of_wanted} among the {len(labels)} rows."
        )


def check_generated(
    sequences: Iterable[Sequence[str]],
    label: Any,
    rows: Iterable[Sequence[str]],
    labels: Iterable[Any],
    missing: Any = None,
) -> GeneratedCheck:
    """Compare generated sequences with rows, some or all of which have a label.

    The classifier is `seqssvae.recipes.linear`: logistic regression on n-grams, of scikit-learn. No network has a part
    in it.

    Args:
        sequences: The generated sequences: texts, each character of which is a symbol, or sequences of symbols.
        label: The label that they were generated for.
        rows: The rows, in the same form.
        labels: The label of each row, or the marker of a missing one.
        missing: That marker; see `seqssvae.data.in_memory.read_labels`.

    Returns:
        The shares.

    Raises:
        DataError: If there are no sequences or no rows, not as many labels as rows, or not at least two rows of the
            wanted label and two of other labels.

    Example:
        >>> rows, labels = ["aab", "aba", "ccd", "cdc"] * 5, ["left", "left", "right", "right"] * 5
        >>> check = check_generated(["abb", "abb", "aab", "dcd"], "left", rows, labels)
        >>> check.count, check.unique, check.new, check.of_label
        (4, 0.75, 0.75, 0.75)
    """
    generated, known = [tuple(one) for one in sequences], [tuple(row) for row in rows]
    if not generated or not known:
        raise DataError(f"there are no {'rows to compare with' if generated else 'sequences to check'}.")
    names = read_labels(labels, len(known), missing)
    check_labels(label, names)
    ids = {symbol: id_ for id_, symbol in enumerate(sorted({*chain.from_iterable(known)}), start=len(SPECIALS))}
    classes = {name: number for number, name in enumerate(dict.fromkeys(name for name in names if name is not None))}
    learning = _learning_rows(_encode(known, ids), np.array([classes.get(name, NO_LABEL) for name in names]), len(ids))
    out_of_fold, classifier = Linear.learn(learning)
    predicted = classifier.log_proba(_encode(generated, ids)).argmax(axis=1)
    different, seen = set(generated), set(known)
    return GeneratedCheck(
        count=len(generated),
        unique=len(different) / len(generated),
        new=float(np.mean([one not in seen for one in generated])),
        of_label=float(np.mean(predicted == classes[label])),
        classifier_accuracy=float(np.mean(out_of_fold.argmax(axis=1) == learning.y)),
        labelled_rows=sum(name is not None for name in names),
    )


def _learning_rows(rows: RaggedArray, y: Int[np.ndarray, " N"], symbol_count: int) -> LearningRows:
    """The rows as the classifier learns from them."""
    labelled = np.flatnonzero(y != NO_LABEL)
    return LearningRows(
        labelled=rows.take(labelled),
        y=y[labelled],
        unlabelled=rows.take(np.flatnonzero(y == NO_LABEL)),
        label_count=int(y.max()) + 1,
        vocabulary_size=len(SPECIALS) + symbol_count,
        folds=stratified_folds(y[labelled], np.full(len(labelled), NO_GROUP), seed=0),
    )


def _encode(rows: Sequence[tuple[str, ...]], ids: dict[str, int]) -> RaggedArray:
    return RaggedArray.from_rows([[*(ids.get(symbol, UNK) for symbol in row), END] for row in rows])
