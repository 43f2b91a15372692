"""What all loggers have in common."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any

from seqssvae.config import Config
from seqssvae.errors import ConfigurationError, MissingPackageError, UserError
from seqssvae.training.history import flatten
from seqssvae.training.state import Observer, Record, TrainingState


class Logger(Observer, ABC):
    """Sends the configuration and, after each evaluation, the metrics somewhere: the base of all loggers.

    Where that fails once training has begun there is a warning, nothing more is sent, and training goes on.
    """

    name = ""
    """What it is called."""

    def __init__(self) -> None:
        self._config = Config()
        self._is_open = self._has_failed = False
        self._error: BaseException | None = None

    @abstractmethod
    def open(self, config: Config, step: int) -> None:
        """Begin, with the configuration of what is trained, after so many steps."""

    @abstractmethod
    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Send the metrics of an evaluation, such as `validation/accuracy`."""

    @abstractmethod
    def close(self, error: BaseException | None) -> None:
        """End; what was opened is closed even if something failed before.

        Args:
            error: The exception that ended training; None where it ended by itself.
        """

    def configured(self, config: Config) -> None:
        """Note the configuration."""
        self._config = config

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Open the logger.

        Raises:
            ConfigurationError: If that is not possible.
        """
        self._has_failed, self._error = False, None
        try:
            self.open(self._config, state.step)
        except UserError:
            raise
        except Exception as error:
            raise ConfigurationError(f"The logger {self.name} cannot begin: {_reason(error)}") from error
        self._is_open = True

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Send the metrics."""
        if self._is_open and not self._has_failed:
            self._attempt(lambda: self.log(record.step, scalars(record)))

    def failed(self, error: BaseException) -> None:
        """Note why training ends."""
        self._error = error

    def finished(self, state: TrainingState) -> None:
        """Close the logger, unless it never opened."""
        if self._is_open:
            self._is_open = False
            self._attempt(lambda: self.close(self._error))

    def _attempt(self, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception as error:  # a day's training is worth more than its curve
            if not self._has_failed:
                text = f"The logger {self.name} failed and sends nothing more; training goes on: {_reason(error)}"
                warnings.warn(text, stacklevel=2)
            self._has_failed = True


def scalars(record: Record) -> dict[str, float]:
    """Return the values of a record by name, such as `training/elbo`, without the step and those that are None."""
    values = flatten(record, "/").items()
    return {name: float(value) for name, value in values if value is not None and name != "step"}


def package(name: str) -> Any:
    """Return a package that is needed by the logger of the same name.

    Raises:
        MissingPackageError: If it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"The logger {name} needs the package {error.name}, which is not installed: pip install 'seqssvae[{name}]'."
        ) from error


def _reason(error: Exception) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__}".removesuffix(".") + "."
