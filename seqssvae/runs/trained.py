"""Run directories of models that were trained elsewhere: by a host, or by a program of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from seqssvae.backend import Weights
from seqssvae.config import Config, weight_type
from seqssvae.data.schema import Schema
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import ConfigurationError
from seqssvae.parameters import baseline_shapes, check_weights, optimizer_shapes
from seqssvae.runs.files import Checkpoint
from seqssvae.runs.writer import RunWriter, refuse_existing
from seqssvae.training.state import TrainingState


def write_run(
    path: str | Path,
    config: Config,
    symbols: Sequence[str],
    labels: Sequence[str],
    weights: Mapping[str, np.ndarray],
    backend: str,
    label_prior: Sequence[float] | None = None,
) -> None:
    """Write a run directory with weights of a program of one's own, which all commands and `SequenceSSVAE.load` open.

    Args:
        path: The directory to make.
        config: The configuration, whose section `model` is that of the networks; `data` says how texts are split.
        symbols: The ordinary symbols, whose ids begin with 4, in the order of their ids.
        labels: The names of the labels, in the order of their ids.
        weights: What `SSVAE.get_weights()` of either twin returns.
        backend: Name of the twin that trained.
        label_prior: p(y); None: uniform.

    Raises:
        RunError: If the directory exists.
        ConfigurationError: If the weights are not those of a model of this configuration, these symbols and labels.
        DataError: If a symbol or a label is empty or repeated.
    """
    prior = tuple(label_prior) if label_prior is not None else (1 / len(labels),) * len(labels)
    schema = Schema(Vocabulary(tuple(symbols), config.data.separator), Labels(tuple(labels)), prior)
    try:
        check_weights(weights, schema.parameter_shapes(config.model))
    except ValueError as error:
        raise ConfigurationError(f"The weights do not go with configuration, symbols and labels: {error}") from error
    kind = weight_type(config.training.precision)
    write_trained(path, config, schema, {name: value.astype(kind) for name, value in weights.items()}, backend)


def write_trained(
    path: str | Path, config: Config, schema: Schema, weights: Weights, backend: str, step: int = 1
) -> None:
    """Write a run directory that can be used in every way, but is not to be resumed: its optimiser was another.

    Args:
        path: The directory to make.
        config: The configuration.
        schema: Symbols, labels and p(y).
        weights: The weights.
        backend: Name of the twin.
        step: The training step that they are of.

    Raises:
        RunError: If the directory exists.
    """
    refuse_existing(path)
    shapes = optimizer_shapes(config.optimizer, {name: value.shape for name, value in weights.items()})
    shapes |= baseline_shapes(config.objective, len(schema.vocabulary))
    kind = weight_type(config.training.precision)
    optimizer = {name: np.zeros(shape, np.int32 if name == "step" else kind) for name, shape in shapes.items()}
    state = TrainingState(
        step=step, evaluations=1, best_step=step, weights=weights, best_weights=weights, optimizer=optimizer
    )
    writer = RunWriter(path, config, schema, backend, Checkpoint(state, [], ""))
    writer.started(step, state)
    writer.finished(state)
