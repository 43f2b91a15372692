"""Defects to plant into one twin, one at a time: those that twins are known to be lost by.

Each is a change of the twin's code in memory; what it breaks is for the ladder to find out.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
import torch
from numpyro.primitives import Messenger as NumPyroMessenger
from pyro.poutine.messenger import Messenger as PyroMessenger

import seqssvae_jax as jax_twin
import seqssvae_jax.backend
import seqssvae_torch as torch_twin
import seqssvae_torch.backend
from parity_tests.output_layer_defects import output_bias_without_gradient, tanh_of_slope_one
from parity_tests.recurrence_defects import dropped_bias, swapped_gates, wrong_gradient
from parity_tests.unlabelled_defects import (
    aligned_once,
    aligned_the_other_way,
    aligned_with_filler_rows,
    blunted,
    consistent_with_what_moves,
    distilled_from_itself,
    posterior_of_another_temperature,
    posterior_of_other_rows,
    shifted_the_other_way,
)
from seqssvae.data.vocabulary import END

TWINS = {"torch": torch_twin, "jax": jax_twin}
ARRAYS = {
    "torch": SimpleNamespace(
        where=torch.where,
        exp=torch.exp,
        softmax=torch.softmax,
        concatenate=torch.cat,
        zeros_like=torch.zeros_like,
        minimum=lambda values, most: values.clamp(max=most),
    ),
    "jax": SimpleNamespace(
        where=jnp.where,
        exp=jnp.exp,
        softmax=jax.nn.softmax,
        concatenate=jnp.concatenate,
        zeros_like=jnp.zeros_like,
        minimum=jnp.minimum,
    ),
}
"""What the same defect is written with in either twin."""

Plant = Callable[[pytest.MonkeyPatch, Any, Any], None]
"""Changes the twin (its package, the functions it is written with) for the time of a test."""


class Defect(NamedTuple):
    """One defect.

    Args:
        name: What is wrong.
        plant: Plants it.
        twins: The twins that can have it.
        problem: Which problem of the negative controls shows it.
    """

    name: str
    plant: Plant
    twins: tuple[str, ...] = ("torch", "jax")
    problem: str = "gru"


def plant(defect: Defect, twin: str, patch: pytest.MonkeyPatch) -> None:
    """Plant it into a twin; what is built from now on has it."""
    defect.plant(patch, TWINS[twin], ARRAYS[twin])


# Recurrent cells


def _second_bias(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """Two biases that only ever add up: their sum moves twice as far."""

    def doubled(name: str) -> bool:
        return name.endswith(".bias") and "layers" in name

    original = twin.optimizers.Optimizer.step

    def step_torch(self: Any, *arguments: Any) -> Any:
        before = {name: value.detach().clone() for name, value in self.named.items() if doubled(name)}
        result = original(self, *arguments)
        with torch.no_grad():
            for name, value in before.items():
                self.named[name] += self.named[name] - value
        return result

    def step_jax(self: Any, gradients: Any, state: Any, weights: Any, learning_rate: Any) -> Any:
        moved, *rest = original(self, gradients, state, weights, learning_rate)
        moved = {name: 2 * new - weights[name] if doubled(name) else new for name, new in moved.items()}
        return moved, *rest

    patch.setattr(twin.optimizers.Optimizer, "step", step_torch if twin is torch_twin else step_jax)


# Labels and rows


def _wrong_fold(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    if twin is torch_twin:

        def fold(by_label: torch.Tensor) -> torch.Tensor:
            return by_label.transpose(0, 1).reshape(by_label.shape[0] * by_label.shape[1], *by_label.shape[2:])

        patch.setattr(twin.ops.recurrence_custom_vjp, "fold", fold)
        return
    original = twin.decoder.ConditionedDecoder._each_label

    def mixed(self: Any, function: Any) -> Any:
        z = self.z
        if z.ndim == 3:
            self.z = z.reshape(z.shape[1], z.shape[0], -1).swapaxes(0, 1)
        result = original(self, function)
        self.z = z
        return result

    patch.setattr(twin.decoder.ConditionedDecoder, "_each_label", mixed)


def _noise_of_another_label(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    original = twin.modules.noise_of_label

    def shifted(noise: Any, y: Any) -> Any:
        if noise is not None and noise.ndim == 3:
            noise = noise[[*range(1, len(noise)), 0]] if twin is torch_twin else jnp.roll(noise, -1, 0)
        return original(noise, y)

    patch.setattr(twin.modules, "noise_of_label", shifted)


# Conditioning


def _condition_of_another_label(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """With `output` conditioning: what y and z add to the outputs is that of the label before."""
    original = twin.decoder.tanh_of_sum

    def tanh_of_sum(by_step: Any, constant: Any) -> Any:
        return original(by_step, f.concatenate([constant[-1:], constant[:-1]]))

    patch.setattr(twin.decoder, "tanh_of_sum", tanh_of_sum)


def _label_bias_dropped(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    patch.setattr(twin.decoder.ConditionedDecoder, "_label_bias", lambda self: None)


def _attention_to_padding(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    name = "forward" if twin is torch_twin else "__call__"
    original = getattr(twin.decoder.Attention, name)

    def attend(self: Any, states: Any, memory: Any) -> Any:
        return original(self, states, memory._replace(mask=memory.mask | True))

    patch.setattr(twin.decoder.Attention, name, attend)


# Sequences


def _mask_off_by_one(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    original = twin.modules.pool

    def pool(states: Any, lengths: Any, pooling: Any) -> Any:
        return original(states, f.minimum(lengths + (lengths > 0), states.shape[1]), pooling)

    patch.setattr(twin.modules, "pool", pool)


def _end_not_scored(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    kind = twin.distributions.AutoregressiveCategorical
    original = kind.log_prob_steps
    patch.setattr(kind, "log_prob_steps", lambda self, value: f.where(value == END, 0.0, original(self, value)))


def _mean_for_sum(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    kind = twin.distributions.AutoregressiveCategorical
    original = kind.log_prob
    patch.setattr(kind, "log_prob", lambda self, value: original(self, value) / value.shape[-1])


# Objectives


def _entropy_sign(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    original = twin.objectives.negative_elbo

    def negative_elbo(ssvae: Any, rows: Any, *rest: Any) -> Any:
        loss, terms = original(ssvae, rows, *rest)
        if rows.y is None:
            log_q_y = ssvae.classifier(rows.x).logits
            entropy = -(f.exp(log_q_y) * log_q_y).sum(-1)
            loss = loss + 2 * f.where(rows.row_mask, entropy, 0.0).sum()
        return loss, terms

    patch.setattr(twin.objectives, "negative_elbo", negative_elbo)


def _beta_on_y(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """What scales z scales y in its place."""

    def model(self: Any, x: Any, y: Any = None, source: Any = None, beta: Any = 1.0, noise: Any = None) -> Any:
        with _scaled_site(twin, "y", beta):
            programs["model"](self, x, y, source, 1.0, noise)

    def guide(self: Any, x: Any, y: Any = None, source: Any = None, beta: Any = 1.0, noise: Any = None) -> Any:
        with _scaled_site(twin, "y", beta):
            programs["guide"](self, x, y, source, 1.0, noise)

    programs = {"model": twin.model.SSVAE.model, "guide": twin.model.SSVAE.guide}
    patch.setattr(twin.model.SSVAE, "model", model)
    patch.setattr(twin.model.SSVAE, "guide", guide)


def _scaled_site(twin: Any, name: str, factor: Any) -> Any:
    """A handler that multiplies the log-probability of one site."""
    if twin is torch_twin:

        class OfPyro(PyroMessenger):
            def _pyro_sample(self, msg: Any) -> None:
                if msg["name"] == name:
                    msg["scale"] = msg["scale"] * factor

        return OfPyro()

    class OfNumPyro(NumPyroMessenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] == "sample" and msg["name"] == name:
                msg["scale"] = factor if msg["scale"] is None else msg["scale"] * factor

    return OfNumPyro()


# Regularisation


def _context_without_its_last_input(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """Each step of the decoder sees what the one before it should see."""
    original = twin.decoder.windows

    def windows(inputs: Any, width: int) -> Any:
        seen = original(inputs, width)
        return f.concatenate([f.zeros_like(seen[:, :1]), seen[:, :-1]], 1)

    patch.setattr(twin.decoder, "windows", windows)


def _context_without_source(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    patch.setattr(twin.decoder.ConditionedDecoder, "_of_source", lambda self: 0.0)


def _window_of_padding(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The maximum over windows goes one symbol too far."""
    original = twin.modules.max_over_windows

    def max_over_windows(inputs: Any, lengths: Any, *weights: Any) -> Any:
        return original(inputs, f.minimum(lengths + (lengths > 0), inputs.shape[1]), *weights)

    patch.setattr(twin.modules, "max_over_windows", max_over_windows)


