"""What a fitted estimator says of rows and of itself: likelihoods, and a diagnosis."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from seqssvae.config.checks import check_integer
from seqssvae.config.objective import MOST_PARTICLES
from seqssvae.diagnosis.diagnose import Diagnosed, Diagnosis, diagnose
from seqssvae.estimator.fitted import FittedMixin, FittedModel, Sequences
from seqssvae.inference.likelihood import corpus_likelihood


class InspectionMixin(FittedMixin):
    """Mixin of an estimator that has a generator and can be looked into."""

    def score_samples(
        self,
        X: Sequences,
        source: Sequences | None = None,
        per_symbol: bool = False,
        importance_samples: int = 100,
        seed: int = 0,
    ) -> Float[np.ndarray, " N"]:
        """Return log p(x) of each sequence by importance sampling: low where a sequence is unlike the training rows.

        Args:
            X: Sequences: texts, or lists of symbols.
            source: The source of each, if the estimator was fitted with sources.
            per_symbol: Whether it is divided by the number of symbols, END included, so that a long sequence does not
                look unlikely for its length alone.
            importance_samples: The number of draws of z for each label.
            seed: Seed of these draws.

        Returns:
            Nats a sequence, or nats a symbol.

        Raises:
            ConfigurationError: If the model has no generator (`objective.name: classifier`), or a number is wrong.
        """
        check_integer("importance_samples", importance_samples, 1, MOST_PARTICLES)
        check_integer("seed", seed, 0)
        fitted = self._get_fitted()
        rows = fitted.encode(X, source)
        log_p = corpus_likelihood(fitted.backend, rows, fitted.config, seed, importance_samples).log_p
        return log_p / rows.lengths if per_symbol else log_p

    def diagnose(
        self, X: Sequences, y: Iterable[Any] | None = None, source: Sequences | None = None, seed: int = 0
    ) -> Diagnosis:
        """Look at what the model makes of sequences, and say what is wrong with it, if anything.

        Args:
            X: Sequences: texts, or lists of symbols. The more of them have a label and were not trained on, the more
                can be said.
            y: Label of each, or the marker of a missing one.
            source: The source of each, if the estimator was fitted with sources.
            seed: Seed of what is drawn.

        Returns:
            Figures, and sentences with what to do: `print(*model.diagnose(X, y).findings, sep="\\n")`.

        Raises:
            DataError: If a label is unknown.
        """
        check_integer("seed", seed, 0)
        fitted = self._get_fitted()
        rows = fitted.encode(X, source)
        return diagnose(diagnosed(fitted), rows.with_labels(self._label_indices(y, len(rows))), seed=seed)


def diagnosed(fitted: FittedModel) -> Diagnosed:
    """What training left, as it is diagnosed."""
    checkpoint = fitted.checkpoint
    history = [json.loads(line) for line in checkpoint.history]
    known = fitted.ensemble, fitted.baselines, fitted.trained_on
    trained = history, checkpoint.state.best_step, fitted.network_pool
    return Diagnosed(fitted.backend, fitted.config, fitted.schema, *known, *trained)
