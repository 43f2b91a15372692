"""Which twin is taken where none is named."""

from seqssvae.backend import get_backend, installed_backends
from seqssvae.errors import BackendError


def usable_backend() -> str:
    """The name of the first twin, in alphabetical order, whose framework is installed.

    Raises:
        BackendError: If there is none; the message says how to install one.
    """
    for name in installed_backends():
        try:
            get_backend(name)
        except BackendError:
            continue
        return name
    raise BackendError("No twin can be used: pip install 'seqssvae[jax]' or 'seqssvae[torch]'.")
