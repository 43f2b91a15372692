"""What a model says of rows: bounds of their likelihood, labels, embeddings; and the sequences it generates."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from seqssvae.backend import DecodingMethod, ELBOTerms
from seqssvae_jax.elbo import UnlabelledELBO
from seqssvae_jax.model import SSVAE
from seqssvae_jax.objectives import encoded, label_posterior, negative_elbo
from seqssvae_jax.rows import Rows, each_particle


def evaluate(ssvae: SSVAE, rows: Rows) -> tuple[ELBOTerms, Float[Array, "B K"]]:
    """Terms of each row at beta 1, y summed out, and log q(y|x)."""
    rows = encoded(ssvae, rows)
    _, terms = negative_elbo(ssvae, rows._replace(y=None), 1.0)
    return terms, label_posterior(ssvae, rows).logits


def label_bounds(ssvae: SSVAE, rows: Rows, count: int) -> Float[Array, "B K"]:
    """A lower bound of log p(x, y) for each label, from `count` draws of z (noise has them in front).

    `log( p(y) / P * sum_p p(x|y,z_p) p(z_p) / q(z_p|x,y) )`, z drawn from q(z|x,y). Their log-sum-exp over y is a lower
    bound of log p(x), and they themselves, normalised, are the posterior of the generative model, p(y|x).

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519.
    """
    rows = encoded(ssvae, rows)

    def log_weights(drawn: Rows) -> Float[Array, "K B"]:
        arguments = rows.x, None, rows.source, 1.0, drawn.noise
        return UnlabelledELBO().log_weights(jax.random.key(0), {}, ssvae.model, ssvae.guide, *arguments)

    mean = jax.nn.logsumexp(each_particle(log_weights, rows, count), 0) - math.log(count)
    return jnp.where(rows.row_mask[:, None], mean.T, 0.0)


def embed(ssvae: SSVAE, x: Int[Array, "B T"], source: Int[Array, "B S"] | None = None) -> Float[Array, "B Z"]:
    """The embedding of each row: sum over y of q(y|x) loc(x, y)."""
    encoding = ssvae.encode(x, source)
    labels = jnp.arange(ssvae.label_count)[:, None]
    loc = ssvae.latent_encoder(encoding, ssvae.one_hot(labels)).loc
    return jnp.einsum("bk,kbz->bz", ssvae.classifier(encoding).probs, loc)


def generate(
    ssvae: SSVAE,
    y: Int[Array, " N"],
    z: Float[Array, "N Z"] | None,
    noise: Float[Array, "N Z"],
    source: Int[Array, "N S"] | None,
    time_steps: int,
    method: DecodingMethod,
    beam_width: int,
    key: PRNGKeyArray,
) -> tuple[Int[Array, "N T"], Float[Array, " N"]]:
    """A sequence for each label, and source of a model that has them, and its log p(x|y,z).

    Args:
        ssvae: The model.
        y: Label ids.
        z: Latents; None: of p(z), or of p(z|source,y), with the noise given.
        noise: Standard normal.
        source: Symbol ids.
        time_steps: Most symbols, END included.
        method: How symbols are chosen.
        beam_width: Of `beam`.
        key: Draws the symbols of `sample`.
    """
    one_hot, encoding = ssvae.one_hot(y), ssvae.encode_source(source)
    if z is None:
        prior = ssvae.latent_prior(encoding, one_hot)
        z = prior.loc + prior.scale * noise
    decoder = ssvae.decoder(one_hot, z, time_steps, encoding)
    if method == "beam":
        sequences, scores = decoder.beam_search(beam_width)
        return sequences[:, 0], scores[:, 0]
    x = decoder.greedy() if method == "greedy" else decoder.sample(key)
    return x, decoder.log_prob(x)
