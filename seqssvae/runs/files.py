"""The files of a run directory, and how they are read: checked before they are used, and no pickle among them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqssvae.backend import Weights
from seqssvae.config import Config, weight_type
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError, DataError, RunError
from seqssvae.training.fit import Score, TrainingState
from seqssvae.parameters import Shape
from seqssvae.data.schema import FORMAT, Schema
from seqssvae.config.settings import from_dict, parse_yaml, upgraded
from seqssvae.runs.storage import read_bytes, read_json, read_safetensors
from seqssvae.data.vocabulary import Labels, Vocabulary

CONFIG, VOCABULARY, STATE, METRICS = "config.yaml", "vocabulary.json", "state.json", "metrics.jsonl"
WEIGHTS, LAST, OPTIMIZER = "weights.safetensors", "last.safetensors", "optimizer.safetensors"

_UNFINISHED = " (training may have stopped before its first evaluation)"


class Checkpoint(NamedTuple):
    """How far the training of a run has come.

    Args:
        state: Where it stands.
        history: Lines of `metrics.jsonl` so far.
        digest: Of the rows it learns from, by `corpus_digest`.
    """

    state: TrainingState
    history: list[dict[str, Any]]
    digest: str


def read_config(path: str | Path) -> Config:
    """The configuration of a run.

    Raises:
        RunError: If there is no run directory, or its configuration is not what it should be.
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
    """The symbols and labels of a run.

    Raises:
        RunError: If the file is missing, or not what it should be.
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


def trained_by(path: str | Path) -> str:
    """Name of the twin that trained a run."""
    file = Path(path) / STATE
    return _entry(file, read_json(file, _UNFINISHED), "backend", str)


def read_weights(path: Path, config: Config, schema: Schema) -> tuple[Weights, int]:
    """The weights in a file of a run directory, and the training step they are from.

    Raises:
        RunError: If they are not those of this configuration.
    """
    if (schema.source_vocabulary is None) != (config.data.source_column == 0):
        which = "no source_vocabulary" if schema.source_vocabulary is None else "a source_vocabulary"
        column = config.data.source_column
        raise RunError(f"{path.parent}: {VOCABULARY} has {which}, but {CONFIG} has data.source_column: {column}.")
    shapes = _weight_shapes(path.parent, config, schema)
    weights, step = read_safetensors(path, shapes)
    return _as_floats(path, weights, config), step


def read_checkpoint(path: str | Path) -> Checkpoint:
    """The last state of a run, and how it came there.

    Raises:
        RunError: If a file of it is missing, damaged, or does not fit the others.
    """
    path = Path(path)
    config, schema = read_config(path), read_schema(path)
    state = read_json(path / STATE, _UNFINISHED)
    digest, fields = _entry(path / STATE, state, "data", str), _read_scalars(path / STATE, state)
    last, last_step = read_weights(path / LAST, config, schema)
    best, best_step = read_weights(path / WEIGHTS, config, schema)
    optimizer, optimizer_step = read_safetensors(path / OPTIMIZER)
    if {last_step, optimizer_step} != {fields["step"]} or best_step != fields["best_step"]:
        raise RunError(
            f"{path} cannot be resumed: its files are from different steps (a checkpoint was interrupted); "
            "it can still be used as it is."
        )
    found = TrainingState(weights=last, best_weights=best, optimizer=optimizer, **fields)
    return Checkpoint(found, [record for record in read_metrics(path) if record["step"] <= found.step], digest)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """What each evaluation of a run found, in order."""
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
    """A digest of rows and labels, to know them again."""
    digest = hashlib.sha256(corpus.y.astype("<i4").tobytes())
    for sequence in (*corpus.sequences, *(corpus.sources or ())):
        digest.update(sequence.astype("<i4").tobytes())
    return digest.hexdigest()


def _label_prior(file: Path, prior: Any, count: int) -> tuple[float, ...]:
    if isinstance(prior, list) and len(prior) == count >= 2:
        numbers = all(isinstance(p, (int, float)) and 0 < p <= 1 for p in prior)
        if numbers and abs(sum(prior) - 1) < 1e-6:
            return tuple(float(p) for p in prior)
    raise RunError(f"{file}: label_prior must be a list of {count} probabilities that sum to 1.")


def _read_scalars(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """The fields of `TrainingState` that are no arrays."""
    counts = ("step", "epoch", "epoch_step", "evaluations", "best_step", "waited")
    fields: dict[str, Any] = {name: _entry(path, state, name, int) for name in counts}
    best: Score | None = None
    if state.get("best") is not None:
        value, tie_break = (float(item) for item in _pair(path, state["best"]))
        best = (value, tie_break)
    numbers = {"best_error": 0.0, **state}  # runs of before have none, and no use for one
    for name in ("seconds", "best_error"):
        fields[name] = float(_entry(path, numbers, name, (int, float)))
    return {**fields, "best": best}


def _pair(path: Path, value: Any) -> Sequence[float]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, (int, float)) for item in value):
        return value
    raise RunError(f"{path}: best must be null or a list of two numbers.")


def _entry(path: Path, values: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = values.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RunError(f"{path}: {name} is missing or of a wrong kind.")
    if isinstance(value, (int, float)) and value < 0:
        raise RunError(f"{path}: {name} must not be below 0.")
    return value


def _weight_shapes(path: Path, config: Config, schema: Schema) -> dict[str, Shape]:
    model = config.model
    layers = model.encoder.layers + model.decoder.layers
    if layers > 1000:  # their names alone would fill the memory
        raise RunError(f"{path / CONFIG}: {layers} recurrent layers are more than a run can have (1000).")
    return schema.parameter_shapes(model)


def _as_floats(path: Path, weights: Weights, config: Config) -> Weights:
    for name, value in weights.items():
        precision = config.training.precision
        if value.dtype != weight_type(precision):
            wanted = f"{weight_type(precision)}, as training.precision: {precision} has them"
            raise RunError(f"{path}: {name} is of type {value.dtype}, not {wanted}.")
    return weights
