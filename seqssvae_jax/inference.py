"""What a model says of rows: bounds of their likelihood, labels, embeddings; and the sequences it generates."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from seqssvae.backend import ELBOTerms, Latents
from seqssvae.config import DecodingOptions
from seqssvae.data.vocabulary import UNK
from seqssvae_jax.elbo import UnlabelledELBO
from seqssvae_jax.model import SSVAE
from seqssvae_jax.objectives import encoded, label_posterior, negative_elbo
from seqssvae_jax.rows import Rows, each_particle


def evaluate(ssvae: SSVAE, rows: Rows) -> tuple[ELBOTerms, Float[Array, "B K"]]:
    """Terms of each row at beta 1, y summed out, and log q(y|x)."""
    rows = encoded(ssvae, rows)
    _, terms = negative_elbo(ssvae, rows._replace(y=None), 1.0)
    return terms, label_posterior(ssvae, rows).logits


def log_weights(ssvae: SSVAE, rows: Rows, count: int) -> Float[Array, "P B K"]:
    """log p(x, y, z) - log q(z|x,y) of each label at each of `count` draws of z (noise has them in front).

    Over the draws, which are of q(z|x,y), the mean of its exponential is p(x, y); 0 for filler rows.

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519.
    """
    rows = encoded(ssvae, rows)

    def of_draw(drawn: Rows) -> Float[Array, "B K"]:
        arguments = rows.x, None, rows.source, 1.0, drawn.noise
        return UnlabelledELBO().log_weights(jax.random.key(0), {}, ssvae.model, ssvae.guide, *arguments).T

    return jnp.where(rows.row_mask[:, None], each_particle(of_draw, rows, count), 0.0)


def latents(ssvae: SSVAE, x: Int[Array, "B T"], source: Int[Array, "B S"] | None = None) -> Latents:
    """q(z|x,y) and p(z), or p(z|source,y), of every label."""
    of_source = ssvae.encode_source(source)
    labels = ssvae.one_hot(jnp.arange(ssvae.label_count)[:, None])
    q, p = ssvae.latent_encoder(ssvae.encode(x, of_source), labels), ssvae.latent_prior(of_source, labels)
    return Latents(*(jnp.broadcast_to(part, q.loc.shape).swapaxes(0, 1) for part in (q.loc, q.scale, p.loc, p.scale)))


def log_likelihood(
    ssvae: SSVAE, x: Int[Array, "B T"], z: Float[Array, "B K Z"], source: Int[Array, "B S"] | None = None
) -> Float[Array, "B K"]:
    """log p(x|y,z) of every label at the z given for it."""
    labels = ssvae.one_hot(jnp.arange(ssvae.label_count)[:, None])
    decoder = ssvae.decoder(labels, z.swapaxes(0, 1), x.shape[1], ssvae.encode_source(source))
    return decoder.log_prob(x).T


def classify(ssvae: SSVAE, x: Int[Array, "B T"], source: Int[Array, "B S"] | None = None) -> Float[Array, "B K"]:
    """log q(y|x), or log q(y|source,x)."""
    return ssvae.classifier(ssvae.encode(x, source)).logits


def classify_source(ssvae: SSVAE, source: Int[Array, "B S"]) -> Float[Array, "B K"]:
    """log p(y|source)."""
    return ssvae.label_prior(ssvae.encode_source(source)).logits


def embed(
    ssvae: SSVAE, x: Int[Array, "B T"], source: Int[Array, "B S"] | None = None, features: bool = False
) -> Float[Array, "B D"]:
    """The embedding of each row: sum over y of q(y|x) loc(x, y), or the features that q(y|x) reads."""
    encoding = ssvae.encode(x, source)
    if features:
        return encoding.features[0]
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
    options: DecodingOptions,
    key: PRNGKeyArray,
    temperature: Float[Array, ""] | float = 1.0,
    top_p: Float[Array, ""] | float = 1.0,
) -> tuple[Int[Array, "N T"], Float[Array, " N"]]:
    """A sequence for each label, and source of a model that has them, and its log p(x|y,z).

    Args:
        ssvae: The model.
        y: Label ids.
        z: Latents; None: of p(z), or of p(z|source,y), with the noise given.
        noise: Standard normal.
        source: Symbol ids.
        time_steps: Most symbols, END included.
        options: How symbols are chosen.
        key: Draws the symbols of `sample`.
        temperature: Of `sample`, in place of that of the options.
        top_p: Of `sample`, in place of that of the options.
    """
    one_hot, encoding = ssvae.one_hot(y), ssvae.encode_source(source)
    if z is None:
        prior = ssvae.latent_prior(encoding, one_hot)
        z = prior.loc + prior.scale * noise
    decoder = ssvae.decoder(one_hot, z, time_steps, encoding)
    exclude = () if options.allow_unknown else (UNK,)
    if options.method == "beam":
        sequences, scores = decoder.beam_search(options.beam_width, exclude)
        return sequences[:, 0], scores[:, 0]
    if options.method == "greedy":
        x = decoder.greedy(exclude)
    else:
        x = decoder.sample(key, temperature=temperature, top_p=top_p, exclude=exclude)
    return x, decoder.log_prob(x)
