"""The recurrent layers of the PyTorch twin against PyTorch's own, their hand-written gradients, and the fold."""

import pytest
import torch
from torch import nn

from seqssvae.parameters import STATES
from seqssvae_torch.ops.recurrence import RecurrentLayer, fold, project_together, read_together, tanh, unfold

K, B, T, INPUTS, H = 3, 4, 5, 2, 6


def layer_with_weights(cell: str, seed: int = 0) -> RecurrentLayer:
    torch.manual_seed(seed)
    layer = RecurrentLayer(cell, INPUTS, H).double()
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.5)
    return layer


def reference(layer: RecurrentLayer) -> nn.Module:
    """PyTorch's layer with the same weights, and zeros for the biases that only add up."""
    kind = nn.GRU if layer.cell == "gru" else nn.LSTM
    module = kind(INPUTS, H, batch_first=True).double()
    with torch.no_grad():
        module.weight_ih_l0.copy_(layer.weight_ih)
        module.weight_hh_l0.copy_(layer.weight_hh)
        module.bias_ih_l0.copy_(layer.bias)
        module.bias_hh_l0.zero_()
        if layer.cell == "gru":
            module.bias_hh_l0[2 * H :] = layer.bias_n
    return module


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_values_and_gradients_are_those_of_pytorchs_own_layer(cell: str) -> None:
    layer = layer_with_weights(cell)
    module = reference(layer)
    inputs = torch.randn(B, T, INPUTS, dtype=torch.double)
    states = tuple(torch.randn(K, B, H, dtype=torch.double) for _ in range(STATES[cell]))
    outputs = layer(layer.project(inputs), None, states)
    folded = tuple(fold(state)[None] for state in states)
    expected = module(inputs.repeat(K, 1, 1), folded[0] if cell == "gru" else folded)[0]
    torch.testing.assert_close(outputs, unfold(expected, K))
    weighting = torch.randn_like(outputs)
    (outputs * weighting).sum().backward()
    (expected * fold(weighting)).sum().backward()
    torch.testing.assert_close(layer.weight_hh.grad, module.weight_hh_l0.grad)
    torch.testing.assert_close(layer.weight_ih.grad, module.weight_ih_l0.grad)
    torch.testing.assert_close(layer.bias.grad, module.bias_ih_l0.grad)
    if cell == "gru":
        torch.testing.assert_close(layer.bias_n.grad, module.bias_hh_l0.grad[2 * H :])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("with_constant", [True, False])
def test_gradient_of_every_input(cell: str, with_constant: bool) -> None:
    layer = layer_with_weights(cell)
    gates = layer.weight_ih.shape[0]
    arguments = [torch.randn(B, T, gates, dtype=torch.double), torch.randn(K, B, gates, dtype=torch.double)]
    arguments += [torch.randn(K, B, H, dtype=torch.double) for _ in range(STATES[cell])]
    arguments = [argument.requires_grad_() for argument in arguments]

    def function(row_gates: torch.Tensor, constant: torch.Tensor, *state: torch.Tensor) -> torch.Tensor:
        return layer(row_gates, constant if with_constant else None, state)

    if not with_constant:
        arguments[1].requires_grad_(False)
    assert torch.autograd.gradcheck(function, arguments)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_steps_one_by_one_give_the_sequence(cell: str) -> None:
    layer = layer_with_weights(cell)
    row_gates = torch.randn(B, T, layer.weight_ih.shape[0], dtype=torch.double)
    constant = torch.randn(K, B, row_gates.shape[-1], dtype=torch.double)
    state = tuple(torch.randn(K, B, H, dtype=torch.double) for _ in range(STATES[cell]))
    outputs = layer(row_gates, constant, state)
    for step in range(T):
        state = layer.step(row_gates[:, step] + constant, state)
        torch.testing.assert_close(outputs[:, :, step], state[0])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_layers_read_together_are_each_read_alone(cell: str) -> None:
    layers = [layer_with_weights(cell, seed) for seed in range(2)]
    inputs = torch.randn(2, B, T, INPUTS, dtype=torch.double)
    constant = torch.randn(2, K, B, layers[0].weight_ih.shape[0], dtype=torch.double)
    states = [torch.randn(2, K, B, H, dtype=torch.double) for _ in range(STATES[cell])]
    columns, folded = (constant.flatten(1, 2), tuple(state.flatten(1, 2) for state in states))
    together = read_together(layers, project_together(layers, inputs), columns, folded).unflatten(1, (K, B))
    weighting = torch.randn_like(together)
    found = torch.autograd.grad((together * weighting).sum(), [weight for one in layers for weight in one.parameters()])
    expected = []
    for place, layer in enumerate(layers):
        alone = layer(layer.project(inputs[place]), constant[place], tuple(state[place] for state in states))
        torch.testing.assert_close(together[place], alone)
        expected += torch.autograd.grad((alone * weighting[place]).sum(), list(layer.parameters()))
    torch.testing.assert_close(list(found), expected)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("steps", [1, T])
def test_no_first_state_is_a_state_of_zeros(cell: str, steps: int) -> None:
    layers = [layer_with_weights(cell, seed) for seed in range(2)]
    weights = [weight for one in layers for name, weight in one.named_parameters() if name in ("weight_hh", "bias_n")]
    gates = torch.randn(2, B, steps, layers[0].weight_ih.shape[0], dtype=torch.double, requires_grad=True)
    zeros = tuple(torch.zeros(2, B, H, dtype=torch.double) for _ in range(STATES[cell]))
    found, expected = (read_together(layers, gates, None, state) for state in (None, zeros))
    torch.testing.assert_close(found, expected)
    weighting = torch.randn_like(found)
    gradients = [torch.autograd.grad((of * weighting).sum(), [gates, *weights]) for of in (found, expected)]
    torch.testing.assert_close(*gradients)


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
    found, expected = tanh(given), torch.tanh(others)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    gradient = torch.linspace(-1, 1, len(values), dtype=dtype)
    found.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(given.grad, others.grad, rtol=0, atol=2 * tolerance)
    assert torch.equal(given.detach(), values)  # not in place
    assert tanh(torch.tensor(torch.nan)).isnan()
