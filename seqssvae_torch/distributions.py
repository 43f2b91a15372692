"""Distributions: the diagonal Normal of z, and the distribution over sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from pyro.distributions import constraints
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from seqssvae.data.vocabulary import END, NEVER_GENERATED, PAD, START
from seqssvae_torch.ops import symbol_log_probs

_ONE = torch.Size()
"""The sample shape of a single draw."""


def one_hot(y: Tensor, label_count: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "*B L"]:
    """One-hot vectors of label ids of shape `(*B)`; vectors, which are floating-point numbers, are left as they are."""
    if y.is_floating_point():
        return y
    # PyTorch's own fetches the least and the greatest id from the device to check them
    return (y[..., None] == torch.arange(label_count, device=y.device)).to(dtype)


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
        self, loc: Float[Tensor, "*B Z"], scale: Float[Tensor, "*B Z"], noise: Float[Tensor, "*#B Z"] | None = None
    ) -> None:
        self.noise = noise
        super().__init__(dist.Normal(loc, scale, validate_args=False), 1)

    @property
    def loc(self) -> Float[Tensor, "*B Z"]:
        """The means."""
        return self.base_dist.loc

    @property
    def scale(self) -> Float[Tensor, "*B Z"]:
        """The standard deviations."""
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


Operands = tuple[Float[Tensor, "K B T H"], Float[Tensor, "V H"], Float[Tensor, " V"], Float[Tensor, " K #B V"] | None]
"""The first operands of `ops.symbol_log_probs`: hidden states, weight, bias, and biases of labels, if there are any."""


@runtime_checkable
class Autoregression(Protocol):
    """A network that gives each symbol of a sequence a probability, as `AutoregressiveCategorical` asks for it.

    States are a tree of tensors whose last dimension but one is that of the rows.
    """

    batch_shape: torch.Size
    """`(K, B)` or `(B,)`, written `*B` below."""

    def initial_states(self) -> Any:
        """The states before the first symbol."""
        ...

    def step(self, symbols: Int[Tensor, "*B"], states: Any) -> tuple[Float[Tensor, "*B V"], Any]:
        """Logits of the symbol that follows `symbols`, and the states after reading them."""
        ...

    def output_operands(self, x: Int[Tensor, "B T"]) -> Operands:
        """What the output layer turns into `p(x_t | x_<t)` of all symbols at once, all before B as one dimension K."""
        ...

    def repeat_rows(self, times: int) -> Autoregression:
        """The same network with each row repeated, its copies side by side: for the hypotheses of a beam."""
        ...


class AutoregressiveCategorical(dist.TorchDistribution):
    """A distribution over sequences: `p(x) = prod_t Categorical(x_t | x_<t)` up to and including END.

    A sequence is an array of T symbol ids: symbols, END, and PAD behind it, or T symbols where END has not come yet,
    so that the probabilities of all such arrays sum to 1. PAD and START have probability 0 as symbols.

    Args:
        network: Gives the probabilities.
        time_steps: T, length of the arrays that `sample` and the searches return; `log_prob` takes any length.
        gradient_weights: By what an objective will multiply `log_prob`, if that is known: of the batch shape.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)
    has_rsample = False

    def __init__(
        self, network: Autoregression, time_steps: int, gradient_weights: Float[Tensor, "*B"] | None = None
    ) -> None:
        self.network, self.gradient_weights = network, gradient_weights
        super().__init__(network.batch_shape, torch.Size((time_steps,)), validate_args=False)

    def with_gradient_weights(self, weights: Float[Tensor, "*B"]) -> AutoregressiveCategorical:
        """The same distribution, told by what an objective will multiply `log_prob`."""
        return AutoregressiveCategorical(self.network, self.event_shape[0], weights)

    def expand(self, batch_shape: Sequence[int], _instance: None = None) -> dist.TorchDistribution:
        """The same distribution where it has that batch shape already, as within a plate of its rows."""
        return self if torch.Size(batch_shape) == self.batch_shape else super().expand(batch_shape)

    def log_prob(self, value: Int[Tensor, "B T"]) -> Float[Tensor, "*B"]:
        """Log-probability of each row's symbols and its END, for each label where the batch shape is `(K, B)`."""
        return self.log_prob_steps(value).sum(-1)

    def log_prob_steps(self, value: Int[Tensor, "B T"]) -> Float[Tensor, "*B T"]:
        """Its parts, `log p(x_t | x_<t)`: 0 at padding."""
        operands, weights = self.network.output_operands(value), self.gradient_weights
        weights = None if weights is None else weights.reshape(-1, self.batch_shape[-1])
        log_probs = symbol_log_probs(*operands, value, weights)
        return log_probs if len(self.batch_shape) == 2 else log_probs.reshape(*self.batch_shape, -1)

    def sample(
        self,
        sample_shape: torch.Size = _ONE,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        exclude: Sequence[int] = (),
    ) -> Int[Tensor, "*B T"]:
        """Ancestral sampling, symbol by symbol.

        Args:
            sample_shape: `()`.
            generator: Draws the symbols.
            temperature: Of each step's logits, as in `nucleus`.
            top_p: Of each step's symbols, as in `nucleus`.
            exclude: Symbols that are not drawn.

        Raises:
            ValueError: If more than one sample for each y and z is asked for: repeat y and z instead.
        """
        if len(sample_shape) > 0:
            raise ValueError(f"sample_shape must be (), not {tuple(sample_shape)}: repeat y and z instead.")

        def draw(logits: Tensor) -> Tensor:
            log_probs = nucleus(logits, temperature, top_p)
            flat = torch.multinomial(log_probs.exp().flatten(0, -2), 1, generator=generator)
            return flat.reshape(log_probs.shape[:-1])

        return self._generate(draw, exclude)

    def greedy(self, exclude: Sequence[int] = ()) -> Int[Tensor, "*B T"]:
        """The most probable symbol at each step, of those that are not excluded."""
        return self._generate(lambda logits: logits.log_softmax(-1).argmax(-1), exclude)

    @torch.no_grad()
    def beam_search(self, width: int, exclude: Sequence[int] = ()) -> tuple[Int[Tensor, "B W T"], Float[Tensor, "B W"]]:
        """The best sequences found by a beam search and their log-probabilities, the best first.

        Of equal scores the one of the better parent, then of the smaller symbol id, comes first.

        Args:
            width: W, number of hypotheses kept at each step.
            exclude: Symbols that no hypothesis may have; the probabilities of the others stay as they are.

        Raises:
            ValueError: If the batch shape is not `(B,)`.
        """
        if len(self.batch_shape) != 1:
            raise ValueError(f"beam_search needs a batch shape (B,), not {tuple(self.batch_shape)}.")
        rows = self.batch_shape[0]
        network = self.network.repeat_rows(width)
        states = network.initial_states()
        scores = _first_leaf(states).new_full((rows, width), -torch.inf)
        scores[:, 0] = 0.0
        symbols = torch.full((rows, width), START, device=scores.device)
        sequences = symbols.new_full((rows, width, self.event_shape[0]), PAD)
        row_starts = width * torch.arange(rows, device=scores.device)[:, None]
        for step in range(self.event_shape[0]):
            logits, states = network.step(symbols.flatten(), states)
            log_probs = _without(exclude, next_log_probs(logits)).reshape(rows, width, -1)
            ended = ((symbols == END) | (symbols == PAD))[:, :, None]
            only_pad = torch.full_like(log_probs[0, 0], -torch.inf).index_fill(0, symbols.new_tensor([PAD]), 0.0)
            candidates = scores[:, :, None] + torch.where(ended, only_pad, log_probs)
            scores, order = candidates.flatten(1).sort(dim=1, descending=True, stable=True)
            scores, order = scores[:, :width], order[:, :width]
            parents, symbols = order // log_probs.shape[-1], order % log_probs.shape[-1]
            sequences = sequences.gather(1, parents[:, :, None].expand_as(sequences))
            sequences[:, :, step] = symbols
            chosen = (row_starts + parents).flatten()
            states = pytree.tree_map(lambda part, rows=chosen: part[..., rows, :], states)
        return sequences, scores

    @torch.no_grad()
    def _generate(self, choose: Callable[[Tensor], Tensor], exclude: Sequence[int]) -> Int[Tensor, "*B T"]:
        states = self.network.initial_states()
        symbols = torch.full(self.batch_shape, START, device=_first_leaf(states).device)
        ended = torch.zeros_like(symbols, dtype=torch.bool)
        sequence = []
        for _ in range(self.event_shape[0]):
            logits, states = self.network.step(symbols, states)
            symbols = choose(_without((*NEVER_GENERATED, *exclude), logits)).masked_fill(ended, PAD)
            ended = ended | (symbols == END)
            sequence.append(symbols)
        return torch.stack(sequence, -1)


