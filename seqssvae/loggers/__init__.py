"""Observers that send the metrics of a training elsewhere."""

from seqssvae.loggers.mlflow import MLflowLogger
from seqssvae.loggers.tensorboard import TensorBoardLogger
from seqssvae.loggers.wandb import WandbLogger

__all__ = ["MLflowLogger", "TensorBoardLogger", "WandbLogger"]
