"""PyTorch's float32 products by oneDNN: exact, and only where they are; settings of others are left as they were."""

from collections.abc import Iterator
from typing import Any

import jax
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqssvae_jax.compilation import compiler_options
from seqssvae_jax.ops import products as jax_products
from seqssvae_torch.ops import products

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
    with products.fast_products(torch.device("cpu")):
        computed = [left @ right, torch.stack([left[0] @ right[0], left[1] @ right[1]])]
        computed.append(torch.baddbmm(torch.zeros(2, rows, columns), left, right))
    bound = 1e-6 * (left.double().abs() @ right.double().abs()) + 1e-30
    for product in computed:
        assert ((product - exact).abs() <= bound).all()


@pytest.mark.usefixtures("fresh")
def test_the_setting_is_given_back_whatever_happens() -> None:
    def failing() -> None:
        with products.fast_products(torch.device("cpu")):
            assert (SETTING.fp32_precision == "bf16") == products.onednn_is_exact()
            raise ValueError("anything")

    with pytest.raises(ValueError, match="anything"):
        failing()
    assert SETTING.fp32_precision == "ieee"


@pytest.mark.usefixtures("fresh")
def test_elsewhere_than_on_a_cpu_nothing_is_tried_nor_changed() -> None:
    with products.fast_products(torch.device("meta")):
        assert SETTING.fp32_precision == "ieee"
    assert products.onednn_is_exact.cache_info().misses == 0


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
    with products.fast_products(torch.device("cpu")):
        assert SETTING.fp32_precision == "ieee"


def test_sums_on_a_gpu_are_made_in_one_order_while_a_step_is_taken() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with products.deterministic(torch.device("cuda", 0)):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    with products.deterministic(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


def test_jax_is_told_so_too() -> None:
    options = compiler_options("gpu", deterministic=True)
    assert float(jax.jit(lambda x: x + 1, compiler_options=options)(1.0)) == 2  # XLA refuses a name it does not know
    assert compiler_options("gpu", deterministic=False) is None
    assert compiler_options("cpu", deterministic=True) is None


def test_float32_is_float32_on_every_device_unless_jax_was_told_otherwise() -> None:
    def precision() -> str | None:
        return jax.config.jax_default_matmul_precision

    assert precision() is None
    for platform, expected in (("cpu", None), ("gpu", "highest"), ("tpu", "highest"), ("gpu", "high")):
        with jax_products.float32_products(platform, expected or "highest"):
            assert precision() == expected
    with jax.default_matmul_precision("tensorfloat32"), jax_products.float32_products("gpu", "highest"):
        assert precision() == "tensorfloat32"


def test_pytorch_is_told_how_exact_products_and_recurrent_layers_are_on_a_gpu() -> None:
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)

    def told() -> list[str]:
        return [place.fp32_precision for place in places]

    before, cuda = told(), torch.device("cuda")
    for device, precision, expected in (
        ("cpu", "high", before),
        ("cuda", "highest", ["ieee", "ieee"]),
        ("cuda", "high", ["tf32", "tf32"]),
    ):
        with products.float32_products(torch.device(device), precision):
            assert told() == expected
    with products.exact_products(), products.float32_products(cuda, "high"):
        assert told() == ["ieee", "ieee"]
    places[0].fp32_precision = "tf32"  # by the user
    try:
        with products.float32_products(cuda, "highest"):
            assert told() == ["tf32", "tf32"]
        with products.exact_products(), products.float32_products(cuda, "highest"):
            assert told() == ["ieee", "ieee"]
    finally:
        places[0].fp32_precision = before[0]
    torch.set_float32_matmul_precision("high")
    try:
        with products.float32_products(cuda, "highest"):
            assert told() == ["tf32", "tf32"]
    finally:
        torch.set_float32_matmul_precision("highest")
