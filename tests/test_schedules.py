import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqssvae.config import BetaConfig, ConsistencyConfig, OptimizerConfig, TemperatureConfig
from seqssvae.training.schedules import beta_at, consistency_at, learning_rate_at, temperature_at


def test_constant_beta():
    assert [beta_at(BetaConfig("constant", 0.1, 0.7, 10), step) for step in (0, 5, 99)] == [0.7] * 3


def test_linear_beta():
    values = [beta_at(BetaConfig("linear", 0.2, 1.0, 4), step) for step in range(7)]
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0])


def test_cyclical_beta_rises_in_the_first_half_of_each_period():
    values = [beta_at(BetaConfig("cyclical", 0.1, 0.9, 4), step) for step in range(9)]
    assert values == pytest.approx([0.1, 0.5, 0.9, 0.9, 0.1, 0.5, 0.9, 0.9, 0.1])


@given(
    st.sampled_from(["constant", "linear", "cyclical"]),
    st.floats(1e-6, 1.0),
    st.floats(0.0, 2.0),
    st.integers(1, 100),
    st.integers(0, 1000),
)
def test_beta_stays_between_floor_and_maximum(schedule, floor, extent, steps, step):
    value = beta_at(BetaConfig(schedule, floor, floor + extent, steps), step)
    assert floor <= value <= floor + extent


def test_the_temperature_falls_by_a_constant_factor_to_its_floor():
    values = [temperature_at(TemperatureConfig(2.0, 0.25, 3), step) for step in (0, 1, 2, 3, 50)]
    assert values == pytest.approx([2.0, 1.0, 0.5, 0.25, 0.25])
    assert temperature_at(TemperatureConfig(0.7, 0.7, 3), 1) == 0.7


def test_the_weight_of_consistency_rises_in_a_straight_line_or_is_there_at_once():
    values = [consistency_at(ConsistencyConfig(2.0, steps=4), step) for step in (0, 1, 2, 4, 9)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 2.0, 2.0])
    assert [consistency_at(ConsistencyConfig(2.0, steps=0), step) for step in (0, 5)] == [2.0, 2.0]


def rates(steps, total, **keywords):
    optimizer = OptimizerConfig(learning_rate=0.8, **keywords)
    return [learning_rate_at(optimizer, step, total) for step in steps]


def test_constant_rate():
    assert rates((0, 7, 10, 99), 10) == [0.8] * 4


def test_warm_up_rises_in_a_straight_line():
    assert rates(range(5), 10, warmup_steps=3) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_linear_rate_falls_to_zero_after_the_warm_up():
    assert rates((0, 1, 2, 4, 5, 6, 9), 6, schedule="linear", warmup_steps=1) == pytest.approx(
        [0.4, 0.8, 0.64, 0.32, 0.16, 0.0, 0.0]
    )


def test_cosine_rate_falls_to_zero():
    half = 0.8 * 0.5**0.5  # cos(pi / 4) = 1 / sqrt(2)
    assert rates((0, 2, 4, 6, 8, 11), 8, schedule="cosine") == pytest.approx(
        [0.8, 0.4 + half / 2, 0.4, 0.4 - half / 2, 0.0, 0.0], abs=1e-12
    )


def test_warm_up_longer_than_training():
    assert rates((0, 4, 8), 2, schedule="linear", warmup_steps=9) == pytest.approx([0.08, 0.4, 0.72])


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.integers(0, 20),
    st.integers(1, 60),
    st.integers(0, 59),
)
def test_every_step_that_is_taken_has_a_rate_above_zero(schedule, warmup_steps, total, step):
    optimizer = OptimizerConfig(learning_rate=0.1, schedule=schedule, warmup_steps=warmup_steps)
    value = learning_rate_at(optimizer, min(step, total - 1), total)
    assert 0 < value <= 0.1
