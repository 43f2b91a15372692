"""Distributions: the diagonal Normal of z, and the distribution over sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray
from numpyro import distributions as dist
from numpyro.distributions import constraints

from seqssvae.data.vocabulary import END, NEVER_GENERATED, PAD, START
from seqssvae_jax.ops import symbol_log_probs


def one_hot(y: Array, label_count: int, dtype: Any = jnp.float32) -> Float[Array, "*B L"]:
    """One-hot vectors of label ids of shape `(*B)`; vectors, which are floating-point numbers, are left as they are."""
    return y if jnp.issubdtype(y.dtype, jnp.floating) else jax.nn.one_hot(y, label_count, dtype=dtype)


def with_gradient_share(categorical: dist.CategoricalLogits, share: float) -> dist.CategoricalLogits:
    """The same distribution, whose logits pass on this share of their gradient."""
    if share == 1:
        return categorical
    fixed = jax.lax.stop_gradient(categorical.logits)
    return dist.CategoricalLogits(fixed + share * (categorical.logits - fixed))


class DiagonalNormal(dist.Independent):
    """A Normal with independent entries, whose standard normal noise may be given.

    Args:
        loc: Means.
        scale: Standard deviations.
        noise: Where given, a draw is `loc + scale * noise`, which makes an objective a function of its arguments.
    """

    def __init__(
        self, loc: Float[Array, "*B Z"], scale: Float[Array, "*B Z"], noise: Float[Array, "*B Z"] | None = None
    ) -> None:
        self.noise = noise
        super().__init__(dist.Normal(loc, scale, validate_args=False), 1)

    @property
    def loc(self) -> Float[Array, "*B Z"]:
        """The means."""
        return self.base_dist.loc

    @property
    def scale(self) -> Float[Array, "*B Z"]:
        """The standard deviations."""
        return self.base_dist.scale

    def sample(self, key: PRNGKeyArray | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """A draw with a gradient to mean and standard deviation."""
        if self.noise is None:
            return super().sample(key, sample_shape)
        return self.loc + self.scale * self.noise

    def expand(self, batch_shape: Sequence[int]) -> DiagonalNormal:
        """The same distribution with a larger batch shape."""
        shape = tuple(batch_shape) + self.event_shape
        noise = None if self.noise is None else jnp.broadcast_to(self.noise, shape)
        return DiagonalNormal(jnp.broadcast_to(self.loc, shape), jnp.broadcast_to(self.scale, shape), noise)


Operands = tuple[Float[Array, "K B T H"], Float[Array, "V H"], Float[Array, " V"], Float[Array, " K #B V"] | None]
"""The first operands of `ops.symbol_log_probs`: hidden states, weight, bias, and biases of labels, if there are any."""


@runtime_checkable
class Autoregression(Protocol):
    """A network that gives each symbol of a sequence a probability, as `AutoregressiveCategorical` asks for it.

    States are a tree of arrays whose last dimension but one is that of the rows.
    """

    batch_shape: tuple[int, ...]
    """`(K, B)` or `(B,)`, written `*B` below."""

    def initial_states(self) -> Any:
        """The states before the first symbol."""
        ...

    def step(self, symbols: Int[Array, "*B"], states: Any) -> tuple[Float[Array, "*B V"], Any]:
        """Logits of the symbol that follows `symbols`, and the states after reading them."""
        ...

    def output_operands(self, x: Int[Array, "B T"]) -> Operands:
        """What the output layer turns into `p(x_t | x_<t)` of all symbols at once, all before B as one dimension K."""
        ...

    def repeat_rows(self, times: int) -> Autoregression:
        """The same network with each row repeated, its copies side by side: for the hypotheses of a beam."""
        ...


class AutoregressiveCategorical(dist.Distribution):
    """A distribution over sequences: `p(x) = prod_t Categorical(x_t | x_<t)` up to and including END.

    A sequence is an array of T symbol ids: symbols, END, and PAD behind it, or T symbols where END has not come yet,
    so that the probabilities of all such arrays sum to 1. PAD and START have probability 0 as symbols.

    Args:
        network: Gives the probabilities.
        time_steps: T, length of the arrays that `sample` and the searches return; `log_prob` takes any length.
        gradient_weights: By what an objective will multiply `log_prob`, if that is known: of the batch shape.
    """

    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(
        self, network: Autoregression, time_steps: int, gradient_weights: Float[Array, "*B"] | None = None
    ) -> None:
        self.network, self.gradient_weights = network, gradient_weights
        self._last: tuple[Array, Array] | None = None
        super().__init__(network.batch_shape, (time_steps,), validate_args=False)

    def with_gradient_weights(self, weights: Float[Array, "*B"]) -> AutoregressiveCategorical:
        """The same distribution, told by what an objective will multiply `log_prob`."""
        return AutoregressiveCategorical(self.network, self.event_shape[0], weights)

    def log_prob(self, value: Int[Array, "B T"]) -> Float[Array, "*B"]:
        """Log-probability of each row's symbols and its END, for each label where the batch shape is `(K, B)`."""
        # An objective and the terms it reports ask for the same thing one after the other.
        if self._last is None or self._last[0] is not value:
            self._last = value, self.log_prob_steps(value).sum(-1)
        return self._last[1]

    def log_prob_steps(self, value: Int[Array, "B T"]) -> Float[Array, "*B T"]:
        """Its parts, `log p(x_t | x_<t)`: 0 at padding."""
        operands, weights = self.network.output_operands(value), self.gradient_weights
        weights = None if weights is None else weights.reshape(-1, self.batch_shape[-1])
        log_probs = symbol_log_probs(*operands, value, weights)
        return log_probs if len(self.batch_shape) == 2 else log_probs.reshape(*self.batch_shape, -1)

    def sample(
        self,
        key: PRNGKeyArray,
        sample_shape: tuple[int, ...] = (),
        temperature: Float[Array, ""] | float = 1.0,
        top_p: Float[Array, ""] | float = 1.0,
        exclude: Sequence[int] = (),
    ) -> Int[Array, "*B T"]:
        """Ancestral sampling, symbol by symbol.

        Args:
            key: Draws the symbols.
            sample_shape: `()`.
            temperature: Of each step's logits, as in `nucleus`.
            top_p: Of each step's symbols, as in `nucleus`.
            exclude: Symbols that are not drawn.

        Raises:
            ValueError: If more than one sample for each y and z is asked for: repeat y and z instead.
        """
        if len(sample_shape) > 0:
            raise ValueError(f"sample_shape must be (), not {tuple(sample_shape)}: repeat y and z instead.")

        def draw(step: Array, logits: Array) -> Array:
            return jax.random.categorical(jax.random.fold_in(key, step), nucleus(logits, temperature, top_p))

        return self._generate(draw, exclude)

    def greedy(self, exclude: Sequence[int] = ()) -> Int[Array, "*B T"]:
        """The most probable symbol at each step, of those that are not excluded."""
        return self._generate(lambda step, logits: jax.nn.log_softmax(logits).argmax(-1), exclude)

    def beam_search(self, width: int, exclude: Sequence[int] = ()) -> tuple[Int[Array, "B W T"], Float[Array, "B W"]]:
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
        scores = jnp.full((rows, width), -jnp.inf, jax.tree.leaves(states)[0].dtype).at[:, 0].set(0.0)
        symbols = jnp.full((rows, width), START)
        sequences = jnp.full((rows, width, self.event_shape[0]), PAD)
        row_starts = width * jnp.arange(rows)[:, None]

        def extend(carry: tuple, step: Array) -> tuple[tuple, None]:
            scores, symbols, sequences, states = carry
            logits, states = network.step(symbols.reshape(-1), states)
            log_probs = _without(exclude, next_log_probs(logits)).reshape(rows, width, -1)
            ended = ((symbols == END) | (symbols == PAD))[:, :, None]
            only_pad = jnp.full_like(log_probs[0, 0], -jnp.inf).at[PAD].set(0.0)
            candidates = scores[:, :, None] + jnp.where(ended, only_pad, log_probs)
            scores, order = jax.lax.top_k(candidates.reshape(rows, -1), width)
            parents, symbols = order // log_probs.shape[-1], order % log_probs.shape[-1]
            sequences = jnp.take_along_axis(sequences, parents[:, :, None], 1).at[:, :, step].set(symbols)
            chosen = (row_starts + parents).reshape(-1)
            states = jax.tree.map(lambda part: part[..., chosen, :], states)
            return (scores, symbols, sequences, states), None

        first = scores, symbols, sequences, states
        (scores, _, sequences, _), _ = jax.lax.scan(extend, first, jnp.arange(self.event_shape[0]))
        return sequences, scores

    def _generate(self, choose: Callable[[Array, Array], Array], exclude: Sequence[int]) -> Int[Array, "*B T"]:
        def extend(carry: tuple, step: Array) -> tuple[tuple, Array]:
            symbols, ended, states = carry
            logits, states = self.network.step(symbols, states)
            symbols = jnp.where(ended, PAD, choose(step, _without((*NEVER_GENERATED, *exclude), logits)))
            return (symbols, ended | (symbols == END), states), symbols

        symbols = jnp.full(self.batch_shape, START)
        states = jax.tree.map(
            lambda part: jnp.broadcast_to(part, (*self.batch_shape, part.shape[-1])), self.network.initial_states()
        )
        _, sequence = jax.lax.scan(extend, (symbols, symbols == END, states), jnp.arange(self.event_shape[0]))
        return jnp.moveaxis(sequence, 0, -1)


