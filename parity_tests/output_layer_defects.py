"""Defects in what is written by hand around the output layer: its backward pass, and that of the tanh before it."""

from importlib import import_module
from typing import Any

import pytest


def output_bias_without_gradient(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The backward pass of `symbol_log_probs` gives the bias of the output layer no gradient."""
    module = twin.ops.symbol_log_probs_custom_vjp
    if module.__name__.startswith("seqssvae_jax"):
        differentiate = module._differentiate

        def without(*arguments: Any) -> tuple[Any, Any]:
            log_probs, gradients = differentiate(*arguments)
            return log_probs, gradients._replace(bias=f.zeros_like(gradients.bias))

        patch.setattr(module, "_differentiate", without)
        return
    read = module.OutputLayer.read

    def read_without(layer: Any, block: Any, weights: Any = None, gradients: Any = None) -> Any:
        log_probs = read(layer, block, weights, gradients)
        if gradients is not None:
            gradients.bias.zero_()
        return log_probs

    patch.setattr(module.OutputLayer, "read", read_without)


def tanh_of_slope_one(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The backward pass of PyTorch's `tanh_of_sum` leaves out the derivative of tanh."""

    def backward(context: Any, *grad_outputs: Any) -> tuple[Any, Any]:
        return grad_outputs[0].sum(2), grad_outputs[0].sum(0)

    module = import_module("seqssvae_torch.ops.tanh")  # in the package, the name is the function's
    patch.setattr(module._TanhOfSum, "backward", staticmethod(backward))
