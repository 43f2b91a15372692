"""Optimisers with one definition of clipping, step size and decay for both twins, and a state both can read."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seqssvae.config import OptimizerConfig
from seqssvae.parameters import check_weights, optimizer_shapes
from seqssvae_torch.ops import takes_few_calls
from seqssvae_torch.sharing import ALONE, Sharing

_AVERAGES = {"sgd": {"momentum": "momentum_buffer"}}
_ADAM_AVERAGES = {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}

Gradients = list[Tensor] | tuple[Tensor, ...]


def clip_gradients(gradients: Gradients, clip_norm: float) -> tuple[Gradients, Float[Tensor, ""]]:
    """Scale gradients by `clip / max(norm, clip)`, and return them and their norm before; 0 as clip leaves them."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    # on a CPU it can be seen without waiting whether anything is to be done
    may_look = norm.device.type == "cpu" and not takes_few_calls(norm)
    if clip_norm > 0 and not (may_look and norm <= clip_norm):
        gradients = torch._foreach_mul(gradients, clip_norm / norm.clamp(min=clip_norm))
    return gradients, norm


class Optimizer:
    """Moves a network's weights.

    Args:
        config: Which optimiser, and its numbers. The step size comes with each step.
        network: The network, whose weights are all moved, also those that a step's objective does not touch.
        sharing: The processes over which gradients are added up.
    """

    def __init__(self, config: OptimizerConfig, network: nn.Module, sharing: Sharing = ALONE) -> None:
        self.config, self.sharing = config, sharing
        self.named = dict(network.named_parameters())
        self.shapes = optimizer_shapes(config, {name: tuple(weight.shape) for name, weight in self.named.items()})
        self.averages = _AVERAGES.get(config.name, _ADAM_AVERAGES)
        weights = list(self.named.values())
        self.optimizer: torch.optim.Optimizer
        device = weights[0].device
        self.steps_taken = torch.zeros((), dtype=torch.int64, device=device)
        self.fused = device.type in ("cpu", "cuda")  # one pass over weights and averages
        if config.name == "sgd":
            self.optimizer = torch.optim.SGD(weights, momentum=config.beta1, fused=self.fused)
        else:
            kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
            betas = (config.beta1, config.beta2)
            decay = config.weight_decay
            numbers: dict[str, Any] = {"betas": betas, "eps": config.epsilon, "weight_decay": decay}
            self.optimizer = kind(weights, **numbers, fused=self.fused, capturable=device.type == "cuda")
        self.set_state({name: np.zeros(shape) for name, shape in self.shapes.items()})

    def step(
        self, loss: Float[Tensor, ""], learning_rate: Float[Tensor, ""] | float, skip_nonfinite: bool = False
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, ""] | bool]:
        """Differentiate, clip, move; returns the gradient's norm before clipping, and whether anything moved.

        Args:
            loss: What is minimised.
            learning_rate: The step size.
            skip_nonfinite: Whether nothing moves if the loss or the norm is not finite.
        """
        weights = list(self.named.values())
        # zeros for weights that play no part: averages move on all the same
        of_weights = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        own = [gradient.contiguous() for gradient in of_weights]
        self.sharing.add_up(own)
        gradients, norm = clip_gradients(own, self.config.clip_norm)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        moves: Bool[Tensor, ""] | bool = True
        optimizer = cast(Any, self.optimizer)
        if skip_nonfinite:
            moves = torch.isfinite(norm + loss.detach())
            if not self.fused and not moves:
                return norm, moves
            optimizer.found_inf = (~moves).float()  # by which fused optimisers know that they are to move nothing
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        self.steps_taken += moves
        return norm, moves

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies of the state, named as in `seqssvae.parameters.optimizer_shapes`."""
        state = {"step": np.asarray(self.steps_taken.cpu(), np.int32)}
        for name, weight in self.named.items():
            entries = self.optimizer.state[weight]
            for average, own in self.averages.items():
                state[f"{name}.{average}"] = entries[own].cpu().numpy().copy()
        return state

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the state. Raises ValueError on a wrong name or shape."""
        check_weights(state, self.shapes)
        self.steps_taken.fill_(int(state["step"]))
        entries = {}
        for index, (name, weight) in enumerate(self.named.items()):
            entries[index] = {
                own: torch.tensor(state[f"{name}.{average}"], dtype=weight.dtype, device=weight.device)
                for average, own in self.averages.items()
            }
            if self.config.name != "sgd":
                entries[index]["step"] = torch.tensor(float(state["step"]))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
