"""The plug-in for yoyodyne, a toolkit for sequence-to-sequence models: a model class and a callback.

The toolkit is imported when one of the two is asked for, so that its checkpoints can be imported without it.
"""

from importlib import import_module
from typing import Any

__all__ = ["PosteriorWriter", "SequenceSSVAE"]

_MODULES = {"SequenceSSVAE": "model", "PosteriorWriter": "posteriors"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
