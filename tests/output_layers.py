"""Operands of the output layer, and the log-probabilities and gradients that either twin makes of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from seqssvae.data.vocabulary import END, NEVER_GENERATED, PAD
from seqssvae_jax.ops import rounded_products as rounded_in_jax
from seqssvae_jax.ops import symbol_log_probs_custom_vjp as of_jax
from seqssvae_torch.ops import rounded_products as rounded_in_torch
from seqssvae_torch.ops import symbol_log_probs_custom_vjp as of_torch
from seqssvae_torch.ops import symbol_log_probs_fused

K, B, T, H, V = 5, 4, 6, 3, 9


def operands(seed: int = 0, rows_of_bias: int | None = 1, size: int = H) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    x = generator.integers(3, V, (B, T)).astype(np.int32)
    for row, length in enumerate(generator.integers(0, T + 1, B)):
        x[row, length:] = PAD
    return {
        "hidden": generator.normal(size=(K, B, T, size)),
        "weight": generator.normal(size=(V, size)),
        "bias": generator.normal(size=V),
        "label_bias": None if rows_of_bias is None else generator.normal(size=(K, rows_of_bias, V)),
        "x": x,
    }


def plain(hidden, weight, bias, label_bias, x):
    """All logits at once."""
    logits = hidden @ weight.T + bias
    if label_bias is not None:
        logits = logits + label_bias[:, :, None]
    logits[..., list(NEVER_GENERATED)] = -torch.inf
    targets = torch.where(x == PAD, END, x).long().expand(logits.shape[:-1])
    chosen = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return torch.where(x == PAD, 0.0, chosen)


def learning(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "x" and value is not None}


def expected(given: dict[str, Any], cotangent: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in learning(given).items()}
    log_p = plain(**{"label_bias": None, **leaves}, x=torch.tensor(given["x"]))
    log_p.backward(torch.tensor(cotangent))
    return log_p.detach().numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def solve_torch(given, cotangent, weights, most, rounding=None):
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in learning(given).items()}
    weights = None if weights is None else torch.tensor(weights)
    x = torch.tensor(given["x"]).long()
    arguments = {"label_bias": None, **leaves, "x": x, "gradient_weights": weights, "most": most}
    with rounded_in_torch(rounding):
        log_p = of_torch.symbol_log_probs(**arguments)
    log_p.backward(torch.tensor(cotangent))
    return log_p.detach().numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def solve_fused(given, cotangent, weights, most):
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in learning(given).items()}
    size = {} if most is None else {"most": most}
    x = torch.tensor(given["x"]).long()
    log_p = symbol_log_probs_fused.symbol_log_probs(**{"label_bias": None, **leaves}, x=x, **size)
    log_p.backward(torch.tensor(cotangent))
    return log_p.detach().numpy(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}


def on_device(given: dict[str, Any], weights: np.ndarray | None) -> dict[str, Any]:
    return {"x": jnp.asarray(given["x"]), "gradient_weights": None if weights is None else jnp.asarray(weights)}


def solve_jax(given, cotangent, weights, most, rounding=None):
    def function(leaves):
        fixed = {"label_bias": None, **on_device(given, weights), "most": most}
        with rounded_in_jax(rounding):
            return of_jax.symbol_log_probs(**{**fixed, **leaves})

    with jax.enable_x64(given["bias"].dtype == np.float64):
        leaves = jax.tree.map(jnp.asarray, learning(given))
        log_p, back = jax.vjp(function, leaves)
        return np.asarray(log_p), jax.tree.map(np.asarray, back(jnp.asarray(cotangent))[0])


SOLVERS: dict[str, Callable[..., Any]] = {"torch": solve_torch, "jax": solve_jax}


def in_float32(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value if name == "x" or value is None else np.float32(value) for name, value in given.items()}


def weights_and_cotangent(kind: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Weights as announced, and what the result is multiplied by in the end."""
    generator = np.random.default_rng(7)
    weights = generator.random((K, B))
    if kind == "come true":
        return weights, np.repeat(-0.25 * weights[..., None], T, 2)
    other = generator.normal(size=(K, B, T))
    return (None if kind == "unknown" else weights), other
