"""Names that the command line offers."""

from typing import Literal

RecipeName = Literal["auto", "ssvae", "topics", "classifier", "labels"]
PredictionMethod = Literal["classifier", "generative", "combined"]
