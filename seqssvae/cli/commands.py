"""What each command does, given its arguments."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

import numpy as np
from jaxtyping import Int
from jsonargparse import Namespace

from seqssvae.backend import Weights, get_backend, installed_backends
from seqssvae.checks.gradient_estimators import Setting, choices, compare_estimators, random_batch
from seqssvae.checks.verify import TWINS, Certificate, Comparison, verify
from seqssvae.cli.arguments import config_overrides
from seqssvae.cli.tables import (
    ProgressBar,
    certificate_tables,
    confusion_table,
    console,
    estimators_json,
    estimators_table,
    fit_table,
    metrics_table,
    warn,
    warn_of_counts,
)
from seqssvae.config import Config, DataConfig, TooLong, weight_type
from seqssvae.config.fields import field_paths
from seqssvae.config.settings import from_dict, merge, read_yaml, to_dict
from seqssvae.data.corpus import Corpus, encode_rows
from seqssvae.data.prepare import prepare_files, prepare_rows
from seqssvae.data.schema import Schema
from seqssvae.data.tsv import Row, read_rows
from seqssvae.data.vocabulary import UNK, Vocabulary
from seqssvae.demo.demo import run_demo
from seqssvae.errors import ConfigurationError, RunError
from seqssvae.inference.evaluate import encode, evaluate, generate, predict_proba
from seqssvae.inference.transduce import transduce
from seqssvae.parameters import initial_weights
from seqssvae.runs.files import WEIGHTS, read_schema, read_weights
from seqssvae.runs.run import Run, RunWriter, load_checkpoint, open_run, read_config, refuse_existing
from seqssvae.runs.run import trained_by as trained_by_twin
from seqssvae.runs.storage import write_files
from seqssvae.training.fit import fit

RESUMABLE = {"data.train", "data.validation", "training.epochs", "training.max_steps", "training.patience"}
"""Fields that may be other when a run is resumed."""


def fit_command(arguments: Namespace) -> None:
    """Train on the configured files and write a run directory."""
    refuse_existing(arguments.output)
    resume = arguments.get("resume")
    config = _fit_config(arguments, resume)
    backend = arguments.get("backend") or (resume and trained_by_twin(resume))
    if not backend:
        raise ConfigurationError(f"seqssvae fit needs --backend: {' or '.join(installed_backends())}.")
    prepared = prepare_files(config)
    warn_of_counts(prepared.training, config.data.max_length)
    if config.data.validation is not None:
        warn_of_counts(prepared.validation, config.data.max_length)
    schema = prepared.schema
    checkpoint = load_checkpoint(resume, schema, prepared.training) if resume else None
    writer = RunWriter(arguments.output, config, schema, backend, checkpoint or prepared.training)
    twin = get_backend(backend)(config, schema.dimensions, arguments.get("device"))
    state = checkpoint.state if checkpoint else None
    result = fit(config, prepared.training, prepared.validation, twin, [writer, ProgressBar()], state)
    if result.records:
        console().print(fit_table(result))
    print(f"The run is in {arguments.output}.")


def evaluate_command(arguments: Namespace) -> None:
    """Print metrics of a file's rows, as tables or as JSON."""
    _check_at_least("--seed", arguments.seed, 0)
    _check_at_least("--importance-samples", arguments.importance_samples, 0)
    rows, run = _rows_and_run(arguments, labelled=True)
    corpus = _encoded(rows, run.schema, run.config.data, arguments.data)
    warn_of_counts(corpus, run.config.data.max_length)
    found = evaluate(run.backend, corpus, run.config, arguments.seed, arguments.importance_samples)
    if arguments.json:
        report = {
            "run": str(run.path),
            "backend": run.backend.name,
            "step": run.step,
            "data": arguments.data,
            "counts": corpus.counts._asdict(),
            "metrics": found.metrics._asdict(),
            "labels": list(run.labels.names),
            "confusion": found.confusion.tolist(),
        }
        print(json.dumps(report, ensure_ascii=False))
        return
    console().print(metrics_table(found.metrics))
    if found.metrics.labelled_rows:
        console().print(confusion_table(found, run.labels.names))


def predict_command(arguments: Namespace) -> None:
    """Write label and probability of each label of a file's rows."""
    rows, run, corpus = _rows_to_write(arguments)
    probabilities = predict_proba(run.backend, corpus, run.config)
    names = run.labels.names
    lines = (
        (run.vocabulary.join(row.symbols), names[p.argmax()], *(f"{value:.8g}" for value in p))
        for row, p in zip(rows, probabilities, strict=True)
    )
    _write_table(arguments.output, ("sequence", "label", *names), lines)


