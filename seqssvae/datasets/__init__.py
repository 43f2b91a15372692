"""The data sets of the demonstration: peptides, which are shipped, and words of twelve languages, which are built."""

from typing import Literal

from seqssvae.data.table import Table
from seqssvae.datasets.languages import build_languages, load_languages
from seqssvae.datasets.peptides import load_peptides, peptides_path

__all__ = ["DatasetName", "build_languages", "load_dataset", "load_languages", "load_peptides", "peptides_path"]

DatasetName = Literal["peptides", "languages"]


def load_dataset(name: str) -> Table:
    """Return the labelled rows of a data set.

    Args:
        name: Its name, one of `DatasetName`.

    Raises:
        KeyError: If there is no such data set.
        UserError: If the package from which the data set is built is not installed.
    """
    return {"peptides": load_peptides, "languages": load_languages}[name]()
