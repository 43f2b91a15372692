"""PyTorch's float32 products by oneDNN: exact, and only where they are; settings of others are left as they were."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssvae_torch import products

SETTING = torch.backends.mkldnn.matmul


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing tried yet, and a setting that is known."""
    products.onednn_is_exact.cache_clear()
    before, SETTING.fp32_precision = SETTING.fp32_precision, "ieee"
    yield
    SETTING.fp32_precision = before
    products.onednn_is_exact.cache_clear()


@given(sizes=st.tuples(*[st.integers(1, 300)] * 3), seed=st.integers(0, 1000))
def test_products_are_those_of_float32(sizes: tuple[int, int, int], seed: int) -> None:
    rows, inner, columns = sizes
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(shape, generator=generator) for shape in ((2, rows, inner), (2, inner, columns)))
    exact = left.double() @ right.double()
    with products.swift_products():
        found = [left @ right, torch.stack([left[0] @ right[0], left[1] @ right[1]])]
        found.append(torch.baddbmm(torch.zeros(2, rows, columns), left, right))
    bound = 1e-6 * (left.double().abs() @ right.double().abs()) + 1e-30
    for product in found:
        assert ((product - exact).abs() <= bound).all()


@pytest.mark.usefixtures("fresh")
def test_the_setting_is_given_back_whatever_happens() -> None:
    def failing() -> None:
        with products.swift_products():
            assert (SETTING.fp32_precision == "bf16") == products.onednn_is_exact()
            raise ValueError("anything")

    with pytest.raises(ValueError, match="anything"):
        failing()
    assert SETTING.fp32_precision == "ieee"


@pytest.mark.usefixtures("fresh")
def test_where_operands_would_be_rounded_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.Tensor.__matmul__

    def rounding(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        short = [
            operand.bfloat16().float() if SETTING.fp32_precision == "bf16" else operand for operand in (left, right)
        ]
        return original(*short)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert not products.onednn_is_exact()
    with products.swift_products():
        assert SETTING.fp32_precision == "ieee"
