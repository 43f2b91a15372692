"""Batches on the device, with all that is drawn at random for them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqssvae.backend import Batch
from seqssvae.noise import NoiseSpec
from seqssvae_torch.modules import Encoding, Noise

Number = float | Float[Tensor, ""]
"""A weight of the objective: on the device where a step is recorded."""


class Rows(NamedTuple):
    """One batch on the device, and its noise.

    Args:
        x: Symbol ids, or what an encoder makes of them.
        y: Label ids, or None where they are missing.
        row_mask: True for real rows.
        noise: As in `seqssvae.noise`.
        source: Symbol ids of the sources, or what an encoder makes of them; None where there are none.
        posterior: Probabilities of the labels, where they are given.
    """

    x: Int[Tensor, "B T"] | Encoding
    y: Int[Tensor, " B"] | None
    row_mask: Bool[Tensor, " B"]
    noise: Noise
    source: Int[Tensor, "B S"] | Encoding | None = None
    posterior: Float[Tensor, "B K"] | None = None


def rows_of(batch: Batch, observed: bool, noise: Noise, device: torch.device) -> Rows:
    """A batch on the device, its labels observed or missing."""
    y = to_tensor(np.maximum(batch.y, 0), device) if observed else None  # filler rows: any label will do
    source = None if batch.source is None else to_tensor(batch.source, device)
    posterior = None if batch.posterior is None else to_tensor(batch.posterior, device)
    return Rows(to_tensor(batch.x, device), y, to_tensor(batch.row_mask, device), noise, source, posterior)


def to_tensor(values: np.ndarray, device: torch.device) -> Tensor:
    """An array on the device; whole numbers become what PyTorch takes as indices."""
    tensor = to_device(torch.from_numpy(np.ascontiguousarray(values)), device)
    return tensor.long() if not tensor.is_floating_point() and tensor.dtype != torch.bool else tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the processor's on the device; a copy to a GPU is not waited for."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def draw(spec: NoiseSpec, generator: torch.Generator, like: Tensor) -> Tensor:
    """One entry of the noise, on the device of a tensor and of its type."""
    options: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    if spec.kind == "normal":
        return torch.randn(spec.shape, generator=generator, **options)
    if spec.kind == "gumbel":
        return -torch.empty(spec.shape, **options).exponential_(generator=generator).log()
    return torch.rand(spec.shape, generator=generator, **options) < spec.keep


def draw_noise(specs: Mapping[str, NoiseSpec], generator: torch.Generator, like: Tensor) -> Noise:
    """All that `noise_specs` lists, in its order."""
    return {name: draw(spec, generator, like) for name, spec in specs.items()}


def particles(rows: Rows, count: int) -> Iterator[Rows]:
    """The rows with the noise of one draw of z and y after the other."""
    for place in range(count):
        drawn = {name: rows.noise[name][place] for name in ("z", "y") if name in rows.noise} if count > 1 else {}
        yield rows._replace(noise={**rows.noise, **drawn})
