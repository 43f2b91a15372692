"""The section `data`: where the rows are, and how they are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seqssvae.config.checks import (
    check,
    check_column,
    check_flag,
    check_integer,
    check_literal,
    check_names,
    check_number,
)

TooLong = Literal["skip", "truncate"]
FileFormat = Literal["tsv", "csv", "fasta", "jsonl", "parquet"]


@dataclass(frozen=True)
class DataConfig:
    """Where the rows are and how they are read.

    A column is given by its number, counted from 1, or by its name: in the first line of a TSV or CSV file, which names
    the columns then, among the keys of JSON lines, or among the columns of a Parquet file.

    Args:
        train: File to learn from (TSV, CSV, FASTA, JSON lines or Parquet; with .gz or .zst compressed; `-` for standard
            input), or a directory that `seqssvae prepare` made.
        validation: File for early stopping; without one, `validation_fraction` of the training rows is held out.
        validation_fraction: Share of the training rows held out for validation, stratified by label.
        format: How files are read; if it is not given, their names tell, and another name is that of a TSV file.
        sequence_column: Column of the sequence.
        label_column: Column of the label; 0 if there is none. An empty label is a missing one.
        source_column: Column of a source, another sequence that the sequence is made from (a lemma, of its inflected
            form); 0 if there is none.
        group_column: Column of a group; 0 if there is none. Rows of a group stay together in a split.
        id_column: Column of an identifier, which is repeated beside whatever is written of a row; 0 if there is none.
            In FASTA it is the first word of the line that begins with >.
        labels_file: File of labels by identifier, whose column is `label_column`; else the rows have their own.
        labels_id_column: Column of the identifier in `labels_file`.
        separator: What separates the symbols of a sequence; if it is empty, each character is a symbol.
        source_separator: What separates the symbols of a source; if it is empty, each character is a symbol.
        header: Whether the first line of each TSV or CSV file names the columns, as it does where one is named.
        labels: The classes, in order; if they are not given, the labels of the training file, sorted.
        max_length: Length of the longest sequence and of the longest source, in symbols without END.
        too_long: What is done with a row that is longer: `skip` leaves it out, `truncate` cuts it.
        minimum_count: A symbol that occurs less often in training becomes UNK.
    """

    train: str | None = None
    validation: str | None = None
    validation_fraction: float = 0.1
    format: FileFormat | None = None
    sequence_column: int | str = 1
    label_column: int | str = 2
    source_column: int | str = 0
    group_column: int | str = 0
    id_column: int | str = 0
    labels_file: str | None = None
    labels_id_column: int | str = 1
    separator: str = ""
    source_separator: str = ""
    header: bool = False
    labels: Sequence[str] | None = None
    max_length: int = 256
    too_long: TooLong = "skip"
    minimum_count: int = 1

    def __post_init__(self) -> None:
        check_number("data.validation_fraction", self.validation_fraction, 0.0, 0.9)
        if self.format is not None:
            check_literal("data.format", self.format, FileFormat)
        check_column("data.sequence_column", self.sequence_column, 1)
        for name in ("label_column", "source_column", "group_column", "id_column"):
            check_column(f"data.{name}", getattr(self, name), 0)
        check_column("data.labels_id_column", self.labels_id_column, 1)
        own_label = 0 if self.labels_file is not None else self.label_column
        check(
            own_label != self.sequence_column,
            "data.label_column",
            "another column than data.sequence_column",
            self.label_column,
        )
        for name in ("source_column", "group_column"):
            column = getattr(self, name)
            check(
                not column or column not in (own_label, self.sequence_column),
                f"data.{name}",
                "another column than data.sequence_column and data.label_column",
                column,
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
