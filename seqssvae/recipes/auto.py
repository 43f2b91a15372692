"""The recipe `auto`: several candidates by cross-validation, and an SSVAE that is trained towards what they say."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import NO_LABEL, Backend
from seqssvae.config import Config, TrainingConfig
from seqssvae.data.corpus import Corpus
from seqssvae.data.prepare import Prepared
from seqssvae.data.ragged import RaggedArray
from seqssvae.recipes.ensemble import Ensemble, learn_ensemble
from seqssvae.recipes.familiar import are_familiar
from seqssvae.recipes.named import recipe_settings
from seqssvae.recipes.network import BuildBackend, Networks, Promising
from seqssvae.recipes.pool import Pool
from seqssvae.recipes.predictors import fit_network_pool
from seqssvae.recipes.rows import Learned, LearningRows, stratified_folds
from seqssvae.recipes.start import start_weights
from seqssvae.recipes.trained_on import TrainedOn
from seqssvae.training.fit import fit
from seqssvae.training.state import FitResult, Observer, TrainingState

OPERATIONS = 2e12
"""Multiplications and additions that the SSVAE's training may take at a budget of 1: some minutes of two cores."""
OF_A_STATE, OF_A_RECURRENCE = 300, 1000
"""What a label's state, and a step of the recurrence, take beside the output layer, in symbols of its vocabulary."""
LEAST_STEPS, MOST_STEPS = 100, 600
"""Of the SSVAE's training, at a budget of 1."""
LEAST_BATCH = 8
LEAST_LABELLED = 4
MOST_LABELLED, MOST_UNLABELLED = 20_000, 100_000
"""Rows that the candidates learn from, and without a label that the network does: more take time and tell little."""
MOST_KEPT_OF_A_LABEL = 20
"""So many rows of a label are always among those that candidates learn from."""
ROW_STREAM = 0x70F5


class Fitted(NamedTuple):
    """What a recipe leaves.

    Args:
        config: The configuration of the network.
        backend: The network, with the weights that were kept.
        result: How its training went.
        ensemble: What predicts labels; None where the network alone does.
        network_pool: How the network's own predictions are calibrated and joined; None without labelled rows held out.
    """

    config: Config
    backend: Backend
    result: FitResult
    ensemble: Ensemble | None
    network_pool: Pool | None = None


def obstacle(config: Config, prepared: Prepared) -> str | None:
    """Why candidates cannot be compared on these rows, as a sentence; None if they can."""
    if prepared.schema.source_vocabulary is not None:
        return "The recipe auto does not know sources; the network is trained alone."
    labelled = _labelled(config, prepared)
    observed = labelled.y
    if len(observed) < LEAST_LABELLED or len(np.unique(observed)) < 2:
        return (
            "There are too few labelled rows for the recipe auto to compare candidates; the network is trained alone."
        )
    if stratified_folds(observed, labelled.groups, config.training.seed).max() == 0:
        return (
            "All labelled rows are of one group, so the recipe auto cannot hold any out; the network is trained alone."
        )
    return None


def learn(
    config: Config,
    prepared: Prepared,
    build: BuildBackend,
    observers: Sequence[Observer] = (),
    report: Callable[[str], None] = lambda name: None,
) -> Ensemble:
    """Compare the candidates, and join those that are of use.

    Args:
        config: The configuration of the network.
        prepared: The rows. Those held out from them serve as well; those of a validation file do not.
        build: Builds a twin.
        observers: Their methods are called as networks are trained.
        report: Called with the name of each candidate before it learns.

    Warns:
        UserWarning: If guessing the most frequent label does as well as what was learned, or rows without label come
            from elsewhere.
    """
    rows = learning_rows(config, prepared)
    if len(rows.unlabelled) < (count := _without_label(config, prepared).drawn):
        warnings.warn(
            f"Of {count} rows without label {count - len(rows.unlabelled)} consist mostly of symbols that no "
            "labelled row has, and labels are learned without them. Leave them out, or label some of them.",
            stacklevel=2,
        )

    def train(shares: Float[np.ndarray, " K"], promising: Promising) -> Learned | None:
        return Networks.learn(rows, shares, config, build, promising, observers)

    ensemble = learn_ensemble(rows, train, report)
    if ensemble.learned_nothing:
        best = ensemble.trials[-1]
        warnings.warn(
            f"Nothing was learned about the labels: over {len(rows.y)} labelled rows the accuracy in cross-validation "
            f"is {best.accuracy:.2f}, and guessing does as well with a probability of {ensemble.chance:.2f}. "
            "Label more rows, or check the labels.",
            stacklevel=2,
        )
    return ensemble


