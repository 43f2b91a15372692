"""Optimisers with one definition of clipping, step size and decay for both twins, and a state both can read."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqssvae.config import OptimizerConfig
from seqssvae.parameters import check_weights, optimizer_shapes
from seqssvae_torch.sharing import ALONE, Sharing

_AVERAGES = {"sgd": {"momentum": "momentum_buffer"}}
_ADAM_AVERAGES = {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}


def clip_gradients(gradients: Iterable[Tensor], clip_norm: float) -> Float[Tensor, ""]:
    """Scale gradients in place by `clip / max(norm, clip)` and return their norm before; 0 as clip leaves them."""
    gradients = list(gradients)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    # on a CPU it can be seen without waiting whether anything is to be done
    if clip_norm > 0 and not (norm.device.type == "cpu" and norm <= clip_norm):
        torch._foreach_mul_(gradients, clip_norm / norm.clamp(min=clip_norm))
    return norm


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
        self.steps_taken = 0
        weights = list(self.named.values())
        self.optimizer: torch.optim.Optimizer
        fused = weights[0].device.type in ("cpu", "cuda")  # one pass over weights and averages
        if config.name == "sgd":
            self.optimizer = torch.optim.SGD(weights, momentum=config.beta1, fused=fused)
        else:
            kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
            betas = (config.beta1, config.beta2)
            decay = config.weight_decay
            self.optimizer = kind(weights, betas=betas, eps=config.epsilon, weight_decay=decay, fused=fused)
        self.set_state({name: np.zeros(shape) for name, shape in self.shapes.items()})

    def step(
        self, loss: Float[Tensor, ""], learning_rate: float, skip_nonfinite: bool = False
    ) -> tuple[Float[Tensor, ""], bool]:
        """Differentiate, clip, move; returns the gradient's norm before clipping, and whether anything moved.

        Args:
            loss: What is minimised.
            learning_rate: The step size.
            skip_nonfinite: Whether nothing moves if the loss or the norm is not finite, for which the device is waited.
        """
        gradients = []
        for weight in self.named.values():
            weight.grad = None
        loss.backward()
        for weight in self.named.values():
            if weight.grad is None:  # averages move on all the same
                weight.grad = torch.zeros_like(weight)
            gradients.append(weight.grad)
        self.sharing.add_up(gradients)
        norm = clip_gradients(gradients, self.config.clip_norm)
        if skip_nonfinite and not torch.isfinite(norm + loss.detach()):
            return norm, False
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.steps_taken += 1
        return norm, True

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies of the state, named as in `seqssvae.parameters.optimizer_shapes`."""
        state = {"step": np.asarray(self.steps_taken, np.int32)}
        for name, weight in self.named.items():
            entries = self.optimizer.state[weight]
            for average, own in self.averages.items():
                state[f"{name}.{average}"] = entries[own].cpu().numpy().copy()
        return state

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the state. Raises ValueError on a wrong name or shape."""
        check_weights(state, self.shapes)
        self.steps_taken = int(state["step"])
        entries = {}
        for index, (name, weight) in enumerate(self.named.items()):
            entries[index] = {
                own: torch.tensor(state[f"{name}.{average}"], dtype=weight.dtype, device=weight.device)
                for average, own in self.averages.items()
            }
            if self.config.name != "sgd":
                entries[index]["step"] = torch.tensor(float(self.steps_taken))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})
