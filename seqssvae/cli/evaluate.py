"""The commands that read rows with a run: `evaluate`, `predict` and `encode`."""

import json

from jsonargparse import Namespace

from seqssvae.cli.inputs import check_options, encode_file, read_rows_and_run
from seqssvae.cli.messages import warn_of_counts
from seqssvae.cli.output import check_output, write_table
from seqssvae.data.corpus import Corpus
from seqssvae.data.tsv import Row
from seqssvae.inference.evaluate import encode, evaluate, predict_proba
from seqssvae.runs.run import Run


def evaluate_command(arguments: Namespace) -> None:
    """Print metrics of a file's rows, as tables or as JSON."""
    check_options(arguments, {"seed": 0, "importance_samples": 0})
    rows, run = read_rows_and_run(arguments, labelled=True)
    corpus = encode_file(rows, run.schema, run.config.data, arguments.data)
    warn_of_counts(corpus, run.config.data.max_length)
    evaluation = evaluate(run.backend, corpus, run.config, arguments.seed, arguments.importance_samples)
    if arguments.json:
        report = {
            "run": str(run.path),
            "backend": run.backend.name,
            "step": run.step,
            "data": arguments.data,
            "counts": corpus.counts._asdict(),
            "metrics": evaluation.metrics._asdict(),
            "labels": list(run.labels.names),
            "confusion": evaluation.confusion.tolist(),
        }
        print(json.dumps(report, ensure_ascii=False))
        return
    from seqssvae.cli.tables import confusion_table, console, metrics_table  # the other commands print no table

    console().print(metrics_table(evaluation.metrics))
    if evaluation.metrics.labelled_rows:
        console().print(confusion_table(evaluation, run.labels.names))


def predict_command(arguments: Namespace) -> None:
    """Write the label, and the probability of each label, of a file's rows."""
    rows, run, corpus = _rows_to_write(arguments)
    probabilities = predict_proba(run.backend, corpus, run.config)
    names = run.labels.names
    lines = (
        (run.vocabulary.join(row.symbols), names[p.argmax()], *(f"{value:.8g}" for value in p))
        for row, p in zip(rows, probabilities, strict=True)
    )
    write_table(arguments.output, ("sequence", "label", *names), lines)


def encode_command(arguments: Namespace) -> None:
    """Write the embedding of a file's rows."""
    rows, run, corpus = _rows_to_write(arguments)
    embedding = encode(run.backend, corpus, run.config)
    lines = (
        (run.vocabulary.join(row.symbols), *(f"{value:.8g}" for value in z))
        for row, z in zip(rows, embedding, strict=True)
    )
    write_table(arguments.output, ("sequence", *(f"z{index}" for index in range(embedding.shape[1]))), lines)


def _rows_to_write(arguments: Namespace) -> tuple[list[Row], Run, Corpus]:
    """Read and encode rows of each of which a line is written: those that are too long are cut, labels play no part."""
    check_output(arguments.output, arguments.overwrite)
    rows, run = read_rows_and_run(arguments, labelled=False)
    corpus = encode_file(rows, run.schema, run.config.data, arguments.data, too_long="truncate")
    warn_of_counts(corpus, run.config.data.max_length)
    return rows, run, corpus