def learning_rows(config: Config, prepared: Prepared) -> LearningRows:
    """The rows that the candidates learn from; where there are very many, some that are drawn."""
    labelled, seed = _labelled(config, prepared), config.training.seed
    return LearningRows(
        labelled.sequences.loaded(),
        labelled.y,
        prepared.training.sequences.take(_without_label(config, prepared).used),
        len(prepared.schema.labels),
        prepared.schema.dimensions.vocabulary_size,
        stratified_folds(labelled.y, labelled.groups, seed),
        seed,
    )


class _WithoutLabel(NamedTuple):
    """Places of training rows without a label: those that are used, and how many there were before some were left out.

    Args:
        used: Those that are like the labelled rows (`are_familiar`).
        drawn: The number of those that were looked at.
    """

    used: Int[np.ndarray, " N"]
    drawn: int


def _without_label(config: Config, prepared: Prepared) -> _WithoutLabel:
    training, seed = prepared.training, config.training.seed
    drawn = _drawn(np.flatnonzero(training.y == NO_LABEL), MOST_UNLABELLED, seed)
    rows = _labelled(config, prepared).sequences.loaded(), training.sequences.take(drawn)
    familiar = are_familiar(*rows, prepared.schema.dimensions.vocabulary_size)
    return _WithoutLabel(drawn[familiar], len(drawn))


def _drawn(indices: Int[np.ndarray, " N"], most: int, seed: int) -> Int[np.ndarray, " M"]:
    """At most so many of the indices, in their order."""
    if len(indices) <= most:
        return indices
    return np.sort(np.random.default_rng([seed, ROW_STREAM]).choice(indices, most, replace=False))


def _labelled(config: Config, prepared: Prepared) -> Corpus:
    """The labelled rows, those that were held out from the training rows included; of very many, some of each label."""
    labelled = all_labelled(prepared)
    seed = config.training.seed
    drawn = [_drawn(np.arange(len(labelled)), MOST_LABELLED, seed)]
    if len(drawn[0]) == len(labelled):
        return labelled
    drawn += [_drawn(np.flatnonzero(labelled.y == y), MOST_KEPT_OF_A_LABEL, seed) for y in np.unique(labelled.y)]
    return labelled.take(np.unique(np.concatenate(drawn)))


def all_labelled(prepared: Prepared) -> Corpus:
    """The labelled rows that candidates learn from: those given for validation are no such rows."""
    parts = [prepared.training] + ([] if prepared.validation_given else [prepared.validation])
    chosen = [part.take(np.flatnonzero(part.y != NO_LABEL)) for part in parts]
    if len(chosen) == 1:
        return chosen[0]
    first, second = chosen
    lengths = np.concatenate([first.lengths, second.lengths])
    values = [part.sequences.loaded().values for part in chosen]
    return replace(
        first,
        sequences=RaggedArray.from_lengths(np.concatenate(values), lengths),
        y=np.concatenate([first.y, second.y]),
        groups=np.concatenate([first.groups, second.groups]),
        lines=None if first.lines is None or second.lines is None else np.concatenate([first.lines, second.lines]),
    )


def rows_trained_on(prepared: Prepared, ensemble: Ensemble | None) -> TrainedOn:
    """Which labelled rows are learned from: with an ensemble, those held out from the training rows as well.

    Another method is not cross-validated over them yet: `with_reference` does so.
    """
    labelled = _trained_on(prepared, ensemble)
    unlabelled = int(np.sum(prepared.training.y == NO_LABEL))
    return TrainedOn.of(labelled, unlabelled, len(prepared.schema.labels))


