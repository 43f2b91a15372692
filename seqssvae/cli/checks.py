"""The commands that check a model: `verify` and `gradient-estimators`."""

import dataclasses
import math
from typing import NamedTuple

from jsonargparse import Namespace

from seqssvae.backend import Weights
from seqssvae.checks.certificate import TWINS, Certificate, Comparison
from seqssvae.checks.gradient_comparison import compare_gradient_estimators
from seqssvae.checks.gradient_estimators import Setting, list_gradient_estimators, random_batch
from seqssvae.checks.verify import verify
from seqssvae.cli.inputs import check_options, file_columns, run_directory
from seqssvae.cli.messages import warn_of_counts
from seqssvae.cli.output import print_json
from seqssvae.cli.tables import certificate_tables, console, gradient_estimators_json, gradient_estimators_table
from seqssvae.config import Config, weight_type
from seqssvae.config.checks import check_integer
from seqssvae.config.settings import from_dict, read_yaml
from seqssvae.data.corpus import Corpus, encode_table
from seqssvae.data.files import read_table
from seqssvae.data.prepare import prepare_table
from seqssvae.data.schema import Schema
from seqssvae.errors import ConfigurationError
from seqssvae.parameters import initial_weights
from seqssvae.runs.usable import usable_backend

MOST_MEASURED = 10**6
"""Greatest number of draws, repetitions, rows or particles that are measured."""


def verify_command(arguments: Namespace) -> int:
    """Print how far the twins differ on a run, as tables or as JSON.

    Returns:
        The exit status: 1 if they differ, or else 0.
    """
    check_options(arguments, {"seed": 0})
    directory, corpus = run_directory(arguments), None
    data = directory.config.data
    if arguments.data is not None:
        rows = read_table(arguments.data, file_columns(data, arguments))
        corpus = encode_table(rows, directory.schema, data, too_long="truncate")
    certificate = verify(directory, corpus, arguments.device, arguments.seed)
    if arguments.json:
        print_json(_certificate_json(certificate))
    else:
        for table in certificate_tables(certificate):
            console().print(table)
        print(f"{certificate.run}, step {certificate.step}, {certificate.origin}: {certificate.verdict}")
    return 0 if certificate.agrees else 1


def gradient_estimators_command(arguments: Namespace) -> None:
    """Print what each gradient estimator of a missing label costs and how good its gradient is, as a table or JSON."""
    check_options(
        arguments, {"draws": 2, "repetitions": 1, "seed": 0}, {"draws": MOST_MEASURED, "repetitions": MOST_MEASURED}
    )
    for k in arguments.k:
        check_integer("--k", k, 1, MOST_MEASURED)
    model = _read_model(arguments)
    warn_of_counts(model.corpus, model.config.data.max_length)
    size = arguments.rows or model.config.training.batch_size
    check_integer("--rows", size, 1, MOST_MEASURED)
    batch = random_batch(model.corpus, size, arguments.seed)
    dimensions, label_count = model.schema.dimensions, len(model.schema.labels)
    setting = Setting(model.twin, model.config, dimensions, model.weights, batch, arguments.device, arguments.seed)
    estimators = list_gradient_estimators(label_count, sorted(set(arguments.k)))
    with console(stderr=True).status("starting") as status:
        measurements = compare_gradient_estimators(
            setting, estimators, arguments.draws, arguments.repetitions, status.update
        )
    title = f"{model.twin}, {label_count} labels, {int(batch.row_mask.sum())} rows of {batch.x.shape[1]} symbols"
    if arguments.json:
        entries = gradient_estimators_json(measurements)
        print_json({"title": title, "draws": arguments.draws, "estimators": entries})
    else:
        console().print(gradient_estimators_table(measurements, title, arguments.draws))


class _Model(NamedTuple):
    """The model and the rows on which gradient estimators are compared."""

    config: Config
    schema: Schema
    weights: Weights
    corpus: Corpus
    twin: str


def _read_model(arguments: Namespace) -> _Model:
    """Return the model of a run, or that of a configuration with its first weights, and the rows of `--data`."""
    if (arguments.run is None) == (arguments.config is None):
        raise ConfigurationError("seqssvae gradient-estimators needs a run directory or --config FILE, one of the two.")
    model = _new_model(arguments) if arguments.run is None else _trained_model(arguments)
    if model.config.objective.posterior == "amortised":
        return model
    objective = dataclasses.replace(model.config.objective, posterior="amortised")  # others need every label
    return model._replace(config=dataclasses.replace(model.config, objective=objective))


def _new_model(arguments: Namespace) -> _Model:
    """Return the model of `--config` with its first weights; the rows give its symbols and labels."""
    path, twin = arguments.config, arguments.backend or usable_backend()
    config = from_dict(read_yaml(path), path)
    config = dataclasses.replace(config, data=file_columns(config.data, arguments))
    prepared = prepare_table(read_table(arguments.data, config.data), config)
    size, prior, sources = prepared.schema.dimensions
    precision = weight_type(config.training.precision)
    weights = initial_weights(config.model, size, len(prior), config.training.seed, precision, sources)
    return _Model(config, prepared.schema, weights, prepared.training, twin)


def _trained_model(arguments: Namespace) -> _Model:
    directory = run_directory(arguments)
    config, schema = directory.config, directory.schema
    corpus = encode_table(read_table(arguments.data, file_columns(config.data, arguments)), schema, config.data)
    weights, _ = directory.weights
    return _Model(config, schema, weights, corpus, arguments.backend or directory.trained_by)


def _certificate_json(certificate: Certificate) -> dict[str, object]:
    """Return all comparisons by name; a number that is not finite, which JSON does not know, is null."""

    def entry(comparison: Comparison) -> dict[str, object]:
        values = dict(zip(TWINS, comparison.values, strict=True))
        values |= {name: getattr(comparison, name) for name in ("absolute", "relative", "bound")}
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return {"precision": comparison.precision, "term": comparison.term, **numbers, "holds": comparison.holds}

    return {
        **{name: getattr(certificate, name) for name in ("run", "step", "origin", "rows", "labelled_rows")},
        "terms": [entry(comparison) for comparison in certificate.terms],
        "gradients": [entry(comparison) for comparison in certificate.gradients],
        "agrees": certificate.agrees,
        "verdict": certificate.verdict,
    }
