"""The loggers that the command line offers."""

from pathlib import Path
from typing import Literal

from seqssvae.loggers.logger import Logger
from seqssvae.loggers.mlflow import MLflowLogger
from seqssvae.loggers.tensorboard import TensorBoardLogger
from seqssvae.loggers.wandb import WandbLogger

LoggerName = Literal["tensorboard", "wandb", "mlflow"]


def named_logger(name: LoggerName, run: str | Path) -> Logger:
    """Return the logger of a run.

    Args:
        name: Which one.
        run: The run directory, which gives the logged run its name.

    Raises:
        MissingPackageError: If its package is not installed.
    """
    title = Path(run).absolute().name
    if name == "tensorboard":
        return TensorBoardLogger(Path(run) / "tensorboard")
    return WandbLogger(title) if name == "wandb" else MLflowLogger(title)
