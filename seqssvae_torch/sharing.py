"""How several processes compute one step: each of them its rows of the batch, with sums over the rows of all.

Every process makes the same batches and draws the same noise for all rows of a batch, of which it takes every
`count`-th. What the objective sums over a batch is summed over all processes (`total`), so that its loss is that of the
whole batch, however rows and labels are spread. A process has the gradient of its own rows; added up they are that of
the loss.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed

from seqssvae.data.vocabulary import PAD
from seqssvae.noise import row_axis
from seqssvae_torch.modules import symbols_of
from seqssvae_torch.rows import Rows

_is_shared: ContextVar[bool] = ContextVar("is_shared", default=False)


def total(value: Tensor) -> Tensor:
    """The sum of a value over the processes that share the batch; its gradient reaches each one's own value.

    Outside of `Sharing.summed` it is the value itself.
    """
    return _Total.apply(value) if _is_shared.get() else value


class _Total(torch.autograd.Function):
    """A sum over processes. Each has the gradient of its own part alone, which are added up later."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        """The sum over all processes."""
        value = value.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """The gradient, as it is."""
        return gradients[0]


@dataclass(frozen=True)
class Sharing:
    """The place of a process among those that share each batch.

    Args:
        rank: Which of them it is, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @contextmanager
    def summed(self) -> Iterator[None]:
        """A context in which `total` is over all processes."""
        token = _is_shared.set(self.count > 1)
        try:
            yield
        finally:
            _is_shared.reset(token)

    def take(self, rows: Rows) -> Rows:
        """The rows of this process and their noise, as many as every other has: filler rows make up the number."""
        if self.count == 1:
            return rows
        places, size = self._places(len(rows.row_mask), rows.row_mask.device), len(rows.row_mask)
        inside, places = places < size, places.clamp(max=size - 1)
        row_mask = rows.row_mask[places] & inside
        x = torch.where(inside[:, None], symbols_of(rows.x)[places], PAD)
        source = None if rows.source is None else torch.where(inside[:, None], symbols_of(rows.source)[places], PAD)
        noise = {name: value.index_select(row_axis(name, value.ndim), places) for name, value in rows.noise.items()}
        y, posterior = (None if part is None else part[places] for part in (rows.y, rows.posterior))
        return Rows(x, y, row_mask, noise, source, posterior)

    def whole(self, own: Float[Tensor, "... R"], size: int) -> Float[Tensor, "... B"]:
        """What all processes have of their rows, in the order of the batch of this size.

        Args:
            own: What this process has of its rows.
            size: B.
        """
        if self.count == 1:
            return own
        values = own.new_zeros((*own.shape[:-1], self.count * own.shape[-1]))
        values[..., self._places(size, own.device)] = own
        distributed.all_reduce(values)
        return values[..., :size]

    def add_up(self, gradients: Sequence[Tensor]) -> None:
        """Make each of these the sum over all processes, in place and in one message."""
        if self.count == 1:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(
            list(gradients), [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        )

    def _places(self, size: int, device: torch.device) -> Int[Tensor, " R"]:
        """Where this process's rows are in a batch of this size, filled up to a multiple of the processes."""
        return torch.arange(self.rank, -(-size // self.count) * self.count, self.count, device=device)


ALONE = Sharing()
