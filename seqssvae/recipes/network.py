"""Convolutional classifiers, one for each fold, whose probabilities are averaged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from seqssvae.backend import NO_LABEL, Backend, Dimensions, Weights
from seqssvae.config import (
    Config,
    ConsistencyConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainingConfig,
)
from seqssvae.config.settings import from_dict, to_dict
from seqssvae.data.batches import evaluation_batches
from seqssvae.data.buckets import choose_buckets
from seqssvae.data.corpus import NO_GROUP, Corpus, CorpusCounts
from seqssvae.data.ragged import RaggedArray
from seqssvae.inference.per_row import classify_rows
from seqssvae.parameters import check_weights, initial_weights, parameter_shapes
from seqssvae.recipes.rows import Learned, LearningRows, known_only, log_normalised
from seqssvae.training.fit import fit
from seqssvae.training.state import Observer

BuildBackend = Callable[[Config, Dimensions], Backend]
"""Builds a twin for a configuration."""

Promising = Callable[[Float[np.ndarray, "M K"], Int[np.ndarray, " M"]], bool]
"""Tells from log p(y|x) of some held-out rows, and their indices, whether it is worth going on."""

STEPS = 300
FOLDS_BEFORE_DECISION = 2
BATCH, LEAST_BATCH, PLACES_OF_A_BATCH = 64, 16, 6144
"""Rows of a batch, labelled ones and others apart; fewer where they are long, for no more places of symbols."""
BUCKETS = 3
"""Numbers of lengths of batches to predict. In training rows of all lengths share a batch: alignment needs them all."""
MOST_OF_THE_ROWS = 0.99
"""Rows are cut at the length of the longest of this share of them."""


@dataclass(frozen=True, eq=False)
class Networks:
    """The classifiers of all folds. Together they know all labelled rows, and are better than one that knows them all.

    Args:
        backend: The twin that computes with them.
        config: Their configuration.
        weights: The weights of each.
        known: Which symbols they know; the others are UNK.
        label_count: K.
    """

    backend: Backend
    config: Config
    weights: Sequence[Weights]
    known: Bool[np.ndarray, " V"]
    label_count: int

    @classmethod
    def learn(
        cls,
        rows: LearningRows,
        unlabelled_shares: Float[np.ndarray, " K"],
        config: Config,
        build: BuildBackend,
        promising: Promising = lambda out_of_fold, seen: True,
        observers: Sequence[Observer] = (),
        consistency: float = 2.0,
    ) -> Learned | None:
        """Train a classifier for each fold, on the rows that are not held out in it and on those without label.

        Args:
            rows: The rows.
            unlabelled_shares: The shares of the labels among rows without label.
            config: Says the seed and the precision, and how rows are cut.
            build: Builds the twin.
            promising: Asked after two folds whether to go on.
            observers: Their methods are called as training goes on.
            consistency: Weight of the consistency term; with 0 they learn from labelled rows alone.

        Returns:
            What was learned; None if it is not worth going on.
        """
        shift = np.log(unlabelled_shares / rows.label_shares)
        longest = max(1, int(np.quantile(rows.all_rows.lengths, MOST_OF_THE_ROWS)))
        config = classifier_config(replace(config, data=replace(config.data, max_length=longest)), shift, consistency)
        dimensions = Dimensions(rows.vocabulary_size, tuple(np.full(rows.label_count, 1 / rows.label_count).tolist()))
        backend = build(config, dimensions)
        fresh = backend.get_optimizer_state()
        out_of_fold, weights = np.zeros((len(rows.y), rows.label_count)), []
        for fold in range(rows.fold_count):
            backend.set_weights(_first_weights(config, dimensions, fold))
            backend.set_optimizer_state(fresh)
            fit(config, _corpus(rows.without_fold(fold), rows.known, longest), _nothing(), backend, observers)
            weights.append(backend.get_weights())
            held_out = np.flatnonzero(rows.folds == fold)
            one = cls(backend, config, weights[-1:], rows.known, rows.label_count)
            out_of_fold[held_out] = one.log_proba(rows.labelled.take(held_out))
            if fold + 1 == FOLDS_BEFORE_DECISION < rows.fold_count:
                seen = np.flatnonzero(rows.folds <= fold)
                if not promising(out_of_fold[seen], seen):
                    return None
        return Learned(out_of_fold, cls(backend, config, weights, rows.known, rows.label_count))

    def log_proba(self, rows: RaggedArray) -> Float[np.ndarray, "N K"]:
        """log p(y|x): the mean of the classifiers' log-probabilities, normalised."""
        training = self.config.training
        corpus = _without_labels(known_only(rows, self.known).cut(self.config.data.max_length))
        if not len(corpus):
            return np.zeros((0, self.label_count))
        buckets = choose_buckets(corpus.lengths, min(BUCKETS, len(corpus)))
        total: Any = 0.0
        for weights in self.weights:
            self.backend.set_weights(weights)
            batches = evaluation_batches(corpus, training.batch_size, buckets, training.batch_symbols)
            total = total + classify_rows(self.backend, batches, len(corpus)).astype(float)
        return log_normalised(total / len(self.weights))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What it learned, by name."""
        stored = {f"{number}.{name}": array for number, one in enumerate(self.weights) for name, array in one.items()}
        return {"known": self.known.astype(np.int32), **stored}

    def settings(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return to_dict(self.config)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], settings: dict[str, Any], like: Dimensions, build: BuildBackend
    ) -> "Networks":
        """The member that these arrays and settings are of.

        Raises:
            ValueError: If the arrays are not the weights of networks of these settings; before one is built.
        """
        config, known, label_count = from_dict(settings), arrays["known"].astype(bool), len(like.label_prior)
        if known.shape != (like.vocabulary_size,):
            raise ValueError(f"the networks know {known.size} symbols, not {like.vocabulary_size}")
        dimensions = Dimensions(len(known), (1.0 / label_count,) * label_count)
        count = 1 + max(int(name.split(".")[0]) for name in arrays if name != "known")
        weights = [
            {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{number}.")}
            for number in range(count)
        ]
        shapes = parameter_shapes(config.model, dimensions.vocabulary_size, label_count)
        for one in weights:
            check_weights(one, shapes)
        return cls(build(config, dimensions), config, weights, known, label_count)


def classifier_config(config: Config, shift: Float[np.ndarray, " K"] | None, consistency: float = 2.0) -> Config:
    """The configuration of the classifiers.

    Args:
        config: Says the seed and the precision, and how rows are cut.
        shift: How much more probable each label is among rows without label, as a logarithm.
        consistency: Weight of the consistency term; 0 to learn from labels alone.
    """
    own = config.training
    rows = max(LEAST_BATCH, min(BATCH, PLACES_OF_A_BATCH // config.data.max_length))
    steps = max(3, round(own.budget * STEPS))
    return Config(
        data=config.data,
        model=ModelConfig(
            encoder=EncoderConfig(kind="convolution", embedding_size=32, widths=(1, 2, 3, 4), word_dropout=0.3),
            dropout=0.5,
        ),
        objective=ObjectiveConfig(
            name="classifier",
            consistency=ConsistencyConfig(
                weight=consistency,
                temperature=0.5,
                steps=steps // 3,
                aligned=consistency > 0,
                realigned=consistency > 0,
                label_shift=None if shift is None else tuple(shift.tolist()),
            ),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="cosine", clip_norm=5.0),
        training=TrainingConfig(
            epochs=steps,
            max_steps=steps,
            evaluation_interval=steps,
            batch_size=rows,
            labelled_batch_size=rows,
            buckets=1,
            steps_per_dispatch=own.steps_per_dispatch,
            metric="classification",
            patience=0,
            seed=own.seed,
            precision=own.precision,
            deterministic=own.deterministic,
        ),
    )


def _first_weights(config: Config, dimensions: Dimensions, fold: int) -> Weights:
    seed, precision = config.training.seed + fold, config.training.precision
    return initial_weights(config.model, dimensions.vocabulary_size, len(dimensions.label_prior), seed, precision)


def _corpus(rows: LearningRows, known: Bool[np.ndarray, " V"], longest: int) -> Corpus:
    y = np.concatenate([rows.y, np.full(len(rows.unlabelled), NO_LABEL)])
    return _without_labels(known_only(rows.all_rows, known).cut(longest)).with_labels(y)


def _nothing() -> Corpus:
    return _without_labels(RaggedArray(np.zeros(0, np.int32), np.zeros(1, np.int64)))


def _without_labels(sequences: RaggedArray) -> Corpus:
    count = len(sequences)
    y, groups = np.full(count, NO_LABEL, np.int32), np.full(count, NO_GROUP, np.int32)
    return Corpus(sequences, y, groups, "the rows of a fold", CorpusCounts(count, 0, 0, 0))
