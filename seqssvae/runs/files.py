"""The files of a checkpoint, and how each is read: checked before it is used, and none of them a pickle.

config.yaml            the whole configuration
vocabulary.json        symbols (of sequences, and of sources), labels, and p(y)
weights.safetensors    the best weights: those that training kept
last.safetensors       the weights at the checkpoint
optimizer.safetensors  the state of the optimiser at the checkpoint
state.json             the state of training at the checkpoint, and the name of the twin that trained
metrics.jsonl          the metrics of each evaluation, one a line
steps.safetensors      the totals of the steps since the last evaluation, if the checkpoint is not from one
calibration.json       how the model's own predictions of labels are calibrated, once training has ended
estimator.json         what an estimator adds: its labels, its marker, and whether sequences are texts
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqssvae.backend import Weights
from seqssvae.config import Config, weight_type
from seqssvae.config.settings import from_dict, parse_yaml, upgraded
from seqssvae.data.corpus import Corpus
from seqssvae.data.schema import FORMAT, Schema
from seqssvae.data.vocabulary import Labels, Vocabulary
from seqssvae.errors import ConfigurationError, DataError, RunError
from seqssvae.parameters import Shape, baseline_shapes, optimizer_shapes
from seqssvae.runs.checkpoints import CheckpointFiles
from seqssvae.runs.storage import parse_json, parse_safetensors, safetensors_limit
from seqssvae.training.state import Record, Score, TrainingState
from seqssvae.training.totals import totals_layout

CONFIG, VOCABULARY, STATE, METRICS = "config.yaml", "vocabulary.json", "state.json", "metrics.jsonl"
WEIGHTS, LAST, OPTIMIZER, STEPS = (
    "weights.safetensors",
    "last.safetensors",
    "optimizer.safetensors",
    "steps.safetensors",
)
ESTIMATOR = "estimator.json"
ENSEMBLE = ("ensemble.json", "ensemble.safetensors")
BASELINES = ("baselines.json", "baselines.safetensors")
TRAINED_ON = ("trained_on.json", "trained_on.safetensors")
CALIBRATION = "calibration.json"

LIMITS = {CONFIG: 1 << 18, VOCABULARY: 1 << 23, STATE: 1 << 16, METRICS: 1 << 25, ESTIMATOR: 1 << 23}
LIMITS |= {ENSEMBLE[0]: 1 << 20, ENSEMBLE[1]: 1 << 30, BASELINES[0]: 1 << 16, BASELINES[1]: 1 << 30}
LIMITS |= {TRAINED_ON[0]: 1 << 16, TRAINED_ON[1]: 1 << 30, CALIBRATION: 1 << 12}
"""Most bytes of each file but those of weights, whose arrays say it."""

CARRIED = (ESTIMATOR, *ENSEMBLE, *BASELINES, *TRAINED_ON)
"""Files that are not needed to train and that a resumed run keeps as they are."""

MOST_STEPS = 10**6
"""Greatest number of steps whose totals a checkpoint holds."""

_UNFINISHED = " (training may have stopped before its first evaluation)"


@dataclass(frozen=True)
class Checkpoint:
    """How far the training of a run has come.

    Args:
        state: The state of training.
        history: The lines of `metrics.jsonl` up to that state.
        digest: Digest of the rows that the run learns from (`corpus_digest`).
        carried: Content of the files that a resumed run keeps.
    """

    state: TrainingState
    history: list[str]
    digest: str
    carried: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def read_config(files: CheckpointFiles) -> Config:
    """Read the configuration of a run.

    Raises:
        RunError: If it is missing or wrong.
    """
    origin = str(files.folder / CONFIG)
    try:
        return from_dict(upgraded(parse_yaml(files.read(CONFIG, LIMITS[CONFIG]).decode("utf-8"), origin)), origin)
    except ConfigurationError as error:
        raise RunError(str(error)) from error
    except UnicodeDecodeError as error:
        raise RunError(f"{origin}: not UTF-8.") from error


def read_schema(files: CheckpointFiles) -> Schema:
    """Read the symbols and labels of a run.

    Raises:
        RunError: If the file is missing or wrong.
    """
    return parse_schema(read_json(files, VOCABULARY), files.folder / VOCABULARY)


def parse_schema(stored: Mapping[str, Any], file: Path) -> Schema:
    """Return the symbols and labels that `vocabulary.json` holds.

    Raises:
        RunError: If they are wrong; the error names the file.
    """
    _check_format(file, stored)
    try:
        vocabulary = Vocabulary.from_dict(stored.get("vocabulary", {}))
        labels = Labels.from_dict(stored.get("labels", {}))
        source = stored.get("source_vocabulary")
        source_vocabulary = None if source is None else Vocabulary.from_dict(source)
    except DataError as error:
        raise RunError(f"{file}: {error}") from error
    return Schema(vocabulary, labels, _label_prior(file, stored.get("label_prior"), len(labels)), source_vocabulary)


def read_state(files: CheckpointFiles) -> dict[str, Any]:
    """Read the state of a run's training and the name of its twin, as `state.json` holds them; fields are not checked.

    Raises:
        RunError: If the file is missing, is not JSON, or is from a later version.
    """
    stored = read_json(files, STATE, _UNFINISHED)
    _check_format(files.folder / STATE, stored)
    return stored


def read_json(files: CheckpointFiles, name: str, remedy: str = "") -> dict[str, Any]:
    """Read the object that a JSON file of a checkpoint holds; arguments are those of `CheckpointFiles.read`."""
    return parse_json(files.read(name, LIMITS[name], remedy), str(files.folder / name))


def read_weights(files: CheckpointFiles, name: str, config: Config, schema: Schema) -> tuple[Weights, int]:
    """Read a file of weights.

    Args:
        files: The files of the checkpoint.
        name: Which file.
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
        raise RunError(f"{files.folder}: {VOCABULARY} has {which}, but {CONFIG} has data.source_column: {column}.")
    shapes = schema.parameter_shapes(config.model)
    return _read_arrays(files, name, shapes, dict.fromkeys(shapes, weight_type(config.training.precision)))


