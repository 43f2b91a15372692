"""TensorBoard."""

import time
from pathlib import Path
from typing import BinaryIO

from seqssvae.config import Config
from seqssvae.config.settings import to_yaml
from seqssvae.loggers.event_file import record, scalars_event, start_event, text_event, version_event
from seqssvae.loggers.logger import Logger


class TensorBoardLogger(Logger):
    """Writes files that TensorBoard shows; no package is needed for it.

    Each training writes a file of its own, at its first evaluation. What there was in the directory of the steps that
    it takes is no longer shown, so that a training that goes on has each step once.

    Args:
        path: The directory, which is made if need be.
    """

    name = "tensorboard"

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._file: BinaryIO | None = None
        self._step = 0

    def open(self, config: Config, step: int) -> None:
        """Note where training begins; a run that is stopped before it has metrics leaves no file."""
        self._step = step

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Write the metrics of an evaluation."""
        now = time.time()
        if self._file is None:
            self._file = self._new_file(now)
        self._file.write(record(scalars_event(now, step, scalars)))
        self._file.flush()

    def close(self, error: BaseException | None) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _new_file(self, now: float) -> BinaryIO:
        self.path.mkdir(parents=True, exist_ok=True)
        number = len(list(self.path.glob("events.out.tfevents.*")))  # TensorBoard reads files in the order of names
        file = (self.path / f"events.out.tfevents.{int(now):010d}.{number:06d}").open("xb")
        config = "".join(f"    {line}\n" for line in to_yaml(self._config).splitlines())  # a block of code in Markdown
        for event in (
            version_event(now),
            start_event(now, self._step + 1),
            text_event(now, self._step + 1, "config", config),
        ):
            file.write(record(event))
        return file
