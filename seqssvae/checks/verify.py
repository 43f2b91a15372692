"""The proof, for a run, that both twins compute the same: given the same weights, rows and noise, in two precisions.

Random streams are never compared: what training would draw (the noise of z, the masks of dropout) is drawn once and
given to both twins.

In float64 every difference must be within 1e-9. In float32 it must be within 1e-5, or within `ROUNDINGS` times what the
same number moves, in float64, when the weights are changed by half a unit in float32's last place: where large parts
cancel (the gradient of a bias that sums to nearly nothing over the rows), no float32 computation can do better. Parts
that cancel are also rounded on the way (the gradient of a z that holds nothing is nearly nothing): so a difference may
also be `OWN_ERRORS` times that from float64 of the twin that is nearer to it; if one twin alone errs, that is little.
"""

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqssvae.backend import NO_LABEL, Backend, Derivatives, ELBOTerms, GivenRows, Weights, get_backend
from seqssvae.checks.certificate import PRECISIONS, TWINS, Certificate, Comparison
from seqssvae.checks.tolerances import BOUNDS, relative_difference
from seqssvae.config import Config, Precision
from seqssvae.data.corpus import Corpus
from seqssvae.data.padding import pad
from seqssvae.data.schema import Schema
from seqssvae.data.vocabulary import END, SPECIALS, Vocabulary
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.runs.run import RunDirectory

ROWS = 64
"""Greatest number of labelled, and of unlabelled, rows that are compared, spread evenly over those given."""
ROUNDINGS = 64
"""How many such changes of the weights two float32 computations may differ by; on real runs the median is 2, and the
greatest seen 33."""
OWN_ERRORS = 8
"""How many times the error of the twin that is nearer to float64 the two may be apart in float32."""
HALF_UNIT = 2.0**-24
"""Half a unit in the last place of a float32, relative to it."""
GENERATED_ROWS, GENERATED_LENGTH = 16, 30
"""Number and greatest length of the rows that are made up if no file is given."""