def next_log_probs(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N V"]:
    """Log-probabilities of the next symbol, of which some are never generated."""
    return _without(NEVER_GENERATED, logits).log_softmax(-1)


def nucleus(logits: Float[Tensor, "*N V"], temperature: float, top_p: float) -> Float[Tensor, "*N V"]:
    """Log-probabilities of the next symbol after temperature and nucleus: what `sample` draws from.

    The logits are divided by the temperature first. Of the symbols, ordered by probability (ties by the lower id), the
    fewest whose probability reaches `top_p` are kept, at least one; they are normalised, the others have probability 0.

    Args:
        logits: Of each symbol; minus infinity for those that are never generated.
        temperature: Above 0: towards 0 the most probable symbol alone remains, at 1 all is as the model has it.
        top_p: Above 0, at most 1, where every symbol is kept.

    References:
        Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1 (nucleus) and 3.3 (temperature),
        https://arxiv.org/abs/1904.09751.
    """
    limits = torch.finfo(logits.dtype)
    scaled = (logits - logits.amax(-1, keepdim=True)) / min(max(temperature, limits.tiny), limits.max)
    if top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        reached = ordered.softmax(-1).cumsum(-1)
        before = functional.pad(reached[..., :-1], (1, 0), value=-1.0)  # so that the first is always kept
        dropped = torch.empty_like(order, dtype=torch.bool).scatter(-1, order, before >= top_p)
        scaled = scaled.masked_fill(dropped, -torch.inf)
    return scaled.log_softmax(-1)


def _without(exclude: Sequence[int], logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N V"]:
    """Logits, or log-probabilities, minus infinity for these symbols."""
    return logits.index_fill(-1, torch.tensor(exclude, dtype=torch.long, device=logits.device), -torch.inf)


def _first_leaf(states: Any) -> Tensor:
    return pytree.tree_leaves(states)[0]
