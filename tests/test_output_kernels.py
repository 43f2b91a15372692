"""The kernels of an output layer, written in C: against NumPy, in float64, with the logits that they are given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqssvae import kernels
from seqssvae_torch import fused, likelihood, output_layer

# what is tested here is compiled code: where there is none, tests/test_likelihood.py covers what is used instead
needs_kernels = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler at installation, or no bfloat16 instructions here"
)
Arrays = dict[str, Tensor]
SHAPE, SIZE = (3, 130, 37), 16
"""S, V, N, no multiples of what a task or a vector has; and H."""


def arrays(shape: tuple[int, int, int], seed: int = 0) -> Arrays:
    """What kernels between products are given, and hidden states and a weight in the place of logits for a layer."""
    generator = torch.Generator().manual_seed(seed)
    steps, symbols, columns = shape
    bias = torch.randn(symbols, generator=generator)
    bias[::7] = -torch.inf
    bias[-1] = 0.5  # at least one can be generated
    generated = torch.nonzero(bias.isfinite())[:, 0]
    logits = (3 * torch.randn(shape, generator=generator)).bfloat16()
    normalizer = (logits.double() + bias[:, None].double()).logsumexp(1, keepdim=True).float()
    return {
        "hidden": torch.randn((steps, SIZE, columns), generator=generator),
        "weight": torch.randn((symbols, SIZE), generator=generator) / 2,
        "logits": logits,
        "bias": bias,
        "shift": normalizer + 0.1 * torch.randn((steps, 1, columns), generator=generator),
        "targets": generated[torch.randint(len(generated), (steps, 1, columns), generator=generator)],
        "weights": torch.randn((steps, 1, columns), generator=generator),
        "grad_bias": torch.randn(symbols, generator=generator),
    }


Found = dict[str, np.ndarray]


def in_float64(**parts: Tensor) -> Found:
    return {name: part.double().numpy() for name, part in parts.items()}


def between_products(given: Arrays) -> Found:
    logits, grad_bias = given["logits"].clone(), given["grad_bias"].clone()
    sums = fused.sum_exponentials(logits, given["bias"], given["shift"])
    fused.write_errors(logits, given["bias"], given["shift"], given["targets"], given["weights"], grad_bias)
    return in_float64(sums=sums, errors=logits, bias=grad_bias)


def of_layer(given: Arrays) -> Found:
    grad_hidden, grad_weight = torch.empty_like(given["hidden"]), torch.ones_like(given["weight"])
    gradients = fused.OutputGradients(grad_hidden, grad_weight, given["grad_bias"].clone())
    operands = given["hidden"], given["weight"], given["bias"], given["targets"]
    log_probs = fused.read_output(*operands, given["weights"], gradients)
    torch.testing.assert_close(log_probs, fused.read_output(*operands), rtol=0, atol=0, equal_nan=True)
    return in_float64(log_probs=log_probs, hidden=grad_hidden, weight=grad_weight, bias=gradients.bias)


def expected_between_products(given: Arrays) -> Found:
    logits, bias, shift, weights = in_float64(**{name: given[name] for name in BETWEEN}).values()
    shares = np.exp(logits + bias[:, None] - shift)
    errors = weights * (np.arange(len(bias))[:, None] == given["targets"].numpy()) - weights * shares
    grad_bias = given["grad_bias"].double().numpy() + errors.sum((0, 2))
    return {"sums": shares.sum(1, keepdims=True), "errors": errors, "bias": grad_bias}


BETWEEN = ("logits", "bias", "shift", "weights")


def expected_of_layer(given: Arrays) -> Found:
    """Operands of products rounded, and all else in float64."""
    hidden, weight = (given[name].bfloat16().double() for name in ("hidden", "weight"))
    logits = torch.einsum("vh,shn->svn", weight, hidden) + given["bias"].double()[:, None]
    log_probs = logits.log_softmax(1)
    is_target = torch.arange(len(weight))[:, None] == given["targets"]
    errors = given["weights"].double() * (is_target.double() - log_probs.exp())
    taken = errors.bfloat16().double()
    return in_float64(
        log_probs=log_probs.gather(1, given["targets"]),
        hidden=torch.einsum("vh,svn->shn", weight, taken),
        weight=1 + torch.einsum("svn,shn->vh", taken, hidden),
        bias=given["grad_bias"] + errors.sum((0, 2)),
    )


TOLERANCES = {
    "sums": (3e-6, 0),
    "errors": (2**-8, 1e-9),
    "bias": (2e-5, 2e-5),
    "log_probs": (1e-5, 1e-5),
    "hidden": (1e-2, 1e-2),
    "weight": (1e-2, 2e-2),
}
"""Relative and absolute. Errors are rounded to bfloat16, a few of them the other way, and so is a weight's gradient."""


