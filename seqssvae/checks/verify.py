"""The certificate of a run: both twins given the same weights, rows and noise, in float64 and in float32, side by side.

Random streams are never compared: what training would draw (z's noise, masks of dropout) is drawn once and given to
both.

In float64 every difference must be within 1e-9. In float32 it must be within 1e-5, or within `ROUNDINGS` times what the
same number moves, in float64, when the weights are changed by half a unit in float32's last place: where large parts
cancel (the gradient of a bias that sums to nearly nothing over the rows), no float32 computation can do better.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqssvae.backend import NO_LABEL, Backend, Derivatives, ELBOTerms, GivenRows, Weights, get_backend
from seqssvae.checks.differences import BOUNDS, relative_difference
from seqssvae.config import Config, Precision
from seqssvae.data.batches import pad
from seqssvae.data.corpus import Corpus, CorpusCounts
from seqssvae.data.vocabulary import END, SPECIALS, Vocabulary
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.runs.files import WEIGHTS, Schema, read_config, read_schema, read_weights

TWINS = ("torch", "jax")
PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
ROWS = 64
"""Most rows of either kind that are compared, spread evenly over those given."""
ROUNDINGS = 64
"""How many such changes of the weights two float32 computations may differ by; on real runs the median is 2, and the
greatest seen 33."""
HALF_UNIT = 2.0**-24
"""Half a unit in the last place of a float32, relative to it."""
GENERATED_ROWS, GENERATED_LENGTH = 16, 30
"""Number and greatest length of the rows made up where no file is given."""


class Comparison(NamedTuple):
    """One line of a certificate.

    Args:
        precision: Floating-point type of both twins.
        term: What was compared.
        values: What each twin found: a number, the mean over rows, or of a gradient the Euclidean norm.
        absolute: Greatest difference of an entry.
        relative: The same, divided by the greatest entry of the first twin.
        bound: What `relative` may be at most.
    """

    precision: Precision
    term: str
    values: tuple[float, float]
    absolute: float
    relative: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound (and not NaN)."""
        return self.relative <= self.bound


class Certificate(NamedTuple):
    """What `verify` found.

    Args:
        run: The run directory.
        step: Training step of its weights.
        origin: Where the rows are from.
        rows: Number of rows whose label was summed out.
        labelled_rows: Number of rows whose label was observed.
        terms: Loss, terms and predictions.
        gradients: The gradient of every weight.
    """

    run: str
    step: int
    origin: str
    rows: int
    labelled_rows: int
    terms: tuple[Comparison, ...]
    gradients: tuple[Comparison, ...]

    @property
    def failures(self) -> list[Comparison]:
        """What differs by more than its bound."""
        return [one for one in (*self.terms, *self.gradients) if not one.holds]

    @property
    def agrees(self) -> bool:
        """Whether nothing does."""
        return not self.failures

    def worst(self, precision: Precision) -> Comparison:
        """The greatest relative difference of all; NaN is greater than any."""
        return _worst(one for one in (*self.terms, *self.gradients) if one.precision == precision)

    def worst_gradient(self, precision: Precision) -> Comparison:
        """The gradient that differs most."""
        return _worst(one for one in self.gradients if one.precision == precision)

    @property
    def verdict(self) -> str:
        """One line."""
        count = len(self.terms) + len(self.gradients)
        if self.agrees:
            parts = [f"{self.worst(p).relative:.1e} in {p} (bound {self.worst(p).bound:.0e})" for p in PRECISIONS]
            return f"The twins agree in all {count} comparisons; the worst relative difference is {', '.join(parts)}."
        worst = _worst(self.failures)
        return (
            f"The twins DIFFER in {len(self.failures)} of {count} comparisons; the worst is {worst.term} in "
            f"{worst.precision}: {worst.relative:.1e}, where {worst.bound:.0e} is allowed."
        )


def verify(path: str | Path, corpus: Corpus | None = None, device: str | None = None, seed: int = 0) -> Certificate:
    """Compare the twins on a run.

    Args:
        path: The run directory.
        corpus: Rows encoded with the run's vocabulary; without them, rows are made up of its symbols.
        device: Where both twins compute.
        seed: Of the noise, and of the rows made up.

    Raises:
        RunError: If the run cannot be opened.
        BackendError: If a twin is not installed.
    """
    path = Path(path)
    for name in TWINS:
        get_backend(name)
    config, schema = read_config(path), read_schema(path)
    weights, step = read_weights(path / WEIGHTS, config, schema)
    corpus = corpus or made_up_rows(config, schema, seed)
    rows = given_rows(config, corpus, len(schema.labels), seed)
    beta = config.objective.beta.maximum
    terms: list[Comparison] = []
    gradients: list[Comparison] = []
    wider: dict[str, float] = {}
    for precision in PRECISIONS:
        first, second = (_open(name, config, schema, weights, precision, device) for name in TWINS)
        found = compare_twins(first, second, *rows, precision, beta, wider)
        terms.extend(found[0])
        gradients.extend(found[1])
        if precision == "float64":  # which comes first
            wider = {name: ROUNDINGS * moved for name, moved in sensitivities(first, *rows, beta, seed).items()}
    counts = [0 if part is None else int(part.batch.row_mask.sum()) for part in rows]
    return Certificate(str(path), step, corpus.origin, counts[1], counts[0], tuple(terms), tuple(gradients))


