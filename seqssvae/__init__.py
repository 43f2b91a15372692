"""Semi-supervised variational autoencoders for sequences: what the PyTorch and the JAX twin share.

Names are loaded when they are first used, so that `import seqssvae` by itself loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqssvae.backend import get_backend
    from seqssvae.estimator.sequence_ssvae import SequenceSSVAE
    from seqssvae.estimator.tuning import tune

    __version__: str

__all__ = ["SequenceSSVAE", "__version__", "get_backend", "tune"]

_MODULES = {
    "SequenceSSVAE": "seqssvae.estimator.sequence_ssvae",
    "get_backend": "seqssvae.backend",
    "tune": "seqssvae.estimator.tuning",
}
"""Where each exported name is defined."""
_SUBMODULES = ("backend", "config", "datasets", "errors", "noise", "parameters")
"""Public modules that need no import of their own: `seqssvae.config.Config` is loaded when it is first used."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    elif name in _SUBMODULES:
        value = import_module(f"seqssvae.{name}")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("seqssvae")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
