"""The main job on the demonstration's data: do unlabelled rows help, and what does the model generate?"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from seqssvae.backend import Backend, get_backend, installed_backends
from seqssvae.cli.tables import ProgressBar, comparison_table, console
from seqssvae.config import Config, DataConfig
from seqssvae.config.presets import PRESETS
from seqssvae.data.tsv import Row, read_rows
from seqssvae.datasets import build_languages, load_peptides
from seqssvae.demo.experiment import LABELS_PER_CLASS, Experiment, Side, classifier_config, prepare, run_side, seeded
from seqssvae.errors import BackendError
from seqssvae.inference.evaluate import generate
from seqssvae.runs.run import RunWriter, refuse_existing

GENERATED = 5
"""Sequences shown for each label."""
QUICK_STEPS = 20
"""Training steps with `--quick`."""
LABELS_ALONE, SEMI_SUPERVISED = "labels alone", "labels + unlabelled"


def run_demo(
    dataset: str = "peptides",
    backends: Sequence[str] | None = None,
    seed: int = 0,
    output: str | None = None,
    quick: bool = False,
) -> None:
    """Train the classifier on labels alone and the semi-supervised model, with each twin, and print what came of it.

    Args:
        dataset: `peptides` or `languages`.
        backends: Names of the twins; None: all that are installed.
        seed: Of splits, choice of labels, and training.
        output: The directory to make for the runs; None: `runs/demo`, or with a number where that exists.
        quick: Take a few steps only.

    Raises:
        UserError: If a twin or the data is not installed, or the directory exists.
    """
    twins = _twins(backends)
    directory = _free_directory() if output is None else Path(output)
    refuse_existing(directory)
    preset = PRESETS[dataset]
    config = _quick(preset.ssvae()) if quick else preset.ssvae()
    experiment = prepare(dataset_rows(dataset), config, seed)
    _introduce(experiment, config, dataset)
    sides = [
        (twin, name, _train(experiment, side_config, twin_class, twin, name, directory))
        for twin, twin_class in twins.items()
        for name, side_config in (
            (LABELS_ALONE, classifier_config(seeded(config, seed), experiment.training, preset.classifier())),
            (SEMI_SUPERVISED, config),
        )
    ]
    console().print(comparison_table(sides, f"{dataset}, seed {seed}: {len(experiment.test)} rows held out"))
    for twin, name, side in sides:
        if name == SEMI_SUPERVISED:
            _show_generated(experiment, twin, side, seed)
    print("The runs:", *(str(directory / _slug(twin, name)) for twin, name, _ in sides), sep="\n  ")


def _twins(names: Sequence[str] | None) -> dict[str, type[Backend]]:
    if names is not None:
        return {name: get_backend(name) for name in dict.fromkeys(names)}
    found = {}
    for name in reversed(installed_backends()):  # torch before jax, as everywhere
        try:
            found[name] = get_backend(name)
        except BackendError:
            continue
    if not found:
        raise BackendError("No twin is installed: pip install 'seqssvae[torch]' or 'seqssvae[jax]' (or both, [all]).")
    return found


def _free_directory() -> Path:
    number, directory = 1, Path("runs/demo")
    while directory.exists():
        number += 1
        directory = Path(f"runs/demo-{number}")
    return directory


def _quick(config: Config) -> Config:
    training = replace(config.training, max_steps=QUICK_STEPS, evaluation_interval=QUICK_STEPS // 2)
    return replace(config, training=training)


def dataset_rows(dataset: str) -> list[Row]:
    """The labelled rows of a data set of the demonstration, by its name."""
    if dataset == "peptides":
        return load_peptides()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "languages.tsv"
        build_languages(path)
        return read_rows(path, DataConfig())


def _introduce(experiment: Experiment, config: Config, dataset: str) -> None:
    labelled = int((experiment.training.y >= 0).sum())
    print(
        f"{dataset}: {len(experiment.training)} training rows, of which {labelled} are labelled "
        f"({LABELS_PER_CLASS} of each of {len(experiment.schema.labels)} classes); "
        f"{len(experiment.validation)} labelled rows for early stopping, {len(experiment.test)} for the test."
    )


def _train(
    experiment: Experiment, config: Config, twin: type[Backend], twin_name: str, name: str, directory: Path
) -> Side:
    path = directory / _slug(twin_name, name)
    writer = RunWriter(path, seeded(config, experiment.seed), experiment.schema, twin_name, experiment.training)
    return run_side(experiment, config, twin, [writer, ProgressBar(f"{twin_name}, {name}")])


def _show_generated(experiment: Experiment, twin: str, side: Side, seed: int) -> None:
    for label, name in enumerate(experiment.schema.labels.names):
        max_length = int(experiment.training.lengths.max())
        found = generate(side.backend, experiment.schema.vocabulary, label, GENERATED, max_length, seed)
        print(f"{twin}, generated for {name}:")
        for sequence in found:
            print(f"  {experiment.schema.vocabulary.join(sequence.symbols)}")


def _slug(twin: str, name: str) -> str:
    return f"{twin}-{'classifier' if name == LABELS_ALONE else 'ssvae'}"
