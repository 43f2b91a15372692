"""What a trained model makes of some rows: labels, latents, probabilities, and what is wrong with them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqssvae.backend import Backend
from seqssvae.config import Config
from seqssvae.data.corpus import Corpus
from seqssvae.data.prepare import Prepared
from seqssvae.data.schema import Schema
from seqssvae.diagnosis import findings
from seqssvae.diagnosis.findings import RANDOM_LABELS, Compared, CrossValidated, Finding
from seqssvae.diagnosis.label_use import LabelSeparation, LabelUse, label_separation, label_use
from seqssvae.diagnosis.latents import LatentUse, latent_use
from seqssvae.diagnosis.rows import look_at_rows
from seqssvae.recipes.auto import Fitted
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.calibration import calibration_interval, expected_calibration_error
from seqssvae.recipes.ensemble import Ensemble
from seqssvae.recipes.pool import Pool
from seqssvae.recipes.predictors import predict_log_proba
from seqssvae.recipes.trained_on import TrainedOn

MOST_ROWS = 20_000
"""Rows whose labels are predicted."""
MOST_TRAINED = 2000
"""Labelled training rows, given apart, whose labels are predicted."""
LEAST_LATENT_ROWS, MOST_LATENT_ROWS, MOST_DECODED = 50, 1000, 10_000
"""Rows whose z is looked at, if there are so many, and sequences that are decoded, one for each label of a row."""
ROW_STREAM = 0xD1A6


class Diagnosed(NamedTuple):
    """A trained model, and what is known of its training.

    Args:
        backend: The network.
        config: Its configuration.
        schema: Symbols, labels and p(y).
        ensemble: What predicts labels; None where the network alone does.
        baselines: Simple models of the training rows' symbols; None where there are none.
        trained_on: The rows of its training; None where they are not known.
        history: Its evaluations, as `Record.to_dict` returns them.
        step: The training step whose weights were kept.
        network_pool: How the network's own predictions are calibrated; None where they are not.
    """

    backend: Backend
    config: Config
    schema: Schema
    ensemble: Ensemble | None = None
    baselines: Baselines | None = None
    trained_on: TrainedOn | None = None
    history: Sequence[Mapping[str, Any]] = ()
    step: int = 0
    network_pool: Pool | None = None


class Calibration(NamedTuple):
    """How honest the probabilities of labels are, over labelled rows that were not learned from.

    Args:
        error: The expected calibration error.
        low: Lower end of its interval of .95, by the bootstrap.
        high: The upper end.
        confidence: The mean probability of the most probable label.
    """

    error: float
    low: float
    high: float
    confidence: float


class MeanTerms(NamedTuple):
    """Means of the ELBO with beta 1 and of its terms, at one z of each row.

    Args:
        elbo: In nats a row.
        reconstruction: log p(x|y,z).
        kl_z: log q(z|x,y) - log p(z).
        kl_y: KL(q(y|x) || p(y)).
        nats_per_symbol: The ELBO in nats a symbol, END included.
        bound_per_symbol: The same at the best q(y|x) in place of the one that was learned: what the generator is by
            itself, and what simple models are compared with.
        rows: The number of rows that these are of.
        baselines: Simple models, by name.
    """

    elbo: float
    reconstruction: float
    kl_z: float
    kl_y: float
    nats_per_symbol: float
    bound_per_symbol: float
    rows: int
    baselines: Mapping[str, Compared]


class Diagnosis(NamedTuple):
    """What a model makes of some rows.

    Args:
        names: Names of the labels.
        labels: What is predicted of all rows.
        held_out: What is predicted of labelled rows that were not learned from.
        trained: What is predicted of labelled rows that were.
        calibration: Of the former; None where there are none.
        latent: What z holds; None of a classifier.
        separation: How far the generator tells labels apart; None of a classifier.
        terms: The ELBO, its terms, and what simple models have; None of a classifier.
        unlabelled_gain: What rows without label added to the accuracy, cross-validated, and its standard error; None
            where that was not measured.
        label_entropy: The entropy of q(y|x) of validation rows at the first and at the last evaluation of training.
        findings: What is to be said of it all, warnings first.
    """

    names: tuple[str, ...]
    labels: LabelUse
    held_out: LabelUse
    trained: LabelUse
    calibration: Calibration | None
    latent: LatentUse | None
    separation: LabelSeparation | None
    terms: MeanTerms | None
    unlabelled_gain: tuple[float, float] | None
    label_entropy: tuple[float, float] | None
    findings: tuple[Finding, ...]

    @property
    def warnings(self) -> list[Finding]:
        """The findings of what is wrong."""
        return [finding for finding in self.findings if finding.level == "warning"]

    def to_dict(self) -> dict[str, Any]:
        """The figures and sentences as plain values, None where one is not a number."""
        latent = self.latent and {
            "active_units": int(self.latent.active.sum()),
            "kl": self.latent.kl,
            "mutual_information": self.latent.mutual_information,
            "unit_kl": self.latent.unit_kl,
            "unit_variance": self.latent.unit_variance,
        }
        separation = self.separation and {"spread": self.separation.spread, "by_label": self.separation.by_label}
        return _plain(
            {
                "rows": self.labels.rows,
                "labels": {
                    name: dict(zip(("predicted", "labelled", "right", "probability", "prior"), values, strict=True))
                    for name, *values in zip(self.names, *self.labels, strict=True)
                },
                "held_out": {"labelled_rows": self.held_out.labelled_rows, "accuracy": self.held_out.accuracy},
                "trained_on": {"labelled_rows": self.trained.labelled_rows, "accuracy": self.trained.accuracy},
                "calibration": self.calibration and self.calibration._asdict(),
                "latent": latent,
                "separation": separation,
                "terms": self.terms and self.terms._asdict(),
                "label_entropy": self.label_entropy,
                "unlabelled_gain": self.unlabelled_gain,
                "findings": [finding._asdict() for finding in self.findings],
            }
        )


def diagnose(model: Diagnosed, corpus: Corpus, training: Corpus | None = None, seed: int = 0) -> Diagnosis:
    """Look at what a model makes of rows; of many rows, at some that are drawn.

    Args:
        model: The model.
        corpus: The rows, at least one; the more of them have a label that was not learned from, the more can be said.
        training: Rows that were trained on; None: those of the corpus with the sequence of a labelled row that was.
        seed: Seed of the rows and of z.
    """
    names, prior = model.schema.labels.names, np.array(model.schema.label_prior)
    corpus = _drawn(corpus, MOST_ROWS, seed)
    seen = np.zeros(len(corpus), bool) if model.trained_on is None else model.trained_on.seen(corpus)
    labelled = corpus.y >= 0
    log_p = predict_log_proba(model, corpus)
    rows, again = np.flatnonzero(labelled & ~seen), np.flatnonzero(labelled & seen)
    held_out = label_use(log_p[rows], corpus.y[rows], prior)
    calibration = _calibration(log_p[rows], corpus.y[rows], seed) if len(rows) else None
    known, log_p_known = corpus.take(again), log_p[again]
    if training is not None:
        known = _drawn(training.take(np.flatnonzero(training.y >= 0)), MOST_TRAINED, seed)
        log_p_known = predict_log_proba(model, known)
    trained = label_use(log_p_known, known.y, prior)
    latent, separation, terms = _of_generator(model, corpus, seed)
    gain = None if model.ensemble is None else model.ensemble.unlabelled_gain
    labels = label_use(log_p, corpus.y, prior)
    weak = None if terms is None else findings.weak_generator(terms.bound_per_symbol, terms.rows, terms.baselines)
    sound = terms is not None and bool(terms.baselines) and weak is None
    candidates = [
        findings.random_labels(held_out.agreement, _reference(model)),
        findings.swallowing_label(held_out, labels, names),
        findings.labels_never_predicted(held_out, labels, names),
        None if model.trained_on is None else findings.labels_without_rows(model.trained_on.labelled, names),
        None
        if calibration is None
        else findings.miscalibrated(calibration.confidence, held_out, calibration.error, model.ensemble is not None),
        None if separation is None else findings.ignored_label(separation),
        None if latent is None else findings.dead_latent(latent, model.config.objective.beta.maximum, sound),
        weak,
        findings.unlabelled_rows(gain),
    ]
    # random labels are learned by heart in any case
    if model.ensemble is None and (candidates[0] is None or candidates[0].name != RANDOM_LABELS):
        candidates.insert(1, findings.memorised(held_out, trained, _training_loss(model)))
    ordered = sorted((finding for finding in candidates if finding is not None), key=lambda one: one.level == "note")
    return Diagnosis(
        tuple(names),
        labels,
        held_out,
        trained,
        calibration,
        latent,
        separation,
        terms,
        gain,
        _label_entropy(model),
        tuple(ordered),
    )


def diagnose_fitted(fitted: Fitted, prepared: Prepared, baselines: Baselines, trained_on: TrainedOn) -> Diagnosis:
    """Look at what a model makes of its validation rows as its training ends; of the training rows if there are none.

    Args:
        fitted: What training left.
        prepared: The rows of the training.
        baselines: Simple models of their symbols.
        trained_on: Which of them were learned from.
    """
    result = fitted.result
    history = [record.to_dict() for record in result.records]
    known = fitted.ensemble, baselines, trained_on, history, result.state.best_step, fitted.network_pool
    rows = prepared.validation if len(prepared.validation) else prepared.training
    model = Diagnosed(fitted.backend, fitted.config, prepared.schema, *known)
    diagnosis = diagnose(model, rows, prepared.training, fitted.config.training.seed)
    if fitted.ensemble is not None or fitted.network_pool is None:
        return diagnosis
    told = tuple(finding for finding in diagnosis.findings if finding.name not in findings.MISCALIBRATED)
    return diagnosis._replace(calibration=None, findings=told)  # these rows decided the temperature


def _drawn(corpus: Corpus, most: int, seed: int) -> Corpus:
    """At most so many rows, those with a label first."""
    if len(corpus) <= most:
        return corpus
    order = np.random.default_rng([seed, ROW_STREAM]).permutation(len(corpus))
    return corpus.take(np.sort(order[np.argsort(corpus.y[order] < 0, kind="stable")][:most]))


def _calibration(log_p: Float[np.ndarray, "N K"], y: Int[np.ndarray, " N"], seed: int) -> Calibration:
    error = expected_calibration_error(log_p, y)
    return Calibration(error, *calibration_interval(log_p, y, seed), float(np.exp(log_p.max(axis=1)).mean()))


class _Generator(NamedTuple):
    """What is said of z and the generator; nothing of a classifier."""

    latent: LatentUse | None = None
    separation: LabelSeparation | None = None
    terms: MeanTerms | None = None


def _of_generator(model: Diagnosed, corpus: Corpus, seed: int) -> _Generator:
    """What z and the generator make of rows; of many, of some that are drawn."""
    config = model.config
    if config.objective.name == "classifier":
        return _Generator()
    prior = np.array(model.schema.label_prior)
    rows = _drawn(corpus, max(LEAST_LATENT_ROWS, min(MOST_LATENT_ROWS, MOST_DECODED // len(prior))), seed)
    facts = look_at_rows(model.backend, rows, config, prior, seed)
    latent = latent_use(facts.latents, facts.log_q_y, seed, rows.sources is not None)
    elbo, *parts = (float(part.mean()) for part in (facts.elbo, facts.reconstruction, facts.kl_z, facts.kl_y))
    baselines = {} if model.baselines is None else _compared(model.baselines, rows, facts.bound)
    nats, bound = (float(part.sum() / rows.lengths.sum()) for part in (facts.elbo, facts.bound))
    terms = MeanTerms(elbo, parts[0], parts[1], parts[2], nats, bound, len(rows), baselines)
    return _Generator(latent, label_separation(facts.log_likelihood, rows.y), terms)


def _compared(baselines: Baselines, rows: Corpus, bound: Float[np.ndarray, " N"]) -> dict[str, Compared]:
    """Simple models of the symbols beside the generator's bound of each row."""
    compared = {}
    for name, model in baselines._asdict().items():
        log_p = model.log_likelihood(rows.sequences.loaded())[:, 0]
        gain, error = log_p - bound, (log_p - bound).std() / np.sqrt(len(rows))
        compared[name] = Compared(float(log_p.sum() / rows.lengths.sum()), float(gain.mean()), float(error))
    return compared


def _training_loss(model: Diagnosed) -> float | None:
    """-log q(y|x) of labelled rows in training up to the step that was kept; None where it is not known."""
    losses = [record["training"].get("classification") for record in model.history if record["step"] == model.step]
    return losses[-1] if losses else None


def _reference(model: Diagnosed) -> CrossValidated | None:
    """How well another method tells the labels that were learned from; None where that is not known."""
    if model.ensemble is not None:  # whose members were cross-validated
        return None if model.ensemble.agreement is None else CrossValidated("recipe auto", model.ensemble.agreement)
    if model.trained_on is None or model.trained_on.reference is None:
        return None
    return CrossValidated("logistic regression on n-grams", model.trained_on.reference)


def _label_entropy(model: Diagnosed) -> tuple[float, float] | None:
    """The entropy of q(y|x) of validation rows at the first and the last evaluation."""
    entropies = [(record.get("validation") or {}).get("label_entropy") for record in model.history]
    known = [value for value in entropies if value is not None]
    return (known[0], known[-1]) if known else None


def _plain(value: Any) -> Any:
    """Arrays as lists, and what is not finite, which JSON does not know, as None."""
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
