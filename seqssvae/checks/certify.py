"""The certificate of a run where one can be had."""

from collections.abc import Callable

from seqssvae.backend import installed_backends
from seqssvae.checks.certificate import TWINS, Certificate
from seqssvae.data.corpus import Corpus
from seqssvae.errors import BackendError, ConfigurationError
from seqssvae.runs.run import RunDirectory


def certify(
    directory: RunDirectory,
    corpus: Corpus | None,
    device: str | None = None,
    seed: int = 0,
    warn: Callable[[str], None] = lambda message: None,
) -> Certificate | None:
    """How far the twins agree; None where one of them is not installed, or knows no such device.

    Args:
        directory: The run.
        corpus: Rows encoded with the run's vocabulary; None for rows that are made up of its symbols.
        device: The device of both twins.
        seed: Seed of the noise, and of the rows that are made up.
        warn: Told why there is none, where it is not for a twin that is missing.

    Raises:
        RunError: If the run cannot be opened.
    """
    from seqssvae.checks.verify import verify

    if not set(TWINS) <= set(installed_backends()):
        return None
    try:
        return verify(directory, corpus, device, seed)
    except BackendError:
        return None
    except ConfigurationError as error:
        warn(f"There is no certificate: {error}")
        return None
