"""Weights & Biases."""

from typing import Any

from seqssvae.config import Config
from seqssvae.config.settings import to_dict
from seqssvae.loggers.logger import Logger, package


class WandbLogger(Logger):
    """Sends metrics to Weights & Biases: to the run that is active, or to a new one.

    Project, mode and the like are what `wandb.init` takes from the environment: `WANDB_PROJECT`, `WANDB_MODE`.

    Args:
        run_name: Name of a new run; None for one that Weights & Biases makes up.

    Raises:
        MissingPackageError: If the package `wandb` is not installed.
    """

    name = "wandb"

    def __init__(self, run_name: str | None = None) -> None:
        super().__init__()
        self.run_name = run_name
        self._run: Any = None
        self._is_ours = False
        package(self.name)

    def open(self, config: Config, step: int) -> None:
        """Begin a run if none is active, and send the configuration."""
        wandb = package(self.name)
        self._is_ours = wandb.run is None
        self._run = wandb.init(name=self.run_name) if self._is_ours else wandb.run
        self._run.config.update(to_dict(config), allow_val_change=True)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Send the metrics of an evaluation."""
        self._run.log(scalars, step=step)

    def close(self, error: BaseException | None) -> None:
        """End the run that was begun, as failed where an exception ended training."""
        run, self._run = self._run, None
        if self._is_ours:
            run.finish(exit_code=int(error is not None))
