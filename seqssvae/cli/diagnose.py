"""The command that says what a run has learned, and what is wrong with it: `diagnose`."""

from jsonargparse import Namespace

from seqssvae.cli.diagnosis_tables import label_use_table, latent_table
from seqssvae.cli.inputs import check_options, read_corpus_and_run
from seqssvae.cli.output import print_json
from seqssvae.cli.tables import console
from seqssvae.diagnosis.diagnose import Diagnosed, diagnose
from seqssvae.runs.files import read_metrics


def diagnose_command(arguments: Namespace) -> None:
    """Print what a run makes of a file's rows, as tables and sentences or as JSON."""
    check_options(arguments, {"seed": 0})
    corpus, _, run = read_corpus_and_run(arguments, "truncate")
    known = run.ensemble, run.baselines, run.trained_on, read_metrics(run.path), run.step, run.network_pool
    diagnosis = diagnose(Diagnosed(run.backend, run.config, run.schema, *known), corpus, seed=arguments.seed)
    if arguments.json:
        report = {"run": str(run.path), "backend": run.backend.name, "step": run.step, "data": arguments.data}
        print_json({**report, **diagnosis.to_dict()})
        return
    console().print(label_use_table(diagnosis))
    console().print(latent_table(diagnosis))
    for finding in diagnosis.findings:
        print(f"{finding.name.upper() if finding.level == 'warning' else finding.name}: {finding}")
    if not diagnosis.warnings:
        print("Nothing is wrong as far as these rows tell.")
