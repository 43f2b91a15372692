"""Recurrent layers: every implementation of either twin against the reference, and that against PyTorch's own."""

from collections.abc import Callable
from itertools import product
from typing import Any, get_args

import jax
import numpy as np
import pytest
import torch
from torch import nn

import seqssvae_jax.ops.recurrence_custom_vjp
import seqssvae_torch.ops.recurrence_custom_vjp
from parity_tests.recurrence_defects import gate_gradients_in_the_wrong_order
from seqssvae.config import CellName, EncoderConfig, ModelConfig, Pooling
from seqssvae.parameters import GATES, STATES
from seqssvae_jax import ops as jax_ops
from seqssvae_torch import ops as torch_ops
from seqssvae_torch.modules import EncoderTower
from seqssvae_torch.ops import fold, tanh, tanh_of_sum, unfold
from seqssvae_torch.ops.recurrence import reference
from tests.operations import Operations

K, B, T, INPUTS, H = 3, 4, 5, 2, 6
CELLS = ("gru", "lstm")

Values = dict[str, Any]
"""Operands by name: for each cell its weights and inputs, and the constant and first states of a single one."""


def operands(cell: str, cells: int = 1, labels: int = 1, steps: int = T, constant: bool = True) -> Values:
    generator = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return generator.normal(size=shape) / 2

    gates, values = GATES[cell] * H, {}
    for number in range(cells):
        values[f"{number}.weight_ih"] = normal(gates, INPUTS)
        values[f"{number}.weight_hh"] = normal(gates, H)
        values[f"{number}.bias"] = normal(gates)
        if cell == "gru":
            values[f"{number}.bias_n"] = normal(H)
        values[f"{number}.inputs"] = normal(labels, B, steps, INPUTS)
    if cells == 1 and constant:
        values["constant"] = normal(K, B, gates)
    if cells == 1:
        values |= {f"state.{part}": normal(K, B, H) for part in range(STATES[cell])}
    return values


def arguments(values: Values, kind: Any) -> tuple[list[Any], list[Any], Any, Any]:
    """What `recurrence` takes; `kind` is a twin's `CellWeights`."""
    numbers = range(sum(name.endswith("weight_hh") for name in values))
    names = ("weight_ih", "weight_hh", "bias", "bias_n")
    cells = [kind(*(values.get(f"{number}.{name}") for name in names)) for number in numbers]
    states = tuple(values[name] for name in sorted(values) if name.startswith("state"))
    return cells, [values[f"{number}.inputs"] for number in numbers], values.get("constant"), states or None


def in_torch(values: Values, implementation: Any) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Outputs, and gradients of a weighted sum of them."""
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    with torch_ops.use_implementation(implementation):
        outputs = torch_ops.recurrence(*arguments(leaves, torch_ops.CellWeights))
    weighted = [output * torch.tensor(weighting(number, output)) for number, output in enumerate(outputs)]
    sum(part.sum() for part in weighted).backward()
    gradients = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
    return [output.detach().numpy() for output in outputs], gradients


def in_jax(values: Values, implementation: Any) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The same in the other twin."""

    def outputs_of(leaves: Values) -> tuple[jax.Array, ...]:
        with jax_ops.use_implementation(implementation):
            return jax_ops.recurrence(*arguments(leaves, jax_ops.CellWeights))

    @jax.jit
    def solve(leaves: Values) -> Any:
        outputs, backward = jax.vjp(outputs_of, leaves)
        return outputs, backward(tuple(weighting(number, output) for number, output in enumerate(outputs)))[0]

    with jax.enable_x64(True):
        outputs, gradients = solve(values)
        return [np.asarray(output) for output in outputs], jax.tree.map(np.asarray, gradients)


def weighting(number: int, like: Any) -> np.ndarray:
    return np.random.default_rng(number).normal(size=like.shape)


SOLVE: dict[str, Callable[..., Any]] = {"torch": in_torch, "jax": in_jax}
CASES = [
    {},
    {"constant": False},
    {"cells": 2},
    {"steps": 1},
    {"cells": 2, "steps": 1},
    {"labels": K, "constant": False},
]


