"""One cell: a set, so many labels of each class, a seed."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from benchmarks.few_labels.sets import Row
from seqssvae.backend import Backend, Dimensions, get_backend
from seqssvae.config import Config
from seqssvae.config.settings import from_dict
from seqssvae.data.corpus import Corpus, encode_table
from seqssvae.data.in_memory import make_table
from seqssvae.data.prepare import Prepared, prepare_table
from seqssvae.inference.evaluate import evaluate
from seqssvae.recipes.auto import affordable, fit_towards, learn, learning_rows
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.named import with_recipe
from seqssvae.recipes.network import Networks
from seqssvae.recipes.references import REFERENCES, cross_validate, predict

TEST_SHARE, MOST_TEST = 0.2, 2000
TEST_STREAM, LABEL_STREAM = 12345, 777


def run_cell(rows: list[Row], count: int, seed: int, twin: str, with_network: bool) -> dict[str, Any]:
    """Train and test all methods.

    Args:
        rows: The rows of a set.
        count: Labels of each class that are kept; all other rows that are no test rows are without label.
        seed: Of the choice of labels, and of all that is trained.
        twin: Name of the twin.
        with_network: Whether the recipe's network is trained as well, and its generator measured.

    Returns:
        Accuracy and balanced accuracy on test rows by method, accuracy in cross-validation, seconds.
    """
    labels = np.array([label for _, label in rows])
    sequences = [list(symbols) for symbols, _ in rows]
    order = np.random.default_rng(TEST_STREAM).permutation(len(rows))
    size = min(MOST_TEST, int(TEST_SHARE * len(rows)))
    test, others = order[:size], np.random.default_rng([seed, LABEL_STREAM]).permutation(order[size:])
    kept = np.concatenate([others[labels[others] == name][:count] for name in np.unique(labels)])
    observed = np.full(len(rows), None, object)
    observed[kept] = labels[kept]
    config = from_dict(with_recipe("auto", {"training": {"seed": seed}, "data": {"labels": sorted(set(labels))}}))
    table = make_table([sequences[row] for row in others], config.data, observed[others].tolist())
    prepared = prepare_table(table, config)
    held_out = make_table([sequences[row] for row in test], config.data, labels[test].tolist())
    corpus = encode_table(held_out, prepared.schema, config.data, "truncate")
    config = affordable(config, prepared)

    def build(config: Config, dimensions: Dimensions) -> Backend:
        return get_backend(twin)(config, dimensions)

    return _methods(config, prepared, corpus, build, with_network)


def _methods(
    config: Config,
    prepared: Prepared,
    test: Corpus,
    build: Callable[[Config, Dimensions], Backend],
    with_network: bool,
) -> dict[str, Any]:
    learning = learning_rows(config, prepared)
    result: dict[str, Any] = {"accuracy": {}, "balanced": {}, "validated": {}, "seconds": {}}

    def note(name: str, method: Callable[[], tuple[Int[np.ndarray, " M"], float]]) -> None:
        began = time.perf_counter()
        predicted, validated = method()
        hits = predicted == test.y
        result["accuracy"][name] = float(hits.mean())
        result["balanced"][name] = float(np.mean([hits[test.y == label].mean() for label in np.unique(test.y)]))
        result["validated"][name], result["seconds"][name] = validated, time.perf_counter() - began

    for name, reference in REFERENCES.items():

        def compared(reference: Any = reference) -> tuple[Int[np.ndarray, " M"], float]:
            validated = float(np.mean(cross_validate(reference, learning) == learning.y))
            return predict(reference, learning, test.sequences.loaded()), validated

        note(name, compared)

    def alone() -> tuple[Int[np.ndarray, " M"], float]:
        learned = Networks.learn(learning, learning.label_shares, config, build, consistency=0.0)
        assert learned is not None
        validated = float(np.mean(learned.out_of_fold.argmax(axis=1) == learning.y))
        return learned.member.log_proba(test.sequences.loaded()).argmax(axis=1), validated

    note("classifier alone", alone)
    began = time.perf_counter()
    ensemble = learn(config, prepared, build)
    note("auto", lambda: (ensemble.log_proba(test.sequences.loaded()).argmax(axis=1), ensemble.trials[-1].accuracy))
    result["trials"] = [trial._asdict() for trial in ensemble.trials]
    if with_network:
        fitted = fit_towards(ensemble, config, prepared, build)
        metrics = evaluate(fitted.backend, test, config, importance_samples=1).metrics
        baselines = Baselines.learn(prepared.training.sequences, prepared.schema.dimensions.vocabulary_size)
        bound = (metrics.importance_bound or 0.0) * metrics.rows / metrics.symbols  # at the best q(y|x)
        nats = {"nats": metrics.elbo_per_symbol, "bound": bound, **baselines.nats_per_symbol(test.sequences)}
        result["generator"] = {**nats, "steps": fitted.result.state.step}
        result["accuracy"]["auto, network alone"] = metrics.accuracy
    result["seconds"]["auto"] = time.perf_counter() - began
    return result
