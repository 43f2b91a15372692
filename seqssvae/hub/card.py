"""The card of a run: what it learned from, how it does, what is wrong with it, and how to use it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seqssvae.checks.certificate import Certificate
from seqssvae.config.settings import to_yaml
from seqssvae.diagnosis.diagnose import Diagnosis
from seqssvae.inference.metrics import Metrics
from seqssvae.recipes.trained_on import TrainedOn
from seqssvae.runs.files import read_metrics
from seqssvae.runs.run import Run

MOST_LABELS = 50
"""Most labels that are named one by one."""
UNITS = {
    "accuracy": "of labelled rows",
    "elbo": "nats a row",
    "elbo_per_symbol": "nats a symbol",
    "reconstruction": "nats a row",
    "kl_z": "nats a row",
    "kl_y": "nats a row",
}
"""The figures that are shown, of those of `Metrics`."""


def model_card(
    run: Run,
    repository: str,
    certificate: Certificate | None,
    diagnosis: Diagnosis | None = None,
    origin: str = "",
) -> str:
    """Return the text of a card, with metadata that the hub reads.

    Args:
        run: The run.
        repository: Where it goes, `USER/NAME`.
        certificate: How far the twins agree; None where that was not checked.
        diagnosis: What the model makes of some rows; None where none were given.
        origin: Where these rows are from.

    Raises:
        RunError: If the run's metrics cannot be read.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    record = _kept(read_metrics(run.path), run.step)
    validation = (record or {}).get("validation") or {}
    accuracy, held_out = validation.get("accuracy"), f"{validation.get('labelled_rows')} labelled validation rows"
    if run.ensemble is not None:  # which is what predicts
        accuracy, held_out = run.ensemble.trials[-1].accuracy, "labelled training rows, by cross-validation"
    results = None
    if accuracy is not None:
        task = {"task_type": "text-classification", "dataset_type": "validation", "dataset_name": held_out}
        results = [EvalResult(**task, metric_type="accuracy", metric_value=round(float(accuracy), 6))]
    framework = {"torch": ["pytorch", "pyro"], "jax": ["jax", "numpyro"]}.get(run.trained_by, [run.trained_by])
    data = ModelCardData(
        library_name="seqssvae",
        tags=["seqssvae", "variational-autoencoder", "semi-supervised", "sequence-generation", *framework],
        model_name=repository.rpartition("/")[2],
        eval_results=results,
    )
    parts = (
        f"# {repository.rpartition('/')[2]}",
        "A semi-supervised variational autoencoder for sequences: a classifier, an embedding, a generator by label and "
        f"log p(x) in one. Trained by the {run.trained_by} twin; both twins open it.",
        _loading(run, repository),
        _data(run, run.trained_on),
        _figures(validation, run.step, "Of the network alone, over" if run.ensemble is not None else "Over"),
        _diagnosis(diagnosis, origin),
        "## Twins\n\n" + (_NOT_CHECKED if certificate is None else f"{certificate.verdict} (`seqssvae verify`)"),
        f"## Configuration\n\n```yaml\n{to_yaml(run.config)}```",
    )
    text = "\n\n".join(part for part in parts if part)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


_NOT_CHECKED = "Whether both twins compute the same for this run was not checked: that needs both installed."


def _kept(history: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any] | None:
    """The evaluation of the weights that were kept."""
    return next((record for record in reversed(history) if record.get("step") == step), None)


def _loading(run: Run, repository: str) -> str:
    label = run.labels.names[0]
    use = "model.predict(sequences)"
    if run.config.objective.name != "classifier" and run.schema.source_vocabulary is None:
        use = f"model.predict(sequences), model.sample({label!r}, n=5)"
    return (
        "## Use\n\n    pip install 'seqssvae[torch,hub]'  # or [jax,hub]\n\n"
        f'```python\nfrom seqssvae import SequenceSSVAE\nmodel = SequenceSSVAE.from_hub("{repository}")\n{use}\n```\n\n'
        f"Or `seqssvae pull {repository} RUN`, and any other command with RUN."
    )


def _data(run: Run, trained_on: TrainedOn | None) -> str:
    names, prior = run.labels.names, run.schema.label_prior
    symbols = len(run.vocabulary.symbols)
    lines = [f"{len(names)} classes, {symbols} symbols."]
    if (sources := run.schema.source_vocabulary) is not None:
        lines[0] = f"{len(names)} classes, {symbols} symbols, sources of {len(sources.symbols)} symbols."
    counts = None if trained_on is None else trained_on.labelled.tolist()
    if trained_on is not None and counts is not None:
        rows = sum(counts) + trained_on.unlabelled
        lines.append(f"Trained on {rows} rows, {sum(counts)} of them labelled.")
    lines += ["", "| class | labelled rows | p(y) |", "| --- | ---: | ---: |"]
    for place, name in enumerate(names[:MOST_LABELS]):
        count = "" if counts is None else counts[place]
        lines.append(f"| {_cell(name)} | {count} | {prior[place]:.3f} |")
    if len(names) > MOST_LABELS:
        lines.append(f"| {len(names) - MOST_LABELS} more | | |")
    return "\n".join(("## Data", "", *lines))


def _figures(validation: Mapping[str, Any], step: int, of_what: str) -> str:
    shown = {name: validation.get(name) for name in UNITS if name in Metrics._fields}
    rows = [f"| {name} | {value:.3f} | {UNITS[name]} |" for name, value in shown.items() if _is_number(value)]
    if not rows:
        return ""
    head = f"{of_what} {validation['rows']} validation rows, at step {step}:"
    return "\n".join(("## Figures", "", head, "", "| | | |", "| --- | ---: | --- |", *rows))


def _diagnosis(diagnosis: Diagnosis | None, origin: str) -> str:
    if diagnosis is None:
        return ""
    held_out, calibration, lines = diagnosis.held_out, diagnosis.calibration, []
    if held_out.labelled_rows:
        rows = f"{held_out.labelled_rows} labelled rows of {origin} that were not learned from"
        lines.append(f"Accuracy over {rows}: {held_out.accuracy:.3f}.")
    if calibration is not None:
        interval = f"{calibration.low:.3f} to {calibration.high:.3f}"
        lines.append(f"Expected calibration error: {calibration.error:.3f} ({interval}).")
    lines += ["", *(f"- {finding}" for finding in diagnosis.findings)]
    return "\n".join(("## Calibration and diagnosis", "", *lines))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _cell(text: str) -> str:
    """A text as it can stand in a cell of a table."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
