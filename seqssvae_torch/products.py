"""Matrix products, in the precision of their operands or with operands rounded to a shorter type.

A rounded product takes both operands in the shorter type and gives its result in theirs of before: weights, sums and
all that is not a product stay in float32 ("mixed precision", Micikevicius et al. 2018).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Rounding = torch.dtype | None
"""The type to which operands are rounded; None: they are taken as they are."""


class Multiplies(nn.Module):
    """A network with matrix products of its own, whose operands are rounded to `rounding`."""

    rounding: Rounding = None


def rounded(values: Tensor, rounding: Rounding) -> Tensor:
    """An operand as products take it."""
    return values if rounding is None else values.to(rounding)


def linear(
    inputs: Float[Tensor, "*N I"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, "O"] | None = None,
    rounding: Rounding = None,
) -> Float[Tensor, "*N O"]:
    """`W a + b`."""
    if rounding is None:
        return functional.linear(inputs, weight, bias)
    result = functional.linear(rounded(inputs, rounding), rounded(weight, rounding)).to(weight.dtype)
    return result if bias is None else result + bias


def add_product(
    total: Float[Tensor, "M N"], left: Float[Tensor, "M I"], right: Float[Tensor, "I N"], rounding: Rounding = None
) -> Float[Tensor, "M N"]:
    """Add `left @ right` to `total`, in place; `left` may have been rounded before."""
    if rounding is None:
        return total.addmm_(left, right)
    return total.add_(rounded(left, rounding) @ rounded(right, rounding))


def write_products(
    left: Float[Tensor, "D M I"], right: Float[Tensor, "D I N"], rounding: Rounding, out: Float[Tensor, "D M N"]
) -> None:
    """Write `left @ right` of each of D pairs to `out`; `left` may have been rounded before."""
    if rounding is not None:
        out.copy_(rounded(left, rounding) @ rounded(right, rounding))
    elif len(out) == 1:
        torch.mm(left[0], right[0], out=out[0])
    else:
        torch.bmm(left, right, out=out)


def add_products(
    total: Float[Tensor, "D M N"], left: Float[Tensor, "D M I"], right: Float[Tensor, "D I N"], rounding: Rounding
) -> None:
    """Add `left @ right` of each of D pairs to `total`, in place; `left` may have been rounded before."""
    if len(total) == 1:
        add_product(total[0], left[0], right[0], rounding)
    elif rounding is None:
        total.baddbmm_(left, right)
    else:
        total.add_(rounded(left, rounding) @ rounded(right, rounding))
