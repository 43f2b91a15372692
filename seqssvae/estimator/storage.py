"""An estimator as a run directory, with one file in addition."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqssvae.data.in_memory import is_collection
from seqssvae.data.plain import is_missing
from seqssvae.errors import ConfigurationError, RunError
from seqssvae.estimator.fitted import FittedModel
from seqssvae.runs.checkpoints import CheckpointFiles
from seqssvae.runs.files import ESTIMATOR, read_json
from seqssvae.runs.learned import calibration_file
from seqssvae.runs.run import RunDirectory
from seqssvae.runs.storage import to_json
from seqssvae.runs.writer import RunWriter


class StoredEstimator(NamedTuple):
    """An estimator as it was saved.

    Args:
        fitted: What training left.
        classes: The labels, as they were given.
        missing: The marker of a missing label, or several.
    """

    fitted: FittedModel
    classes: list[Any]
    missing: Any


def save_estimator(path: str | Path, stored: StoredEstimator) -> None:
    """Write a run directory, which the command line can use as well.

    Args:
        path: The directory, which must not exist.
        stored: The estimator.

    Raises:
        RunError: If the directory exists.
        ConfigurationError: If a label or the marker is neither a text nor a finite number.
    """
    fitted, classes, missing = stored
    missing_is_nan = missing is not None and is_missing(missing)  # which JSON has no number for
    several = is_collection(missing)
    markers = [one for one in (missing if several else [missing]) if not is_missing(one)]
    for value in [*classes, *markers]:
        if not isinstance(value, (str, int, float)) or value in (math.inf, -math.inf):
            raise ConfigurationError(f"Only labels that are texts or finite numbers can be saved, not {value!r}.")
    entries = {"texts": fitted.texts, "classes": classes, "missing": markers if several else next(iter(markers), None)}
    entries |= {"missing_is_nan": True} if missing_is_nan else {}
    carried = {ESTIMATOR: to_json(entries), **calibration_file(fitted.network_pool)}
    checkpoint = fitted.checkpoint
    writer = RunWriter(path, fitted.config, fitted.schema, fitted.backend.name, checkpoint, carried)
    writer.started(checkpoint.state.step, checkpoint.state)
    writer.finished(checkpoint.state)


def load_estimator(path: str | Path, backend: str | None = None, device: str | None = None) -> StoredEstimator:
    """Open a run directory that `save_estimator` or the command line wrote.

    Args:
        path: The directory.
        backend: Name of the twin; None for the one that trained the run.
        device: The twin's device.

    Raises:
        RunError: If there is no run directory, or a file of it is missing, damaged, or does not fit the others.
    """
    directory = RunDirectory(path)
    run, checkpoint = directory.open(backend, device), directory.read_checkpoint()
    classes, texts, missing = _read_entries(directory.files, run.labels.names)
    known = run.ensemble, run.baselines, run.trained_on, run.network_pool
    fitted = FittedModel(run.backend, run.config, run.schema, texts, checkpoint, *known)
    return StoredEstimator(fitted, classes, missing)


def _read_entries(files: CheckpointFiles, names: Sequence[str]) -> tuple[list[Any], bool, Any]:
    """Return labels, whether sequences are texts, and the marker; a run of the command line has the defaults."""
    if ESTIMATOR not in files:
        return list(names), True, None
    entries, path = read_json(files, ESTIMATOR), files.folder / ESTIMATOR
    classes, missing = entries.get("classes"), entries.get("missing")
    if not isinstance(classes, list) or len(classes) != len(names):
        raise RunError(f"{path}: classes must be a list of {len(names)} labels.")
    for value in [*classes, *(missing if isinstance(missing, list) else [missing])]:
        if not isinstance(value, (str, int, float, type(None))):
            raise RunError(f"{path}: labels and marker must be texts or numbers, not {value!r}.")
    return classes, bool(entries.get("texts", True)), math.nan if entries.get("missing_is_nan") else missing