def encode_command(arguments: Namespace) -> None:
    """Write the embedding of a file's rows."""
    rows, run, corpus = _rows_to_write(arguments)
    embedding = encode(run.backend, corpus, run.config)
    lines = (
        (run.vocabulary.join(row.symbols), *(f"{value:.8g}" for value in z))
        for row, z in zip(rows, embedding, strict=True)
    )
    _write_table(arguments.output, ("sequence", *(f"z{index}" for index in range(embedding.shape[1]))), lines)


def generate_command(arguments: Namespace) -> None:
    """Print new sequences of one label: sequence, label, log p(x|y,z)."""
    for name, least in {"count": 1, "seed": 0, "beam_width": 1}.items():
        _check_at_least(f"--{name.replace('_', '-')}", arguments[name], least)
    if arguments.max_length is not None:
        _check_at_least("--max-length", arguments.max_length, 1)
    run = open_run(arguments.run, arguments.backend, arguments.device)
    max_length = arguments.max_length or run.config.data.max_length
    sources = run.schema.source_vocabulary
    if (arguments.source is not None) != (sources is not None):
        what = "has no sources; leave --source out" if sources is None else "has sources; give one by --source"
        raise ConfigurationError(f"The run {run.path} {what}.")
    generated = generate(
        run.backend,
        run.vocabulary,
        run.labels.index(arguments.label),
        arguments.count,
        max_length,
        arguments.seed,
        arguments.method,
        arguments.beam_width,
        None if sources is None else _source_ids(sources, arguments.source, run.config.data.max_length),
    )
    for sequence in generated:
        print(f"{run.vocabulary.join(sequence.symbols)}\t{arguments.label}\t{sequence.log_p:.8g}")
    unended = sum(not sequence.ended for sequence in generated)
    if unended:
        warn(f"{unended} of {len(generated)} sequences have no END within {max_length} symbols (--max-length).")


def transduce_command(arguments: Namespace) -> None:
    """Write what is made of a file's sources: source, sequence, label, log p(x|source,y,z)."""
    for name, least in {"seed": 0, "beam_width": 1}.items():
        _check_at_least(f"--{name.replace('_', '-')}", arguments[name], least)
    if arguments.max_length is not None:
        _check_at_least("--max-length", arguments.max_length, 1)
    _check_output(arguments.output, arguments.overwrite)
    config, schema = read_config(arguments.run), read_schema(arguments.run)
    if schema.source_vocabulary is None:
        raise ConfigurationError(f"The run {arguments.run} has no sources: it was trained with data.source_column: 0.")
    data = _columns(config.data, arguments, targets=arguments.score)
    rows = read_rows(arguments.data, data, labelled=True, targets=arguments.score)
    run = open_run(arguments.run, arguments.backend, arguments.device)
    corpus = _encoded(rows, run.schema, run.config.data, arguments.data, "truncate")
    warn_of_counts(corpus, run.config.data.max_length)
    assert corpus.sources is not None
    search = arguments.method, arguments.beam_width, arguments.max_length, arguments.seed
    found = transduce(run.backend, run.vocabulary, corpus.sources, corpus.y, run.config, *search)
    texts = [run.vocabulary.join(one.symbols) for one in found]
    sources, names = run.schema.source_vocabulary, run.labels.names
    assert sources is not None
    lines = (
        (sources.join(row.source or ()), text, names[one.label], f"{one.log_p:.8g}")
        for row, text, one in zip(rows, texts, found, strict=True)
    )
    _write_table(arguments.output, ("source", "sequence", "label", "log_p"), lines)
    if arguments.score:
        hits = sum(text == run.vocabulary.join(row.symbols) for row, text in zip(rows, texts, strict=True))
        print(f"{hits} of {len(rows)} sequences ({hits / len(rows):.1%}) are as in column {data.sequence_column}.")
    unended = sum(not one.ended for one in found)
    if unended:
        warn(f"{unended} of {len(found)} sequences have no END within the greatest length (--max-length).")


