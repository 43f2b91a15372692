"""Arguments that several commands have."""

from typing import Any

from jsonargparse import ArgumentParser

from seqssvae.config import FileFormat
from seqssvae.config.fields import field_paths


def section_loaders(parser: ArgumentParser) -> list[Any]:
    """Return jsonargparse's own options that load a section from a file, which `--config` does here."""
    sections = {f"--{path.rpartition('.')[0]}" for path in field_paths()}
    return [action for action in parser._actions if sections & set(action.option_strings)]


def add_run(parser: ArgumentParser) -> None:
    """Add the run directory, and what it is opened with."""
    parser.add_argument("run", type=str, help="The run directory that `seqssvae fit` made.")
    parser.add_argument("--backend", type=str | None, help="torch or jax; by default the one that trained the run.")
    add_no_verify(parser)
    add_device(parser)


def add_no_verify(parser: ArgumentParser) -> None:
    """Add `--no-verify`."""
    text = "Open a run although its files are not those that were written."
    parser.add_argument("--no-verify", action="store_true", help=text)


def add_device(parser: ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", type=str | None, help="The framework's name of a device, such as cpu or cuda.")


def add_data(parser: ArgumentParser, labelled: bool, required: bool = True) -> None:
    """Add `--data` and its columns; without being required, rows are made up where it is not given."""
    text = "File of rows (TSV, CSV, FASTA, JSON lines, Parquet), or - for standard input."
    if required:
        parser.add_argument("--data", type=str, required=True, metavar="FILE", help=text)
    else:
        parser.add_argument("--data", type=str | None, metavar="FILE", help=f"{text} Without it, rows are made up.")
    add_columns(parser, labelled)


def add_columns(parser: ArgumentParser, labelled: bool) -> None:
    """Add the columns of a file of rows, and how it is read."""
    text = "Column of the sequence, by number or name, if not as in training."
    parser.add_argument("--sequence-column", type=int | str | None, help=text)
    text = "Column of the source, if the model has sources."
    parser.add_argument("--source-column", type=int | str | None, help=text)
    if labelled:
        text = "Column of the label; 0 if there is none."
        parser.add_argument("--label-column", type=int | str | None, help=text)
        text = "File of labels by identifier, whose column is --label-column."
        parser.add_argument("--labels-file", type=str | None, metavar="FILE", help=text)
        parser.add_argument("--labels-id-column", type=int | str | None, help="Its column of identifiers.")
    parser.add_argument("--id-column", type=int | str | None, help="Column of an identifier; 0 if there is none.")
    parser.add_argument("--header", type=bool | None, help="Whether the first line names the columns.")
    parser.add_argument("--format", type=FileFormat | None, help="How the file is read, if its name does not tell.")


def add_output(parser: ArgumentParser) -> None:
    """Add `--output` and `--overwrite`."""
    parser.add_argument("--output", type=str, required=True, metavar="FILE", help="TSV file to write; - for stdout.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the output file if it exists.")


def add_features(parser: ArgumentParser) -> None:
    """Add `--features`."""
    text = "The features that q(y|x) reads, in place of the mean of z, which leaves out what the label explains."
    parser.add_argument("--features", action="store_true", help=text)
