"""The callback for yoyodyne that writes posteriors."""

import csv
from typing import Any

from lightning.pytorch.callbacks import BasePredictionWriter
from yoyodyne.models.base import ConfigurationError


class PosteriorWriter(BasePredictionWriter):
    """Writes q(y|x) of every row that is predicted: its most probable label, and the probability of each.

    With sources it is q(y|source,x), and p(y|source) where there is no target.

    Args:
        path: TSV file to write, with a line that names the columns.
    """

    def __init__(self, path: str) -> None:
        super().__init__("batch")
        self.path = path

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the names of the columns.

        Raises:
            ConfigurationError: If there are several processes, which would write over each other.
        """
        if trainer.world_size > 1:
            raise ConfigurationError("PosteriorWriter writes one file in order: predict with --trainer.devices 1.")
        self._write("w", [["label", *pl_module.label_names]])

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """A line a row."""
        names, posterior = pl_module.label_names, pl_module.posterior(batch)
        self._write("a", [[names[row.argmax()], *(f"{value:.8g}" for value in row)] for row in posterior])

    def _write(self, mode: str, lines: list[list[str]]) -> None:
        with open(self.path, mode, encoding="utf-8", newline="") as sink:
            csv.writer(sink, delimiter="\t").writerows(lines)
