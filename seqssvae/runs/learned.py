"""The files of a checkpoint that hold what is known beside the network: an ensemble, baselines, rows trained on.

Of each there is a JSON file, which also says the type and shape of every array, and a safetensors file. How the
network's own predictions are calibrated is known when training has ended, and is a JSON file alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqssvae.backend import Dimensions
from seqssvae.errors import RunError
from seqssvae.parameters import Shape
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.network import BuildBackend
from seqssvae.recipes.pool import Pool
from seqssvae.recipes.trained_on import TrainedOn
from seqssvae.runs.checkpoints import CheckpointFiles
from seqssvae.runs.files import BASELINES, CALIBRATION, ENSEMBLE, LIMITS, TRAINED_ON, read_json
from seqssvae.runs.storage import parse_json, parse_safetensors, safetensors_limit, to_json, to_safetensors
from seqssvae.training.processes import Processes

TYPES = ("float32", "float64", "int32", "int64")
"""The types that arrays of a run may have."""


def learned_files(ensemble: Ensemble | None, baselines: Baselines, trained_on: TrainedOn) -> dict[str, bytes]:
    """The content of the files, by name; those of an ensemble if there is one."""
    files = _stored(BASELINES, {}, baselines.to_arrays()) | trained_on_files(trained_on)
    return files if ensemble is None else {**files, **_stored(ENSEMBLE, *ensemble.to_stored())}


def trained_on_files(trained_on: TrainedOn) -> dict[str, bytes]:
    """The content of the files of which labelled rows were trained on, by name."""
    return _stored(TRAINED_ON, {}, trained_on.to_arrays())


def read_ensemble(files: CheckpointFiles, dimensions: Dimensions, build: BuildBackend) -> Ensemble | None:
    """Read the ensemble of a run; None if it has none.

    Args:
        files: The files of the checkpoint.
        dimensions: Of the run's model.
        build: Builds the twin of members that are networks.

    Raises:
        RunError: If a file is damaged, or they do not fit each other.
    """
    if ENSEMBLE[0] not in files:
        return None
    settings, arrays = _read(files, ENSEMBLE)
    try:
        return Ensemble.from_stored(settings, arrays, dimensions, build)
    except RunError as error:
        raise RunError(f"{files.folder / ENSEMBLE[0]}: {error}") from error


def ensemble_of_first(
    processes: Processes, ensemble: Ensemble | None, dimensions: Dimensions, build: BuildBackend
) -> Ensemble | None:
    """The ensemble that the first of several processes has learned.

    Args:
        processes: The processes, all of which call this.
        ensemble: What this one has learned; of others than the first it does not matter.
        dimensions: Of the model.
        build: Builds the twin of members that are networks.
    """
    if processes.count == 1:
        return ensemble
    own = {} if ensemble is None else _stored(ENSEMBLE, *ensemble.to_stored())
    settings, content = (processes.of_first(own.get(name, b"")) for name in ENSEMBLE)
    if processes.rank == 0 or not settings:
        return ensemble
    stored = parse_json(settings, ENSEMBLE[0])
    shapes, types = _layout(stored)
    arrays, _ = parse_safetensors(content, Path(ENSEMBLE[1]), shapes, types)
    return Ensemble.from_stored(stored, arrays, dimensions, build)


def read_baselines(files: CheckpointFiles) -> Baselines | None:
    """Read the baselines of a run; None if it has none, as one of an earlier version.

    Raises:
        RunError: If a file is damaged, or they do not fit each other.
    """
    if BASELINES[0] not in files:
        return None
    _, arrays = _read(files, BASELINES)
    try:
        return Baselines.from_arrays(arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(f"{files.folder / BASELINES[1]}: not what counts of symbols are ({error!r}).") from error


def read_trained_on(files: CheckpointFiles, label_count: int) -> TrainedOn | None:
    """Read which labelled rows a run was trained on; None if that was not written, as by an earlier version.

    Args:
        files: The files of the checkpoint.
        label_count: K.

    Raises:
        RunError: If a file is damaged, or they do not fit each other.
    """
    if TRAINED_ON[0] not in files:
        return None
    _, arrays = _read(files, TRAINED_ON)
    try:
        return TrainedOn.from_arrays(arrays, label_count)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunError(f"{files.folder / TRAINED_ON[1]}: not what is known of training rows ({error!r}).") from error


def calibration_file(pool: Pool | None) -> dict[str, bytes]:
    """The content of the file of how the network's predictions are calibrated, by name; none if they are not."""
    if pool is None:
        return {}
    return {CALIBRATION: to_json({"temperatures": pool.temperatures.tolist(), "weights": pool.weights.tolist()})}


def read_network_pool(files: CheckpointFiles, count: int) -> Pool | None:
    """Read how the network's predictions are calibrated; None if that was not written.

    Args:
        files: The files of the checkpoint.
        count: The number of ways to predict that the network has: 2 with a generator, 1 without.

    Raises:
        RunError: If the file is damaged.
    """
    if CALIBRATION not in files:
        return None
    try:
        return Pool.from_stored(read_json(files, CALIBRATION), count)
    except ValueError as error:
        raise RunError(f"{files.folder / CALIBRATION}: {error}") from error


def _stored(names: tuple[str, str], settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    layout = {name: [str(array.dtype), *array.shape] for name, array in arrays.items()}
    return {names[0]: to_json({**settings, "arrays": layout}), names[1]: to_safetensors(arrays, 0)}


def _read(files: CheckpointFiles, names: tuple[str, str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    settings = read_json(files, names[0])
    layout = settings.get("arrays")
    if not isinstance(layout, dict) or not all(map(_is_entry, layout.values())):
        raise RunError(f"{files.folder / names[0]}: arrays must hold the type and the shape of each array.")
    shapes, types = _layout(settings)
    content = files.read(names[1], min(LIMITS[names[1]], safetensors_limit(shapes)))
    arrays, _ = parse_safetensors(content, files.folder / names[1], shapes, types)
    return settings, arrays


def _layout(settings: dict[str, Any]) -> tuple[dict[str, Shape], dict[str, str]]:
    """Shape, and NumPy's name of the type, of each array."""
    layout = settings["arrays"]
    return {name: tuple(entry[1:]) for name, entry in layout.items()}, {name: of[0] for name, of in layout.items()}


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, list) or not entry or entry[0] not in TYPES:
        return False
    return all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in entry[1:])
