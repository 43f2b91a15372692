"""What the oracle is given and what it returns: rows with their noise, and the terms of each."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Inexact, Int

from parity_tests.networks import Noise, length_of


class Rows(NamedTuple):
    """Rows and their noise.

    Args:
        x: Symbol ids, END and then PAD behind them; a row of PAD alone is a filler row.
        y: Label ids, or None where they are missing.
        noise: What was drawn, named as in `seqssvae.noise`. Without masks there is no dropout.
        source: Symbol ids of the sources; None where there are none.
        posterior: Probabilities of the labels, where they are given.
    """

    x: Int[np.ndarray, "B T"]
    y: Int[np.ndarray, " B"] | None
    noise: Noise
    source: Int[np.ndarray, "B S"] | None = None
    posterior: Float[np.ndarray, "B K"] | None = None


class LabelledTerms(NamedTuple):
    """Terms of rows whose label is observed: nats a row, 0 for filler rows.

    Args:
        reconstruction: log p(x|y,z).
        kl_z: log q(z|x,y) - log p(z).
        kl_y: -log p(y).
        elbo: L = reconstruction - beta * kl_z - kl_y.
        classification: -log q(y|x).
    """

    reconstruction: Inexact[np.ndarray, " B"]
    kl_z: Inexact[np.ndarray, " B"]
    kl_y: Inexact[np.ndarray, " B"]
    elbo: Inexact[np.ndarray, " B"]
    classification: Inexact[np.ndarray, " B"]


class UnlabelledTerms(NamedTuple):
    """Terms of rows whose label is missing: nats a row, 0 for filler rows.

    Args:
        reconstruction: sum_y q(y|x) log p(x|y,z_y).
        kl_z: sum_y q(y|x) (log q(z_y|x,y) - log p(z_y)).
        kl_y: sum_y q(y|x) (log q(y|x) - log p(y)).
        elbo: U = reconstruction - beta * kl_z - kl_y.
        distillation: -sum_y r(y) log q(y|x) where r is another posterior, by which the others are averaged; else 0.
        label_reconstruction: log p(x|y,z_y) of every label.
        label_kl_z: log q(z_y|x,y) - log p(z_y) of every label.
    """

    reconstruction: Inexact[np.ndarray, " B"]
    kl_z: Inexact[np.ndarray, " B"]
    kl_y: Inexact[np.ndarray, " B"]
    elbo: Inexact[np.ndarray, " B"]
    distillation: Inexact[np.ndarray, " B"]
    label_reconstruction: Inexact[np.ndarray, "K B"]
    label_kl_z: Inexact[np.ndarray, "K B"]


def real_rows(x: Int[np.ndarray, "B T"]) -> int:
    """Number of rows that are no filler."""
    return sum(length_of(row) > 0 for row in x)


def of_row(noise: Noise | None, b: int) -> Noise:
    """The masks of one row."""
    return {name: mask[b] for name, mask in (noise or {}).items() if name != "z"}