def read_optimizer(files: CheckpointFiles, config: Config, schema: Schema) -> tuple[Weights, int]:
    """Read the state of the optimiser; arguments, result and errors are those of `read_weights`."""
    shapes = optimizer_shapes(config.optimizer, schema.parameter_shapes(config.model))
    shapes |= baseline_shapes(config.objective, len(schema.vocabulary))
    types = {**dict.fromkeys(shapes, weight_type(config.training.precision)), "step": "int32"}
    return _read_arrays(files, OPTIMIZER, shapes, types)


def read_totals(files: CheckpointFiles, count: int) -> Weights:
    """Read the totals of the training steps since the last evaluation.

    Args:
        files: The files of the checkpoint.
        count: The number of these steps.

    Raises:
        RunError: If they are missing or wrong.
    """
    if count > MOST_STEPS:
        raise RunError(f"{files.folder / STATE}: {count} steps are more than there can be between evaluations.")
    shapes, types = totals_layout(count)
    return _read_arrays(files, STEPS, shapes, types)[0] if count else {}


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read the metrics of each evaluation of a run, in order.

    Args:
        path: The run directory.

    Raises:
        RunError: If the file is missing, or a line is not a JSON object with a step.
    """
    files = CheckpointFiles(path)
    return [json.loads(line) for line, _ in read_history(files)]


def read_history(files: CheckpointFiles) -> list[tuple[str, int]]:
    """Read the lines of `metrics.jsonl`, each with its step; errors are those of `read_metrics`."""
    origin, lines = files.folder / METRICS, []
    text = files.read(METRICS, LIMITS[METRICS], _UNFINISHED).decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n")[: text.count("\n") + (text[-1:] not in ("", "\n"))], start=1):
        # a gradient's norm may overflow, and earlier versions wrote it as it was
        record = parse_json(line.encode(), f"{origin}:{number}", finite=False)
        if not isinstance(record.get("step"), int):
            raise RunError(f"{origin}:{number}: must be a JSON object with a step.")
        lines.append((line, record["step"]))
    return lines


def metrics_line(record: Record) -> str:
    """Return the line of `metrics.jsonl` for an evaluation; what is not finite, which JSON does not know, is null."""
    return json.dumps(_finite(record.to_dict()))


def corpus_digest(corpus: Corpus) -> str:
    """Return a digest of the rows and labels of a corpus, by which they can be recognised."""
    digest = hashlib.sha256(corpus.y.astype("<i4").tobytes())
    for rows in (corpus.sequences, corpus.sources):
        if rows is not None:
            for part in rows.parts():
                digest.update(part.values.astype("<i4").tobytes())
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
    scores = {name: _score(path, state, name) for name in ("best", "kept")}  # earlier versions had no `kept`
    numbers = {"best_error": 0.0, "schedule_steps": 0, **state}  # earlier versions had no such entries
    for name in ("seconds", "best_error"):
        fields[name] = float(state_entry(path, numbers, name, (int, float)))
    fields["schedule_steps"] = state_entry(path, numbers, "schedule_steps", int)
    return {**fields, **scores}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _label_prior(file: Path, prior: Any, count: int) -> tuple[float, ...]:
    if isinstance(prior, list) and len(prior) == count >= 2:
        numbers = all(isinstance(p, (int, float)) and 0 < p <= 1 for p in prior)
        if numbers and abs(sum(prior) - 1) < 1e-6:
            return tuple(float(p) for p in prior)
    raise RunError(f"{file}: label_prior must be a list of {count} probabilities that sum to 1.")


def _score(path: Path, state: dict[str, Any], name: str) -> Score | None:
    value = state.get(name)
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, (int, float)) for item in value):
        return float(value[0]), float(value[1])
    raise RunError(f"{path}: {name} must be null or a list of two numbers.")


def _read_arrays(
    files: CheckpointFiles, name: str, shapes: Mapping[str, Shape], types: Mapping[str, str]
) -> tuple[Weights, int]:
    content = files.read(name, safetensors_limit(shapes))
    return parse_safetensors(content, files.folder / name, shapes, types)


def _check_format(path: Path, stored: Mapping[str, Any]) -> None:
    if stored.get("format") != FORMAT:
        shown = str(stored.get("format"))[:20]
        raise RunError(f"{path}: format {shown} is not {FORMAT}, which this version reads.")
