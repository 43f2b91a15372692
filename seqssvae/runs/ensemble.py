"""The files of a run directory that hold what was learned of the labels beside the network.

ensemble.json          the candidates, how each did, and how those that are of use are joined
ensemble.safetensors   what these learned
"""

from pathlib import Path

from seqssvae.errors import RunError
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.network import BuildBackend
from seqssvae.runs.storage import read_json, read_safetensors, to_json, to_safetensors, write_files
from seqssvae.training.fit import Observer, TrainingState

ENSEMBLE, MEMBERS = "ensemble.json", "ensemble.safetensors"


class EnsembleWriter(Observer):
    """Writes an ensemble into a run directory that another observer, called before this one, has made.

    Args:
        path: The run directory.
        ensemble: The ensemble; None to write nothing.
    """

    def __init__(self, path: str | Path, ensemble: Ensemble | None) -> None:
        self.path, self.ensemble = Path(path), ensemble

    def started(self, total_steps: int, state: TrainingState) -> None:
        """Write the ensemble."""
        if self.ensemble is not None:
            settings, arrays = self.ensemble.to_stored()
            write_files({self.path / MEMBERS: to_safetensors(arrays, 0), self.path / ENSEMBLE: to_json(settings)})


def read_ensemble(path: str | Path, build: BuildBackend) -> Ensemble | None:
    """Read the ensemble of a run; None if it has none.

    Args:
        path: The run directory.
        build: Builds the twin of members that are networks.

    Raises:
        RunError: If a file is damaged, or they do not fit each other.
    """
    file = Path(path) / ENSEMBLE
    if not file.exists():
        return None
    settings, (arrays, _) = read_json(file), read_safetensors(Path(path) / MEMBERS)
    try:
        return Ensemble.from_stored(settings, arrays, build)
    except RunError as error:
        raise RunError(f"{file}: {error}") from error
