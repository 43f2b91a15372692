"""Names that a sweep is described by."""

from typing import Literal

SamplerName = Literal["tpe", "random"]
PrunerName = Literal["median", "halving", "none"]