def assert_equal(ours: Any, others: Any) -> None:
    for one, other in zip(ours[0], others[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)
    assert ours[1].keys() == others[1].keys()
    for name, gradient in others[1].items():
        np.testing.assert_allclose(ours[1][name], gradient, rtol=0, atol=1e-12, err_msg=name)


IMPLEMENTATIONS = (("torch", "custom_vjp"), ("torch", "fused"), ("jax", "custom_vjp"))


@pytest.mark.parametrize(("twin", "implementation"), IMPLEMENTATIONS)
@pytest.mark.parametrize(("cell", "case"), product(CELLS, CASES), ids=str)
def test_values_and_gradients_are_those_of_the_reference(
    twin: str, implementation: str, cell: str, case: dict[str, Any]
) -> None:
    values = operands(cell, **case)
    assert_equal(SOLVE[twin](values, implementation), SOLVE[twin](values, "reference"))


@pytest.mark.parametrize("cell", CELLS)
def test_the_references_of_both_twins_are_equal(cell: str) -> None:
    values = operands(cell)
    assert_equal(in_torch(values, "reference"), in_jax(values, "reference"))


@pytest.mark.parametrize(("twin", "cell"), product(SOLVE, CELLS))
def test_a_wrong_gradient_is_noticed(twin: str, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = operands(cell)
    sound = SOLVE[twin](values, "custom_vjp")
    module = {"torch": seqssvae_torch, "jax": seqssvae_jax}[twin].ops.recurrence_custom_vjp
    gate_gradients_in_the_wrong_order(monkeypatch, module, cell)
    broken = SOLVE[twin](values, "custom_vjp")
    for one, other in zip(sound[0], broken[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(sound[1]["0.weight_hh"] - broken[1]["0.weight_hh"]).max() > 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_a_decoders_outputs_stays_where_it_lies(cell: str) -> None:
    """It is as large as the states of all labels; a copy of it, read out of order, took a tenth of a step."""
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in operands(cell).items()}
    (outputs,) = torch_ops.recurrence(*arguments(leaves, torch_ops.CellWeights))
    gradient = torch.ones_like(outputs.permute(2, 3, 0, 1), memory_format=torch.contiguous_format).permute(2, 3, 0, 1)
    with Operations("stack.default", "cat.default") as operations:
        outputs.backward(gradient)
    assert outputs.stride() == gradient.stride()
    assert operations.counts["clone.default"] <= 1  # of the row gates, to be in one piece


@pytest.mark.parametrize(("cell", "pooling", "bidirectional"), product(CELLS, get_args(Pooling), (False, True)))
def test_the_gradient_of_an_encoders_states_arrives_as_they_lie(
    cell: CellName, pooling: Pooling, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it arrived transposed, it was copied twice, and each step of the backward pass read it out of order."""
    layer = getattr(seqssvae_torch.ops.recurrence_custom_vjp, f"_{cell.upper()}")
    backward, strides = layer.backward, []

    def spy(context: Any, gradient: torch.Tensor) -> Any:
        strides.append((gradient.stride(), context.saved_tensors[0].stride()))
        return backward(context, gradient)

    monkeypatch.setattr(layer, "backward", staticmethod(spy))
    encoder = EncoderConfig(embedding_size=3, hidden_size=H, bidirectional=bidirectional, pooling=pooling)
    tower = EncoderTower(ModelConfig(cell=cell, encoder=encoder), vocabulary_size=9)
    x = torch.tensor([[4, 5, 6, 3], [7, 3, 0, 0], [8, 4, 3, 0], [0, 0, 0, 0], [5, 3, 0, 0]])
    features, _ = tower(x, {}, "", 0.0)
    with Operations() as operations:
        features.square().sum().backward()
    ((of_gradient, of_outputs),) = strides
    assert of_gradient == of_outputs
    assert operations.counts["select_backward.default"] == 0  # zeros as large as all steps, and a copy


@pytest.mark.parametrize("cell", CELLS)
def test_the_reference_is_pytorchs_own_layer(cell: str) -> None:
    """With zeros for the biases that only add up there."""
    values = operands(cell, constant=False)
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    (weights,), (inputs,), _, state = arguments(leaves, torch_ops.CellWeights)
    module = (nn.GRU if cell == "gru" else nn.LSTM)(INPUTS, H, batch_first=True).double()
    with torch.no_grad():
        module.weight_ih_l0.copy_(weights.weight_ih)
        module.weight_hh_l0.copy_(weights.weight_hh)
        module.bias_ih_l0.copy_(weights.bias)
        module.bias_hh_l0.zero_()
        if cell == "gru":
            module.bias_hh_l0[2 * H :] = weights.bias_n
    outputs = reference(weights, inputs, None, state)
    folded = tuple(fold(part)[None] for part in state)
    expected = module(inputs[0].repeat(K, 1, 1), folded[0] if cell == "gru" else folded)[0]
    torch.testing.assert_close(outputs, unfold(expected, K))
    cotangent = torch.tensor(weighting(0, outputs))
    (outputs * cotangent).sum().backward()
    (expected * fold(cotangent)).sum().backward()
    torch.testing.assert_close(weights.weight_hh.grad, module.weight_hh_l0.grad)
    torch.testing.assert_close(weights.weight_ih.grad, module.weight_ih_l0.grad)
    torch.testing.assert_close(weights.bias.grad, module.bias_ih_l0.grad)
    if cell == "gru":
        torch.testing.assert_close(weights.bias_n.grad, module.bias_hh_l0.grad[2 * H :])


@pytest.mark.parametrize("cell", CELLS)
def test_numbers_of_another_type_have_the_reference(cell: str) -> None:
    values = {name: torch.tensor(value).bfloat16() for name, value in operands(cell).items()}
    (outputs,) = torch_ops.recurrence(*arguments(values, torch_ops.CellWeights))
    (expected,), _ = in_torch(operands(cell), "reference")
    assert outputs.dtype == torch.bfloat16
    np.testing.assert_allclose(outputs.float().numpy(), expected, atol=0.05)


def test_fold_is_repeat_and_expand_and_nothing_else() -> None:
    """The question that started the project: `repeat(K, 1, 1)` and `expand(K, ...).reshape(...)` are the same."""
    rows = torch.randn(B, T, INPUTS)
    folded = fold(rows.expand(K, -1, -1, -1))
    assert torch.equal(folded, rows.repeat(K, 1, 1))
    assert torch.equal(folded, rows.expand(K, -1, -1, -1).reshape(K * B, T, INPUTS))
    assert torch.equal(folded, rows.expand(K, -1, -1, -1).contiguous().view(-1, T, INPUTS))
    assert not torch.equal(folded, rows.repeat_interleave(K, 0))
    by_label = torch.randn(K, B, H)
    assert torch.equal(unfold(fold(by_label), K), by_label)
    assert all(torch.equal(fold(by_label)[k * B + b], by_label[k, b]) for k in range(K) for b in range(B))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 4e-16), (torch.float32, 2e-7)])
def test_tanh_is_pytorchs_but_for_the_last_place_of_1(dtype: torch.dtype, tolerance: float) -> None:
    values = torch.cat([torch.linspace(-12, 12, 501), torch.tensor([-1e30, -0.0, 1e-30, 1e30])]).to(dtype)
    given, others = values.clone().requires_grad_(), values.clone().requires_grad_()
    ours, theirs = tanh(given), torch.tanh(others)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    gradient = torch.linspace(-1, 1, len(values), dtype=dtype)
    ours.backward(gradient)
    theirs.backward(gradient)
    torch.testing.assert_close(given.grad, others.grad, rtol=0, atol=2 * tolerance)
    assert torch.equal(given.detach(), values)  # not in place
    assert tanh(torch.tensor(torch.nan)).isnan()


@pytest.mark.parametrize("labels", [1, K])
def test_tanh_of_a_sum_and_its_gradient(labels: int) -> None:
    by_step = torch.randn(labels, B, T, H, dtype=torch.double, requires_grad=True)
    constant = torch.randn(K, B, H, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(tanh_of_sum(by_step, constant), torch.tanh(by_step + constant[:, :, None]))
    assert torch.autograd.gradcheck(tanh_of_sum, (by_step, constant))
