"""A run directory that is opened: to be used with either twin, or to be resumed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from seqssvae.backend import Backend, Dimensions, Weights, get_backend
from seqssvae.config import Config
from seqssvae.config.checks import check_device
from seqssvae.data.corpus import Corpus
from seqssvae.data.schema import Schema
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import BackendError, RunError
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.pool import Pool
from seqssvae.recipes.trained_on import TrainedOn
from seqssvae.runs.checkpoints import CheckpointFiles
from seqssvae.runs.files import (
    CARRIED,
    LAST,
    LIMITS,
    STATE,
    WEIGHTS,
    Checkpoint,
    corpus_digest,
    read_config,
    read_history,
    read_optimizer,
    read_schema,
    read_state,
    read_totals,
    read_weights,
    state_entry,
    state_scalars,
)
from seqssvae.runs.learned import read_baselines, read_ensemble, read_network_pool, read_trained_on
from seqssvae.runs.usable import usable_backend
from seqssvae.training.state import TrainingState
from seqssvae.training.step_order import total_steps

Content = TypeVar("Content")


@dataclass(frozen=True)
class Run:
    """A trained model with all that is needed to use it.

    Args:
        path: The run directory.
        config: Its configuration.
        schema: Symbols, labels and p(y).
        backend: The model with its best weights.
        step: Training step of these weights.
        trained_by: Name of the twin that trained it.
        ensemble: What was learned of the labels beside the model; None where the model alone predicts them.
        baselines: What its generator must be better than; None in runs of earlier versions.
        trained_on: Which labelled rows it was trained on; None in runs of earlier versions.
        network_pool: How the model's own predictions are calibrated; None where no labelled rows were held out, or
            training was stopped.
    """

    path: Path
    config: Config
    schema: Schema
    backend: Backend
    step: int
    trained_by: str
    ensemble: Ensemble | None = None
    baselines: Baselines | None = None
    trained_on: TrainedOn | None = None
    network_pool: Pool | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols."""
        return self.schema.vocabulary

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.schema.labels


