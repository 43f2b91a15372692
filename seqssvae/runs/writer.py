"""Writes a run directory while a model is trained: the same for both twins, and safe to open for anyone (no pickle)."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqssvae.config import Config
from seqssvae.config.settings import to_yaml
from seqssvae.data.corpus import Corpus
from seqssvae.data.schema import FORMAT, Schema
from seqssvae.errors import RunError
from seqssvae.runs.checkpoints import CHECKPOINTS, LATEST, CheckpointFiles, latest_name, write_checkpoint
from seqssvae.runs.files import (
    CONFIG,
    LAST,
    LIMITS,
    METRICS,
    OPTIMIZER,
    STATE,
    STEPS,
    VOCABULARY,
    WEIGHTS,
    Checkpoint,
    corpus_digest,
    metrics_line,
    read_state,
)
from seqssvae.runs.lock import DirectoryLock
from seqssvae.runs.storage import to_json, to_safetensors
from seqssvae.runs.writing import UNFINISHED, explained
from seqssvae.training.state import Observer, Record, TrainingState

_TOP_LEVEL = (CONFIG, VOCABULARY, WEIGHTS, LAST, OPTIMIZER, STATE, METRICS)
"""Files that earlier versions wrote into the run directory itself."""


class RunWriter(Observer):
    """Writes a run directory: a checkpoint at the start, at each evaluation, and where training has one kept.

    Args:
        path: The directory; the directories above it are made if need be.
        config: The run's configuration.
        schema: Symbols, labels and p(y).
        backend: Name of the twin.
        training: The rows that the run learns from, of which `state.json` notes a digest, or the checkpoint of a run
            that is resumed.
        carried: Content of further files, by name; those of a run that is resumed go on as well.
        in_place: Whether the directory is that of the run that is resumed; otherwise there must be none.

    Raises:
        RunError: If the directory exists and is not to.
    """

    def __init__(
        self,
        path: str | Path,
        config: Config,
        schema: Schema,
        backend: str,
        training: Corpus | Checkpoint,
        carried: Mapping[str, bytes] | None = None,
        in_place: bool = False,
    ) -> None:
        self.path, self.in_place = Path(path), in_place
        self.step: int | None = None
        """The training step of the last checkpoint written; None before the first."""
        self._latest: str | None = None
        self._backend = backend
        resumed = training if isinstance(training, Checkpoint) else None
        self._digest = training.digest if isinstance(training, Checkpoint) else corpus_digest(training)
        self._history = "".join(f"{line}\n" for line in resumed.history) if resumed else ""
        self._constant = {
            CONFIG: to_yaml(config).encode(),
            VOCABULARY: to_json(schema.to_dict()),
            **(resumed.carried if resumed else {}),
            **(carried or {}),
        }
        self._lock = DirectoryLock(self.path)
        if in_place:
            _check_writable(self.path / CHECKPOINTS)
        else:
            refuse_existing(self.path)
        for name, content in self._constant.items():
            _check_size(self.path / name, content, LIMITS[name])

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Make the directory with a first checkpoint, so that it is a whole run from then on.

        Raises:
            RunError: If the directory exists and is not to, is in use, or cannot be written; nothing new is left then.
        """
        if self.in_place:
            self._lock.take()
            self.step, self._latest = state.step, latest_name(self.path)
            return
        refuse_existing(self.path)
        above = [path for path in self.path.parents if not os.path.lexists(path)]
        existed = os.path.lexists(self.path)
        try:
            self._make()
            self._lock.take()
            with explained(self.path):
                _clear(self.path)
            self._save(state)
        except BaseException:
            self._lock.release()
            with contextlib.suppress(OSError):
                _clear(self.path)
                for path in [*([] if existed else [self.path]), *above]:
                    path.rmdir()
            raise

    def evaluated(self, record: Record, state: TrainingState) -> None:
        """Write a checkpoint with the metrics of an evaluation."""
        self._history += metrics_line(record) + "\n"
        self._save(state)

    def checkpointed(self, state: TrainingState) -> None:
        """Write a checkpoint."""
        self._save(state)

    def finished(self, state: TrainingState) -> None:
        """Let others write to the directory."""
        self._lock.release()

    def add(self, state: TrainingState, files: Mapping[str, bytes]) -> None:
        """Write a checkpoint of a training that has ended, with files of what is known since then.

        Where another process trains the run meanwhile, or has done so, nothing is written: its checkpoints are later.

        Args:
            state: The last state.
            files: Content of the files, by name.

        Raises:
            RunError: If it cannot be written; the checkpoint before is then still the latest.
        """
        try:
            self._lock.take()
        except RunError:
            return
        try:
            if latest_name(self.path) == self._latest:
                self._save(state, files)
        finally:
            self._lock.release()

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"The output directory {self.path} cannot be made ({error.strerror}).") from error

    def _save(self, state: TrainingState, files: Mapping[str, bytes] | None = None) -> None:
        contents = {
            **self._constant,
            **(files or {}),
            WEIGHTS: to_safetensors(state.best_weights, state.best_step),
            LAST: to_safetensors(state.weights, state.step),
            OPTIMIZER: to_safetensors(state.optimizer, state.step),
            METRICS: self._history.encode(),
            STATE: to_json(self._state(state)),
        }
        if state.totals:
            contents[STEPS] = to_safetensors(state.totals, state.step)
        self._latest = write_checkpoint(self.path, state.step, contents, _TOP_LEVEL)
        self.step = state.step

    def _state(self, state: TrainingState) -> dict[str, Any]:
        arrays = {"weights", "best_weights", "optimizer", "totals"}
        scalars = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        steps = len(next(iter(state.totals.values()), ()))
        entries = {"format": FORMAT, "backend": self._backend, "data": self._digest, "segment_steps": steps}
        return {**entries, **{name: value for name, value in scalars.items() if name not in arrays}}


