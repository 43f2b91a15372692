"""The commands that read rows with a run: `evaluate`, `predict` and `encode`."""

import numpy as np
from jsonargparse import Namespace

from seqssvae.cli.inputs import check_options, read_table_and_run
from seqssvae.cli.messages import warn_of_counts
from seqssvae.cli.output import check_output, print_json, write_table
from seqssvae.config.checks import check_number
from seqssvae.config.objective import MOST_PARTICLES
from seqssvae.data.corpus import Corpus, encode_table
from seqssvae.data.table import Table
from seqssvae.inference.evaluate import count_confusion, encode, evaluate
from seqssvae.inference.label_report import label_report
from seqssvae.inference.likelihood import corpus_likelihood
from seqssvae.recipes.calibration import method_metrics
from seqssvae.recipes.predictors import predict_log_proba
from seqssvae.runs.run import Run


def evaluate_command(arguments: Namespace) -> None:
    """Print metrics of a file's rows, as tables or as JSON."""
    check_options(arguments, {"seed": 0, "importance_samples": 0}, {"importance_samples": MOST_PARTICLES})
    if arguments.confusion is not None:
        check_output(arguments.confusion, arguments.overwrite, arguments.data)
    table, run = read_table_and_run(arguments, labelled=True)
    corpus = encode_table(table, run.schema, run.config.data)
    warn_of_counts(corpus, run.config.data.max_length)
    evaluation = evaluate(run.backend, corpus, run.config, arguments.seed, arguments.importance_samples)
    measured, method, confusion = evaluation.metrics.labelled_rows, "classifier", evaluation.confusion
    if measured and run.ensemble is not None:
        method, labelled = "combined", corpus.take(np.flatnonzero(corpus.y >= 0))
        log_p = predict_log_proba(run.backend, labelled, run.config, run.ensemble)
        confusion = count_confusion(labelled.y, log_p)
    report_of_labels = label_report(confusion)
    if arguments.confusion is not None:
        counts = zip(run.labels.names, confusion.tolist(), strict=True)
        write_table(arguments.confusion, ("label", *run.labels.names), ((name, *map(str, row)) for name, row in counts))
    baselines = {} if run.baselines is None else run.baselines.nats_per_symbol(corpus.sequences)
    methods = method_metrics(run.backend, corpus, run.config, run.ensemble) if measured else {}
    if arguments.json:
        report = {
            "run": str(run.path),
            "backend": run.backend.name,
            "step": run.step,
            "data": arguments.data,
            "counts": corpus.counts._asdict(),
            "metrics": evaluation.metrics._asdict(),
            "baselines": baselines,
            "methods": {name: one._asdict() for name, one in methods.items()},
            "labels": list(run.labels.names),
            "predicted_by": method,
            "label_report": report_of_labels.to_dict(run.labels.names) if measured else None,
            "confusion": confusion.tolist(),
        }
        print_json(report)
        return
    from seqssvae.cli.diagnosis_tables import label_report_table
    from seqssvae.cli.recipe_tables import methods_table
    from seqssvae.cli.tables import confusion_table, console, metrics_table  # the other commands print no table

    console().print(metrics_table(evaluation.metrics, baselines))
    if methods:
        console().print(methods_table(methods))
    if measured:
        console().print(label_report_table(report_of_labels, run.labels.names, method))
        console().print(confusion_table(confusion, run.labels.names, console().width))


def predict_command(arguments: Namespace) -> None:
    """Write the label, and the probability of each label, of a file's rows."""
    least = arguments.abstain_below
    if least is not None:
        check_number("--abstain-below", least, 0.0, 1.0)
    table, run, corpus = _read_table_to_write(arguments)
    probabilities = np.exp(predict_log_proba(run.backend, corpus, run.config, run.ensemble, arguments.method))
    names = run.labels.names
    lines = (
        (text, "" if least is not None and p.max() < least else names[p.argmax()], *(f"{value:.8g}" for value in p))
        for text, p in zip(table.sequences.joined(run.vocabulary.separator), probabilities, strict=True)
    )
    write_table(arguments.output, ("sequence", "label", *names), lines)


def score_command(arguments: Namespace) -> None:
    """Write log p(x) of a file's rows, per row and per symbol, with its standard error and effective draws."""
    check_options(arguments, {"seed": 0, "importance_samples": 1}, {"importance_samples": MOST_PARTICLES})
    table, run, corpus = _read_table_to_write(arguments)
    found = corpus_likelihood(run.backend, corpus, run.config, arguments.seed, arguments.importance_samples)
    columns = found.log_p, found.log_p / corpus.lengths, found.standard_error, found.effective_samples
    lines = (
        (text, *(f"{value:.8g}" for value in values))
        for text, *values in zip(table.sequences.joined(run.vocabulary.separator), *columns, strict=True)
    )
    write_table(arguments.output, ("sequence", "log_p", "per_symbol", "standard_error", "effective_samples"), lines)


def encode_command(arguments: Namespace) -> None:
    """Write the embedding of a file's rows."""
    table, run, corpus = _read_table_to_write(arguments)
    embedding, name = encode(run.backend, corpus, run.config, arguments.features), "f" if arguments.features else "z"
    lines = (
        (text, *(f"{value:.8g}" for value in z))
        for text, z in zip(table.sequences.joined(run.vocabulary.separator), embedding, strict=True)
    )
    write_table(arguments.output, ("sequence", *(f"{name}{index}" for index in range(embedding.shape[1]))), lines)


def _read_table_to_write(arguments: Namespace) -> tuple[Table, Run, Corpus]:
    """Read and encode rows of each of which a line is written: those that are too long are cut, labels play no part."""
    check_output(arguments.output, arguments.overwrite, arguments.data)
    table, run = read_table_and_run(arguments, labelled=False)
    corpus = encode_table(table, run.schema, run.config.data, too_long="truncate")
    warn_of_counts(corpus, run.config.data.max_length)
    return table, run, corpus
