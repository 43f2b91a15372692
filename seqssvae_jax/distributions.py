"""Distributions: the diagonal Normal of z, and the distribution over sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray
from numpyro import distributions as dist
from numpyro.distributions import constraints

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD, START

if TYPE_CHECKING:
    from seqssvae_jax.decoder import ConditionedDecoder, Decoder, Memory
    from seqssvae_jax.modules import Noise


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
        """Means."""
        return self.base_dist.loc

    @property
    def scale(self) -> Float[Array, "*B Z"]:
        """Standard deviations."""
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


class AutoregressiveCategorical(dist.Distribution):
    """A distribution over sequences: `p(x) = prod_t Categorical(x_t | x_<t)` up to and including END.

    A sequence is an array of T symbol ids: symbols, END, and PAD behind it, or T symbols where END has not come yet,
    so that the probabilities of all such arrays sum to 1. PAD and START have probability 0 as symbols.

    Args:
        decoder: The networks.
        conditioned: Makes the decoder for one label: given y of shape `(1, K)` or `(B, K)` and z of shape `(B, Z)`.
        y: One-hot labels, of shape `(K, 1, K)`, `(K, B, K)` or `(B, K)`.
        z: Latents, of shape `(K, B, Z)` or `(B, Z)`; the batch shape is `(K, B)` or `(B,)`.
        time_steps: T, length of the arrays that `sample` and the searches return; `log_prob` takes any length.
        noise: What is drawn at random for `log_prob`, as in `seqssvae.noise`.
        weights: By what an objective will multiply `log_prob`, if it is known: of the batch shape.
        memory: What the decoder knows of the source, if there is one.
    """

    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(
        self,
        decoder: Decoder,
        conditioned: Callable[[Array, Array], ConditionedDecoder],
        y: Float[Array, "*#B L"],
        z: Float[Array, "*B Z"],
        time_steps: int,
        noise: Noise,
        weights: Float[Array, "*B"] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.decoder = decoder
        self.memory = memory
        self.noise = noise
        self.weights = weights
        self.conditioned = conditioned
        self.y = y
        self.z = z
        self._last: tuple[Array, Array] | None = None
        super().__init__(z.shape[:-1], (time_steps,), validate_args=False)

    def log_prob(self, value: Int[Array, "B T"]) -> Float[Array, "*B"]:
        """Log-probability of each row's symbols and its END, for each label where the batch shape is `(K, B)`."""
        # An objective and the terms it reports ask for the same thing one after the other.
        if self._last is None or self._last[0] is not value:
            self._last = value, self.log_prob_steps(value).sum(-1)
        return self._last[1]

    def log_prob_steps(self, value: Int[Array, "B T"]) -> Float[Array, "*B T"]:
        """Its parts, `log p(x_t | x_<t)`: 0 at padding."""
        conditions, weights = self._each_label(lambda decoder: decoder.conditions()), self.weights
        if len(self.batch_shape) == 1:
            conditions, weights = jax.tree.map(lambda part: part[None], (conditions, weights))
        found = self.decoder.log_prob_steps(value, conditions, self.noise, weights, self.memory)
        return found.reshape(*self.batch_shape, -1)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Int[Array, "*B T"]:
        """Ancestral sampling, symbol by symbol.

        Raises:
            ValueError: If more than one sample for each y and z is asked for: repeat y and z instead.
        """
        if len(sample_shape) > 0:
            raise ValueError(f"sample_shape must be (), not {tuple(sample_shape)}: repeat y and z instead.")
        labels = self.batch_shape[0] if len(self.batch_shape) == 2 else None
        keys = key if labels is None else jax.random.split(key, labels)

        def one_label(decoder: ConditionedDecoder, key: PRNGKeyArray) -> Int[Array, "B T"]:
            return self._generate(decoder, lambda step, log_probs: _draw(key, step, log_probs))

        return self._each_label(one_label, keys)

    def greedy(self) -> Int[Array, "*B T"]:
        """The most probable symbol at each step."""

        def one_label(decoder: ConditionedDecoder) -> Int[Array, "B T"]:
            return self._generate(decoder, lambda step, log_probs: log_probs.argmax(-1))

        return self._each_label(one_label)

    def beam_search(self, width: int) -> tuple[Int[Array, "B W T"], Float[Array, "B W"]]:
        """The best sequences found by a beam search and their log-probabilities, the best first.

        Of equal scores the one of the better parent, then of the smaller symbol id, comes first. The batch shape must
        be `(B,)`.

        Args:
            width: W, number of hypotheses kept at each step.
        """
        if len(self.batch_shape) != 1:
            raise ValueError(f"beam_search needs a batch shape (B,), not {tuple(self.batch_shape)}.")
        rows = self.batch_shape[0]
        decoder = self.conditioned(self.y, self.z).repeat_rows(width)
        scores = jnp.full((rows, width), -jnp.inf, self.z.dtype).at[:, 0].set(0.0)
        symbols = jnp.full((rows, width), START)
        sequences = jnp.full((rows, width, self.event_shape[0]), PAD)
        row_starts = width * jnp.arange(rows)[:, None]

        def extend(carry: tuple, step: Array) -> tuple[tuple, None]:
            scores, symbols, sequences, states = carry
            logits, states = decoder.step(symbols.reshape(-1), states)
            log_probs = _log_softmax(logits).reshape(rows, width, -1)
            ended = ((symbols == END) | (symbols == PAD))[:, :, None]
            only_pad = jnp.full_like(log_probs[0, 0], -jnp.inf).at[PAD].set(0.0)
            candidates = scores[:, :, None] + jnp.where(ended, only_pad, log_probs)
            scores, order = jax.lax.top_k(candidates.reshape(rows, -1), width)
            parents, symbols = order // log_probs.shape[-1], order % log_probs.shape[-1]
            sequences = jnp.take_along_axis(sequences, parents[:, :, None], 1).at[:, :, step].set(symbols)
            chosen = (row_starts + parents).reshape(-1)
            states = jax.tree.map(lambda part: part[chosen], states)
            return (scores, symbols, sequences, states), None

        first = scores, symbols, sequences, decoder.initial_states()
        (scores, _, sequences, _), _ = jax.lax.scan(extend, first, jnp.arange(self.event_shape[0]))
        return sequences, scores

    def _generate(self, decoder: ConditionedDecoder, choose: Callable[[Array, Array], Array]) -> Int[Array, "B T"]:
        def extend(carry: tuple, step: Array) -> tuple[tuple, Array]:
            symbols, ended, states = carry
            logits, states = decoder.step(symbols, states)
            symbols = jnp.where(ended, PAD, choose(step, _log_softmax(logits)))
            return (symbols, ended | (symbols == END), states), symbols

        symbols = jnp.full(len(decoder.z), START)
        first = symbols, symbols == END, decoder.initial_states()
        _, sequence = jax.lax.scan(extend, first, jnp.arange(self.event_shape[0]))
        return sequence.T

    def _each_label(self, function: Callable[..., Any], *more: Array) -> Any:
        """Apply a function of the decoder of one label to every label."""
        if len(self.batch_shape) == 1:
            return function(self.conditioned(self.y, self.z), *more)

        def one_label(y: Array, z: Array, *more: Array) -> Any:
            return function(self.conditioned(y, z), *more)

        return jax.vmap(one_label)(self.y, self.z, *more)


def _draw(key: PRNGKeyArray, step: Array, log_probs: Float[Array, "B V"]) -> Int[Array, B]:
    return jax.random.categorical(jax.random.fold_in(key, step), log_probs)


def _log_softmax(logits: Float[Array, "*N V"]) -> Float[Array, "*N V"]:
    return jax.nn.log_softmax(logits.at[..., jnp.array(NEVER_GENERATED)].set(-jnp.inf))
