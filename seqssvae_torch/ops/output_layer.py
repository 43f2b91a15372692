"""The output layer for a block of positions: its logits, their log-probabilities, and its share of the gradient."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.data.vocabulary import END, PAD
from seqssvae_torch.ops.products import Rounding, add_product, rounded, write_products

SMALL = 2**20
"""Most logits of a block of more than one step, 4 MiB of float32: so few cost more in calls than in products."""

BITS = math.log2(math.e)
"""Bits in a nat. Logits are made in bits: PyTorch took a third of the time for `exp2` that it took for `exp`."""

FAR = 2.0**40
"""Sums of exponentials between its inverse and this are taken of logits as they are; of others, the greatest logit is
subtracted first. What such a sum loses, because float32 has nothing smaller, is less than 2^-60 of it."""


class Block(NamedTuple):
    """Positions whose logits are made together: some steps of all labels, or some labels of one step."""

    steps: slice
    labels: slice


def blocks(steps: int, labels: int, rows: int, vocabulary_size: int, most: int) -> Iterator[Block]:
    """All positions, cut into blocks of one step and at most `most` logits (if more than those of one label's rows).

    Where all labels of a step are few logits, so many steps are taken together as are `SMALL`, or `most` if that is
    less.
    """
    lines = max(1, most // (rows * vocabulary_size))
    if lines < labels:
        for step in range(steps):
            for first in range(0, labels, lines):
                yield Block(slice(step, step + 1), slice(first, min(first + lines, labels)))
    else:
        steps_at_once = max(1, min(most, SMALL) // (rows * vocabulary_size * labels))
        for first in range(0, steps, steps_at_once):
            yield Block(slice(first, min(first + steps_at_once, steps)), slice(0, labels))


class Gradients(NamedTuple):
    """The gradients of hidden states, weight, bias and label bias."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    label_bias: Tensor | None


class OutputLayer:
    """The output layer over blocks of positions, logits being `(S, V, N)`.

    Hidden states are `(T, H, K, B)` and read as they lie, and their gradient is written in place. Exponentials of
    logits are taken once, for the log-probabilities and for the gradient, unless the first time shows them to be far.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        label_bias: Tensor | None,
        x: Tensor,
        rounding: Rounding,
        most: int,
    ) -> None:
        self.hidden, self.weight, self.bias, self.label_bias = hidden, weight, bias, label_bias
        self.rounding, self.most = rounding, most
        self.taken = rounded(weight, rounding)
        padding = (x == PAD).t()
        self.padding = padding[:, None]
        self.symbols = x.t().masked_fill(padding, END)  # any symbol that can be generated will do
        self.memories: dict[torch.dtype, Tensor] = {}
        self.far = False
        """Whether the greatest logit is subtracted: from the first sum on that shows it to be needed."""

    def blocks(self) -> Iterator[Block]:
        """All positions, block by block."""
        steps, _, labels, rows = self.hidden.shape
        return blocks(steps, labels, rows, len(self.weight), self.most)

    def zero_gradients(self) -> Gradients:
        """Gradients to add to; that of the hidden states is written, not added to."""
        label_bias = None if self.label_bias is None else torch.zeros_like(self.label_bias)
        others = torch.zeros_like(self.weight), torch.zeros_like(self.bias), label_bias
        return Gradients(torch.empty_like(self.hidden, memory_format=torch.contiguous_format), *others)

    def read(
        self, block: Block, weights: Float[Tensor, "#S L B"] | None = None, gradients: Gradients | None = None
    ) -> Float[Tensor, "S L B"]:
        """Log-probabilities of a block; with weights, add its share of the gradients of `sum(weights * log_probs)`."""
        targets = self.symbols[block.steps, None, None]
        targets = targets.expand(-1, 1, block.labels.stop - block.labels.start, -1)
        size = targets.flatten(1, 2).shape
        of_positions = None
        if weights is not None:
            of_positions = weights.to(self.bias.dtype).expand(size).masked_fill(self.padding[block.steps], 0.0)
            of_positions = of_positions.flatten(1)[:, None]
        return self._read(block, targets.flatten(2), of_positions, gradients).view(size)

    def _read(
        self,
        block: Block,
        targets: Int[Tensor, "S 1 N"],
        weights: Float[Tensor, "S 1 N"] | None,
        gradients: Gradients | None,
    ) -> Float[Tensor, "S 1 N"]:
        columns = self._columns(block)
        if not self.far:
            logits = self._logits(block, columns)
            chosen = logits.gather(1, targets)
            sums = logits.exp2_().sum(1, keepdim=True)
            self.far = _are_far(sums)
        if self.far:
            logits = self._logits(block, columns)
            logits -= logits.amax(1, keepdim=True)
            chosen = logits.gather(1, targets)
            sums = logits.exp2_().sum(1, keepdim=True)
        if weights is not None and gradients is not None:
            errors = logits.mul_(-weights / sums).scatter_add_(1, targets, weights)
            gradients.bias.add_(errors.sum((0, 2)))
            if gradients.label_bias is not None:
                place = gradients.label_bias[block.labels].permute(2, 0, 1)
                place += _by_label(errors, block).sum(0).sum_to_size(place.shape)
            if self.rounding is not None:
                errors = self._memory(errors.shape, self.rounding).copy_(errors)
            self._multiply_back(gradients, block, columns, errors)
        return (chosen - sums.log2()) / BITS

    def _columns(self, block: Block) -> Float[Tensor, "S H N"]:
        return rounded(self.hidden[block.steps, :, block.labels].flatten(2), self.rounding)

    def _logits(self, block: Block, columns: Float[Tensor, "S H N"]) -> Float[Tensor, "S V N"]:
        """The logits of a block, in bits."""
        logits = self._products(columns)
        if self.rounding is not None:
            logits = self._memory(logits.shape, self.bias.dtype).copy_(logits).mul_(BITS)
        logits += (self.bias * BITS)[:, None]
        if self.label_bias is not None:
            _by_label(logits, block).add_(self.label_bias[block.labels].permute(2, 0, 1), alpha=BITS)
        return logits

    def _products(self, columns: Float[Tensor, "S H N"]) -> Float[Tensor, "S V N"]:
        """Weight by hidden states; in bits where they are not rounded."""
        size = torch.Size((len(columns), len(self.bias), columns.shape[2]))
        products, weight = self._memory(size, columns.dtype), self._weight_in_bits
        for column, product in zip(columns, products, strict=True):
            torch.mm(weight, column, out=product)
        return products

    def _multiply_back(
        self, gradients: Gradients, block: Block, columns: Float[Tensor, "S H N"], errors: Float[Tensor, "S V N"]
    ) -> None:
        places, transposed = gradients.hidden[block.steps, :, block.labels].flatten(2), self.taken.t()[None]
        for error, column, place in zip(errors, columns, places, strict=True):
            add_product(gradients.weight, error, column.t(), self.rounding)
            write_products(transposed, error[None], self.rounding, place[None])

    @cached_property
    def _weight_in_bits(self) -> Float[Tensor, "V H"]:
        return self.weight * BITS if self.rounding is None else self.taken

    def _memory(self, size: torch.Size, dtype: torch.dtype) -> Tensor:
        """Where numbers of this type were of the block before: fresh memory takes longer than what is done with it."""
        memory = self.memories.get(dtype)
        if memory is None or memory.numel() < size.numel():
            memory = self.memories[dtype] = torch.empty(size.numel(), dtype=dtype, device=self.bias.device)
        return memory[: size.numel()].view(size)


def _are_far(sums: Float[Tensor, "S 1 N"]) -> bool:
    low, high = sums.aminmax()
    return not 1 / FAR < float(low) <= float(high) < FAR


def _by_label(of_positions: Float[Tensor, "S V N"], block: Block) -> Float[Tensor, "S V L B"]:
    return of_positions.unflatten(2, (block.labels.stop - block.labels.start, -1))