def assert_close(found: Found, expected: Found) -> None:
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        relative, absolute = TOLERANCES[name]
        np.testing.assert_allclose(found[name], part, rtol=relative, atol=absolute, err_msg=name)


WAYS = {"between": (between_products, expected_between_products), "layer": (of_layer, expected_of_layer)}


@needs_kernels
@pytest.mark.parametrize("way", WAYS)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 150), st.integers(1, 70)), seed=st.integers(0, 100))
def test_values_and_gradients(way: str, shape: tuple[int, int, int], seed: int) -> None:
    found, expected = WAYS[way]
    assert_close(found(arrays(shape, seed)), expected(arrays(shape, seed)))


@needs_kernels
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 5, 0)])
def test_of_no_positions_nothing_is_added(way: str, shape: tuple[int, int, int]) -> None:
    found, given_arrays = WAYS[way][0](arrays(shape)), arrays(shape)
    np.testing.assert_array_equal(found["bias"], given_arrays["grad_bias"].numpy())


def all_that_is_small(found: Found) -> None:
    """Errors of symbols that are improbable."""
    found["errors"][np.abs(found["errors"]) < 1e-3] = 0


@needs_kernels
def test_small_errors_are_looked_at() -> None:
    found = between_products(arrays(SHAPE))
    all_that_is_small(found)
    with pytest.raises(AssertionError, match="errors"):
        assert_close(found, expected_between_products(arrays(SHAPE)))


def next_row(given: Arrays) -> None:
    given["targets"] = given["targets"].roll(1, 2)


def next_step(given: Arrays) -> None:
    given["weights"] = given["weights"].roll(1, 0)


def next_symbol(given: Arrays) -> None:
    given["bias"] = given["bias"].roll(1)


def never(given: Arrays) -> None:
    given["weights"] = torch.zeros_like(given["weights"])


def no_bias(given: Arrays) -> None:
    given["bias"] = torch.zeros_like(given["bias"])


@needs_kernels
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("defect", [next_row, next_step, next_symbol, never, no_bias])
def test_what_is_broken_is_caught(way: str, defect: Callable[[Arrays], None]) -> None:
    (found, expected), broken = WAYS[way], arrays(SHAPE)
    defect(broken)
    with pytest.raises(AssertionError):
        assert_close(found(broken), expected(arrays(SHAPE)))


@needs_kernels
def test_unrounded_products_would_be_seen() -> None:
    given_arrays = arrays(SHAPE)
    exact = expected_of_layer(given_arrays)
    logits = torch.einsum("vh,shn->svn", given_arrays["weight"], given_arrays["hidden"]) + given_arrays["bias"][:, None]
    exact["log_probs"] = logits.log_softmax(1).gather(1, given_arrays["targets"]).double().numpy()
    with pytest.raises(AssertionError, match="log_probs"):
        assert_close(of_layer(given_arrays), exact)


