"""What sequences are decoded from, and the host's beam search with the core's decoder."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from yoyodyne.models.beam_search import BatchedBeam

from seqssvae.backend import NO_LABEL
from seqssvae_torch.decoder import ConditionedDecoder, Decoder
from seqssvae_torch.distributions import next_log_probs
from seqssvae_torch.model import SSVAE
from seqssvae_torch.modules import Encoding


class Latents(NamedTuple):
    """What sequences are decoded from.

    Args:
        y: One-hot labels.
        z: Latents.
        source: What is made of the sources; None where there are none.
    """

    y: Float[Tensor, "B L"]
    z: Float[Tensor, "B Z"]
    source: Encoding | None


def latents_of(
    ssvae: SSVAE,
    x: Int[Tensor, "B T"] | None,
    y: Int[Tensor, " B"],
    source: Int[Tensor, "B S"] | None,
    draw: bool = False,
) -> Latents:
    """Label, z and source of each row.

    Args:
        ssvae: The core's model.
        x: The sequences that tell z, and labels that are missing; None: p(z) tells z (given the source, if there is
            one), and p(y) the labels.
        y: Label ids, `NO_LABEL` where the most probable one is taken.
        source: Symbol ids of the sources, of a model that has them.
        draw: Whether z is drawn; otherwise it is the mean.
    """
    encoding = ssvae.encode_source(source)
    read = None if x is None else ssvae.encode(x, encoding)
    likely = (ssvae.label_prior(encoding) if read is None else ssvae.classifier(read)).logits.argmax(-1)
    vectors = ssvae.one_hot(torch.where(y == NO_LABEL, likely, y))
    z = ssvae.latent_prior(encoding, vectors) if read is None else ssvae.latent_encoder(read, vectors)
    loc = z.loc.expand(len(y), -1)
    return Latents(vectors, loc + z.scale * torch.randn_like(loc) if draw else loc, encoding)


def beam_search(
    decoder: Decoder, latents: Latents, width: int, steps: int
) -> tuple[Int[Tensor, "B W T"], Float[Tensor, "B W"]]:
    """The best sequences of each row and their log-probabilities.

    Args:
        decoder: The core's.
        latents: Labels, z and sources.
        width: W, hypotheses kept at each step.
        steps: Most symbols, END included.
    """
    device, memory = latents.z.device, None if latents.source is None else decoder.remember(latents.source)
    first = ConditionedDecoder(decoder, latents.y, latents.z, {}, memory).initial_states()
    rows = [[tuple(part[row : row + 1] for part in layer) for layer in first] for row in range(len(latents.y))]
    beams = BatchedBeam(width, len(latents.y), rows)
    for _ in range(steps):
        symbols, items, states, places = beams.collect_active(device)
        if not places:
            break
        layers = [
            tuple(torch.cat(parts) for parts in zip(*of_layer, strict=True)) for of_layer in zip(*states, strict=True)
        ]
        remembered = None if memory is None else memory.take(items)
        conditioned = ConditionedDecoder(decoder, latents.y[items], latents.z[items], {}, remembered)
        logits, layers = conditioned.step(symbols[:, 0], layers)
        new = [[tuple(part[n : n + 1] for part in layer) for layer in layers] for n in range(len(places))]
        beams.push_final_cells()
        beams.fan_out_stateful(next_log_probs(logits), new, places)
        beams.update()
    return beams.predictions(device), beams.scores(device)