def verify(
    run: str | Path | RunDirectory, corpus: Corpus | None = None, device: str | None = None, seed: int = 0
) -> Certificate:
    """Compare the twins on a run.

    Args:
        run: The run directory.
        corpus: Rows encoded with the run's vocabulary; None for rows that are made up of its symbols.
        device: The device of both twins.
        seed: Seed of the noise, and of the rows that are made up.

    Raises:
        RunError: If the run cannot be opened.
        BackendError: If a twin is not installed.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory(run)
    for name in TWINS:
        get_backend(name)
    config, schema = directory.config, directory.schema
    weights, step = directory.weights
    corpus = corpus or made_up_rows(config, schema, seed)
    rows = given_rows(config, corpus, len(schema.labels), seed)
    beta = config.objective.beta.maximum
    terms: list[Comparison] = []
    gradients: list[Comparison] = []
    wider: dict[str, float] = {}
    exact: Weights | None = None
    for precision in PRECISIONS:
        first, second = (_open(name, config, schema, weights, precision, device) for name in TWINS)
        of_terms, of_gradients = compare_twins(first, second, *rows, precision, beta, wider, exact)
        terms.extend(of_terms)
        gradients.extend(of_gradients)
        if precision == "float64":  # which comes first
            wider = {name: ROUNDINGS * moved for name, moved in sensitivities(first, *rows, beta, seed).items()}
            exact = dict(ChainMap(*_results(first, *rows, beta)))
    counts = [0 if part is None else int(part.batch.row_mask.sum()) for part in rows]
    return Certificate(str(directory.path), step, corpus.origin, counts[1], counts[0], tuple(terms), tuple(gradients))


def compare_twins(
    first: Backend,
    second: Backend,
    labelled: GivenRows | None,
    unlabelled: GivenRows,
    precision: Precision,
    beta: float = 1.0,
    wider: Mapping[str, float] | None = None,
    exact: Mapping[str, np.ndarray] | None = None,
) -> tuple[list[Comparison], list[Comparison]]:
    """Compare weights, loss, terms of every row, predictions, and the gradient of every weight, of two backends.

    The weights must be the same to the last bit: one that these rows do not touch would not show otherwise.

    Args:
        first: A backend.
        second: Another backend, with the same weights.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is summed out.
        precision: The floating-point type of both.
        beta: Weight of the KL of z.
        wider: Bounds by term or weight, where they are wider than the precision's own.
        exact: Terms, predictions and gradients in float64, by which the errors of the two are known; None where they
            are not to widen the bounds.

    Returns:
        Comparisons of weights and terms, and comparisons of gradients.
    """
    (ours, our_gradients), (theirs, their_gradients) = (
        _results(backend, labelled, unlabelled, beta) for backend in (first, second)
    )
    stacked = [
        np.concatenate([value.ravel() for value in backend.get_weights().values()]) for backend in (first, second)
    ]
    weights = _compared("weights (norm)", stacked[0], stacked[1], precision, np.linalg.norm, 0.0)
    bounds = {name: max(BOUNDS[precision], (wider or {}).get(name, 0.0)) for name in (*ours, *our_gradients)}
    for name, value in (exact or {}).items():
        both = (ours | our_gradients)[name], (theirs | their_gradients)[name]
        bounds[name] = max(bounds[name], OWN_ERRORS * min(relative_difference(value, one) for one in both))
    terms = [_compared(name, ours[name], theirs[name], precision, np.mean, bounds[name]) for name in ours]
    gradients = [
        _compared(name, gradient, their_gradients[name], precision, np.linalg.norm, bounds[name])
        for name, gradient in our_gradients.items()
    ]
    return [weights, *terms], gradients


def sensitivities(
    backend: Backend, labelled: GivenRows | None, unlabelled: GivenRows | None, beta: float, seed: int, draws: int = 2
) -> dict[str, float]:
    """Measure how far terms and gradients move when every weight is changed by half a unit in float32's last place.

    Args:
        backend: A twin in float64; its weights are as before afterwards.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is summed out, or None. At least one of the two is given.
        beta: Weight of the KL of z.
        seed: Seed of the signs of the changes.
        draws: Number of such changes, of which the greatest effect counts.

    Returns:
        Relative differences, by term and by weight.
    """
    generator = np.random.default_rng([seed, 0x51C5])
    weights = backend.get_weights()
    before = _results(backend, labelled, unlabelled, beta)
    moved: dict[str, float] = {}
    for _ in range(draws):
        signs = {name: generator.choice([-1.0, 1.0], value.shape) for name, value in weights.items()}
        backend.set_weights({name: value * (1.0 + HALF_UNIT * signs[name]) for name, value in weights.items()})
        after = _results(backend, labelled, unlabelled, beta)
        for old, new in zip(before, after, strict=True):
            for name, value in old.items():
                moved[name] = max(moved.get(name, 0.0), relative_difference(value, new[name]))
    backend.set_weights(weights)
    return moved


def given_rows(config: Config, corpus: Corpus, label_count: int, seed: int) -> tuple[GivenRows | None, GivenRows]:
    """Return rows of a corpus with noise as training would draw it.

    Args:
        config: The run's configuration.
        corpus: The rows.
        label_count: K.
        seed: Seed of the noise.

    Returns:
        The rows that have a label (None if there are none), and all rows as if they had none. Where the objective needs
        a posterior of each row that is not the model's own, and the rows have none, it is drawn at random.
    """
    generator = np.random.default_rng([seed, 0xCE47])
    if config.objective.posterior == "given" and corpus.posterior is None:
        corpus = corpus.with_posterior(generator.dirichlet(np.ones(label_count), len(corpus)))
    with_label = np.flatnonzero(corpus.y != NO_LABEL)
    labelled = _with_noise(config, corpus, _spread(with_label), None, generator) if len(with_label) else None
    hidden = corpus.with_labels(np.full(len(corpus), NO_LABEL))
    return labelled, _with_noise(config, hidden, _spread(np.arange(len(corpus))), label_count, generator)


def made_up_rows(config: Config, schema: Schema, seed: int) -> Corpus:
    """Return rows of random symbols of the vocabulary, with every label in turn."""
    generator = np.random.default_rng([seed, 0x3075])
    longest = min(config.data.max_length, GENERATED_LENGTH)

    def of(vocabulary: Vocabulary) -> list[np.ndarray]:
        return [
            np.array([*generator.integers(len(SPECIALS), len(vocabulary), length), END], np.int32)
            for length in generator.integers(1, longest + 1, GENERATED_ROWS)
        ]

    sequences = of(schema.vocabulary)
    sources = None if schema.source_vocabulary is None else of(schema.source_vocabulary)
    y = np.arange(GENERATED_ROWS) % len(schema.labels)
    return Corpus.from_sequences(sequences, y, sources, "rows made up of the run's symbols")


def _results(
    backend: Backend, labelled: GivenRows | None, unlabelled: GivenRows | None, beta: float
) -> tuple[Weights, Weights]:
    """Return terms and predictions by name, and gradients by weight."""
    rows = unlabelled or labelled
    assert rows is not None
    with backend.exact_products():
        derivatives = backend.differentiate(labelled, unlabelled, beta)
        x, source = rows.batch.x, rows.batch.source
        predictions = {"q(y|x)": np.exp(backend.classify(x, source)), "embedding": backend.encode(x, source)}
        if source is not None:
            predictions["p(y|source)"] = np.exp(backend.classify_source(source))
    return {**_named_terms(derivatives), **predictions}, derivatives.gradients


def _spread(indices: np.ndarray) -> np.ndarray:
    """Return at most `ROWS` of the indices, evenly spread."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), ROWS)).round().astype(int))]


def _with_noise(
    config: Config, corpus: Corpus, indices: np.ndarray, label_count: int | None, generator: np.random.Generator
) -> GivenRows:
    time_steps = int(corpus.lengths[indices].max())
    batch = pad(corpus, indices, len(indices), time_steps)
    specs = noise_specs(
        config.model,
        label_count,
        len(indices),
        time_steps,
        objective=config.objective,
        source_steps=batch.source_steps,
    )
    return GivenRows(batch, draw_noise(specs, generator))


def _open(
    name: str, config: Config, schema: Schema, weights: Weights, precision: Precision, device: str | None
) -> Backend:
    config = replace(config, training=replace(config.training, precision=precision))
    backend = get_backend(name)(config, schema.dimensions, device)
    backend.set_weights(weights)
    return backend


def _named_terms(derivatives: Derivatives) -> dict[str, np.ndarray]:
    terms = {"loss": derivatives.loss}
    for kind, of_kind in (("labelled", derivatives.labelled), ("unlabelled", derivatives.unlabelled)):
        if of_kind is not None:
            always_zero = "consistency" if kind == "labelled" else "classification"
            names = [name for name in ELBOTerms._fields if name != always_zero]
            terms.update({f"{name}, {kind} rows": getattr(of_kind, name) for name in names})
    return terms


def _compared(
    term: str,
    first: np.ndarray,
    second: np.ndarray,
    precision: Precision,
    value: Callable[[np.ndarray], object],
    bound: float,
) -> Comparison:
    values = float(np.asarray(value(first))), float(np.asarray(value(second)))
    absolute = float(np.max(np.abs(np.asarray(first) - second), initial=0.0))
    return Comparison(precision, term, values, absolute, relative_difference(first, second), bound)
