"""The shares of the labels among rows without label, which need not be those among labelled rows."""

import numpy as np
from jaxtyping import Float, Int

from seqssvae.recipes.pool import fit_temperature
from seqssvae.recipes.rows import log_normalised

PSEUDO_ROWS = 3.0
"""What keeps the shares even: this many rows of each label, weighed as labelled rows are."""
MOST_CERTAIN = 6.0
ITERATIONS = 200


def unlabelled_shares(
    unlabelled: Float[np.ndarray, "U K"],
    out_of_fold: Float[np.ndarray, "N K"],
    y: Int[np.ndarray, " N"],
    label_shares: Float[np.ndarray, " K"],
) -> Float[np.ndarray, " K"]:
    """Estimate the shares of the labels among rows without label by maximum likelihood.

    Args:
        unlabelled: log p(y|x) of rows without label, by a classifier that learned from labelled rows.
        out_of_fold: The same of labelled rows that it had not seen, by which it is calibrated.
        y: Their labels.
        label_shares: The shares among labelled rows.

    Returns:
        The shares; those among labelled rows where there is no row without label.

    References:
        Saerens, Latinne and Decaestecker 2002, Adjusting the outputs of a classifier to new a priori probabilities,
        section 2.2; the classifier must be calibrated for it (Alexandari, Kundaje and Shrikumar 2020).
    """
    count, labels = unlabelled.shape
    if not count:
        return label_shares
    power = min(1.0 / fit_temperature(out_of_fold, y, prior_weight=0.0), MOST_CERTAIN)
    likelihood = np.exp(log_normalised(power * unlabelled)) / label_shares
    pseudo = PSEUDO_ROWS * count / len(y)
    shares = label_shares
    for _ in range(ITERATIONS):
        posterior = likelihood * shares
        posterior /= posterior.sum(axis=1, keepdims=True)
        shares = (posterior.sum(axis=0) + pseudo * labels * label_shares) / (count + pseudo * labels)
    return shares