def estimators_command(arguments: Namespace) -> None:
    """Print what each estimator of a missing label costs and how good its gradient is, as a table or as JSON."""
    for name, least in {"draws": 2, "repetitions": 1, "seed": 0}.items():
        _check_at_least(f"--{name}", arguments[name], least)
    for k in arguments.k:
        _check_at_least("--k", k, 1)
    config, schema, weights, corpus, twin = _model_and_rows(arguments)
    warn_of_counts(corpus, config.data.max_length)
    size = arguments.rows or config.training.batch_size
    _check_at_least("--rows", size, 1)
    batch = random_batch(corpus, size, arguments.seed)
    setting = Setting(twin, config, schema.dimensions, weights, batch, arguments.device, arguments.seed)
    chosen = choices(len(schema.labels), sorted(set(arguments.k)))
    with console(stderr=True).status("starting") as status:
        found = compare_estimators(setting, chosen, arguments.draws, arguments.repetitions, status.update)
    title = f"{twin}, {len(schema.labels)} labels, {int(batch.row_mask.sum())} rows of {batch.x.shape[1]} symbols"
    if arguments.json:
        print(json.dumps({"title": title, "draws": arguments.draws, "estimators": estimators_json(found)}))
    else:
        console().print(estimators_table(found, title, arguments.draws))


def _model_and_rows(arguments: Namespace) -> tuple[Config, Schema, Weights, Corpus, str]:
    """Of a run, or of a configuration with its first weights, for which the file gives symbols and labels."""
    run, path = arguments.run, arguments.config
    if (run is None) == (path is None):
        raise ConfigurationError("seqssvae estimators needs a run directory or --config FILE, one of the two.")
    if run is None:
        twin = arguments.backend
        if twin is None:
            names = " or ".join(installed_backends())
            raise ConfigurationError(f"seqssvae estimators --config FILE needs --backend: {names}.")
        config = from_dict(read_yaml(path), path)
        config = dataclasses.replace(config, data=_columns(config.data, arguments))
        rows = read_rows(arguments.data, config.data, labelled=True)
        prepared = prepare_rows(rows, config, arguments.data)
        schema = prepared.schema
        model, precision = config.model, weight_type(config.training.precision)
        size, prior, sources = schema.dimensions
        weights = initial_weights(model, size, len(prior), config.training.seed, precision, sources)
        return config, schema, weights, prepared.training, twin
    config, schema = read_config(run), read_schema(run)
    rows = read_rows(arguments.data, _columns(config.data, arguments), labelled=True)
    corpus = _encoded(rows, schema, config.data, arguments.data)
    weights, _ = read_weights(Path(run) / WEIGHTS, config, schema)
    return config, schema, weights, corpus, arguments.backend or trained_by_twin(run)


def verify_command(arguments: Namespace) -> int:
    """Print how far the twins differ on a run, as tables or as JSON; the status is 1 where they do."""
    _check_at_least("--seed", arguments.seed, 0)
    corpus = None
    config = read_config(arguments.run)
    if arguments.data is not None:
        rows = read_rows(arguments.data, _columns(config.data, arguments), labelled=True)
        schema = read_schema(arguments.run)
        corpus = _encoded(rows, schema, config.data, arguments.data, too_long="truncate")
    certificate = verify(arguments.run, corpus, arguments.device, arguments.seed)
    if arguments.json:
        print(json.dumps(_certificate_json(certificate), ensure_ascii=False))
    else:
        for table in certificate_tables(certificate):
            console().print(table)
        print(f"{certificate.run}, step {certificate.step}, {certificate.origin}: {certificate.verdict}")
    return 0 if certificate.agrees else 1


def _certificate_json(certificate: Certificate) -> dict[str, object]:
    """All comparisons by name; what is not finite, which JSON does not know, is null."""

    def entry(one: Comparison) -> dict[str, object]:
        finite = {name: getattr(one, name) for name in ("absolute", "relative", "bound")}
        values = dict(zip(TWINS, one.values, strict=True))
        numbers = {name: value if math.isfinite(value) else None for name, value in {**values, **finite}.items()}
        return {"precision": one.precision, "term": one.term, **numbers, "holds": one.holds}

    return {
        **{name: getattr(certificate, name) for name in ("run", "step", "origin", "rows", "labelled_rows")},
        "terms": [entry(one) for one in certificate.terms],
        "gradients": [entry(one) for one in certificate.gradients],
        "agrees": certificate.agrees,
        "verdict": certificate.verdict,
    }


def import_yoyodyne_command(arguments: Namespace) -> None:
    """Make a run directory of a checkpoint of the plug-in for yoyodyne."""
    refuse_existing(arguments.run)
    get_backend("torch")  # or say what is not installed
    import_module("seqssvae_torch.yoyodyne.checkpoints").import_yoyodyne(arguments.checkpoint, arguments.run)
    print(f"The run is in {arguments.run}.")


def demo_command(arguments: Namespace) -> None:
    """Train both sides of the comparison with each twin, and print one table."""
    _check_at_least("--seed", arguments.seed, 0)
    run_demo(arguments.dataset, arguments.backends, arguments.seed, arguments.output, arguments.quick)


