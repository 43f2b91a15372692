"""Where the recipe `auto` starts a network: at what symbols are by themselves, and after one another."""

from collections.abc import Mapping

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from seqssvae.backend import Weights
from seqssvae.config import ModelConfig
from seqssvae.data.ragged import RaggedArray
from seqssvae.data.vocabulary import NEVER_GENERATED, START, UNK
from seqssvae.parameters import GATES

SMALL = 0.3
"""The greatest entry of an embedding: so far tanh is nearly the identity."""
CLOSED = -3.0
"""The bias of update gates that keep next to nothing of the state before."""
DENSE = 400
"""Vocabularies up to this size are decomposed as dense matrices, which is exact and takes no time."""
SVD_STREAM = 0x57A7


def start_weights(
    weights: Mapping[str, np.ndarray], model: ModelConfig, counts: Int[np.ndarray, " V"], rows: RaggedArray
) -> Weights:
    """Weights of a network whose decoder is a model of symbols, or of bigrams where its layers are such that it can be.

    The rest is learned from there: what a recurrence takes hundreds of steps to find, and a short training never does.

    Args:
        weights: The network's first weights.
        model: Its configuration.
        counts: How often each symbol occurs in the training rows.
        rows: Symbol ids of training rows, with END.
    """
    bias = symbol_bias(counts)
    changed = {"decoder.output.bias": bias}
    decoder = model.decoder
    if (model.cell, decoder.conditioning, decoder.context, decoder.layers) == ("gru", "output", None, 1):
        changed |= _bigram_decoder(weights, bias, rows)
    return {name: changed.get(name, value).astype(value.dtype) for name, value in weights.items()}


def symbol_bias(counts: Int[np.ndarray, " V"]) -> Float[np.ndarray, " V"]:
    """The output's bias with which symbols have the probabilities that they have in the rows."""
    seen = counts + 0.5
    seen[list(NEVER_GENERATED)] = 0.5
    seen[UNK] = max(seen[UNK], 0.5)
    return np.log(seen / seen.mean())


def _bigram_decoder(
    weights: Mapping[str, np.ndarray], bias: Float[np.ndarray, " V"], rows: RaggedArray
) -> dict[str, np.ndarray]:
    """Weights of a recurrent decoder that knows the last symbol alone.

    As many hidden units as an embedding has entries pass it on: their update gates are shut and their candidate is the
    embedding. The output reads these units alone, until it learns to read others.
    """
    size, hidden = weights["decoder.embedding"].shape[1], weights["decoder.projection.weight"].shape[0]
    size = min(size, hidden)
    embedding, output = _factors(bias, rows, size)
    changed = {name: value.copy() for name, value in weights.items() if name.startswith("decoder.")}
    changed["decoder.embedding"][:] = 0.0
    changed["decoder.embedding"][:, :size] = embedding
    layer = "decoder.layers.0"
    for gate in range(GATES["gru"]):
        for name in ("weight_ih", "weight_hh", "bias"):
            changed[f"{layer}.{name}"][gate * hidden : gate * hidden + size] = 0.0
    changed[f"{layer}.bias"][hidden : hidden + size] = CLOSED
    changed[f"{layer}.bias_n"][:size] = 0.0
    changed[f"{layer}.weight_ih"][2 * hidden : 2 * hidden + size, :size] = np.eye(size)
    for name in ("projection.weight", "condition.weight", "condition.label_weight", "condition.bias", "initial_state"):
        changed[f"decoder.{name}"][:size] = 0.0
    changed["decoder.projection.weight"][:size, :size] = np.eye(size)
    changed["decoder.output.weight"][:] = 0.0
    changed["decoder.output.weight"][:, :size] = output * (1 + np.exp(CLOSED))
    return changed


def _factors(
    bias: Float[np.ndarray, " V"], rows: RaggedArray, size: int
) -> tuple[Float[np.ndarray, "V E"], Float[np.ndarray, "V E"]]:
    """Embeddings and output weights whose products are best what the symbol before adds to the logits.

    Of c occurrences of v after u, and k different symbols after u, that is `log(1 + c / (k p(v)))`: with it p(v|u) is
    `(c + k p(v)) / (sum of c + k)` (Witten and Bell 1991). Rows of the matrix count as often as u occurs.
    """
    count = len(bias)
    before = np.concatenate([[START], rows.values[:-1]])
    before[rows.offsets[:-1]] = START
    ones = np.ones(len(rows.values))
    pairs = scipy.sparse.coo_matrix((ones, (before, rows.values)), (count, count)).tocsr()
    different, share = np.diff(pairs.indptr), np.exp(bias) / np.exp(bias).sum()
    weight = np.sqrt(np.asarray(pairs.sum(axis=1)).ravel())
    transitions = pairs.tocoo()
    values = (
        np.log1p(transitions.data / (different[transitions.row] * share[transitions.col])) * weight[transitions.row]
    )
    matrix = scipy.sparse.coo_matrix((values, (transitions.row, transitions.col)), (count, count)).tocsr()
    kept = min(size, count - 1)
    if count <= DENSE:
        left, scale, right = (part[..., :kept] for part in _transposed(*np.linalg.svd(matrix.toarray())))
    else:
        first = np.random.default_rng(SVD_STREAM).normal(size=count)
        left, scale, right = _transposed(*scipy.sparse.linalg.svds(matrix, k=kept, v0=first))
    embedding, output = np.zeros((2, count, size))
    embedding[:, :kept] = left / np.maximum(weight, 1.0)[:, None] * (weight > 0)[:, None]
    output[:, :kept] = right * scale
    greatest = np.maximum(np.abs(embedding).max(axis=0), 1e-9) / SMALL
    return embedding / greatest, output * greatest


def _transposed(
    left: Float[np.ndarray, "V R"], scale: Float[np.ndarray, " R"], right: Float[np.ndarray, "R V"]
) -> tuple[Float[np.ndarray, "V R"], Float[np.ndarray, " R"], Float[np.ndarray, "V R"]]:
    return left, scale, right.T
