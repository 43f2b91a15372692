"""The host's beam search with the core's decoder."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from yoyodyne.models.beam_search import BatchedBeam

from seqssvae_torch.decoder import ConditionedDecoder, Decoder
from seqssvae_torch.distributions import next_log_probs
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
