"""log p(x_t | x_<t) of the symbols of K labels times B rows over V, without the logits of all of them at once.

Logits are made for a block of positions at a time, which is some steps of all labels, or some labels of one step. What
is left of a block are the log-probabilities of its symbols and its share of the gradient, written by hand:
`softmax(logits) - one_hot(symbol)`, times the weight that an objective gives to the log-probability. Where that weight
is not known before the way back, the logits are made again there, by one more product of the output layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqssvae.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_torch.products import Rounding, add_product, rounded, swift_products, write_products
from seqssvae_torch.recurrence import tanh_of_double

SMALL = 2**20
"""Most logits of a block of more than one step, 4 MiB of float32: so few cost more in calls than in products."""


LARGE = 1024
"""With more symbols than this, logits have a row a position, and products are PyTorch's choice."""


def block_size(vocabulary_size: int) -> int:
    """Most logits of a block of one step: so many that products are fast, at most 32 MiB of float32."""
    return max(SMALL, min(1024 * vocabulary_size, 2**23))


class _Block(NamedTuple):
    """Positions whose logits are made together: some steps of all labels, or some labels of one step."""

    steps: slice
    labels: slice


def blocks(steps: int, labels: int, rows: int, vocabulary_size: int, most: int) -> Iterator[_Block]:
    """All positions, cut into blocks of one step and at most `most` logits (if more than those of one label's rows).

    Where all labels of a step are few logits, so many steps are taken together as are `SMALL`, or `most` if that is
    less.
    """
    lines = max(1, most // (rows * vocabulary_size))
    if lines < labels:
        for step in range(steps):
            for first in range(0, labels, lines):
                yield _Block(slice(step, step + 1), slice(first, min(first + lines, labels)))
    else:
        together = max(1, min(most, SMALL) // (rows * vocabulary_size * labels))
        for first in range(0, steps, together):
            yield _Block(slice(first, min(first + together, steps)), slice(0, labels))


class _Symbols(torch.autograd.Function):
    """Arguments as of `symbol_log_probs`; `bias` is -inf for symbols that are never generated.

    Where the weights that the gradient will have are known but for one factor, it is made on the way forward, from the
    logits that are there anyway, and only multiplied on the way back. Otherwise the logits are made again.
    """

    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        label_bias: Tensor | None,
        x: Tensor,
        weights: Tensor | None,
        rounding: Rounding,
        most: int,
    ) -> Tensor:
        steps, _, labels, rows = hidden.shape
        layer = _layout(weight)(hidden, weight, bias, label_bias, x, rounding, most)
        result = hidden.new_empty(steps, labels, rows)
        gradients = None if weights is None else layer.zero_gradients()
        with layer.products():
            for block in layer.blocks():
                columns = layer.columns(block)
                logits = layer.logits(block, columns)
                chosen = logits.gather(1, layer.targets(block))
                greatest = logits.amax(1, keepdim=True)
                torch._softmax(logits, 1, False, out=logits)
                # the greatest probability is at least 1 / V: its logarithm loses nothing
                chosen += logits.amax(1, keepdim=True).log_() - greatest
                result[block.steps, block.labels] = chosen.view(-1, block.labels.stop - block.labels.start, rows)
                if gradients is not None and weights is not None:
                    layer.add_gradients(gradients, block, columns, logits, weights[None, block.labels])
        context.save_for_backward(hidden, weight, bias, label_bias, x, weights, *(gradients or ()))
        context.rounding, context.most = rounding, most
        return result.masked_fill_(layer.padding, 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, label_bias, x, weights, *gradients = context.saved_tensors
        layer = _layout(weight)(hidden, weight, bias, label_bias, x, context.rounding, context.most)
        gradient = grad_outputs[0].masked_fill(layer.padding, 0.0)
        factor = None if weights is None else _common_factor(gradient, weights.masked_fill(layer.padding, 0.0))
        if factor is not None:
            if abs(float(factor) - 1) > 64 * torch.finfo(gradient.dtype).eps:
                gradients = [None if part is None else part * factor for part in gradients]
            return *gradients, None, None, None, None
        found = layer.zero_gradients()
        with layer.products():
            for block in layer.blocks():
                columns = layer.columns(block)
                probabilities = layer.logits(block, columns)
                torch._softmax(probabilities, 1, False, out=probabilities)
                layer.add_gradients(found, block, columns, probabilities, gradient[block.steps, block.labels])
        return *found, None, None, None, None


class _Gradients(NamedTuple):
    """Of hidden states, weight, bias and label bias."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    label_bias: Tensor | None


def _common_factor(gradient: Tensor, weights: Tensor) -> Tensor | None:
    """The number by which all weights are to be multiplied to give the gradient, if there is one."""
    factor = (gradient * weights).sum() / (weights * weights).sum().clamp(min=torch.finfo(weights.dtype).tiny)
    tolerance = 64 * torch.finfo(gradient.dtype).eps * gradient.abs().amax()
    return factor if bool(((gradient - factor * weights).abs() <= tolerance).all()) else None


class _OutputLayer(ABC):
    """The output layer over blocks of positions. Hidden states are `(T, H, K, B)`; in logits, symbols come second."""

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

    def blocks(self) -> Iterator[_Block]:
        """All positions."""
        steps, _, labels, rows = self.hidden.shape
        return blocks(steps, labels, rows, len(self.weight), self.most)

    def zero_gradients(self) -> _Gradients:
        """Gradients to add to; that of the hidden states is written, not added to."""
        label_bias = None if self.label_bias is None else torch.zeros_like(self.label_bias)
        others = torch.zeros_like(self.weight), torch.zeros_like(self.bias), label_bias
        return _Gradients(torch.empty_like(self.hidden, memory_format=torch.contiguous_format), *others)

    def add_gradients(
        self,
        gradients: _Gradients,
        block: _Block,
        columns: Float[Tensor, "..."],
        probabilities: Float[Tensor, "..."],
        weights: Float[Tensor, "#S L B"],
    ) -> None:
        """Add a block's share of the gradients of `sum(weights * log_probs)`; its probabilities are overwritten."""
        targets = self.targets(block)
        errors = probabilities.scatter_add_(1, targets, probabilities.new_full((), -1.0).expand(targets.shape))
        of_positions = weights.expand(block.steps.stop - block.steps.start, -1, -1)
        errors.mul_(of_positions.masked_fill(self.padding[block.steps], 0.0).neg_().reshape(targets.shape))
        self.add_products(gradients, block, columns, errors)

    @abstractmethod
    def products(self) -> AbstractContextManager[None]:
        """The context for its products."""

    @abstractmethod
    def columns(self, block: _Block) -> Float[Tensor, "..."]:
        """The hidden states of a block, a column a position."""

    @abstractmethod
    def logits(self, block: _Block, columns: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Logits of a block."""

    @abstractmethod
    def targets(self, block: _Block) -> Int[Tensor, "..."]:
        """The symbols of a block, with 1 in the place of V."""

    @abstractmethod
    def add_products(
        self, gradients: _Gradients, block: _Block, columns: Float[Tensor, "..."], errors: Float[Tensor, "..."]
    ) -> None:
        """Add a block's share of the gradients from that of its logits."""


class _SymbolsFirst(_OutputLayer):
    """Logits `(S, V, N)` of S steps: hidden states are read as they lie, and their gradient is written in place."""

    def products(self) -> AbstractContextManager[None]:
        return swift_products()

    def columns(self, block: _Block) -> Float[Tensor, "S H N"]:
        return rounded(self.hidden[block.steps, :, block.labels].flatten(2), self.rounding)

    def logits(self, block: _Block, columns: Float[Tensor, "S H N"]) -> Float[Tensor, "S V N"]:
        logits = self.bias.new_empty(len(columns), len(self.bias), columns.shape[2])
        for step, of_step in enumerate(columns):
            if self.rounding is None:
                torch.addmm(self.bias[:, None], self.taken, of_step, out=logits[step])
            else:
                logits[step] = self.taken @ of_step
        if self.rounding is not None:
            logits.add_(self.bias[:, None])
        if self.label_bias is not None:
            self._by_label(logits, block).add_(self.label_bias[block.labels].permute(2, 0, 1))
        return logits

    def targets(self, block: _Block) -> Int[Tensor, "S 1 N"]:
        found = self.symbols[block.steps, None, None]
        return found.expand(-1, 1, block.labels.stop - block.labels.start, -1).flatten(2)

    def add_products(
        self, gradients: _Gradients, block: _Block, columns: Float[Tensor, "S H N"], errors: Float[Tensor, "S V N"]
    ) -> None:
        gradients.bias.add_(errors.sum((0, 2)))
        if gradients.label_bias is not None:
            place = gradients.label_bias[block.labels].permute(2, 0, 1)
            place += self._by_label(errors, block).sum(0).sum_to_size(place.shape)
        taken, transposed = rounded(errors, self.rounding), self.taken.t()[None]
        places = gradients.hidden[block.steps, :, block.labels].flatten(2)
        for step in range(len(taken)):
            add_product(gradients.weight, taken[step], columns[step].t(), self.rounding)
            write_products(transposed, taken[step : step + 1], self.rounding, places[step : step + 1])

    def _by_label(self, of_positions: Float[Tensor, "S V N"], block: _Block) -> Float[Tensor, "S V L B"]:
        return of_positions.unflatten(2, (block.labels.stop - block.labels.start, -1))


class _PositionsFirst(_OutputLayer):
    """Logits `(N, V)`, a row a position of all steps of the block, with which many symbols' products are faster."""

    def products(self) -> AbstractContextManager[None]:
        return nullcontext()  # MKL's: with V 10,000 oneDNN took longer

    def columns(self, block: _Block) -> Float[Tensor, "H N"]:
        """A view where the block is one step of all labels."""
        found = self.hidden[block.steps, :, block.labels]
        return rounded(found.transpose(0, 1).flatten(1), self.rounding)

    def logits(self, block: _Block, columns: Float[Tensor, "H N"]) -> Float[Tensor, "N V"]:
        if self.rounding is None:
            logits = torch.addmm(self.bias, columns.t(), self.taken.t())
        else:
            logits = torch.mm(columns.t(), self.taken.t()).to(self.bias.dtype).add_(self.bias)
        if self.label_bias is not None:
            self._by_label(logits, block).add_(self.label_bias[block.labels])
        return logits

    def targets(self, block: _Block) -> Int[Tensor, "N 1"]:
        found = self.symbols[block.steps, None].expand(-1, block.labels.stop - block.labels.start, -1)
        return found.reshape(-1, 1)

    def add_products(
        self, gradients: _Gradients, block: _Block, columns: Float[Tensor, "H N"], errors: Float[Tensor, "N V"]
    ) -> None:
        gradients.bias.add_(errors.sum(0))
        if gradients.label_bias is not None:
            place = gradients.label_bias[block.labels]
            place += self._by_label(errors, block).sum_to_size(1, *place.shape)[0]
        errors = rounded(errors, self.rounding)
        add_product(gradients.weight, errors.t(), columns.t(), self.rounding)
        hidden = gradients.hidden[block.steps, :, block.labels].transpose(0, 1)
        hidden.copy_((self.taken.t() @ errors.t()).view(hidden.shape))

    def _by_label(self, of_positions: Float[Tensor, "N V"], block: _Block) -> Float[Tensor, "S L B V"]:
        labels = block.labels.stop - block.labels.start
        return of_positions.view(-1, labels, self.hidden.shape[3], of_positions.shape[1])


def _layout(weight: Float[Tensor, "V H"]) -> type[_OutputLayer]:
    return _PositionsFirst if len(weight) > LARGE else _SymbolsFirst


def symbol_log_probs(
    hidden: Float[Tensor, "K B T H"],
    weight: Float[Tensor, "V H"],
    bias: Float[Tensor, "V"],
    label_bias: Float[Tensor, "K #B V"] | None,
    x: Int[Tensor, "B T"],
    weights: Float[Tensor, "K B"] | None = None,
    rounding: Rounding = None,
    most: int | None = None,
) -> Float[Tensor, "K B T"]:
    """Log-probability of each symbol of x, 0 at padding: `log_softmax(W h + b + c)` at x.

    Args:
        hidden: What the output layer reads.
        weight: W.
        bias: b.
        label_bias: c, the same at all steps; None for nothing.
        x: Symbol ids.
        weights: By what an objective will multiply the sum over each sequence, but for one factor: where that comes
            true, the gradient costs no second product for the logits (and no pass over it either, if that factor is 1);
            where not, it is right all the same. Not made use of away from the CPU, which would have to wait for the
            comparison.
        rounding: Type to which operands of products are rounded.
        most: Most logits held at once, if more than those of one label's rows at one step; None: `block_size(V)`.
    """
    symbols = torch.arange(len(bias), device=x.device)
    for symbol in NEVER_GENERATED:
        bias = bias.masked_fill(symbols == symbol, -torch.inf)
    if weights is not None and (not torch.is_grad_enabled() or x.device.type != "cpu"):
        weights = None
    most = most or block_size(len(bias))
    found = _Symbols.apply(hidden.permute(2, 3, 0, 1), weight, bias, label_bias, x, weights, rounding, most)
    return found.permute(1, 2, 0)


class _TanhOfSum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, constant: Tensor) -> Tensor:
        result = tanh_of_double(torch.add(2 * rows[:, :, None], 2 * constant))
        context.save_for_backward(result)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (result,) = context.saved_tensors
        gradient = torch.ops.aten.tanh_backward(grad_outputs[0], result)
        return gradient.sum(2), gradient.sum(0)


def tanh_of_sum(rows: Float[Tensor, "B T H"], constant: Float[Tensor, "K B H"]) -> Float[Tensor, "K B T H"]:
    """`tanh(a + c)` of what depends on row and step and what depends on label and row, which lies as `(T, H, K, B)`."""
    by_step = _TanhOfSum.apply(rows.permute(1, 2, 0).contiguous(), constant.permute(2, 0, 1).contiguous())
    return by_step.permute(2, 3, 0, 1)