def with_reference(trained_on: TrainedOn, config: Config, prepared: Prepared, ensemble: Ensemble | None) -> TrainedOn:
    """The same with another method cross-validated over these rows, for which scikit-learn is loaded.

    So it is for the end of a training, which has made its first steps by then and has returned its memory.
    """
    labelled = _trained_on(prepared, ensemble)
    if ensemble is not None or labelled.sources is not None:
        return trained_on  # whose candidates were cross-validated, or of which x is not all
    return trained_on.with_reference(labelled, prepared.schema.dimensions.vocabulary_size, config.training.seed)


def _trained_on(prepared: Prepared, ensemble: Ensemble | None) -> Corpus:
    training = prepared.training
    return training.take(np.flatnonzero(training.y != NO_LABEL)) if ensemble is None else all_labelled(prepared)


def fit_towards(
    ensemble: Ensemble | None,
    config: Config,
    prepared: Prepared,
    build: BuildBackend,
    observers: Sequence[Observer] = (),
    resume: TrainingState | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    warm: bool = False,
    share: BuildBackend | None = None,
) -> Fitted:
    """Train a network, towards what an ensemble says of rows without label where the objective asks for it.

    Args:
        ensemble: What was learned of the labels; None to train the network alone.
        config: The configuration of the network.
        prepared: The rows.
        build: Builds the twin.
        observers: Their methods are called as training goes on.
        resume: State to go on from.
        interrupted: Asked every now and then whether training is to stop.
        warm: Whether the twin is built with weights that have been trained.
        share: Builds the twin that is trained, where several devices share its batches; None: as the one that is left.
    """
    training, validation = prepared.training, prepared.validation
    config = network_config(config, ensemble)
    if ensemble is not None and config.objective.posterior == "given":
        without = _without_label(config, prepared).used
        training = training.take(np.union1d(np.flatnonzero(training.y != NO_LABEL), without))
        training = replace(training, posterior=np.exp(ensemble.log_proba(training.sequences.loaded())))
    twin = (share or build)(config, prepared.schema.dimensions)
    if ensemble is not None and not warm:
        drawn = _drawn(np.arange(len(training)), MOST_UNLABELLED, config.training.seed)
        counts = training.sequences.counts(prepared.schema.dimensions.vocabulary_size)
        twin.set_weights(start_weights(twin.get_weights(), config.model, counts, training.sequences.take(drawn)))
    result = fit(config, training, validation, twin, observers, resume, interrupted)
    if share is not None:
        twin = build(config, prepared.schema.dimensions)
        twin.set_weights(result.state.best_weights)
        twin.set_optimizer_state(result.state.optimizer)
    pool = fit_network_pool(twin, config, validation, len(prepared.schema.labels))
    return Fitted(config, twin, result, ensemble, pool)


def network_config(config: Config, ensemble: Ensemble | None) -> Config:
    """The configuration of the network, which cannot be trained towards an ensemble where there is none."""
    if ensemble is not None or config.objective.posterior != "given":
        return config
    return replace(config, objective=replace(config.objective, posterior="amortised"))


def affordable(config: Config, prepared: Prepared) -> Config:
    """The configuration with as many steps as are affordable with this vocabulary and these labels.

    Where even the least number of steps is not, batches are smaller. The weight of the KL of z has its maximum after
    half of the steps. A number of steps, or of rows of a batch, that is somebody's wish stays.
    """
    schema, training, beta = prepared.schema, config.training, config.objective.beta
    if training.max_steps:
        return config
    of_a_symbol = (schema.dimensions.vocabulary_size + OF_A_STATE) * len(schema.labels) + OF_A_RECURRENCE
    of_a_row = 6 * float(prepared.training.lengths.mean()) * config.model.decoder.hidden_size * of_a_symbol
    operations, least = training.budget * OPERATIONS, max(1, round(min(1.0, training.budget) * LEAST_STEPS))
    steps, most = int(operations / (training.batch_size * of_a_row)), round(training.budget * MOST_STEPS)
    if steps < least and training.batch_size == TrainingConfig().batch_size:
        rows = max(LEAST_BATCH, min(training.batch_size, int(operations / (least * of_a_row))))
        training = replace(training, batch_size=rows)
    steps = max(least, min(most, steps))
    if beta.steps == recipe_settings("auto")["objective"]["beta"]["steps"]:
        beta = replace(beta, steps=max(1, steps // 2))
    objective = replace(config.objective, beta=beta)
    return replace(config, objective=objective, training=replace(training, max_steps=steps))
