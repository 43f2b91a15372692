"""Peptides, antimicrobial or not; the README beside the file says where they are from."""

from importlib.resources import files
from pathlib import Path

from seqssvae.config import DataConfig
from seqssvae.data.files import read_table
from seqssvae.data.table import Table


def peptides_path() -> Path:
    """Return the shipped TSV file: column 1 a peptide, column 2 `AMP` (antimicrobial) or `UniProt` (any protein)."""
    return Path(str(files("seqssvae.datasets") / "peptides.tsv"))


def load_peptides() -> Table:
    """Return the 4,620 labelled peptides."""
    return read_table(peptides_path(), DataConfig())
