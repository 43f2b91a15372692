"""What a model says of rows: bounds of their likelihood, labels, embeddings; and the sequences it generates."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.backend import ELBOTerms, Latents
from seqssvae.config import DecodingOptions
from seqssvae.data.vocabulary import UNK
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
def log_weights(ssvae: SSVAE, rows: Rows, count: int) -> Float[Tensor, "P B K"]:
    """log p(x, y, z) - log q(z|x,y) of each label at each of `count` draws of z (noise has them in front).

    Over the draws, which are of q(z|x,y), the mean of its exponential is p(x, y); 0 for filler rows.

    References:
        Burda et al. 2016, Importance Weighted Autoencoders, equation 8, https://arxiv.org/abs/1509.00519.
    """
    rows, weights = encoded(ssvae, rows), []
    for drawn in particles(rows, count):
        elbo = UnlabelledELBO()
        elbo.loss(ssvae.model, ssvae.guide, rows.x, None, rows.source, 1.0, drawn.noise)
        weights.append(elbo.log_weights().T)
    return torch.where(rows.row_mask[:, None], torch.stack(weights), 0.0)


@torch.no_grad()
def latents(ssvae: SSVAE, x: Int[Tensor, "B T"], source: Int[Tensor, "B S"] | None = None) -> Latents:
    """q(z|x,y) and p(z), or p(z|source,y), of every label."""
    of_source = ssvae.encode_source(source)
    labels = ssvae.one_hot(torch.arange(ssvae.label_count, device=x.device)[:, None])
    q, p = ssvae.latent_encoder(ssvae.encode(x, of_source), labels), ssvae.latent_prior(of_source, labels)
    return Latents(*(part.expand(q.loc.shape).transpose(0, 1) for part in (q.loc, q.scale, p.loc, p.scale)))


@torch.no_grad()
def log_likelihood(
    ssvae: SSVAE, x: Int[Tensor, "B T"], z: Float[Tensor, "B K Z"], source: Int[Tensor, "B S"] | None = None
) -> Float[Tensor, "B K"]:
    """log p(x|y,z) of every label at the z given for it."""
    labels = ssvae.one_hot(torch.arange(ssvae.label_count, device=x.device)[:, None])
    decoder = ssvae.decoder(labels, z.transpose(0, 1), x.shape[1], ssvae.encode_source(source))
    return decoder.log_prob(x).T


@torch.no_grad()
def classify(ssvae: SSVAE, x: Int[Tensor, "B T"], source: Int[Tensor, "B S"] | None = None) -> Float[Tensor, "B K"]:
    """log q(y|x), or log q(y|source,x)."""
    return ssvae.classifier(ssvae.encode(x, source)).logits


@torch.no_grad()
def classify_source(ssvae: SSVAE, source: Int[Tensor, "B S"]) -> Float[Tensor, "B K"]:
    """log p(y|source)."""
    return ssvae.label_prior(ssvae.encode_source(source)).logits


@torch.no_grad()
def embed(
    ssvae: SSVAE, x: Int[Tensor, "B T"], source: Int[Tensor, "B S"] | None = None, features: bool = False
) -> Float[Tensor, "B D"]:
    """The embedding of each row: sum over y of q(y|x) loc(x, y), or the features that q(y|x) reads."""
    encoding = ssvae.encode(x, source)
    if features:
        return encoding.features[0]
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
    options: DecodingOptions,
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
        options: How symbols are chosen.
        generator: Draws the symbols of `sample`.
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
        steering = {"temperature": options.temperature, "top_p": options.top_p}
        x = decoder.sample(generator=generator, exclude=exclude, **steering)
    return x, decoder.log_prob(x)