def next_log_probs(logits: Float[Array, "*N V"]) -> Float[Array, "*N V"]:
    """Log-probabilities of the next symbol, of which some are never generated."""
    return jax.nn.log_softmax(_without(NEVER_GENERATED, logits))


def nucleus(
    logits: Float[Array, "*N V"], temperature: Float[Array, ""] | float, top_p: Float[Array, ""] | float
) -> Float[Array, "*N V"]:
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
    limits = jnp.finfo(logits.dtype)
    scaled = (logits - logits.max(-1, keepdims=True)) / jnp.clip(temperature, limits.tiny, limits.max)

    def filtered(scaled: Array) -> Array:
        order = jnp.argsort(scaled, axis=-1, descending=True, stable=True)
        reached = jnp.cumsum(jax.nn.softmax(jnp.take_along_axis(scaled, order, -1)), -1)
        before = jnp.roll(reached, 1, -1).at[..., 0].set(-1.0)  # so that the first is always kept
        dropped = jnp.put_along_axis(jnp.zeros_like(order, bool), order, before >= top_p, -1, inplace=False)
        return jnp.where(dropped, -jnp.inf, scaled)

    scaled = jax.lax.cond(top_p < 1, filtered, lambda scaled: scaled, scaled)  # which does not sort where all are kept
    return jax.nn.log_softmax(scaled)


def _without(exclude: Sequence[int], logits: Float[Array, "*N V"]) -> Float[Array, "*N V"]:
    """Logits, or log-probabilities, minus infinity for these symbols."""
    return logits.at[..., jnp.array(exclude, int)].set(-jnp.inf)
