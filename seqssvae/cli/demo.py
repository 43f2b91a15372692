"""The command `demo`: do unlabelled rows help on the demonstration's data, and what does the model generate?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from seqssvae.backend import Backend, get_backend, installed_backends
from seqssvae.cli.inputs import check_options
from seqssvae.cli.tables import comparison_table, console
from seqssvae.config import Config, DecodingOptions
from seqssvae.config.presets import PRESETS
from seqssvae.datasets import load_dataset
from seqssvae.demo.experiment import (
    LABELS_PER_CLASS,
    Experiment,
    TrainedModel,
    classifier_config,
    prepare,
    train_and_test,
    with_seed,
)
from seqssvae.errors import BackendError, printable
from seqssvae.inference.generate import generate
from seqssvae.runs.writer import RunWriter, refuse_existing
from seqssvae.training.progress import progress

GENERATED = 5
"""Number of sequences that are shown for each label."""
QUICK_STEPS = 20
"""Training steps with `--quick`."""
LABELS_ALONE, SEMI_SUPERVISED = "labels alone", "labels + unlabelled"
"""What the two models of the comparison are trained on."""


def demo_command(arguments: Namespace) -> None:
    """Train the classifier on labels alone and the semi-supervised model with each twin, and print one table.

    Raises:
        UserError: If a twin or the data set is not installed, or the directory exists.
    """
    check_options(arguments, {"seed": 0})
    dataset, seed = arguments.dataset, arguments.seed
    twins = _find_twins(arguments.backends)
    directory = _free_directory() if arguments.output is None else Path(arguments.output)
    refuse_existing(directory)
    preset = PRESETS[dataset]
    config = _shortened(preset.ssvae()) if arguments.quick else preset.ssvae()
    experiment = prepare(load_dataset(dataset), config, seed)
    _introduce(experiment, dataset)
    classifier = classifier_config(with_seed(config, seed), experiment.training, preset.classifier())
    models = [
        (twin, name, _train(experiment, model_config, twin_class, twin, name, directory))
        for twin, twin_class in twins.items()
        for name, model_config in ((LABELS_ALONE, classifier), (SEMI_SUPERVISED, config))
    ]
    console().print(comparison_table(models, f"{dataset}, seed {seed}: {len(experiment.test)} rows held out"))
    for twin, name, model in models:
        if name == SEMI_SUPERVISED:
            _show_generated(experiment, twin, model, seed)
    print("The runs:", *(str(directory / _run_name(twin, name)) for twin, name, _ in models), sep="\n  ")


def _find_twins(names: Sequence[str] | None) -> dict[str, type[Backend]]:
    """Return the twins of these names, or all that are installed."""
    if names is not None:
        return {name: get_backend(name) for name in dict.fromkeys(names)}
    twins = {}
    for name in reversed(installed_backends()):  # torch before jax, as everywhere
        try:
            twins[name] = get_backend(name)
        except BackendError:
            continue
    if not twins:
        raise BackendError("No twin is installed: pip install 'seqssvae[torch]' or 'seqssvae[jax]' (or both, [all]).")
    return twins


def _free_directory() -> Path:
    number, directory = 1, Path("runs/demo")
    while directory.exists():
        number += 1
        directory = Path(f"runs/demo-{number}")
    return directory


def _shortened(config: Config) -> Config:
    training = replace(config.training, max_steps=QUICK_STEPS, evaluation_interval=QUICK_STEPS // 2)
    return replace(config, training=training)


def _introduce(experiment: Experiment, dataset: str) -> None:
    labelled = int((experiment.training.y >= 0).sum())
    print(
        f"{dataset}: {len(experiment.training)} training rows, of which {labelled} are labelled "
        f"({LABELS_PER_CLASS} of each of {len(experiment.schema.labels)} classes); "
        f"{len(experiment.validation)} labelled rows for early stopping, {len(experiment.test)} for the test."
    )


def _train(
    experiment: Experiment, config: Config, twin: type[Backend], twin_name: str, name: str, directory: Path
) -> TrainedModel:
    path = directory / _run_name(twin_name, name)
    writer = RunWriter(path, with_seed(config, experiment.seed), experiment.schema, twin_name, experiment.training)
    return train_and_test(experiment, config, twin, [writer, progress(f"{twin_name}, {name}")])


def _show_generated(experiment: Experiment, twin: str, model: TrainedModel, seed: int) -> None:
    vocabulary, options = experiment.schema.vocabulary, DecodingOptions(int(experiment.training.lengths.max()))
    for label, name in enumerate(experiment.schema.labels.names):
        sequences = generate(model.backend, vocabulary, label, GENERATED, options, seed)
        print(f"{twin}, generated for {name}:")
        for sequence in sequences:
            print(f"  {printable(vocabulary.join(sequence.symbols))}")


def _run_name(twin: str, name: str) -> str:
    return f"{twin}-{'classifier' if name == LABELS_ALONE else 'ssvae'}"
