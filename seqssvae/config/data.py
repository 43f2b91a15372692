"""The section `data`: where the rows are, and how they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seqssvae.config.checks import check, check_flag, check_integer, check_literal, check_names, check_number

TooLong = Literal["skip", "truncate"]


@dataclass(frozen=True)
class DataConfig:
    """Where the rows are and how they are read.

    Args:
        train: TSV file (UTF-8) to learn from.
        validation: TSV file for early stopping; without one, `validation_fraction` of the training rows is held out.
        validation_fraction: Share of the training rows held out for validation, stratified by label.
        sequence_column: Column of the sequence, counted from 1.
        label_column: Column of the label, counted from 1; 0 if there is none. An empty label is a missing one.
        source_column: Column of a source, another sequence that the sequence is made from (a lemma, of its inflected
            form), counted from 1; 0 if there is none.
        group_column: Column of a group, counted from 1; 0 if there is none. Rows of a group stay together in a split.
        separator: What separates the symbols of a sequence; if it is empty, each character is a symbol.
        source_separator: What separates the symbols of a source; if it is empty, each character is a symbol.
        header: Whether the first line of each file names the columns and is skipped.
        labels: The classes, in order; if they are not given, the labels of the training file, sorted.
        max_length: Length of the longest sequence and of the longest source, in symbols without END.
        too_long: What is done with a row that is longer: `skip` leaves it out, `truncate` cuts it.
        minimum_count: A symbol that occurs less often in training becomes UNK.
    """

    train: str | None = None
    validation: str | None = None
    validation_fraction: float = 0.1
    sequence_column: int = 1
    label_column: int = 2
    source_column: int = 0
    group_column: int = 0
    separator: str = ""
    source_separator: str = ""
    header: bool = False
    labels: Sequence[str] | None = None
    max_length: int = 256
    too_long: TooLong = "skip"
    minimum_count: int = 1

    def __post_init__(self) -> None:
        check_number("data.validation_fraction", self.validation_fraction, 0.0, 0.9)
        check_integer("data.sequence_column", self.sequence_column, 1)
        check_integer("data.label_column", self.label_column, 0)
        check_integer("data.source_column", self.source_column, 0)
        check_integer("data.group_column", self.group_column, 0)
        check(
            self.label_column != self.sequence_column,
            "data.label_column",
            "another column than data.sequence_column",
            self.label_column,
        )
        check(
            not self.source_column or self.source_column not in (self.label_column, self.sequence_column),
            "data.source_column",
            "another column than data.sequence_column and data.label_column",
            self.source_column,
        )
        check(
            not self.group_column or self.group_column not in (self.label_column, self.sequence_column),
            "data.group_column",
            "another column than data.sequence_column and data.label_column",
            self.group_column,
        )
        for name in ("separator", "source_separator"):
            tab = "\t" in getattr(self, name)
            check(not tab, f"data.{name}", "something else than a tab, which ends a column", "\t")
        check_flag("data.header", self.header)
        check_integer("data.max_length", self.max_length, 1)
        check_literal("data.too_long", self.too_long, TooLong)
        check_integer("data.minimum_count", self.minimum_count, 1)
        if self.labels is not None:
            names = check_names("data.labels", self.labels)
            object.__setattr__(self, "labels", names)
            check(len(names) >= 2, "data.labels", "a list of at least two classes", list(names))
            check(len(set(names)) == len(names), "data.labels", "a list without repetitions", list(names))
            check("" not in names, "data.labels", "a list of non-empty names (empty means missing)", list(names))