def refuse_existing(path: str | Path) -> None:
    """Check that a run directory can be made: that nothing is in its way but perhaps one that was never trained.

    Raises:
        RunError: If something is, or nothing may be written where the directory is to be.
    """
    path = Path(path)
    if os.path.lexists(path) and not _is_untrained(path):
        raise RunError(
            f"The output directory {path} exists already and was left as it is; name another one"
            + (f", or go on by --resume {path}." if os.path.lexists(path / LATEST) else ".")
        )
    _check_writable(path)


def _check_writable(path: Path) -> None:
    """Check that a directory may be written to or, where there is none, the one that it would be made in."""
    place = next((one for one in (path, *path.absolute().parents) if os.path.lexists(one)), path)
    if not os.path.isdir(place):
        raise RunError(f"The output directory {path} cannot be made: {place} is not a directory.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"The output directory {path} cannot be written: you may not write to {place}.")


def _is_untrained(path: Path) -> bool:
    """Return whether a directory is empty, or what a run leaves that was stopped before its first step."""
    try:
        if path.is_symlink() or not all(_is_ours(entry.name) for entry in path.iterdir()):
            return False
        if not os.path.lexists(path / LATEST):
            return True
        state = read_state(CheckpointFiles(path))
    except (OSError, RunError):
        return False
    return state.get("step") == 0 and state.get("evaluations") == 0


def _is_ours(name: str) -> bool:
    return name in (LATEST, CHECKPOINTS, CONFIG, VOCABULARY) or name.startswith(UNFINISHED)


def _clear(path: Path) -> None:
    """Remove what a run leaves that was stopped before its first step."""
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name != LATEST):  # what names the others first
        if entry.name == CHECKPOINTS:
            shutil.rmtree(entry)
        elif _is_ours(entry.name):
            entry.unlink()


def _check_size(path: Path, content: bytes, limit: int) -> None:
    if len(content) > limit:
        raise RunError(f"{path} would be larger than such a file can be ({limit} bytes).")
