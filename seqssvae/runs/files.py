"""The files of a run directory, and how each is read: checked before it is used, and none of them a pickle.

config.yaml            the whole configuration
vocabulary.json        symbols (of sequences, and of sources), labels, and p(y)
weights.safetensors    the best weights: those that training kept
last.safetensors       the weights of the last evaluation
optimizer.safetensors  the state of the optimiser at the last evaluation
state.json             the state of training at the last evaluation, and the name of the twin that trained
metrics.jsonl          the metrics of each evaluation, one a line
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqssvae.backend import Weights
from seqssvae.config import Config, weight_type
from seqssvae.config.settings import from_dict, parse_yaml, upgraded
from seqssvae.data.corpus import Corpus
from seqssvae.data.schema import FORMAT, Schema
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import ConfigurationError, DataError, RunError
from seqssvae.parameters import Shape
from seqssvae.runs.storage import read_bytes, read_json, read_safetensors
from seqssvae.training.fit import Score, TrainingState

CONFIG, VOCABULARY, STATE, METRICS = "config.yaml", "vocabulary.json", "state.json", "metrics.jsonl"
WEIGHTS, LAST, OPTIMIZER = "weights.safetensors", "last.safetensors", "optimizer.safetensors"

MOST_LAYERS = 1000
"""Greatest number of recurrent layers of a run: the names of more weights would fill the memory."""

_UNFINISHED = " (training may have stopped before its first evaluation)"


class Checkpoint(NamedTuple):
    """How far the training of a run has come.

    Args:
        state: The state of training.
        history: The records of `metrics.jsonl` up to that state.
        digest: Digest of the rows that the run learns from (`corpus_digest`).
    """

    state: TrainingState
    history: list[dict[str, Any]]
    digest: str


def read_config(path: str | Path) -> Config:
    """Read the configuration of a run.

    Args:
        path: The run directory.

    Raises:
        RunError: If there is no run directory, or its configuration is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"There is no run directory {path}.")
    file = path / CONFIG
    if not path.is_dir():
        raise RunError(f"{path} is not a run directory but a file.")
    try:
        return from_dict(upgraded(parse_yaml(read_bytes(file).decode("utf-8"), str(file))), str(file))
    except (ConfigurationError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, ConfigurationError) else f"{file}: not UTF-8."
        raise RunError(reason) from error


