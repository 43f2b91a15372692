"""What a recipe says of itself: simpler generators, calibration, which weights were kept and why."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import OTHER_TEXTS, make_estimator, toy_config

import seqssvae.data.ragged
from seqssvae.data.corpus import Corpus
from seqssvae.data.ragged import RaggedArray
from seqssvae.inference.metrics import Metrics
from seqssvae.recipes.auto import Fitted
from seqssvae.recipes.baselines import Baselines
from seqssvae.recipes.calibration import expected_calibration_error, label_metrics
from seqssvae.recipes.report import generator_warning, kept_sentence
from seqssvae.training.state import FitResult, Record, TrainingState

START, END, SIZE = 2, 3, 8
ROWS = st.lists(st.lists(st.integers(4, 7), max_size=5), min_size=1, max_size=6)


def ragged(rows: list[list[int]]) -> RaggedArray:
    return RaggedArray.from_rows([[*row, END] for row in rows])


@settings(deadline=None)
@given(ROWS, ROWS, st.sampled_from([2, 1 << 16]))
def test_simple_generators_are_smoothed_counts(training, others, rows_of_a_part):
    """Both computed here from counts of pairs; rows are gone through in parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seqssvae.data.ragged, "ROWS_OF_A_PART", rows_of_a_part)
        check_simple_generators(training, others)


def check_simple_generators(training, others):
    baselines = Baselines.learn(ragged(training), SIZE)
    symbols = [symbol for row in training for symbol in [*row, END]]
    pairs = Counter(pair for row in training for pair in zip([START, *row], [*row, END], strict=True))
    counts = Counter(symbols)
    shares = np.array([counts[symbol] / len(symbols) for symbol in counts])
    strength = 2 * math.exp(-float(np.sum(shares * np.log(shares))))

    def unigram(symbol: int) -> float:
        background = (counts[symbol] + 0.5) / (len(symbols) + 0.5 * SIZE)
        return (counts[symbol] + strength * background) / (len(symbols) + strength)

    def bigram(before: int, symbol: int) -> float:
        context = sum(count for (first, _), count in pairs.items() if first == before)
        return (pairs[before, symbol] + strength * unigram(symbol)) / (context + strength)

    steps = [pair for row in others for pair in zip([START, *row], [*row, END], strict=True)]
    expected = {
        "unigram": np.mean([math.log(unigram(symbol)) for _, symbol in steps]),
        "bigram": np.mean([math.log(bigram(*pair)) for pair in steps]),
    }
    assert baselines.nats_per_symbol(ragged(others)) == pytest.approx(expected, rel=1e-9)
    again = Baselines.from_arrays(baselines.to_arrays())
    assert again.nats_per_symbol(ragged(others)) == pytest.approx(expected, rel=1e-9)


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    """Ten rows said to be .75 certain, of which six are right; and ten of .55, of which all are."""
    p = np.array([[0.75, 0.25]] * 10 + [[0.55, 0.45]] * 10)
    y = np.array([0] * 6 + [1] * 4 + [0] * 10)
    assert expected_calibration_error(np.log(p), y) == pytest.approx((10 * 0.15 + 10 * 0.45) / 20)
    metrics = label_metrics(np.log(p), y)
    assert metrics.accuracy == pytest.approx(0.8)
    assert metrics.balanced_accuracy == pytest.approx(0.5)
    assert metrics.log_loss == pytest.approx(-np.mean(np.log([0.75] * 6 + [0.25] * 4 + [0.55] * 10)))
    assert expected_calibration_error(np.log([[1.0, 1e-9]] * 4), np.zeros(4, int)) == pytest.approx(0.0, abs=1e-8)


def result_with(validation: Metrics | None, **state: object) -> FitResult:
    training = Metrics(8, 4, 40, loss=1.0)
    record = Record(20, 1, 0.1, 1.0, 0.1, 1.0, training, validation)
    return FitResult(TrainingState(step=60, best_step=20, **state), [record], record)


def test_a_fit_says_what_decided_and_why_it_stopped(fake_twins):
    config = make_estimator().fit(OTHER_TEXTS, ["left", "right"] * 20).fitted_.config
    validation = Metrics(8, 3, 40, loss=1.0, elbo_per_symbol=-2.0)
    decided = {"best": (0.5, -1.0)}
    assert kept_sentence(result_with(validation, **decided), config) == (
        "The weights of step 20 were kept; training stopped at step 60, since its steps or epochs were used up. What "
        "decided was accuracy over 3 validation rows, 3 of them labelled."
    )
    waited = kept_sentence(result_with(validation, waited=config.training.patience, **decided), config)
    assert f"since accuracy had not become better for {config.training.patience} evaluations" in waited
    assert "No validation rows decided." in kept_sentence(result_with(None), config)
    least = config.training.min_steps
    assert f"No evaluation decided: that was before step {least} (" in kept_sentence(result_with(validation), config)


@pytest.mark.parametrize("most", [200, 7])
def test_a_generator_that_is_worse_than_frequencies_is_named(monkeypatch, most):
    """The ELBO may be worse because of q(y|x): what is said is said of the bound at the best q(y|x)."""
    monkeypatch.setattr("seqssvae.recipes.report.MOST_COMPARED", most)
    rows = ragged([[4, 5], [4, 5, 4, 5]] * 10)
    baselines, corpus = Baselines.learn(rows, SIZE), Corpus.from_sequences(rows, [0] * len(rows))
    values = baselines.nats_per_symbol(rows)
    worst, between, best = values["unigram"] - 0.3, np.mean(list(values.values())), values["bigram"] + 0.3

    def warning(elbo: float | None, bound: float) -> str | None:
        validation = None if elbo is None else Metrics(20, 0, 80, elbo_per_symbol=elbo)
        halves = [np.log(0.25), np.log(0.75)]  # of p(x), by label

        def log_weights(batch, seed, particles):
            lengths = (batch.x > 0).sum(axis=1)
            return (bound * lengths[:, None] + halves)[None]

        twin = SimpleNamespace(log_weights=log_weights)
        return generator_warning(Fitted(toy_config(), twin, result_with(validation), None), corpus, baselines)

    assert warning(best, worst) is warning(None, worst) is None
    assert "of unigrams" in str(warning(worst, worst))
    assert "of bigrams" in str(warning(worst, between))
    assert "unigrams" not in str(warning(worst, between))
    assert f"{between:.3f} nats" in str(warning(worst, between))
    assert warning(worst, best) is None
