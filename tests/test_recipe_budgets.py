"""What the recipe `auto` does where rows, labels, symbols or long rows are many: its price has a bound."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import OTHER_NAMES, OTHER_TEXTS, TEXTS, make_estimator, toy_config

from seqssvae.config.settings import from_dict
from seqssvae.data.in_memory import make_table
from seqssvae.data.prepare import prepare_table
from seqssvae.recipes import auto
from seqssvae.recipes.auto import affordable, learning_rows
from seqssvae.recipes.named import with_recipe
from seqssvae.recipes.network import LEAST_BATCH, PLACES_OF_A_BATCH, classifier_config
from seqssvae.training.schedules import beta_at

LABELS = [name if index < 24 else None for index, name in enumerate(["left", "right"] * 30)]


@pytest.fixture
def few_rows(monkeypatch):
    """Bounds that the toy's rows reach."""
    monkeypatch.setattr(auto, "MOST_UNLABELLED", 9)
    monkeypatch.setattr(auto, "MOST_LABELLED", 10)
    monkeypatch.setattr(auto, "MOST_KEPT_OF_A_LABEL", 4)


def toy_prepared():
    """The toy's rows with a configuration of the recipe."""
    config = from_dict(with_recipe("auto", {"data": {"minimum_count": 1, "validation_fraction": 0.0}}))
    return config, prepare_table(make_table(TEXTS, config.data, LABELS), config)


def test_of_very_many_rows_some_are_drawn_and_of_each_label(few_rows):
    config, prepared = toy_prepared()
    rows, again = learning_rows(config, prepared), learning_rows(config, prepared)
    assert len(rows.unlabelled) == 9
    assert 10 <= len(rows.y) <= 18
    assert np.bincount(rows.y).min() >= 4
    np.testing.assert_array_equal(rows.unlabelled.values, again.unlabelled.values)
    whole = {tuple(row) for row in prepared.training.sequences}
    assert {tuple(row) for row in rows.labelled} | {tuple(row) for row in rows.unlabelled} <= whole


def test_the_network_is_trained_on_the_labelled_rows_and_some_of_the_others(few_rows, fake_twins, monkeypatch):
    seen, before = [], auto.fit

    def note(config, training, *rest):
        seen.append(training)
        return before(config, training, *rest)

    monkeypatch.setattr(auto, "fit", note)
    config = toy_config()
    given_posterior = replace(config, objective=replace(config.objective, posterior="given"))
    fitted = make_estimator(recipe="auto", config=given_posterior).fit(TEXTS, LABELS)
    assert np.sum(seen[-1].y < 0) == 9
    assert np.sum(seen[-1].y >= 0) > 10
    assert len(seen[-1].posterior) == len(seen[-1])
    assert fitted.score(OTHER_TEXTS, OTHER_NAMES) > 0.5


@given(
    labels=st.integers(2, 200),
    vocabulary=st.integers(6, 50_000),
    length=st.integers(1, 256),
    budget=st.sampled_from([0.02, 0.5, 1.0, 3.0]),
)
def test_training_has_a_price_that_is_bounded(labels, vocabulary, length, budget):
    config = from_dict(with_recipe("auto", {"training": {"budget": budget}}))
    rows = SimpleNamespace(lengths=np.array([length]))
    schema = SimpleNamespace(labels=range(labels), dimensions=SimpleNamespace(vocabulary_size=vocabulary))
    affordable_config = affordable(config, SimpleNamespace(schema=schema, training=rows))
    chosen, beta = affordable_config.training, affordable_config.objective.beta
    price = 6.0 * length * config.model.decoder.hidden_size * ((vocabulary + 300) * labels + 1000)
    least, most = min(1.0, budget) * auto.LEAST_STEPS, budget * auto.MOST_STEPS
    assert least <= chosen.max_steps <= most
    assert auto.LEAST_BATCH <= chosen.batch_size <= config.training.batch_size
    dear = chosen.max_steps * chosen.batch_size * price > budget * auto.OPERATIONS
    assert not dear or (chosen.max_steps, chosen.batch_size) == (least, auto.LEAST_BATCH)
    cheap = most * config.training.batch_size * price <= budget * auto.OPERATIONS
    assert not cheap or chosen == replace(config.training, max_steps=int(most))
    assert beta_at(beta, chosen.max_steps // 2 + 1) == beta.maximum
    own_beta = from_dict(with_recipe("auto", {"objective": {"beta": {"steps": 70}}}))
    assert affordable(own_beta, SimpleNamespace(schema=schema, training=rows)).objective.beta.steps == 70
    for steps in (7, auto.MOST_STEPS):
        own = from_dict(with_recipe("auto", {"training": {"max_steps": steps}}))
        assert affordable(own, SimpleNamespace(schema=schema, training=rows)) == own


@pytest.mark.parametrize(("budget", "steps"), [(0.02, 6), (1.0, 300), (2.0, 600)])
def test_candidates_take_as_many_steps_as_the_budget_says(budget, steps):
    training = classifier_config(from_dict({"training": {"budget": budget}}), None).training
    assert (training.epochs, training.max_steps, training.evaluation_interval) == (steps, steps, steps)


@given(longest=st.integers(1, 100_000))
def test_batches_of_long_rows_are_smaller(longest):
    config = from_dict({"data": {"max_length": longest}})
    size = classifier_config(config, None).training.batch_size
    assert size == LEAST_BATCH or size * longest <= PLACES_OF_A_BATCH
    assert size == classifier_config(config, None).training.labelled_batch_size
