"""What a person would take for the same label, for a missing one, or for the names of columns."""

import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from seqssvae.data.table import SymbolColumn, Table

MISSING_NAMES = {"", "nan", "na", "n/a", "<na>", "#n/a", "null", "none", "nat", "?"}
"""Labels, without blanks and in small letters, by which other programs write a missing one."""

COLUMN_NAMES = {
    *("sequence", "sequences", "seq", "text", "string", "word", "peptide", "protein", "smiles", "x"),
    *("label", "labels", "class", "category", "target", "tag", "language", "y", "source", "lemma", "group"),
}
"""Names that columns of sequences, labels, sources and groups often have, in small letters."""

MOST_WORDS = 3
"""Most words of a column's name."""

MOST_NAMED = 5
"""Most groups of labels that a warning names."""


def plain_form(label: str) -> str:
    """What remains of a label without blanks and invisible characters, case, and the ways of writing one letter."""
    letters = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(
        letter for letter in letters if not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf")
    )


def alike(labels: Iterable[str]) -> list[list[str]]:
    """Groups of different labels that differ only in blanks, case or Unicode normalisation.

    Example:
        >>> alike(["dog", "Dog ", "cat"])
        [['Dog ', 'dog']]
    """
    groups = defaultdict(list)
    for label in sorted(labels):
        groups[plain_form(label)].append(label)
    return [group for group in groups.values() if len(group) > 1]


def warn_of_lookalikes(origin: str, counts: Mapping[str, int], labels: Iterable[str]) -> None:
    """Warn of classes that look alike, or like a missing label.

    Args:
        origin: Where the rows are from.
        counts: How many rows have each label.
        labels: The classes.
    """
    names = list(labels)

    def named(group: Iterable[str]) -> str:
        return ", ".join(f"{label!r} ({counts.get(label, 0)} rows)" for label in group)

    for group in (groups := alike(names))[:MOST_NAMED]:
        warnings.warn(
            f"{origin}: the labels {named(group)} differ only in blanks, case or Unicode normalisation and are "
            "different classes; write them alike if they are one.",
            stacklevel=4,
        )
    if len(groups) > MOST_NAMED:
        warnings.warn(f"{origin}: {len(groups) - MOST_NAMED} more groups of labels look alike.", stacklevel=4)
    if missing := [name for name in names if plain_form(name) in MISSING_NAMES]:
        warnings.warn(
            f"{origin}: {named(missing)} is a class like any other; a missing label is empty in a file, and None "
            "or NaN in memory.",
            stacklevel=4,
        )


def warn_of_header(table: Table) -> None:
    """Warn of a first row, read from a file, that seems to name the columns.

    That is so if a column has one of the names that columns often have, or if its label is that of no other row while
    all other labels are those of several.
    """
    first = table.labels[0]
    sequences = [column for column in (table.sequences, table.sources) if column is not None]
    texts = [_text(column) for column in sequences] + [text for text in (first, table.groups[0]) if text is not None]
    called = [text for text in texts if _names_a_column(text)]
    counts = np.bincount(table.labels.codes[table.labels.codes >= 0])
    alone = first is not None and counts[table.labels.codes[0]] == 1
    others = counts[counts > 0]
    odd = alone and len(others) > 2 and (np.sort(others)[1:] > 1).all()
    label_column = first is None or alone  # a label that other rows have, too, is a label
    if label_column and (called or odd):
        what = repr(called[0] if called else first)
        warnings.warn(
            f"{table.origin}:{table.lines[0]}: the first line, with {what}, is read as a row; if it names the columns, "
            "set data.header: true (--data.header true).",
            stacklevel=4,
        )


def _text(column: SymbolColumn) -> str:
    """The first sequence of a column as a text."""
    symbols = column[0]
    return ("" if max(map(len, symbols), default=0) <= 1 else " ").join(symbols)


def _names_a_column(text: str) -> bool:
    words = text.replace("_", " ").split()
    return len(words) <= MOST_WORDS and any(plain_form(word) in COLUMN_NAMES for word in words)
