"""The run directory: what training leaves behind, the same for both twins, and safe to open from strangers (no pickle).

config.yaml            the whole configuration
vocabulary.json        symbols (of sequences, and of sources), labels, and p(y)
weights.safetensors    the best weights: those that training kept
last.safetensors       the weights of the last evaluation
optimizer.safetensors  the optimiser's state then
state.json             where training stood then, and which twin trained
metrics.jsonl          what each evaluation found, a line each
"""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqssvae.backend import Backend, get_backend
from seqssvae.config import Config
from seqssvae.data.corpus import Corpus
from seqssvae.errors import RunError
from seqssvae.training.fit import Observer, Record, TrainingState
from seqssvae.runs.files import (
    CONFIG,
    LAST,
    METRICS,
    OPTIMIZER,
    STATE,
    VOCABULARY,
    WEIGHTS,
    Checkpoint,
    corpus_digest,
    read_checkpoint,
    read_config,
    read_schema,
    read_weights,
    trained_by,
)
from seqssvae.data.schema import FORMAT, Schema
from seqssvae.config.settings import to_yaml
from seqssvae.runs.storage import to_json, to_safetensors, write_files
from seqssvae.data.vocabulary import Labels, Vocabulary


@dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it.

    Args:
        path: The run directory.
        config: Its configuration.
        schema: Symbols, labels, p(y).
        backend: The model with its best weights.
        step: Training step of these weights.
        trained_by: Name of the twin that trained it.
    """

    path: Path
    config: Config
    schema: Schema
    backend: Backend
    step: int
    trained_by: str

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols."""
        return self.schema.vocabulary

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.schema.labels


class RunWriter(Observer):
    """Writes a run directory as training goes; each file whole or not at all.

    Args:
        path: The directory, which must not exist; the directories above it are made if need be.
        config: The run's configuration.
        schema: What it knows of its data.
        backend: Name of the twin.
        training: The rows it learns from, of which `state.json` notes a digest, or the checkpoint of a run that is
            resumed.

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
        """Make the directory, with the state of a run that is resumed, so that it is complete from the beginning."""
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
        """Leave nothing behind if there never was anything to keep."""
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
    """Raise RunError if something is in the way of a new run directory."""
    if os.path.lexists(path):
        raise RunError(f"The output directory {path} exists already and was left as it is; name another one.")


def open_run(path: str | Path, backend: str | None = None, device: str | None = None) -> Run:
    """Open a run directory, with the twin that trained it or another one.

    Args:
        path: The directory.
        backend: Name of the twin; None: the one that trained it.
        device: The twin's device.

    Raises:
        RunError: If it is no run directory, or a file of it is missing, damaged, or does not fit the others.
        BackendError: If the twin is not installed.
        ConfigurationError: If it knows no such device.
    """
    path = Path(path)
    config, schema = read_config(path), read_schema(path)
    twin_name = trained_by(path)
    weights, step = read_weights(path / WEIGHTS, config, schema)
    twin = get_backend(backend or twin_name)(config, schema.dimensions, device)
    twin.set_weights(weights)
    return Run(path, config, schema, twin, step, twin_name)


def load_checkpoint(path: str | Path, schema: Schema, training: Corpus) -> Checkpoint:
    """What is needed to resume a run with these data.

    Args:
        path: The directory.
        schema: Of the data given to the new run.
        training: Rows given to the new run.

    Raises:
        RunError: If a file of it is missing, damaged, or does not fit the others, or if the data are other ones.
    """
    checkpoint = read_checkpoint(path)
    if read_schema(path) != schema or checkpoint.digest != corpus_digest(training):
        raise RunError(f"{path} was trained on other rows than {training.origin}; resume it with the same data.")
    return checkpoint


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _scalars(state: TrainingState) -> dict[str, Any]:
    arrays = {"weights", "best_weights", "optimizer"}
    return {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in arrays}
