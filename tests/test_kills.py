"""Fits of both twins that are killed at random moments go on to the bits of one that was not."""

import random

import pytest
from kills import Trainer, kill_and_resume


@pytest.mark.parametrize(
    ("twin", "count"),
    [
        ("torch", 2),
        ("jax", 1),
        *(pytest.param(*case, marks=pytest.mark.thorough) for case in (("torch", 8), ("jax", 2))),
    ],
)
def test_a_fit_that_is_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path, twin, count):
    trainer = Trainer(twin)
    try:
        tally = kill_and_resume(trainer, tmp_path, count, random.Random(27))
    finally:
        trainer.close()
    assert (tally["fits"], tally["unreadable"], tally["other bits"]) == (count, 0, 0)
