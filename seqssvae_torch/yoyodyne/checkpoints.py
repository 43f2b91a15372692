"""A checkpoint of the plug-in for yoyodyne as a run directory."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqssvae.config import Config
from seqssvae.config.settings import from_dict
from seqssvae.data.schema import Schema
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import RunError, UserError
from seqssvae.parameters import baseline_shapes, check_weights, optimizer_shapes
from seqssvae.runs.files import Checkpoint
from seqssvae.runs.writer import RunWriter
from seqssvae.training.fit import TrainingState

STATE, PREFIX = "seqssvae", "ssvae."
"""Under which the checkpoint has what the networks are built from, and what their weights' names begin with."""


def import_yoyodyne(checkpoint: str | Path, run: str | Path) -> None:
    """Write a run directory with a checkpoint's networks, symbols, labels and weights.

    The optimiser of the host is not ours: the run can be used in every way, but is not to be resumed.

    Args:
        checkpoint: A checkpoint file that the host wrote.
        run: The directory to make.

    Raises:
        RunError: If the file is no such checkpoint, or the directory exists.
    """
    stored = _read(Path(checkpoint))
    state = stored[STATE]
    try:
        config = from_dict(
            {
                "data": state["data"],
                "model": state["networks"],
                "objective": state["objective"],
                "training": {"seed": state["seed"]},
            }
        )
        vocabulary = Vocabulary(tuple(state["symbols"]), config.data.separator)
        sources = state["source_symbols"]
        source_vocabulary = None if sources is None else Vocabulary(tuple(sources), config.data.source_separator)
        schema = Schema(vocabulary, Labels(tuple(state["labels"])), tuple(state["label_prior"]), source_vocabulary)
        weights = _weights(stored["state_dict"], config, schema)
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise RunError(f"{checkpoint} is not a whole checkpoint of seqssvae_torch.yoyodyne: {error}") from error
    shapes = optimizer_shapes(config.optimizer, {name: value.shape for name, value in weights.items()})
    shapes |= baseline_shapes(config.objective, len(vocabulary))
    optimizer = {name: np.zeros(shape, np.int32 if name == "step" else np.float32) for name, shape in shapes.items()}
    step = int(stored.get("global_step", 0))
    training = TrainingState(
        step=step, evaluations=1, best_step=step, weights=weights, best_weights=weights, optimizer=optimizer
    )
    RunWriter(run, config, schema, "torch", Checkpoint(training, [], "")).started(step, training)


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} cannot be read as a checkpoint ({reason}).") from error
    if not isinstance(stored, dict) or STATE not in stored:
        raise RunError(f"{path} is not a checkpoint of seqssvae_torch.yoyodyne.")
    return stored


def _weights(tensors: Mapping[str, Any], config: Config, schema: Schema) -> dict[str, np.ndarray]:
    ours = {name: value for name, value in tensors.items() if name.startswith(PREFIX)}
    weights = {name.removeprefix(PREFIX): value.float().numpy() for name, value in ours.items()}
    shapes = schema.parameter_shapes(config.model)
    check_weights(weights, shapes)
    return {name: weights[name] for name in shapes}
