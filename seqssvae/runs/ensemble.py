"""The files of a checkpoint that hold what was learned of the labels beside the network."""

from typing import Any

from seqssvae.errors import RunError
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.network import BuildBackend
from seqssvae.runs.checkpoints import CheckpointFiles
from seqssvae.runs.files import ENSEMBLE, LIMITS, MEMBERS, read_json
from seqssvae.runs.storage import parse_safetensors, safetensors_limit, to_json, to_safetensors

TYPES = ("float32", "float64", "int32", "int64")
"""Types of its arrays."""


def ensemble_files(ensemble: Ensemble | None) -> dict[str, bytes]:
    """The content of the files of an ensemble, by name; none where there is no ensemble."""
    if ensemble is None:
        return {}
    settings, arrays = ensemble.to_stored()
    layout = {name: [str(array.dtype), *array.shape] for name, array in arrays.items()}
    return {ENSEMBLE: to_json({**settings, "arrays": layout}), MEMBERS: to_safetensors(arrays, 0)}


def read_ensemble(files: CheckpointFiles, build: BuildBackend) -> Ensemble | None:
    """Read the ensemble of a run; None if it has none.

    Args:
        files: The files of the checkpoint.
        build: Builds the twin of members that are networks.

    Raises:
        RunError: If a file is damaged, or they do not fit each other.
    """
    if ENSEMBLE not in files:
        return None
    settings, origin = read_json(files, ENSEMBLE), files.folder / ENSEMBLE
    layout = settings.get("arrays")
    if not isinstance(layout, dict) or not all(map(_is_entry, layout.values())):
        raise RunError(f"{origin}: arrays must hold the type and the shape of each array.")
    shapes = {name: tuple(entry[1:]) for name, entry in layout.items()}
    types = {name: entry[0] for name, entry in layout.items()}
    limit = min(LIMITS[MEMBERS], safetensors_limit(shapes))
    arrays, _ = parse_safetensors(files.read(MEMBERS, limit), files.folder / MEMBERS, shapes, types)
    try:
        return Ensemble.from_stored(settings, arrays, build)
    except RunError as error:
        raise RunError(f"{origin}: {error}") from error


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, list) or not entry or entry[0] not in TYPES:
        return False
    return all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in entry[1:])
