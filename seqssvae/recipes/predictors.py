"""Three predictors of a label: q(y|x), the generator's own posterior p(y|x), and all that was learned together."""

import numpy as np
from jaxtyping import Float

from seqssvae.backend import Backend
from seqssvae.config import Config
from seqssvae.data.batches import corpus_batches
from seqssvae.data.corpus import Corpus
from seqssvae.errors import ConfigurationError
from seqssvae.inference.per_row import classify_rows, label_bounds
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.names import PredictionMethod
from seqssvae.recipes.pool import LEAST_LOG
from seqssvae.recipes.rows import log_normalised

PARTICLES = 8


def predict_log_proba(
    backend: Backend,
    corpus: Corpus,
    config: Config,
    ensemble: Ensemble | None = None,
    method: PredictionMethod | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "N K"]:
    """log p(y|x) of every row.

    Args:
        backend: The network.
        corpus: The rows.
        config: The network's configuration.
        ensemble: What was learned of the labels beside the network.
        method: `classifier` is q(y|x) of the network. `generative` is p(y|x) by Bayes' rule from its p(x|y), of which z
            is summed out by importance sampling. `combined` is the ensemble; or, where there is none, the mean of the
            two probabilities. None: the ensemble where there is one, and else `classifier`.
        seed: Seed of the draws of z.

    Raises:
        ConfigurationError: If there is no such method, or the network has no generator.
    """
    method = method or ("classifier" if ensemble is None else "combined")
    if method not in ("classifier", "generative", "combined"):
        raise ConfigurationError(f"method must be classifier, generative or combined, not {method!r}.")
    if not len(corpus):
        return np.zeros((0, backend.classify(np.zeros((1, 1), np.int32)).shape[1]))
    if method == "combined" and ensemble is not None:
        return ensemble.log_proba(corpus.sequences.loaded())
    if method != "classifier" and config.objective.name == "classifier":
        raise ConfigurationError(f"method {method!r} needs a generator, and objective.name: classifier has none.")
    parts = []
    if method != "generative":
        parts.append(classify_rows(backend, corpus_batches(corpus, config), len(corpus)))
    if method != "classifier":
        parts.append(label_bounds(backend, corpus_batches(corpus, config), len(corpus), seed, PARTICLES))
    probabilities = np.mean([np.exp(log_normalised(part.astype(float))) for part in parts], axis=0)
    return np.log(np.maximum(probabilities, np.exp(LEAST_LOG)))
