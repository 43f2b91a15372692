"""What a model says of rows: bounds of their likelihood, labels, embeddings; and the sequences it generates."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.backend import DecodingMethod, ELBOTerms
from seqssvae_torch.elbo import UnlabelledELBO
from seqssvae_torch.model import SSVAE
from seqssvae_torch.objectives import encoded, label_posterior
from seqssvae_torch.rows import Rows, particles


@torch.no_grad()
def evaluate(ssvae: SSVAE, rows: Rows) -> tuple[ELBOTerms, Float[Tensor, "B K"]]:
    """Terms of each row at beta 1, y summed out, and log q(y|x)."""
    rows, elbo = encoded(ssvae, rows), UnlabelledELBO()
    elbo.loss(ssvae.model, ssvae.guide, rows.x, None, rows.source, 1.0, rows.noise)
    return elbo.terms(rows.row_mask), label_posterior(ssvae, rows).logits


@torch.no_grad()
def label_bounds(ssvae: SSVAE, rows: Rows, count: int) -> Float[Tensor, "B K"]:
    """A lower bound of log p(x, y) for each label, from `count` draws of z (noise has them in front).

    `log( p(y) / P * sum_p p(x|y,z_p) p(z_p) / q(z_p|x,y) )`, z drawn from q(z|x,y). Their log-sum-exp over y is a lower
    bound of log p(x), and they themselves, normalised, are the posterior of the generative model, p(y|x).

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519.
    """
    rows, bounds = encoded(ssvae, rows), []
    for drawn in particles(rows, count):
        elbo = UnlabelledELBO()
        elbo.loss(ssvae.model, ssvae.guide, rows.x, None, rows.source, 1.0, drawn.noise)
        bounds.append(elbo.log_weights())
    mean = torch.stack(bounds).logsumexp(0) - math.log(count)
    return torch.where(rows.row_mask[:, None], mean.T, 0.0)


@torch.no_grad()
def embed(ssvae: SSVAE, x: Int[Tensor, "B T"], source: Int[Tensor, "B S"] | None = None) -> Float[Tensor, "B Z"]:
    """The embedding of each row: sum over y of q(y|x) loc(x, y)."""
    encoding = ssvae.encode(x, source)
    labels = torch.arange(ssvae.label_count, device=x.device)[:, None]
    loc = ssvae.latent_encoder(encoding, ssvae.one_hot(labels)).loc
    return torch.einsum("bk,kbz->bz", ssvae.classifier(encoding).probs, loc)


@torch.no_grad()
def generate(
    ssvae: SSVAE,
    y: Int[Tensor, " N"],
    z: Float[Tensor, "N Z"] | None,
    noise: Float[Tensor, "N Z"],
    source: Int[Tensor, "N S"] | None,
    time_steps: int,
    method: DecodingMethod,
    beam_width: int,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "N T"], Float[Tensor, " N"]]:
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
        generator: Draws the symbols of `sample`.
    """
    one_hot, encoding = ssvae.one_hot(y), ssvae.encode_source(source)
    if z is None:
        prior = ssvae.latent_prior(encoding, one_hot)
        z = prior.loc + prior.scale * noise
    decoder = ssvae.decoder(one_hot, z, time_steps, encoding)
    if method == "beam":
        sequences, scores = decoder.beam_search(beam_width)
        return sequences[:, 0], scores[:, 0]
    x = decoder.greedy() if method == "greedy" else decoder.sample(generator=generator)
    return x, decoder.log_prob(x)
