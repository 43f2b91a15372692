"""Matrix products, in the precision of their operands or with operands rounded to a shorter type.

A rounded product takes both operands in the shorter type and gives its result in their own: weights, sums and all that
is not a product stay in float32 ("mixed precision", Micikevicius et al. 2018).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seqssvae.config.training import MatmulPrecision

Function = TypeVar("Function", bound=Callable[..., Any])
Rounding = torch.dtype | None
"""The type to which operands are rounded; None: they are taken as they are."""

_rounding: ContextVar[Rounding] = ContextVar("rounding", default=None)


@contextmanager
def rounded_products(rounding: Rounding) -> Iterator[None]:
    """A context in which operands of the networks' products are rounded to this type."""
    token = _rounding.set(rounding)
    try:
        yield
    finally:
        _rounding.reset(token)


def rounding_now() -> Rounding:
    """The type to which operands are rounded now."""
    return _rounding.get()


def rounded(values: Tensor, rounding: Rounding) -> Tensor:
    """An operand as products take it."""
    return values if rounding is None else values.to(rounding)


def linear(
    inputs: Float[Tensor, "*N I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*N O"]:
    """`W a + b`."""
    rounding = rounding_now()
    if rounding is None:
        return functional.linear(inputs, weight, bias)
    result = functional.linear(rounded(inputs, rounding), rounded(weight, rounding)).to(weight.dtype)
    return result if bias is None else result + bias


def linear_of_labels(y: Float[Tensor, "*N L"], weight: Float[Tensor, "O L"]) -> Float[Tensor, "*N O"]:
    """`U y`, the column of U that a one-hot vector chooses, whose operands are never rounded."""
    return functional.linear(y, weight)


def _onednn_setting() -> Any:
    """PyTorch's setting of how exact float32 products by oneDNN have to be; None in versions that have none."""
    return getattr(torch.backends.mkldnn, "matmul", None)


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """A context in which float32 products on a CPU are oneDNN's, where these are exact.

    PyTorch has MKL multiply float32 unless operands may be rounded to bfloat16. Then oneDNN does it, which rounds only
    on processors with instructions for that (AMX), and elsewhere multiplies float32 as it is. On an AMD processor with
    AVX-512 it was up to 1.8 times as fast as MKL. Whether it rounds is tried once (`onednn_is_exact`).
    """
    setting = _onednn_setting()
    if device.type != "cpu" or setting is None or not onednn_is_exact():
        yield
        return
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def with_fast_products(function: Function) -> Function:
    """A function of autograd's that runs within `fast_products`, on the device of its first argument."""

    @wraps(function)
    def wrapped(context: Any, *given: Any) -> Any:
        with fast_products(given[0].device):
            return function(context, *given)

    return cast(Function, wrapped)


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN, where it may round float32 operands to bfloat16, keeps digits that bfloat16 has not."""
    setting, size = _onednn_setting(), 256
    values = torch.full((size, size), 1 + 2.0**-20)
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        return torch.equal(values @ torch.eye(size), values)
    finally:
        setting.fp32_precision = before


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """A context in which sums on a CUDA device are made in one order, so that they are the same bit for bit."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # which is for finding what reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled


_exact: ContextVar[bool] = ContextVar("exact", default=False)


@contextmanager
def exact_products() -> Iterator[None]:
    """A context in which no product of float32 is rounded on a CUDA device, whatever else was asked for."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


@contextmanager
def float32_products(device: torch.device, precision: MatmulPrecision) -> Iterator[None]:
    """A context in which products of float32 are what a run asks for on a CUDA device; elsewhere they are exact.

    With `highest` they are just that, unless PyTorch has been told otherwise (`torch.set_float32_matmul_precision`, or
    `torch.backends.cuda.matmul.fp32_precision`): by itself cuDNN rounds those of its recurrent layers to TF32. With
    `high` all may be rounded to TF32.
    """
    if device.type != "cuda":
        yield
        return
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    rounds = not _exact.get() and (precision == "high" or before[0] == "tf32")
    try:
        for place in places:
            place.fp32_precision = "tf32" if rounds else "ieee"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def add_product(
    total: Float[Tensor, "M N"], left: Float[Tensor, "M I"], right: Float[Tensor, "I N"], rounding: Rounding = None
) -> Float[Tensor, "M N"]:
    """Add `left @ right` to `total`, in place; `left` may have been rounded before."""
    if rounding is None:
        return total.addmm_(left, right)
    return total.add_(_rounded_product(left, right, rounding, total.dtype))


def write_products(
    left: Float[Tensor, "D M I"], right: Float[Tensor, "D I N"], rounding: Rounding, out: Float[Tensor, "D M N"]
) -> None:
    """Write `left @ right` of each of D pairs to `out`; `left` may have been rounded before."""
    if rounding is not None:
        left, right = rounded(left, rounding), rounded(right, rounding)
        out.copy_((left[0] @ right[0])[None] if len(out) == 1 else left @ right)
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
        total.add_(_rounded_product(left, right, rounding, total.dtype))


def _rounded_product(left: Tensor, right: Tensor, rounding: Rounding, dtype: torch.dtype) -> Tensor:
    """In this type: adding numbers of another took PyTorch six times as long as converting them and adding them."""
    return (rounded(left, rounding) @ rounded(right, rounding)).to(dtype)
