"""The comparison this project is for: few labels alone, against the same labels with many unlabelled rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from seqssvae.backend import NO_LABEL, Backend, get_backend
from seqssvae.config import Config, ConsistencyConfig
from seqssvae.data.corpus import Corpus, encode_table
from seqssvae.data.prepare import prepare_table
from seqssvae.data.schema import Schema, label_prior
from seqssvae.data.splits import at_most_per_class, keep_labels_per_class, split
from seqssvae.data.table import Table
from seqssvae.inference.evaluate import CorpusEvaluation, evaluate
from seqssvae.training.fit import fit
from seqssvae.training.state import FitResult, Observer
from seqssvae.training.step_order import total_steps

TEST_FRACTION = 0.2
"""Share of the rows that are test rows, on which nothing is chosen."""
DEVELOPMENT_SEED = 20_000
"""Decides which rows, as many as the test rows, are for choosing presets; they are never test rows for any seed."""
LABELS_PER_CLASS = 50
"""Labels of each class that are not hidden."""


class Experiment(NamedTuple):
    """The rows of the comparison for one seed.

    They are a function of rows, configuration and seed, so that comparisons are paired.

    Args:
        training: Rows to learn from, few of each class with their label, all others without.
        validation: Labelled rows for early stopping, few of each class.
        test: Labelled rows for the result.
        schema: Symbols of the rows that are not test rows, the classes, and p(y).
        seed: Seed of the splits, of the choice of labels, and of training.
    """

    training: Corpus
    validation: Corpus
    test: Corpus
    schema: Schema
    seed: int


class TrainedModel(NamedTuple):
    """One of the two models of the comparison, trained and tested.

    Args:
        config: Its configuration.
        backend: The model with its best weights.
        result: The result of training.
        test: Its evaluation on the test rows.
    """

    config: Config
    backend: Backend
    result: FitResult
    test: CorpusEvaluation


class Pair(NamedTuple):
    """Both models of the comparison, of one twin and seed.

    Args:
        classifier: The classifier trained on the labels alone.
        ssvae: The semi-supervised model.
    """

    classifier: TrainedModel
    ssvae: TrainedModel


def prepare(
    table: Table, config: Config, seed: int, development: bool = False, labels_per_class: int = LABELS_PER_CLASS
) -> Experiment:
    """Split labelled rows into training, validation and test, stratified by label, and hide most training labels.

    A fifth of the rows is set apart once for all as development rows, on which presets are chosen. The test rows are
    another fifth, drawn from the others by the seed. Of the rest, `data.validation_fraction` is held out for
    validation; vocabulary and labels are those of the rest.

    Args:
        table: Rows with their labels.
        config: The configuration, of which the sections `data` and `model` count here.
        seed: Seed of all that is drawn.
        development: Whether to test on the development rows instead, as one does while choosing presets.
        labels_per_class: Labels to keep of each class; validation has at most as many rows of each.
    """
    config = with_seed(config, seed)
    names = sorted((label for label, count in table.labels.counts().items() if count))
    y = np.array([NO_LABEL if label is None else names.index(label) for label in table.labels], np.int32)
    groups = table.groups.codes
    others, held_out = split(y, groups, TEST_FRACTION, DEVELOPMENT_SEED)
    if not development:
        fraction = TEST_FRACTION / (1 - TEST_FRACTION)
        held_out = others[split(y[others], groups[others], fraction, seed)[1]]
    kept = np.setdiff1d(np.arange(len(table)), held_out)
    rest = prepare_table(table.take(kept, "the rows not held out for the test"), config)
    few = keep_labels_per_class(rest.training.y, labels_per_class, rest.schema.labels.names, seed)
    training = rest.training.with_labels(few)
    validation = rest.validation.take(at_most_per_class(rest.validation.y, labels_per_class, seed))
    schema = replace(rest.schema, label_prior=label_prior(config.model, rest.schema.labels, few))
    test = encode_table(table.take(held_out, "the test rows"), schema, config.data)
    return Experiment(training, validation, test, schema, seed)


def train_and_test(
    experiment: Experiment,
    config: Config,
    backend: str | type[Backend],
    observers: Sequence[Observer] = (),
    device: str | None = None,
) -> TrainedModel:
    """Train a model and test its best weights.

    Args:
        experiment: The rows.
        config: The model's configuration; the seed is the experiment's.
        backend: The twin, or its name.
        observers: Observers of training.
        device: The twin's device.
    """
    config = with_seed(config, experiment.seed)
    twin = (get_backend(backend) if isinstance(backend, str) else backend)(config, experiment.schema.dimensions, device)
    result = fit(config, experiment.training, experiment.validation, twin, observers)
    return TrainedModel(config, twin, result, evaluate(twin, experiment.test, config, seed=experiment.seed))


def run_pair(
    experiment: Experiment,
    config: Config,
    backend: str | type[Backend],
    device: str | None = None,
    own: Config | None = None,
) -> Pair:
    """Train both models with the same steps, evaluations, early stopping and validation rows, and test them.

    Args:
        experiment: The rows.
        config: Configuration of the semi-supervised model, from which `classifier_config` makes the other one.
        backend: The twin, or its name.
        device: The twin's device.
        own: Settings of the classifier's own, as in `classifier_config`.
    """
    config = with_seed(config, experiment.seed)
    classifier = classifier_config(config, experiment.training, own)
    return Pair(
        train_and_test(experiment, classifier, backend, device=device),
        train_and_test(experiment, config, backend, device=device),
    )


def classifier_config(config: Config, training: Corpus, own: Config | None = None) -> Config:
    """Return the configuration of the classifier on labels alone, which differs in its objective.

    An epoch over the labelled rows is much shorter than one over all rows, so steps are counted instead: the classifier
    takes at most as many as the semi-supervised model, and is evaluated as often.

    Args:
        config: Configuration of the semi-supervised model.
        training: The rows that it learns from.
        own: Where dropout, word dropout of the encoder, and optimiser are taken from, if the classifier does better
            with others.
    """
    steps = total_steps(config, training)
    interval = config.training.evaluation_interval or max(1, round(steps / config.training.epochs))
    own = own or config
    encoder = replace(config.model.encoder, word_dropout=own.model.encoder.word_dropout)
    return replace(
        config,
        model=replace(config.model, encoder=encoder, dropout=own.model.dropout),
        optimizer=own.optimizer,
        objective=replace(config.objective, name="classifier", consistency=ConsistencyConfig()),
        training=replace(config.training, epochs=steps, max_steps=steps, evaluation_interval=interval),
    )


def with_seed(config: Config, seed: int) -> Config:
    """Return the configuration with another seed."""
    return replace(config, training=replace(config.training, seed=seed))
