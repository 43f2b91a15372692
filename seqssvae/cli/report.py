"""The command that writes a page of what runs have learned: `report`."""

from pathlib import Path

from jsonargparse import Namespace

from seqssvae.checks.certify import certify
from seqssvae.cli.inputs import check_options, file_columns
from seqssvae.cli.messages import warn, warn_of_counts
from seqssvae.cli.output import STANDARD_OUTPUT, check_output, write_chunks
from seqssvae.data.corpus import Corpus, encode_table
from seqssvae.data.files import read_table
from seqssvae.data.opening import STANDARD_INPUT
from seqssvae.diagnosis.diagnose import Diagnosed
from seqssvae.errors import ConfigurationError
from seqssvae.report.collect import RunFacts, collect
from seqssvae.report.page import render
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import RunDirectory


def report_command(arguments: Namespace) -> None:
    """Write one HTML file that shows what one run, or several, have learned."""
    check_options(arguments, {"seed": 0})
    if arguments.data == STANDARD_INPUT and len(arguments.runs) > 1:
        raise ConfigurationError("standard input can be read for one run only; give a file for several.")
    check_output(arguments.output, arguments.overwrite, arguments.data)
    directories = [RunDirectory(path, verify=not arguments.no_verify) for path in arguments.runs]
    for directory in directories:
        directory.read_checkpoint()  # an error of any, before anything is computed
    runs = []
    for place, directory in enumerate(directories):
        facts, corpus = _facts(directory, arguments, first=place == 0)
        checked = not arguments.no_certificate
        runs.append((facts, certify(directory, corpus, arguments.device, arguments.seed, warn) if checked else None))
    write_chunks(arguments.output, [render(runs).encode("utf-8")])
    if arguments.output != STANDARD_OUTPUT:
        print(f"The report is in {arguments.output}.")


def _facts(directory: RunDirectory, arguments: Namespace, first: bool) -> tuple[RunFacts, Corpus | None]:
    table = corpus = None
    if arguments.data is not None:
        data = file_columns(directory.config.data, arguments)
        table = read_table(arguments.data, data, labelled=True, texts=True)
    run = directory.open(arguments.backend, arguments.device)
    texts: list[str] = []
    if table is not None:
        corpus = encode_table(table, run.schema, run.config.data, "truncate")
        texts = list(table.texts["sequence"])
        if first:
            warn_of_counts(corpus, run.config.data.max_length)
    known = run.ensemble, run.baselines, run.trained_on, read_metrics(run.path), run.step, run.network_pool
    model = Diagnosed(run.backend, run.config, run.schema, *known)
    short = [Path(path).name for path in arguments.runs]
    name = run.path.name if short.count(run.path.name) == 1 else str(run.path)
    return collect(name or str(run.path), model, run.trained_by, corpus, texts, arguments.seed), corpus