class RunDirectory:
    """A run directory, as it is read. Each of its files is read when it is first needed, and once.

    Every attribute and method raises RunError if a file that it needs is missing, damaged, or does not fit the others.

    Args:
        path: The directory. It may be written to meanwhile.
        verify: Whether each file must have the checksum that the manifest says.
    """

    def __init__(self, path: str | Path, verify: bool = True) -> None:
        self.path, self._verify = Path(path), verify

    @cached_property
    def config(self) -> Config:
        """The configuration."""
        return self._read(read_config)

    @cached_property
    def schema(self) -> Schema:
        """Symbols, labels and p(y)."""
        return self._read(read_schema)

    @cached_property
    def weights(self) -> tuple[Weights, int]:
        """The best weights, and the training step they are from."""
        config, schema = self.config, self.schema
        self._check_trained()
        return self._read(lambda files: read_weights(files, WEIGHTS, config, schema))

    @cached_property
    def trained_by(self) -> str:
        """Name of the twin that trained the run."""
        return state_entry(self.files.folder / STATE, self._state, "backend", str)

    @property
    def network_pool(self) -> Pool | None:
        """How the model's own predictions are calibrated; None where that is not known."""
        count = 1 if self.config.objective.name == "classifier" else 2
        return self._read(lambda files: read_network_pool(files, count))

    @cached_property
    def files(self) -> CheckpointFiles:
        """The files of the latest checkpoint."""
        return CheckpointFiles(self.path, self._verify)

    @cached_property
    def _state(self) -> dict[str, Any]:
        return self._read(read_state)

    def _read(self, read: Callable[[CheckpointFiles], Content]) -> Content:
        """Read something of the latest checkpoint, or of a later one if that has been removed meanwhile."""
        files = self.files  # what is read may find by itself that they are gone, and go on with later ones
        try:
            return read(files)
        except RunError:
            latest = CheckpointFiles(self.path, self._verify)
            if latest.folder == files.folder:
                raise
            self.files = latest
            for name in ("_state", "trained_by", "weights"):
                self.__dict__.pop(name, None)
            return self._read(read)

    def _check_trained(self) -> None:
        if self._state.get("step") == 0 and self._state.get("evaluations") == 0:
            raise RunError(f"{self.path} has no trained weights yet; train it by seqssvae fit --resume {self.path}.")

    def open(self, backend: str | None = None, device: str | None = None) -> Run:
        """Build the model with its best weights.

        Args:
            backend: Name of the twin; None for the one that trained the run.
            device: The twin's device.

        Raises:
            RunError: If a file is missing, damaged, or does not fit the others.
            BackendError: If the twin is not installed.
            ConfigurationError: If the twin does not know the device.
        """
        check_device(device)
        config, schema, trained_by = self.config, self.schema, self.trained_by
        weights, step = self.weights

        kind = get_backend(backend) if backend else _twin(trained_by)

        def build(config: Config, dimensions: Dimensions) -> Backend:
            return kind(config, dimensions, device)

        twin = build(config, schema.dimensions)
        twin.set_weights(weights)
        ensemble = self._read(lambda files: read_ensemble(files, schema.dimensions, build))
        trained_on = self._read(lambda files: read_trained_on(files, len(schema.labels)))
        learned = ensemble, self._read(read_baselines), trained_on, self.network_pool
        return Run(self.path, config, schema, twin, step, trained_by, *learned)

    def read_checkpoint(self) -> Checkpoint:
        """Read the last state of training and its history.

        Raises:
            RunError: If a file is missing, damaged, or from another step than the others.
        """
        return self._read(self._read_checkpoint)

    def _read_checkpoint(self, files: CheckpointFiles) -> Checkpoint:
        config, schema, path = self.config, self.schema, files.folder / STATE
        digest, scalars = state_entry(path, self._state, "data", str), state_scalars(path, self._state)
        steps = state_entry(path, {"segment_steps": 0, **self._state}, "segment_steps", int)
        last, last_step = read_weights(files, LAST, config, schema)
        best, best_step = self.__dict__.get("weights") or read_weights(files, WEIGHTS, config, schema)
        optimizer, optimizer_step = read_optimizer(files, config, schema)
        if {last_step, optimizer_step} != {scalars["step"]} or best_step != scalars["best_step"]:
            raise RunError(
                f"{self.path} cannot be resumed: its files are from different steps (a checkpoint was interrupted); "
                "it can still be used as it is."
            )
        totals = read_totals(files, steps)
        state = TrainingState(weights=last, best_weights=best, optimizer=optimizer, totals=totals, **scalars)
        history = [line for line, step in read_history(files) if step <= state.step]
        carried = {name: files.read(name, LIMITS[name]) for name in CARRIED if name in files}
        return Checkpoint(state, history, digest, carried)

    def resume(self, schema: Schema, training: Corpus) -> Checkpoint:
        """Read what is needed to resume the run, and check that the data are those it was trained on.

        Args:
            schema: Symbols, labels and p(y) of the data given to the new run.
            training: The training rows given to the new run.

        Raises:
            RunError: If a file is missing, damaged, or does not fit the others, or if the data are others.
        """
        checkpoint = self.read_checkpoint()
        if self.schema != schema or checkpoint.digest != corpus_digest(training):
            raise RunError(
                f"{self.path} was trained on other rows than {training.origin}; resume it with the same data."
            )
        if not checkpoint.state.schedule_steps:  # of an earlier version: its schedule was as long as its training
            state = replace(checkpoint.state, schedule_steps=total_steps(self.config, training))
            return replace(checkpoint, state=state)
        return checkpoint


def _twin(trained_by: str) -> type[Backend]:
    """The twin that trained a run; where it is not installed, the error names one that is."""
    try:
        return get_backend(trained_by)
    except BackendError as error:
        other = usable_backend()  # raises where there is none
        advice = f'Or open the run by {other}: --backend {other}, or backend="{other}" in Python.'
        raise BackendError(f"{error} {advice}") from error


def open_run(path: str | Path, backend: str | None = None, device: str | None = None, verify: bool = True) -> Run:
    """Open a run directory to use its model, with the twin that trained it or the other one.

    Args:
        path: The directory.
        backend: Name of the twin; None for the one that trained the run.
        device: The twin's device.
        verify: Whether each file must have the checksum that the manifest says.

    Raises:
        RunError: If there is no run directory, or a file of it is missing, damaged, or does not fit the others.
        BackendError: If the twin is not installed.
        ConfigurationError: If the twin does not know the device.
    """
    return RunDirectory(path, verify).open(backend, device)
