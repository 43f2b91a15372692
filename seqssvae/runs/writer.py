"""Writes a run directory while a model is trained: the same for both twins, and safe to open for anyone (no pickle)."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from seqssvae.config import Config
from seqssvae.config.settings import to_yaml
from seqssvae.data.corpus import Corpus
from seqssvae.data.schema import FORMAT, Schema
from seqssvae.errors import RunError
from seqssvae.runs.files import CONFIG, LAST, METRICS, OPTIMIZER, STATE, VOCABULARY, WEIGHTS, Checkpoint, corpus_digest
from seqssvae.runs.storage import to_json, to_safetensors, write_files
from seqssvae.training.fit import Observer, Record, TrainingState


class RunWriter(Observer):
    """Writes a run directory at each evaluation; every file is written whole or not at all.

    Args:
        path: The directory, which must not exist; the directories above it are made if need be.
        config: The run's configuration.
        schema: Symbols, labels and p(y).
        backend: Name of the twin.
        training: The rows that the run learns from, of which `state.json` notes a digest, or the checkpoint of a run
            that is resumed.

    Raises:
        RunError: If the directory exists.
    """

    def __init__(
        self,
        path: str | Path,
        config: Config,
        schema: Schema,
        backend: str,
        training: Corpus | Checkpoint,
    ) -> None:
        self.path = Path(path)
        self._config, self._schema = config, schema
        self._backend = backend
        if isinstance(training, Checkpoint):
            self._digest, self._history = training.digest, "".join(map(_line, training.history))
        else:
            self._digest, self._history = corpus_digest(training), ""
        self._made = False
        self._best_step: int | None = None
        refuse_existing(self.path)

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Make the directory; that of a run that is resumed has its state at once, so that it is complete from then on.

        Raises:
            RunError: If the directory exists, or cannot be made.
        """
        refuse_existing(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
        except OSError as error:
            raise RunError(f"The output directory {self.path} cannot be made ({error.strerror}).") from error
        self._made = True
        yaml, schema = to_yaml(self._config).encode(), to_json(self._schema.to_dict())
        write_files({self.path / CONFIG: yaml, self.path / VOCABULARY: schema})
        if state.evaluations:
            self._save(state)

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Write weights, state and metrics."""
        self._history += _line(record.to_dict())
        self._save(state)

    def finished(self, state: TrainingState) -> None:
        """Remove the directory if training ended before there was anything to keep."""
        if self._made and self._best_step is None:
            shutil.rmtree(self.path)

    def _save(self, state: TrainingState) -> None:
        contents = {
            self.path / LAST: to_safetensors(state.weights, state.step),
            self.path / OPTIMIZER: to_safetensors(state.optimizer, state.step),
            self.path / METRICS: self._history.encode(),
            self.path / STATE: to_json(self._state(state)),
        }
        if state.best_step != self._best_step:
            contents[self.path / WEIGHTS] = to_safetensors(state.best_weights, state.best_step)
        write_files(contents)
        self._best_step = state.best_step

    def _state(self, state: TrainingState) -> dict[str, Any]:
        return {"format": FORMAT, "backend": self._backend, "data": self._digest, **_scalars(state)}


def refuse_existing(path: str | Path) -> None:
    """Check that nothing is in the way of a new run directory.

    Raises:
        RunError: If something is.
    """
    if os.path.lexists(path):
        raise RunError(f"The output directory {path} exists already and was left as it is; name another one.")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _scalars(state: TrainingState) -> dict[str, Any]:
    arrays = {"weights", "best_weights", "optimizer"}
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name not in arrays}
