"""The data sets of the demonstration: peptides, which are shipped, and words of twelve languages, which are built.

Names are loaded when they are first used, so that the command line can name the sets without what reads them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from seqssvae.data.table import Table
    from seqssvae.datasets.languages import build_languages, load_languages
    from seqssvae.datasets.peptides import load_peptides, peptides_path

__all__ = ["DatasetName", "build_languages", "load_dataset", "load_languages", "load_peptides", "peptides_path"]

DatasetName = Literal["peptides", "languages"]

_MODULES = {
    "build_languages": "languages",
    "load_languages": "languages",
    "load_peptides": "peptides",
    "peptides_path": "peptides",
}
"""Where each exported function is defined."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def load_dataset(name: str) -> "Table":
    """Return the labelled rows of a data set.

    Args:
        name: Its name, one of `DatasetName`.

    Raises:
        KeyError: If there is no such data set.
        UserError: If the package from which the data set is built is not installed.
    """
    from seqssvae.datasets import languages, peptides

    return {"peptides": peptides.load_peptides, "languages": languages.load_languages}[name]()