def read_schema(path: str | Path) -> Schema:
    """Read the symbols and labels of a run.

    Args:
        path: The run directory.

    Raises:
        RunError: If the file is missing or wrong.
    """
    file = Path(path) / VOCABULARY
    stored = read_json(file)
    if stored.get("format") != FORMAT:
        raise RunError(f"{file}: format {stored.get('format')!r} is not {FORMAT}, which this version reads.")
    try:
        vocabulary = Vocabulary.from_dict(stored.get("vocabulary", {}))
        labels = Labels.from_dict(stored.get("labels", {}))
        source = stored.get("source_vocabulary")
        source_vocabulary = None if source is None else Vocabulary.from_dict(source)
    except DataError as error:
        raise RunError(f"{file}: {error}") from error
    return Schema(vocabulary, labels, _label_prior(file, stored.get("label_prior"), len(labels)), source_vocabulary)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read the state of a run's training and the name of its twin, as `state.json` holds them, without checking them.

    Args:
        path: The run directory.

    Raises:
        RunError: If the file is missing or is not JSON.
    """
    return read_json(Path(path) / STATE, _UNFINISHED)


def read_weights(path: Path, config: Config, schema: Schema) -> tuple[Weights, int]:
    """Read a file of weights of a run directory.

    Args:
        path: The file.
        config: The run's configuration.
        schema: The run's symbols and labels.

    Returns:
        The weights, and the training step they are from.

    Raises:
        RunError: If they are not the weights of this configuration.
    """
    if (schema.source_vocabulary is None) != (config.data.source_column == 0):
        which = "no source_vocabulary" if schema.source_vocabulary is None else "a source_vocabulary"
        column = config.data.source_column
        raise RunError(f"{path.parent}: {VOCABULARY} has {which}, but {CONFIG} has data.source_column: {column}.")
    weights, step = read_safetensors(path, _weight_shapes(path.parent, config, schema))
    _check_types(path, weights, config)
    return weights, step


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the metrics of each evaluation of a run, in order.

    Args:
        path: The run directory.

    Raises:
        RunError: If the file is missing, or a line is not a JSON object with a step.
    """
    file = Path(path) / METRICS
    records = []
    for number, line in enumerate(read_bytes(file, _UNFINISHED).decode("utf-8", "replace").splitlines(), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{file}:{number}: not valid JSON ({error}).") from error
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise RunError(f"{file}:{number}: must be a JSON object with a step.")
        records.append(record)
    return records


def corpus_digest(corpus: Corpus) -> str:
    """Return a digest of the rows and labels of a corpus, by which they can be recognised."""
    digest = hashlib.sha256(corpus.y.astype("<i4").tobytes())
    for rows in (corpus.sequences, corpus.sources):
        if rows is not None:
            digest.update(rows.values.astype("<i4").tobytes())
    return digest.hexdigest()


def state_entry(path: Path, state: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """Return an entry of `state.json`.

    Args:
        path: The file, which an error names.
        state: What it holds.
        name: Name of the entry.
        kind: The type, or types, that the entry may have.

    Raises:
        RunError: If the entry is missing, has another type, or is a number below 0.
    """
    value = state.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RunError(f"{path}: {name} is missing or of a wrong kind.")
    if isinstance(value, (int, float)) and value < 0:
        raise RunError(f"{path}: {name} must not be below 0.")
    return value


def state_scalars(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `TrainingState` that are not arrays, from what `state.json` holds.

    Args:
        path: The file, which an error names.
        state: What it holds.

    Raises:
        RunError: If a field is missing or wrong.
    """
    counts = ("step", "epoch", "epoch_step", "evaluations", "best_step", "waited")
    fields: dict[str, Any] = {name: state_entry(path, state, name, int) for name in counts}
    best: Score | None = None
    if state.get("best") is not None:
        value, tie_break = (float(item) for item in _pair(path, state["best"]))
        best = (value, tie_break)
    numbers = {"best_error": 0.0, "schedule_steps": 0, **state}  # earlier versions had no such entries
    for name in ("seconds", "best_error"):
        fields[name] = float(state_entry(path, numbers, name, (int, float)))
    fields["schedule_steps"] = state_entry(path, numbers, "schedule_steps", int)
    return {**fields, "best": best}


def _label_prior(file: Path, prior: Any, count: int) -> tuple[float, ...]:
    if isinstance(prior, list) and len(prior) == count >= 2:
        numbers = all(isinstance(p, (int, float)) and 0 < p <= 1 for p in prior)
        if numbers and abs(sum(prior) - 1) < 1e-6:
            return tuple(float(p) for p in prior)
    raise RunError(f"{file}: label_prior must be a list of {count} probabilities that sum to 1.")


def _pair(path: Path, value: Any) -> Sequence[float]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, (int, float)) for item in value):
        return value
    raise RunError(f"{path}: best must be null or a list of two numbers.")


def _weight_shapes(path: Path, config: Config, schema: Schema) -> dict[str, Shape]:
    layers = config.model.encoder.layers + config.model.decoder.layers
    if layers > MOST_LAYERS:
        raise RunError(f"{path / CONFIG}: {layers} recurrent layers are more than a run can have ({MOST_LAYERS}).")
    return schema.parameter_shapes(config.model)


def _check_types(path: Path, weights: Weights, config: Config) -> None:
    precision = config.training.precision
    expected = weight_type(precision)
    for name, value in weights.items():
        if value.dtype != expected:
            reason = f"{expected}, as training.precision: {precision} has them"
            raise RunError(f"{path}: {name} is of type {value.dtype}, not {reason}.")
