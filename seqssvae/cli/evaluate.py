"""The commands that read rows with a run: `evaluate`, `predict` and `encode`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from jsonargparse import Namespace

from seqssvae.backend import Evaluation
from seqssvae.cli.activity import activity
from seqssvae.cli.inputs import (
    RowBlock,
    RowsToWrite,
    announced,
    check_options,
    read_corpus_and_run,
    read_rows_to_write,
)
from seqssvae.cli.output import check_output, print_json, write_table
from seqssvae.config.checks import check_number
from seqssvae.config.objective import MOST_PARTICLES
from seqssvae.data.corpus import Corpus
from seqssvae.inference.evaluate import count_confusion, encode, evaluate
from seqssvae.inference.label_report import label_report
from seqssvae.inference.likelihood import corpus_likelihood
from seqssvae.recipes.calibration import label_metrics
from seqssvae.recipes.predictors import predict_by_each_method, predict_log_proba
from seqssvae.runs.run import Run


def evaluate_command(arguments: Namespace) -> None:
    """Print metrics of a file's rows, as tables or as JSON."""
    check_options(arguments, {"seed": 0, "importance_samples": 0}, {"importance_samples": MOST_PARTICLES})
    for output in filter(None, (arguments.confusion, arguments.rows)):
        check_output(output, arguments.overwrite, arguments.data)
    corpus, texts, run = read_corpus_and_run(arguments, texts=arguments.rows is not None)
    with activity() as show:
        show(f"evaluating {len(corpus):,} rows")
        evaluation = evaluate(run.backend, corpus, run.config, arguments.seed, arguments.importance_samples)
        measured, method, confusion = evaluation.metrics.labelled_rows, "classifier", evaluation.confusion
        methods = {}
        if measured:
            rows = np.flatnonzero(corpus.y >= 0)
            labelled = corpus.take(rows)
            predicted = predict_by_each_method(run, labelled, evaluation.rows.log_q_y[rows])
            methods = {name: label_metrics(log_p, labelled.y) for name, log_p in predicted.items()}
            if run.ensemble is not None:
                method, confusion = "combined", count_confusion(labelled.y, predicted["combined"])
    report_of_labels = label_report(confusion)
    if arguments.confusion is not None:
        counts = zip(run.labels.names, confusion.tolist(), strict=True)
        write_table(arguments.confusion, ("label", *run.labels.names), ((name, *map(str, row)) for name, row in counts))
    if arguments.rows is not None:
        _write_evaluated(arguments.rows, texts, run, corpus, evaluation.rows)
    baselines = {} if run.baselines is None else run.baselines.nats_per_symbol(corpus.sequences)
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


def _write_evaluated(
    output: str, texts: Mapping[str, Sequence[str]], run: Run, corpus: Corpus, rows: Evaluation
) -> None:
    """Write a line for each row: its label, the predicted one, and the terms of its ELBO."""
    names = np.array([*run.labels.names, ""], object)  # a label that is missing has the number -1
    log_p = predict_log_proba(run, corpus)
    columns: dict[str, Iterable[str]] = {role: texts[role] for role in ("id", "sequence") if role in texts}
    columns |= {"label": names[corpus.y], "predicted": names[log_p.argmax(axis=1)]}
    numbers = {"probability": np.exp(log_p.max(axis=1))}
    if run.config.objective.name != "classifier":
        terms = rows.terms
        numbers |= {"elbo": terms.reconstruction - terms.kl_z - terms.kl_y, "reconstruction": terms.reconstruction}
        numbers |= {"kl_z": terms.kl_z, "kl_y": terms.kl_y}
    columns |= {name: map("{:.8g}".format, values.tolist()) for name, values in numbers.items()}
    write_table(output, columns, zip(*columns.values(), strict=True))


def predict_command(arguments: Namespace) -> None:
    """Write the label, and the probability of each label, of a file's rows."""
    least = arguments.abstain_below
    if least is not None:
        check_number("--abstain-below", least, 0.0, 1.0)
    rows = _rows_to_write(arguments)
    names = rows.run.labels.names

    def predicted(block: RowBlock) -> Iterator[list[str]]:
        for p in np.exp(predict_log_proba(rows.run, block.corpus, arguments.method, block.seed(0))):
            label = "" if least is not None and p.max() < least else names[p.argmax()]
            yield [label, *(f"{value:.8g}" for value in p)]

    _write_rows(arguments, rows, ("label", *names), predicted)


def score_command(arguments: Namespace) -> None:
    """Write log p(x) of a file's rows, per row and per symbol, with its standard error and effective draws."""
    check_options(arguments, {"seed": 0, "importance_samples": 1}, {"importance_samples": MOST_PARTICLES})
    rows = _rows_to_write(arguments)
    run = rows.run

    def scores(block: RowBlock) -> Iterator[list[str]]:
        seed = block.seed(arguments.seed)
        scored = corpus_likelihood(run.backend, block.corpus, run.config, seed, arguments.importance_samples)
        columns = scored.log_p, scored.log_p / block.corpus.lengths, scored.standard_error, scored.effective_samples
        for values in zip(*columns, strict=True):
            yield [f"{value:.8g}" for value in values]

    _write_rows(arguments, rows, ("log_p", "per_symbol", "standard_error", "effective_samples"), scores)


def encode_command(arguments: Namespace) -> None:
    """Write the embedding of a file's rows."""
    rows = _rows_to_write(arguments)
    run = rows.run
    first = next(rows.blocks)
    size = encode(run.backend, first.corpus.take(np.arange(1)), run.config, arguments.features).shape[1]
    names = [f"{'f' if arguments.features else 'z'}{index}" for index in range(size)]

    def embedded(block: RowBlock) -> Iterator[list[str]]:
        for values in encode(run.backend, block.corpus, run.config, arguments.features):
            yield [f"{value:.8g}" for value in values]

    _write_rows(arguments, rows._replace(blocks=chain([first], rows.blocks)), names, embedded)


def _rows_to_write(arguments: Namespace) -> RowsToWrite:
    check_output(arguments.output, arguments.overwrite, arguments.data)
    return read_rows_to_write(arguments)


def _write_rows(
    arguments: Namespace,
    rows: RowsToWrite,
    names: Iterable[str],
    compute: Callable[[RowBlock], Iterable[Sequence[str]]],
) -> None:
    """Write a line for each row as it is computed: identifier and text as they were, and what was computed."""
    with activity(source=arguments.data, output=arguments.output) as show:
        lines = (
            (*texts, *values)
            for block in announced(rows.blocks, show)
            for *texts, values in zip(*block.columns(), compute(block), strict=True)
        )
        write_table(arguments.output, (*rows.names, *names), lines)