COMMANDS: dict[str, Callable[[Namespace], int | None]] = {
    "demo": demo_command,
    "fit": fit_command,
    "evaluate": evaluate_command,
    "predict": predict_command,
    "encode": encode_command,
    "generate": generate_command,
    "transduce": transduce_command,
    "estimators": estimators_command,
    "import-yoyodyne": import_yoyodyne_command,
    "verify": verify_command,
}
"""By name; what a command returns is the exit status, None being 0."""


def _fit_config(arguments: Namespace, resume: str | None) -> Config:
    path = arguments.get("config")
    settings = read_yaml(path) if path else {}
    overrides = config_overrides(arguments)
    if not resume:
        return from_dict(merge(settings, overrides), None if overrides else path)
    before = to_dict(read_config(resume))
    after = to_dict(from_dict(merge(merge(before, settings), overrides)))
    for name in field_paths():
        if name not in RESUMABLE and _field(before, name) != _field(after, name):
            raise ConfigurationError(
                f"{name} is {_field(before, name)!r} in {resume} and cannot be {_field(after, name)!r} in the run that "
                f"resumes it; only {', '.join(sorted(RESUMABLE))} can be other."
            )
    return from_dict(after)


def _field(settings: dict[str, object], path: str) -> object:
    found: object = settings
    for name in path.split("."):
        found = found[name] if isinstance(found, dict) else None
    return found


def _check_at_least(option: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigurationError(f"{option} must be a whole number of at least {least}, not {value}.")


def _rows_and_run(arguments: Namespace, labelled: bool) -> tuple[list[Row], Run]:
    """The rows of the file named by `--data`, and the run; the rows first, since opening a run takes longer."""
    rows = read_rows(arguments.data, _columns(read_config(arguments.run).data, arguments), labelled=labelled)
    return rows, open_run(arguments.run, arguments.backend, arguments.device)


def _columns(data: DataConfig, arguments: Namespace, targets: bool = True) -> DataConfig:
    """The run's data section with what the arguments say of this file; groups play no part once trained.

    Without targets the column of the sequences, which is not read, is another one than those that are.
    """
    names = ("sequence_column", "label_column", "source_column", "header")
    given = {name: arguments.get(name) for name in names if arguments.get(name) is not None}
    if "label_column" not in given and data.label_column in (given.get("sequence_column"), given.get("source_column")):
        given["label_column"] = 0
    if not targets:
        named = {**vars(data), **given}
        given["sequence_column"] = 1 + max(named["source_column"], named["label_column"])
    return dataclasses.replace(data, **{"group_column": 0, **given})


def _rows_to_write(arguments: Namespace) -> tuple[list[Row], Run, Corpus]:
    """As `_rows_and_run`, for a command that writes a line for each row: too long ones are cut, labels play no part."""
    _check_output(arguments.output, arguments.overwrite)
    rows, run = _rows_and_run(arguments, labelled=False)
    corpus = _encoded(rows, run.schema, run.config.data, arguments.data, too_long="truncate")
    warn_of_counts(corpus, run.config.data.max_length)
    return rows, run, corpus


def _encoded(rows: list[Row], schema: Schema, data: DataConfig, origin: str, too_long: TooLong | None = None) -> Corpus:
    """Rows as the model takes them."""
    vocabularies = schema.vocabulary, schema.labels
    return encode_rows(rows, *vocabularies, data, origin, too_long, schema.source_vocabulary)


def _source_ids(vocabulary: Vocabulary, text: str, max_length: int) -> Int[np.ndarray, "S"]:
    """Ids of the source that `--source` gives."""
    symbols = vocabulary.split(text)
    if not 0 < len(symbols) <= max_length:
        raise ConfigurationError(f"--source must have 1 to {max_length} symbols, not {len(symbols)}.")
    ids = vocabulary.encode(symbols)
    if unknown := int((ids == UNK).sum()):
        warn(f"{unknown} of the symbols of --source are not in the vocabulary and were read as UNK.")
    return ids


def _check_output(output: str, overwrite: bool) -> None:
    path = Path(output)
    if path.is_dir():
        raise RunError(f"The output file {output} is a directory; name a file.")
    if os.path.lexists(path) and not overwrite:
        raise RunError(f"The output file {output} exists already; name another one, or give --overwrite.")
    if not path.parent.is_dir():
        raise RunError(f"The output file {output} cannot be made: there is no directory {path.parent}.")


def _write_table(output: str, header: Iterable[str], lines: Iterable[Iterable[str]]) -> None:
    text = "".join("\t".join(line) + "\n" for line in [header, *lines])
    write_files({Path(output): text.encode()})
