"""Counts of PyTorch's operations, with its recurrent layers as one each way, as they are on a GPU."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_GRU, _LSTM = torch.gru, torch.lstm


class Operations(TorchDispatchMode):
    """Counts operations by name; those within a recurrent layer are one.

    Args:
        forbidden: Names of operations that are an error.
    """

    def __init__(self, *forbidden: str) -> None:
        super().__init__()
        self.forbidden, self.counts, self.within = forbidden, Counter[str](), False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        if not self.within:
            self.counts[name] += 1
            assert name not in self.forbidden, f"{name} waits for the device"
        return function(*args, **(kwargs or {}))

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """A context whose operations are one of that name."""
        self.counts[name] += 1
        self.within = True
        try:
            yield
        finally:
            self.within = False

    @contextmanager
    def counting(self) -> Iterator["Operations"]:
        """A context in which operations are counted."""
        with (
            patch.object(torch, "gru", lambda x, first, weights, *_: (_Layer.apply(self, 1, x, first, *weights),)),
            patch.object(torch, "lstm", lambda x, first, weights, *_: (_Layer.apply(self, 2, x, *first, *weights),)),
            self,
        ):
            yield self


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, operations: Operations, states: int, *operands: Tensor) -> Tensor:
        context.operations = operations
        with operations.one("layer"), torch.enable_grad():
            context.operands = [operand.detach().requires_grad_() for operand in operands]
            x, *rest = context.operands
            layer, first = (_GRU, rest[0]) if states == 1 else (_LSTM, rest[:states])
            context.outputs = layer(x, first, rest[states:], True, 1, 0.0, True, False, True)[0]
            return context.outputs.detach()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        with context.operations.one("layer_backward"):
            return None, None, *torch.autograd.grad(context.outputs, context.operands, gradients)
