"""How differences are measured, and what a certificate makes of them."""

import numpy as np
import pytest

from seqssvae.checks.certificate import Certificate, Comparison
from seqssvae.checks.tolerances import relative_difference


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([2.0, -4.0], [2.0, -4.0], 0.0),
        ([2.0, -4.0], [3.0, -4.0], 0.25),  # of the greatest entry, not of its own
        ([0.0, 0.0], [0.0, 0.5], 0.5),  # nothing to divide by
        ([1.0], [1.0, 1.0], np.inf),
        ([[1.0]], [1.0], np.inf),
        ([], [], 0.0),
    ],
)
def test_a_difference_is_relative_to_the_greatest_entry(a, b, expected):
    assert relative_difference(np.array(a), np.array(b)) == expected


def test_a_difference_from_what_is_no_number_is_none():
    assert np.isnan(relative_difference(np.array([1.0]), np.array([np.nan])))


def certificate(*terms):
    gradient = Comparison("float64", "weight", (1.0, 1.0), 0.0, 0.0, 1e-9)
    gradients = (gradient, gradient._replace(precision="float32", bound=1e-5))
    return Certificate("run", 3, "rows.tsv", 2, 1, terms, gradients)


def test_the_verdict_names_the_worst():
    term = Comparison("float64", "loss", (1.0, 1.0), 1e-12, 1e-12, 1e-9)
    assert certificate(term).agrees
    assert "agree in all 3 comparisons" in certificate(term).verdict
    assert "1.0e-12 in float64 (bound 1e-09)" in certificate(term).verdict
    slight, great = term._replace(term="kl_z", relative=2e-9), term._replace(term="kl_y", relative=3e-9)
    assert (
        "DIFFER in 2 of 5 comparisons; the worst is kl_y in float64: 3.0e-09"
        in certificate(term, slight, great).verdict
    )


@pytest.mark.parametrize(("relative", "bound"), [(np.nan, 1e-9), (1e-300, 0.0)])
def test_what_is_not_a_number_or_must_be_equal_is_worse_than_all(relative, bound):
    term = Comparison("float64", "loss", (1.0, 1.0), 1.0, 1.0, 1e-9)
    odd = term._replace(term="odd", relative=relative, bound=bound)
    made = certificate(term, odd)
    assert odd in made.failures
    assert made.worst("float64").term == "odd"
