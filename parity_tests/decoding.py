"""The nucleus, and greedy and beam search over the oracle's decoder, each hypothesis decoded from its start."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from parity_tests.arithmetic import log_softmax
from parity_tests.oracle import Oracle
from seqssvae.data.vocabulary import END, PAD


class Hypothesis(NamedTuple):
    """A sequence under construction.

    Args:
        symbols: Its symbols so far, END included once it is finished.
        score: Its log-probability, not normalised by length.
    """

    symbols: tuple[int, ...]
    score: float

    @property
    def finished(self) -> bool:
        """Whether it has reached END."""
        return self.symbols[-1:] == (END,)


def greedy(
    oracle: Oracle,
    y: Int[np.ndarray, " N"],
    z: Float[np.ndarray, "N Z"],
    max_length: int,
    source: Int[np.ndarray, "N S"] | None = None,
    exclude: Sequence[int] = (),
) -> tuple[Int[np.ndarray, "N T"], Float[np.ndarray, " N"]]:
    """The most probable symbol at each step (the lowest id of equals), until END or for `max_length + 1` steps.

    Excluded symbols are passed over; the probabilities of the others stay as they are.

    Returns:
        Ids with PAD behind END, and their log p(x|y,z).
    """
    decoded = [_greedy(oracle, int(y[n]), z[n], max_length, _of(source, n), exclude) for n in range(len(y))]
    return np.array([_padded(one, max_length) for one in decoded]), np.array([one.score for one in decoded])


def beam_search(
    oracle: Oracle,
    y: Int[np.ndarray, " N"],
    z: Float[np.ndarray, "N Z"],
    max_length: int,
    width: int,
    source: Int[np.ndarray, "N S"] | None = None,
    exclude: Sequence[int] = (),
) -> tuple[Int[np.ndarray, "N W T"], Float[np.ndarray, "N W"]]:
    """The best sequences a beam of this width finds, best first.

    At each step every unfinished hypothesis is extended by every symbol, every finished one stays as it is, and the
    `width` best of all these remain: the highest log-probability first, among equals the one whose parent ranked
    higher, then the one with the lower symbol id. It ends when all are finished, or after `max_length + 1` steps.
    Excluded symbols extend none.

    Returns:
        Ids with PAD behind END, and their log p(x|y,z); PAD alone and -inf where there are fewer sequences than
        `width`.
    """
    sequences = np.full((len(y), width, max_length + 1), PAD, dtype=np.int32)
    scores = np.full((len(y), width), -np.inf)
    for n in range(len(y)):
        for w, hypothesis in enumerate(_beam(oracle, int(y[n]), z[n], max_length, width, _of(source, n), exclude)):
            sequences[n, w] = _padded(hypothesis, max_length)
            scores[n, w] = hypothesis.score
    return sequences, scores


def nucleus(logits: Float[np.ndarray, " V"], temperature: float, top_p: float) -> Float[np.ndarray, " V"]:
    """Log-probabilities of one symbol after temperature and nucleus (Holtzman et al. 2020).

    Symbols are taken in turn, the most probable first and of equals the one with the lower id, until their probability
    at this temperature reaches `top_p`; those that were not taken have probability 0.
    """
    of_all = log_softmax(logits / temperature)
    kept: list[int] = []
    for symbol in sorted(range(len(logits)), key=lambda symbol: (-of_all[symbol], symbol)):
        if not kept or top_p == 1 or sum(np.exp(of_all[kept])) < top_p:
            kept.append(symbol)
    return log_softmax(of_all, excluded=[symbol for symbol in range(len(logits)) if symbol not in kept])


def _of(source: np.ndarray | None, n: int) -> np.ndarray | None:
    return None if source is None else source[n]


def _greedy(
    oracle: Oracle, label: int, z: np.ndarray, max_length: int, source: np.ndarray | None, exclude: Sequence[int]
) -> Hypothesis:
    best = Hypothesis((), 0.0)
    while not best.finished and len(best.symbols) <= max_length:
        log_probabilities = oracle.next_log_probabilities(best.symbols, label, z, source)
        symbol = int(np.where(np.isin(np.arange(len(log_probabilities)), exclude), -np.inf, log_probabilities).argmax())
        best = Hypothesis((*best.symbols, symbol), best.score + float(log_probabilities[symbol]))
    return best


def _beam(
    oracle: Oracle,
    label: int,
    z: np.ndarray,
    max_length: int,
    width: int,
    source: np.ndarray | None,
    exclude: Sequence[int],
) -> list[Hypothesis]:
    beam = [Hypothesis((), 0.0)]
    for _ in range(max_length + 1):
        candidates = []  # by rank of the parent, then by symbol: a stable sort keeps this order among equals
        for hypothesis in beam:
            if hypothesis.finished:
                candidates.append(hypothesis)
                continue
            following = oracle.next_log_probabilities(hypothesis.symbols, label, z, source)
            for symbol, log_probability in enumerate(following):
                if log_probability > -np.inf and symbol not in exclude:
                    score = hypothesis.score + float(log_probability)
                    candidates.append(Hypothesis((*hypothesis.symbols, symbol), score))
        beam = sorted(candidates, key=lambda candidate: -candidate.score)[:width]
        if all(hypothesis.finished for hypothesis in beam):
            break
    return beam


def _padded(hypothesis: Hypothesis, max_length: int) -> Int[np.ndarray, " T"]:
    padding = (PAD,) * (max_length + 1 - len(hypothesis.symbols))
    return np.array(hypothesis.symbols + padding, dtype=np.int32)
