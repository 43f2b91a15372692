"""The gradient estimators of a missing label that can be compared, what is measured of each, and on what."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqssvae.backend import NO_LABEL, Batch, Dimensions, Weights
from seqssvae.config import Config, GradientEstimatorName
from seqssvae.data.corpus import Corpus
from seqssvae.data.padding import pad
from seqssvae.errors import DataError


class GradientEstimator(NamedTuple):
    """A gradient estimator with its k.

    Args:
        name: Its name, as in `seqssvae.config.ObjectiveConfig`.
        k: Number of labels that `top_k` sums out.
    """

    name: GradientEstimatorName
    k: int = 0

    def __str__(self) -> str:
        return f"top_k, k = {self.k}" if self.name == "top_k" else self.name

    def passes(self, label_count: int) -> int:
        """Return for how many labels of each row the decoder is run.

        Args:
            label_count: K.
        """
        if self.name in ("enumerate", "sequential"):
            return label_count
        if self.name == "top_k":
            return label_count if self.k >= label_count - 1 else self.k + 1
        return 1


class GradientQuality(NamedTuple):
    """How near an estimated gradient is to the exact one. All numbers are relative to the norm of the exact one.

    Args:
        bias: Norm of the mean error, less what chance adds to it.
        chance: What chance adds, with as many draws: a bias below it cannot be told from none.
        deviation: Root of the variance: the norm of the difference of one draw from the mean.
    """

    bias: float
    chance: float
    deviation: float


class Measurement(NamedTuple):
    """What was measured of a gradient estimator.

    Args:
        estimator: The gradient estimator.
        passes: For how many labels of each row the decoder is run.
        every_weight: Quality of the gradient of all weights.
        classifier: Quality of the gradient of the weights that q(y|x) alone has.
        milliseconds: Time of a training step: median and quartiles.
        megabytes: Peak memory of a training step above the process with weights, one gradient and optimiser state;
            None where it cannot be measured (it can on Linux).
    """

    estimator: GradientEstimator
    passes: int
    every_weight: GradientQuality
    classifier: GradientQuality
    milliseconds: tuple[float, float, float]
    megabytes: float | None


class Setting(NamedTuple):
    """The model and the rows on which gradient estimators are compared.

    Args:
        backend: Name of the twin.
        config: The run's configuration.
        dimensions: V and p(y).
        weights: The model's weights.
        batch: Rows, whose labels count as missing.
        device: The twin's device.
        seed: Seed of the noise.
    """

    backend: str
    config: Config
    dimensions: Dimensions
    weights: Weights
    batch: Batch
    device: str | None = None
    seed: int = 0


def random_batch(corpus: Corpus, size: int, seed: int) -> Batch:
    """Draw rows at random, hide their labels, and pad them to the longest.

    Args:
        corpus: The rows to draw from.
        size: Number of rows; all rows if there are no more.
        seed: Seed of the draw.

    Raises:
        DataError: If there is no row.
    """
    if not len(corpus):
        raise DataError(f"{corpus.origin} has no row that can be used.")
    chosen = np.sort(np.random.default_rng([seed, 0x20E5]).permutation(len(corpus))[:size])
    length = int(corpus.lengths[chosen].max())
    return pad(corpus.with_labels(np.full(len(corpus), NO_LABEL)), chosen, len(chosen), length)


def list_gradient_estimators(label_count: int, ks: Sequence[int]) -> list[GradientEstimator]:
    """Return every gradient estimator, `top_k` once for each k that leaves something to draw.

    Args:
        label_count: K.
        ks: Numbers of labels that `top_k` is to sum out.

    Example:
        >>> [str(estimator) for estimator in list_gradient_estimators(5, [1, 4])]
        ['enumerate', 'sequential', 'top_k, k = 1', 'gumbel_softmax', 'score_function']
    """
    top = [GradientEstimator("top_k", k) for k in ks if k < label_count - 1]
    exact = [GradientEstimator("enumerate"), GradientEstimator("sequential")]
    return [*exact, *top, GradientEstimator("gumbel_softmax"), GradientEstimator("score_function")]