def _windows_read_backwards(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    original = twin.modules.max_over_windows

    def max_over_windows(inputs: Any, lengths: Any, weight: Any, bias: Any) -> Any:
        size = inputs.shape[2]
        blocks = [weight[:, start : start + size] for start in range(0, weight.shape[1], size)]
        return original(inputs, lengths, f.concatenate(blocks[::-1], 1), bias)

    patch.setattr(twin.modules, "max_over_windows", max_over_windows)


def _dropout_not_rescaled(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    def dropped(values: Any, noise: Any, name: str, rate: float) -> Any:
        return values * noise[name] if name in noise else values

    for module in (twin.modules, twin.decoder):
        patch.setattr(module, "dropped", dropped)


def _clipping_with_an_epsilon(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """As `torch.nn.utils.clip_grad_norm_` does it: `clip / (norm + 1e-6)`."""

    def clip_gradients(gradients: Any, clip_norm: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))
        return [gradient * (clip_norm / (norm + 1e-6)).clamp(max=1.0) for gradient in gradients], norm

    patch.setattr(twin.optimizers, "clip_gradients", clip_gradients)


DEFECTS = (
    Defect("swapped gates", swapped_gates, problem="labelled"),
    Defect("a dropped recurrent bias", dropped_bias, problem="labelled"),
    Defect("a second bias per gate", _second_bias, problem="labelled"),
    Defect("GRU: gradients of two gates swapped", wrong_gradient("gru"), problem="labelled"),
    Defect("LSTM: gradients of two gates swapped", wrong_gradient("lstm"), problem="lstm"),
    Defect("no gradient of the output's bias", output_bias_without_gradient, problem="output"),
    Defect("tanh without its derivative", tanh_of_slope_one, ("torch",), problem="output"),
    Defect("K and B folded in the wrong order", _wrong_fold),
    Defect("noise of another label", _noise_of_another_label),
    Defect("y and z of another label at the output", _condition_of_another_label, problem="output"),
    Defect("no bias of the label", _label_bias_dropped, problem="output"),
    Defect("attention to padding", _attention_to_padding, problem="source"),
    Defect("mask off by one", _mask_off_by_one, problem="labelled"),
    Defect("END not scored", _end_not_scored, problem="labelled"),
    Defect("mean instead of sum", _mean_for_sum, problem="labelled"),
    Defect("entropy with the wrong sign", _entropy_sign),
    Defect("beta applied to the wrong term", _beta_on_y),
    Defect("dropout not rescaled", _dropout_not_rescaled, problem="labelled"),
    Defect("consistency with what moves", consistent_with_what_moves, problem="convolution"),
    Defect("consistency with a blunted q(y|x)", blunted, problem="convolution"),
    Defect("alignment with filler rows", aligned_with_filler_rows, problem="convolution"),
    Defect("alignment the other way round", aligned_the_other_way, problem="convolution"),
    Defect("labels shifted the other way round", shifted_the_other_way, problem="convolution"),
    Defect("alignment done once", aligned_once, problem="convolution"),
    Defect("posterior of another temperature", posterior_of_another_temperature, problem="exact"),
    Defect("distilled from itself", distilled_from_itself, problem="exact"),
    Defect("posterior of other rows", posterior_of_other_rows, problem="given"),
    Defect("context without its last input", _context_without_its_last_input, problem="context"),
    Defect("context that does not know the source", _context_without_source, problem="context"),
    Defect("maximum over windows of padding", _window_of_padding, problem="convolution"),
    Defect("windows read backwards", _windows_read_backwards, problem="convolution"),
    Defect("clipping with an epsilon", _clipping_with_an_epsilon, ("torch",), problem="labelled"),
)
