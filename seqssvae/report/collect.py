"""All figures of a run that the report shows, as plain arrays: the same by either twin, but for what is generated."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.config import DecodingOptions
from seqssvae.config.settings import Settings, to_dict
from seqssvae.data.corpus import Corpus
from seqssvae.diagnosis.diagnose import Diagnosed, Diagnosis, diagnose
from seqssvae.inference.evaluate import count_confusion, encode
from seqssvae.inference.generate import generate
from seqssvae.inference.label_report import LabelReport, label_report
from seqssvae.recipes.calibration import Reliability, reliability
from seqssvae.recipes.ensemble import Trial
from seqssvae.recipes.predictors import predict_log_proba

MOST_POINTS, MOST_WRONG = 1000, 20
GENERATED, MOST_GENERATED_LABELS = 4, 12
"""Sequences of a label, and labels, that are generated."""


class WrongRow(NamedTuple):
    """A row whose most probable label is not its own.

    Args:
        text: The row.
        label: Its label.
        predicted: The most probable label.
        probability: Of that.
        own: The probability of its own label.
    """

    text: str
    label: str
    predicted: str
    probability: float
    own: float


class Sample(NamedTuple):
    """A generated sequence.

    Args:
        label: Its label.
        text: The sequence.
        log_p: log p(x|y,z), in nats.
    """

    label: str
    text: str
    log_p: float


class RowsSeen(NamedTuple):
    """What a model makes of rows with a label that were not learned from; of none there is nothing.

    Args:
        rows: Their number.
        confusion: The number of rows by label (first index) and predicted label (second).
        labels: How well each label is predicted.
        reliability: How often labels are right that are said to be so probable.
        wrong: Rows whose label is not the most probable one, those of which the model is surest first.
    """

    rows: int
    confusion: Int[np.ndarray, "K K"]
    labels: LabelReport
    reliability: Reliability
    wrong: tuple[WrongRow, ...]


class Findings(NamedTuple):
    """What the report says of the rows that it was given.

    Args:
        origin: Where they are from.
        rows: Their number.
        diagnosis: What the model makes of them.
        held_out: What it makes of those with a label that were not learned from; None where there are none.
        embedding: The embeddings of some of them: means of z or, where no unit of z is active, features of q(y|x).
        y: The labels of these.
    """

    origin: str
    rows: int
    diagnosis: Diagnosis
    held_out: RowsSeen | None
    embedding: Float[np.ndarray, "M Z"]
    y: Int[np.ndarray, " M"]

    @property
    def embedded(self) -> str:
        """What the embeddings are."""
        return "features that q(y|x) reads" if _unused(self.diagnosis) else "mean of z"


class RunFacts(NamedTuple):
    """All that the report shows of a run but its certificate.

    Args:
        name: The run's name.
        backend: The twin that computed this.
        trained_by: The twin that trained it.
        step: The training step whose weights were kept.
        settings: Its configuration.
        names: Names of the labels.
        history: Its evaluations.
        trials: How the candidates of the recipe `auto` did; none of another recipe.
        findings: What the model makes of rows; None where none were given.
        samples: Generated sequences; none of a classifier, or of a model with sources.
    """

    name: str
    backend: str
    trained_by: str
    step: int
    settings: Settings
    names: tuple[str, ...]
    history: Sequence[Mapping[str, Any]]
    trials: Sequence[Trial]
    findings: Findings | None
    samples: Sequence[Sample]

    @property
    def predicted_by(self) -> str:
        """What predicts labels; curves, ELBO and z are the network's in any case."""
        return "ensemble of recipe auto" if self.trials else "q(y|x)"


def collect(
    name: str, model: Diagnosed, trained_by: str, corpus: Corpus | None, texts: Sequence[str] = (), seed: int = 0
) -> RunFacts:
    """Compute all that the report shows of a run.

    Args:
        name: The run's name.
        model: The run.
        trained_by: The twin that trained it.
        corpus: Rows to look at; None for what is known without.
        texts: The text of each row.
        seed: Seed of what is drawn.
    """
    trials = () if model.ensemble is None else model.ensemble.trials
    findings = None if corpus is None or not len(corpus) else _look(model, corpus, texts, seed)
    names, settings = tuple(model.schema.labels.names), to_dict(model.config)
    known = model.step, settings, names, model.history, trials
    return RunFacts(name, model.backend.name, trained_by, *known, findings, _samples(model, seed))


def _look(model: Diagnosed, corpus: Corpus, texts: Sequence[str], seed: int) -> Findings:
    diagnosis = diagnose(model, corpus, seed=seed)
    seen = np.zeros(len(corpus), bool) if model.trained_on is None else model.trained_on.seen(corpus)
    rows = np.flatnonzero((corpus.y >= 0) & ~seen)
    held_out = _held_out(model, corpus.take(rows), [texts[row] for row in rows.tolist()]) if len(rows) else None
    order = np.random.default_rng(seed).permutation(len(corpus))
    points = corpus.take(np.sort(order[np.argsort(corpus.y[order] < 0, kind="stable")][:MOST_POINTS]))
    embedding = np.asarray(encode(model.backend, points, model.config, _unused(diagnosis)), float)
    return Findings(corpus.origin, len(corpus), diagnosis, held_out, embedding, points.y)


def _unused(diagnosis: Diagnosis) -> bool:
    """Whether z has no active unit, so that a map of it would be one of noise."""
    return diagnosis.latent is None or not diagnosis.latent.active.any()


def _held_out(model: Diagnosed, corpus: Corpus, texts: Sequence[str]) -> RowsSeen:
    log_p, y, names = (
        predict_log_proba(model, corpus),
        corpus.y,
        model.schema.labels.names,
    )
    confusion, best = count_confusion(y, log_p), log_p.argmax(axis=1)
    surest = sorted(np.flatnonzero(best != y).tolist(), key=lambda row: -log_p[row].max())[:MOST_WRONG]
    wrong = (
        WrongRow(
            texts[row],
            names[y[row]],
            names[best[row]],
            float(np.exp(log_p[row].max())),
            float(np.exp(log_p[row, y[row]])),
        )
        for row in surest
    )
    return RowsSeen(len(corpus), confusion, label_report(confusion), reliability(log_p, y), tuple(wrong))


def _samples(model: Diagnosed, seed: int) -> list[Sample]:
    config, vocabulary, names = model.config, model.schema.vocabulary, model.schema.labels.names
    if config.objective.name == "classifier" or model.schema.source_vocabulary is not None:
        return []
    options, samples = DecodingOptions(min(config.data.max_length, 200)), list[Sample]()
    for label in range(min(len(names), MOST_GENERATED_LABELS)):
        for one in generate(model.backend, vocabulary, label, GENERATED, options, seed):
            samples.append(Sample(names[label], vocabulary.join(one.symbols), one.log_p))
    return samples