@needs_kernels
@pytest.mark.parametrize("way", WAYS)
def test_threads_and_who_starts_them_change_no_bit(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, found = kernels.run_output, []

    def run_with(threads: int, team: int | None) -> Callable[..., None]:
        return lambda *given, **how: run(*given, **how | {"threads": threads, "team": team})

    for threads, team in ((1, None), (2, None), (3, kernels.openmp_team()), (64, None)):
        monkeypatch.setattr(kernels, "run_output", run_with(threads, team))
        found.append(WAYS[way][0](arrays(SHAPE)))
    for other in found[1:]:
        assert all(np.array_equal(other[name], found[0][name]) for name in other)


@needs_kernels
def test_what_is_no_number_stays_none_and_what_is_too_great_is_infinite() -> None:
    given_arrays = arrays(SHAPE)
    given_arrays["logits"][0, 1, 0] = torch.nan
    given_arrays["logits"][0, 1, 1] = 200.0
    given_arrays["logits"][0, 1, 2] = torch.inf
    sums = fused.sum_exponentials(given_arrays["logits"], given_arrays["bias"], given_arrays["shift"])[0, 0]
    assert sums[0].isnan()
    assert sums[1:3].isposinf().all()
    assert sums[3:].isfinite().all()


@needs_kernels
def test_a_layer_stays_finite_with_great_logits_and_keeps_what_is_no_number_apart() -> None:
    given_arrays = arrays(SHAPE)
    given_arrays["hidden"] *= 1000
    given_arrays["hidden"][0, :, 2] = torch.nan
    log_probs = of_layer(given_arrays)["log_probs"]
    assert np.isnan(log_probs[0, 0, 2])
    log_probs[0, 0, 2] = expected = 0.0
    assert np.isfinite(log_probs).all()
    assert log_probs.min() < expected - 200


@needs_kernels
def test_output_layers_use_them_for_bfloat16_without_a_bias_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    run = kernels.run_output
    monkeypatch.setattr(kernels, "run_output", lambda *given, **how: (calls.append(given[0]), run(*given, **how)))

    def read(
        dtype: torch.dtype = torch.float32, rounding: Any = torch.bfloat16, label_bias: bool = False, size: int = 8
    ) -> list[str]:
        calls.clear()
        hidden, weight = torch.randn(2, 3, 4, size, dtype=dtype), torch.randn(9, size, dtype=dtype, requires_grad=True)
        given_bias = torch.zeros(2, 1, 9, dtype=dtype) if label_bias else None
        x = torch.full((3, 4), 5)
        weights = torch.ones(2, 3, dtype=dtype)
        likelihood.symbol_log_probs(hidden, weight, torch.zeros(9, dtype=dtype), given_bias, x, weights, rounding)
        return list(calls)

    assert read() == ["likelihood_layer"]
    assert read(size=12) == ["likelihood_sums", "likelihood_errors"]
    with monkeypatch.context() as patched:
        patched.setattr(output_layer, "FEW", 8)
        assert read() == ["likelihood_sums", "likelihood_errors"]
    assert read(rounding=None) == read(torch.float64) == read(label_bias=True) == []
    monkeypatch.setenv("SEQSSVAE_KERNELS", "0")
    assert read() == []


@needs_kernels
def test_a_target_that_is_no_symbol_has_no_log_probability() -> None:
    given_arrays = arrays(SHAPE)
    for place, target in enumerate((-1, SHAPE[1], 2**31 - 1)):
        given_arrays["targets"][1, 0, place] = target
    log_probs = of_layer(given_arrays)["log_probs"]
    assert np.isnan(log_probs[1, 0, :3]).all()
    assert np.isfinite(log_probs).sum() == log_probs.size - 3


@needs_kernels
def test_what_is_written_has_to_be_in_one_piece_and_units_a_multiple_of_8() -> None:
    given_arrays = arrays(SHAPE)
    in_pieces = given_arrays["hidden"].transpose(0, 2).contiguous().transpose(0, 2)
    gradients = fused.OutputGradients(in_pieces, given_arrays["weight"], given_arrays["bias"])
    operands = [given_arrays[name] for name in ("hidden", "weight", "bias", "targets", "weights")]
    with pytest.raises(ValueError, match="likelihood_layer: grad_hidden is written in place, but lies in pieces"):
        fused.read_output(*operands, gradients)
    with pytest.raises(ValueError, match="likelihood_layer: 12 units, but layers are read 8 units at a time"):
        fused.read_output(operands[0][:, :12], operands[1][:, :12], *operands[2:4])


def test_no_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def likelihood_sums(*_: Any) -> int:
            return -1

    monkeypatch.setattr(kernels, "library", lambda: Library)
    with pytest.raises(MemoryError, match="likelihood_sums: no memory to work in, for 6 positions of 5 symbols"):
        kernels.run_output("likelihood_sums", {}, sizes=(2, 5, 3), threads=1)


def test_without_kernels_there_is_none_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    with pytest.raises(RuntimeError, match="likelihood_errors: no kernels for this processor"):
        kernels.run_output("likelihood_errors", {}, sizes=(2, 5, 3), threads=1)
