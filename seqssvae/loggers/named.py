"""The loggers that the command line offers."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from seqssvae.loggers.logger import Logger

LoggerName = Literal["tensorboard", "wandb", "mlflow"]


def named_logger(name: LoggerName, run: str | Path) -> "Logger":
    """Return the logger of a run.

    Args:
        name: Which one.
        run: The run directory, which gives the logged run its name.

    Raises:
        MissingPackageError: If its package is not installed.
    """
    from seqssvae.loggers import MLflowLogger, TensorBoardLogger, WandbLogger

    title = Path(run).absolute().name
    if name == "tensorboard":
        return TensorBoardLogger(Path(run) / "tensorboard")
    return WandbLogger(title) if name == "wandb" else MLflowLogger(title)