def compare_twins(
    first: Backend,
    second: Backend,
    labelled: GivenRows | None,
    unlabelled: GivenRows,
    precision: Precision,
    beta: float = 1.0,
    wider: Mapping[str, float] | None = None,
) -> tuple[list[Comparison], list[Comparison]]:
    """Weights, loss, terms of every row, predictions, and the gradient of every weight, of two backends.

    The weights must be the same to the last bit: one that these rows do not touch would not show otherwise.

    Args:
        first: A backend.
        second: Another, with the same weights.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is summed out.
        precision: The floating-point type of both.
        beta: Weight of the KL of z.
        wider: Bounds by term or weight, where they are wider than the precision's own.
    """
    (ours, our_gradients), (theirs, their_gradients) = (
        _results(backend, labelled, unlabelled, beta) for backend in (first, second)
    )
    stacked = [np.concatenate([value.ravel() for value in one.get_weights().values()]) for one in (first, second)]
    weights = _compared("weights (norm)", stacked[0], stacked[1], precision, np.linalg.norm, 0.0)
    bounds = {name: max(BOUNDS[precision], (wider or {}).get(name, 0.0)) for name in (*ours, *our_gradients)}
    terms = [_compared(name, ours[name], theirs[name], precision, np.mean, bounds[name]) for name in ours]
    gradients = [
        _compared(name, gradient, their_gradients[name], precision, np.linalg.norm, bounds[name])
        for name, gradient in our_gradients.items()
    ]
    return [weights, *terms], gradients


def sensitivities(
    backend: Backend, labelled: GivenRows | None, unlabelled: GivenRows | None, beta: float, seed: int, draws: int = 2
) -> dict[str, float]:
    """How far each term and gradient moves when every weight is changed by half a unit in float32's last place.

    Args:
        backend: A twin in float64; its weights are as before afterwards.
        labelled: Rows whose label is observed, or None.
        unlabelled: Rows whose label is summed out, or None. At least one of the two is given.
        beta: Weight of the KL of z.
        seed: Of the signs of the changes.
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


def _results(
    backend: Backend, labelled: GivenRows | None, unlabelled: GivenRows | None, beta: float
) -> tuple[Weights, Weights]:
    """Terms and predictions by name, and gradients by weight."""
    rows = unlabelled or labelled
    assert rows is not None
    with backend.exact_products():
        found = backend.differentiate(labelled, unlabelled, beta)
        x, source = rows.batch.x, rows.batch.source
        predictions = {"q(y|x)": np.exp(backend.classify(x, source)), "embedding": backend.encode(x, source)}
        if source is not None:
            predictions["p(y|source)"] = np.exp(backend.classify_source(source))
    return {**_named_terms(found), **predictions}, found.gradients


def given_rows(config: Config, corpus: Corpus, label_count: int, seed: int) -> tuple[GivenRows | None, GivenRows]:
    """Rows of a corpus with noise as training would draw it: those with a label (or None), and all as if without."""
    generator = np.random.default_rng([seed, 0xCE47])
    with_label = np.flatnonzero(corpus.y != NO_LABEL)
    labelled = _with_noise(config, corpus, _spread(with_label), None, generator) if len(with_label) else None
    hidden = corpus.with_labels(np.full(len(corpus), NO_LABEL))
    return labelled, _with_noise(config, hidden, _spread(np.arange(len(corpus))), label_count, generator)


def made_up_rows(config: Config, schema: Schema, seed: int) -> Corpus:
    """Random symbols of the vocabulary, with every label in turn."""
    generator = np.random.default_rng([seed, 0x3075])
    longest = min(config.data.max_length, GENERATED_LENGTH)

    def of(vocabulary: Vocabulary) -> tuple[np.ndarray, ...]:
        return tuple(
            np.array([*generator.integers(len(SPECIALS), len(vocabulary), length), END], np.int32)
            for length in generator.integers(1, longest + 1, GENERATED_ROWS)
        )

    sequences = of(schema.vocabulary)
    sources = None if schema.source_vocabulary is None else of(schema.source_vocabulary)
    y = np.arange(GENERATED_ROWS, dtype=np.int32) % len(schema.labels)
    counts = CorpusCounts(rows=GENERATED_ROWS, skipped=0, truncated=0, unknown_symbols=0)
    return Corpus(sequences, y, (None,) * GENERATED_ROWS, "rows made up of the run's symbols", counts, sources)


def _spread(indices: np.ndarray) -> np.ndarray:
    """At most `ROWS` of them, evenly spread."""
    return indices[np.unique(np.linspace(0, len(indices) - 1, min(len(indices), ROWS)).round().astype(int))]


def _with_noise(
    config: Config, corpus: Corpus, indices: np.ndarray, label_count: int | None, generator: np.random.Generator
) -> GivenRows:
    time_steps = int(corpus.lengths[indices].max())
    batch = pad(corpus.sequences, indices, corpus.y, len(indices), time_steps, corpus.sources)
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


def _named_terms(found: Derivatives) -> dict[str, np.ndarray]:
    terms = {"loss": found.loss}
    for kind, of_kind in (("labelled", found.labelled), ("unlabelled", found.unlabelled)):
        if of_kind is not None:
            of_other = "consistency" if kind == "labelled" else "classification"
            names = [name for name in ELBOTerms._fields if name != of_other]
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


def _worst(comparisons: Iterable[Comparison]) -> Comparison:
    def excess(one: Comparison) -> float:
        if one.bound == 0:
            return 0.0 if one.relative == 0 else np.inf
        return np.inf if np.isnan(one.relative) else one.relative / one.bound

    return max(comparisons, key=excess)
