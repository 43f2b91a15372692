"""Defects of recurrent layers: other weights than those given, and wrong gradients in a backward pass by hand."""

from collections.abc import Callable
from typing import Any

import pytest


def _with_other_weights(patch: pytest.MonkeyPatch, twin: Any, change: Callable[[Any], Any]) -> None:
    """Have all that a recurrent layer computes, whole sequences and single steps, computed with other weights."""
    original = twin.modules.RecurrentLayer.weights.fget
    patch.setattr(twin.modules.RecurrentLayer, "weights", property(lambda self: change(original(self))))


def swapped_gates(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The weights of a GRU's gates r and z are exchanged."""

    def swapped(weights: Any) -> Any:
        size = weights.weight_hh.shape[1]
        if weights.bias_n is None:
            return weights

        def swap(rows: Any) -> Any:
            return f.concatenate([rows[size : 2 * size], rows[:size], rows[2 * size :]])

        return weights._replace(**{name: swap(getattr(weights, name)) for name in ("weight_ih", "weight_hh", "bias")})

    _with_other_weights(patch, twin, swapped)


def dropped_bias(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """A GRU's recurrent bias `bias_n` is 0."""

    def dropped(weights: Any) -> Any:
        return weights if weights.bias_n is None else weights._replace(bias_n=f.zeros_like(weights.bias_n))

    _with_other_weights(patch, twin, dropped)


def gate_gradients_in_the_wrong_order(patch: pytest.MonkeyPatch, module: Any, cell: str) -> None:
    """In the backward pass that is written by hand, give two gates each other's gradient: r and z, or i and f.

    Args:
        patch: Undoes it.
        module: A twin's `ops.recurrence_custom_vjp`.
        cell: `gru` or `lstm`.
    """
    name, (one, other) = f"{cell}_gate_gradients", ((1, 2) if cell == "gru" else (0, 1))
    original = getattr(module, name)

    def in_torch(*arguments: Any) -> None:
        original(*arguments)
        parts = arguments[3 if cell == "gru" else 5].chunk(4, 1)  # `out`
        first = parts[one].clone()
        parts[one].copy_(parts[other])
        parts[other].copy_(first)

    def in_jax(*arguments: Any) -> tuple[Any, ...]:
        gradients = list(original(*arguments))
        shift = 0 if cell == "gru" else 1
        gradients[one + shift], gradients[other + shift] = gradients[other + shift], gradients[one + shift]
        return tuple(gradients)

    patch.setattr(module, name, in_torch if module.__name__.startswith("seqssvae_torch") else in_jax)


def wrong_gradient(cell: str) -> Callable[[pytest.MonkeyPatch, Any, Any], None]:
    """Plant `gate_gradients_in_the_wrong_order` into a twin."""

    def plant(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
        gate_gradients_in_the_wrong_order(patch, twin.ops.recurrence_custom_vjp, cell)

    return plant
