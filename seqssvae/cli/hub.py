"""The commands that share a run: `push` and `pull`."""

from pathlib import Path

from jsonargparse import Namespace

from seqssvae.checks.certify import certify
from seqssvae.cli.inputs import file_columns, run_directory
from seqssvae.cli.messages import warn, warn_of_counts
from seqssvae.data.corpus import encode_table
from seqssvae.data.files import read_table
from seqssvae.diagnosis.diagnose import Diagnosed, diagnose
from seqssvae.hub.card import model_card
from seqssvae.hub.sharing import check_pushable, pull_run, push_run
from seqssvae.runs.files import read_metrics


def push_command(arguments: Namespace) -> None:
    """Write a run, with a card, into a repository of the hub."""
    check_pushable(arguments.repository)
    directory = run_directory(arguments)
    table = None
    if arguments.data is not None:
        table = read_table(arguments.data, file_columns(directory.config.data, arguments), labelled=True)
    run = directory.open(arguments.backend, arguments.device)
    corpus = diagnosis = None
    if table is not None:
        corpus = encode_table(table, run.schema, run.config.data, "truncate")
        warn_of_counts(corpus, run.config.data.max_length)
        known = run.ensemble, run.baselines, run.trained_on, read_metrics(run.path), run.step, run.network_pool
        diagnosis = diagnose(Diagnosed(run.backend, run.config, run.schema, *known), corpus)
    certificate = None if arguments.no_certificate else certify(directory, corpus, arguments.device, warn=warn)
    card = model_card(run, arguments.repository, certificate, diagnosis, Path(arguments.data or "").name)
    url = push_run(run.path, arguments.repository, card, arguments.private or None)
    print(f"The run is at {url}.")


def pull_command(arguments: Namespace) -> None:
    """Make a run directory of what a repository holds."""
    pull_run(arguments.repository, arguments.run, arguments.revision)
    print(f"The run is in {arguments.run}.")
