"""What the steps of `recurrence_custom_vjp` read from and add to."""

import torch
from jaxtyping import Float
from torch import Tensor

from seqssvae_torch.ops.products import Rounding, add_products, write_products


def _by_label(gates: Float[Tensor, "... N"], rows: int) -> Float[Tensor, "... K B"]:
    return gates.unflatten(-1, (-1, rows))


class GateInputs:
    """What gates are given at each step: of the rows, the same for each label, and what is constant.

    Args:
        row_gates: Of the rows.
        constant: Of label and row; None for nothing.
    """

    def __init__(self, row_gates: Float[Tensor, "D G T B"], constant: Float[Tensor, "D G N"] | None) -> None:
        self.row_count = row_gates.shape[3]
        self.rows = row_gates[:, :, :, None].unbind(2)
        self.constant = constant if constant is None else _by_label(constant, self.row_count)

    def add(self, step: int, gates: Float[Tensor, "D G N"]) -> None:
        """Add them to gates, in place."""
        by_label = _by_label(gates, self.row_count)
        if self.constant is not None:
            by_label.add_(self.constant)
        by_label.add_(self.rows[step])

    def write(self, step: int, gates: Float[Tensor, "D G N"]) -> None:
        """Write them over gates."""
        by_label = _by_label(gates, self.row_count)
        if self.constant is None:
            by_label.copy_(self.rows[step].expand_as(by_label))
        else:
            torch.add(self.rows[step], self.constant, out=by_label)


class GateGradients:
    """Gradients of gates, summed step by step over labels (for the rows) and over steps (for what is constant).

    Args:
        like: States, `(D, H, N)`.
        steps: T.
        size: Number of gradients of a column.
        inner: How many of them, the first, are not of gates.
        rows: B.
        has_constant: Whether there is a constant.
    """

    def __init__(self, like: Tensor, steps: int, size: int, inner: int, rows: int, has_constant: bool) -> None:
        layers, _, columns = like.shape
        self.inner = inner
        self.by_step = like.new_empty(steps, layers, size, rows)
        self.shared = None if rows == columns else like.new_empty(layers, size, columns)
        self.constant = like.new_zeros(layers, size - inner, columns) if has_constant else None

    def columns(self, step: int) -> Float[Tensor, "D S N"]:
        """Where the gradient of this step is to be written: with one label it stays there."""
        return self.by_step[step] if self.shared is None else self.shared

    def add(self, step: int) -> None:
        """Take what was written to `columns` as the gradient of this step."""
        if self.shared is not None:
            torch.sum(_by_label(self.shared, self.by_step.shape[3]), 2, out=self.by_step[step])
        if self.constant is not None:
            self.constant.add_(self.columns(step)[:, self.inner :])

    def of_rows(self) -> Float[Tensor, "D S T B"]:
        """The gradient of all steps."""
        return self.by_step.permute(1, 2, 0, 3)


class WeightGradient:
    """The gradient of the state's weights, summed step by step.

    Args:
        weight: Weights of D layers.
        dtype: Of the gradient.
        rounding: Type to which operands are rounded.
    """

    def __init__(self, weight: Float[Tensor, "D G H"], dtype: torch.dtype, rounding: Rounding) -> None:
        self.sum = torch.empty_like(weight, dtype=dtype)
        self.rounding, self.has_steps = rounding, False

    def add(self, gates: Float[Tensor, "D G N"], states: Float[Tensor, "D N H"]) -> None:
        """Add the share of a step, from the gates' gradient and the states that it started from."""
        if self.has_steps:
            add_products(self.sum, gates, states, self.rounding)
        else:
            write_products(gates, states, self.rounding, self.sum)
        self.has_steps = True

    def total(self) -> Float[Tensor, "D G H"]:
        """The gradient of all steps."""
        return self.sum if self.has_steps else self.sum.zero_()
