"""A checkpoint of the plug-in for yoyodyne as a run directory."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqssvae.config import Config
from seqssvae.config.settings import from_dict
from seqssvae.data.schema import FORMAT, Schema
from seqssvae.errors import RunError
from seqssvae.parameters import Shape, check_weights
from seqssvae.runs.files import parse_schema
from seqssvae.runs.storage import parse_json, to_json
from seqssvae.runs.trained import write_trained
from seqssvae.runs.writer import refuse_existing

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
    refuse_existing(run)
    stored = _read(Path(checkpoint))
    try:
        state = stored[STATE]
        config = from_dict(
            {
                "data": state["data"],
                "model": state["networks"],
                "objective": state["objective"],
                "training": {"seed": state["seed"]},
            }
        )
        schema = _schema(state, config, Path(checkpoint))
        weights = _weights(stored["state_dict"], schema.parameter_shapes(config.model))
        step = _step(stored.get("global_step", 0))
    except Exception as error:  # whatever takes exception to it: it is from elsewhere
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise RunError(f"{checkpoint} is not a whole checkpoint of seqssvae_torch.yoyodyne: {reason}") from error
    write_trained(run, config, schema, weights, "torch", step)


def _read(path: Path) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise RunError(f"{path} is not a file.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many kinds
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RunError(f"{path} cannot be read as a checkpoint ({reason}).") from error
    if not isinstance(stored, dict) or STATE not in stored:
        raise RunError(f"{path} is not a checkpoint of seqssvae_torch.yoyodyne.")
    return stored


def _step(step: Any) -> int:
    if not isinstance(step, int) or not 0 <= step < 10**12:
        raise ValueError("global_step must be a whole number.")
    return step


def _schema(state: Mapping[str, Any], config: Config, origin: Path) -> Schema:
    """Return symbols and labels, checked as those of a run directory are."""
    symbols = {"separator": config.data.separator, "symbols": list(state["symbols"])}
    stored = {"format": FORMAT, "vocabulary": symbols, "labels": {"names": list(state["labels"])}}
    if state["source_symbols"] is not None:
        separator = config.data.source_separator
        stored["source_vocabulary"] = {"separator": separator, "symbols": list(state["source_symbols"])}
    return parse_schema(parse_json(to_json({**stored, "label_prior": list(state["label_prior"])}), str(origin)), origin)


def _weights(tensors: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    ours = {name: value for name, value in tensors.items() if name.startswith(PREFIX)}
    weights = {name.removeprefix(PREFIX): value.float().numpy() for name, value in ours.items()}
    check_weights(weights, shapes)
    for name, value in weights.items():
        if not np.all(np.isfinite(value)):
            raise ValueError(f"the weight {name} holds values that are not finite.")
    return {name: weights[name] for name in shapes}
