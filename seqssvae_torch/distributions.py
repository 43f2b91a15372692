"""Distributions: the diagonal Normal of z, and the distribution over sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from pyro.distributions import constraints
from torch import Tensor

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD, START

if TYPE_CHECKING:
    from seqssvae_torch.decoder import ConditionedDecoder


_ONE = torch.Size()
"""The sample shape of a single draw."""


def with_gradient_share(categorical: dist.Categorical, share: float) -> dist.Categorical:
    """The same distribution, whose logits pass on this share of their gradient."""
    if share == 1:
        return categorical
    logits = categorical.logits
    return dist.Categorical(logits=logits.detach() + share * (logits - logits.detach()))


class DiagonalNormal(dist.Independent):
    """A Normal with independent entries, whose standard normal noise may be given.

    Args:
        loc: Means.
        scale: Standard deviations.
        noise: Where given, a draw is `loc + scale * noise`, which makes an objective a function of its arguments.
    """

    def __init__(
        self, loc: Float[Tensor, "*B Z"], scale: Float[Tensor, "*B Z"], noise: Float[Tensor, "*B Z"] | None = None
    ) -> None:
        self.noise = noise
        super().__init__(dist.Normal(loc, scale, validate_args=False), 1)

    @property
    def loc(self) -> Float[Tensor, "*B Z"]:
        """Means."""
        return self.base_dist.loc

    @property
    def scale(self) -> Float[Tensor, "*B Z"]:
        """Standard deviations."""
        return self.base_dist.scale

    def rsample(self, sample_shape: torch.Size = _ONE) -> Tensor:
        """A draw with a gradient to mean and standard deviation."""
        if self.noise is None:
            return super().rsample(sample_shape)
        return self.loc + self.scale * self.noise

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> DiagonalNormal:
        """The same distribution with a larger batch shape."""
        shape = torch.Size(batch_shape) + self.event_shape
        noise = None if self.noise is None else self.noise.expand(shape)
        return DiagonalNormal(self.loc.expand(shape), self.scale.expand(shape), noise)


class AutoregressiveCategorical(dist.TorchDistribution):
    """A distribution over sequences: `p(x) = prod_t Categorical(x_t | x_<t)` up to and including END.

    A sequence is an array of T symbol ids: symbols, END, and PAD behind it, or T symbols where END has not come yet,
    so that the probabilities of all such arrays sum to 1. PAD and START have probability 0 as symbols.

    Args:
        conditioned: The decoder, for given y and z.
        batch_shape: `(K, B)` or `(B,)`.
        time_steps: T, length of the arrays that `sample` and the searches return; `log_prob` takes any length.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)
    has_rsample = False

    def __init__(self, conditioned: ConditionedDecoder, batch_shape: Sequence[int], time_steps: int) -> None:
        self.conditioned = conditioned
        super().__init__(torch.Size(batch_shape), torch.Size((time_steps,)), validate_args=False)

    def log_prob(self, value: Int[Tensor, "B T"]) -> Float[Tensor, "*B"]:
        """Log-probability of each row's symbols and its END, for each label where the batch shape is `(K, B)`."""
        return self.log_prob_steps(value).sum(-1)

    def log_prob_steps(self, value: Int[Tensor, "B T"]) -> Float[Tensor, "*B T"]:
        """Its parts, `log p(x_t | x_<t)`: 0 at padding."""
        return self.conditioned.log_prob_steps(value)

    def sample(self, sample_shape: torch.Size = _ONE, generator: torch.Generator | None = None) -> Int[Tensor, "*B T"]:
        """Ancestral sampling, symbol by symbol.

        Raises:
            ValueError: If more than one sample for each y and z is asked for: repeat y and z instead.
        """
        if len(sample_shape) > 0:
            raise ValueError(f"sample_shape must be (), not {tuple(sample_shape)}: repeat y and z instead.")

        def draw(log_probs: Tensor) -> Tensor:
            flat = torch.multinomial(log_probs.exp().flatten(0, -2), 1, generator=generator)
            return flat.reshape(log_probs.shape[:-1])

        return self._generate(draw)

    def greedy(self) -> Int[Tensor, "*B T"]:
        """The most probable symbol at each step."""
        return self._generate(lambda log_probs: log_probs.argmax(-1))

    @torch.no_grad()
    def beam_search(self, width: int) -> tuple[Int[Tensor, "B W T"], Float[Tensor, "B W"]]:
        """The best sequences found by a beam search and their log-probabilities, the best first.

        Of equal scores the one of the better parent, then of the smaller symbol id, comes first. The batch shape must
        be `(B,)`.

        Args:
            width: W, number of hypotheses kept at each step.
        """
        if len(self.batch_shape) != 1:
            raise ValueError(f"beam_search needs a batch shape (B,), not {tuple(self.batch_shape)}.")
        rows = self.batch_shape[0]
        decoder = self.conditioned.repeat_rows(width)
        states = decoder.initial_states()
        scores = decoder.z.new_full((rows, width), -torch.inf)
        scores[:, 0] = 0.0
        symbols = torch.full((rows, width), START, device=scores.device)
        sequences = symbols.new_full((rows, width, self.event_shape[0]), PAD)
        row_starts = width * torch.arange(rows, device=scores.device)[:, None]
        for step in range(self.event_shape[0]):
            logits, states = decoder.step(symbols.reshape(1, -1), states)
            log_probs = self._log_softmax(logits).reshape(rows, width, -1)
            ended = ((symbols == END) | (symbols == PAD))[:, :, None]
            only_pad = torch.full_like(log_probs[0, 0], -torch.inf).index_fill(0, symbols.new_tensor([PAD]), 0.0)
            candidates = scores[:, :, None] + torch.where(ended, only_pad, log_probs)
            scores, order = candidates.flatten(1).sort(dim=1, descending=True, stable=True)
            scores, order = scores[:, :width], order[:, :width]
            parents, symbols = order // log_probs.shape[-1], order % log_probs.shape[-1]
            sequences = sequences.gather(1, parents[:, :, None].expand_as(sequences))
            sequences[:, :, step] = symbols
            chosen = (row_starts + parents).flatten()
            states = [tuple(part[:, chosen] for part in state) for state in states]
        return sequences, scores

    @torch.no_grad()
    def _generate(self, choose: Callable[[Tensor], Tensor]) -> Int[Tensor, "*B T"]:
        labels, rows = (1, *self.batch_shape)[-2:]
        states = self.conditioned.initial_states()
        symbols = torch.full((labels, rows), START, device=self.conditioned.z.device)
        ended = torch.zeros_like(symbols, dtype=torch.bool)
        sequence = []
        for _ in range(self.event_shape[0]):
            logits, states = self.conditioned.step(symbols, states)
            symbols = choose(self._log_softmax(logits)).masked_fill(ended, PAD)
            ended = ended | (symbols == END)
            sequence.append(symbols)
        return torch.stack(sequence, -1).reshape(*self.batch_shape, -1)

    @staticmethod
    def _log_softmax(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N V"]:
        never = torch.tensor(NEVER_GENERATED, device=logits.device)
        return logits.index_fill(-1, never, -torch.inf).log_softmax(-1)
