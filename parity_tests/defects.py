"""Defects to plant into one twin, one at a time: those that twins are known to be lost by.

Each is a change of the twin's code in memory; what it breaks is for the ladder to find out.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import pyro
import pytest
import torch
from numpyro import handlers
from numpyro.contrib.module import nnx_module
from pyro import poutine
from torch.nn import functional

import seqssvae_jax as jax_twin
import seqssvae_jax.backend
import seqssvae_torch as torch_twin
import seqssvae_torch.backend
from seqssvae.data.vocabulary import END

TWINS = {"torch": torch_twin, "jax": jax_twin}
ARRAYS = {
    "torch": SimpleNamespace(
        sigmoid=torch.sigmoid,
        tanh=torch.tanh,
        linear=functional.linear,
        split=lambda values, parts: values.chunk(parts, -1),
        where=torch.where,
        exp=torch.exp,
        softmax=torch.softmax,
        minimum=lambda values, most: values.clamp(max=most),
    ),
    "jax": SimpleNamespace(
        sigmoid=jax.nn.sigmoid,
        tanh=jnp.tanh,
        linear=jax_twin.ops.recurrence.linear,
        split=lambda values, parts: jnp.split(values, parts, -1),
        where=jnp.where,
        exp=jnp.exp,
        softmax=jax.nn.softmax,
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
    """

    name: str
    plant: Plant
    twins: tuple[str, ...] = ("torch", "jax")


def plant(defect: Defect, twin: str, patch: pytest.MonkeyPatch) -> None:
    """Plant it into a twin; what is built from now on has it."""
    defect.plant(patch, TWINS[twin], ARRAYS[twin])


# Recurrent cells


def read_step_by_step(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """No defect: have layers read with `step`, so that a defect of a step is one of the whole and of its gradient."""

    def call(self: Any, row_gates: Any, constant: Any, state: Any) -> Any:
        def read(state: Any, gates: Any) -> Any:
            state = self.step(gates[None] if constant is None else gates[None] + constant, state)
            return state, state[0]

        return jax.lax.scan(read, state, row_gates.swapaxes(0, 1))[1].transpose(1, 2, 0, 3)

    def forward(self: Any, row_gates: Any, constant: Any, state: Any) -> Any:
        gates = row_gates[None].expand(len(state[0]), *row_gates.shape)
        gates = gates if constant is None else gates + constant[:, :, None]
        outputs = []
        for step in range(gates.shape[2]):
            state = self.step(gates[:, :, step], state)
            outputs.append(state[0])
        return torch.stack(outputs, 2)

    if twin is torch_twin:
        patch.setattr(twin.ops.recurrence.RecurrentLayer, "forward", forward)
    else:
        patch.setattr(twin.ops.recurrence.RecurrentLayer, "__call__", call)


def _step_of(patch: pytest.MonkeyPatch, twin: Any, f: Any, swapped: bool, bias: bool) -> None:
    read_step_by_step(patch, twin, f)

    def weight(value: Any) -> Any:
        return value if twin is torch_twin else value[...]

    def step(self: Any, gates: Any, state: Any) -> Any:
        (hidden,) = state
        ours, theirs, candidate = f.split(gates, 3)
        ours_h, theirs_h, candidate_h = f.split(f.linear(hidden, weight(self.weight_hh)), 3)
        first, second = f.sigmoid(ours + ours_h), f.sigmoid(theirs + theirs_h)
        reset, update = (second, first) if swapped else (first, second)
        inner = candidate_h + weight(self.bias_n) if bias else candidate_h
        new = f.tanh(candidate + reset * inner)
        return (new + update * (hidden - new),)

    patch.setattr(twin.ops.recurrence.RecurrentLayer, "step", step)


def _swapped_gates(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    _step_of(patch, twin, f, swapped=True, bias=True)


def _dropped_bias(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    _step_of(patch, twin, f, swapped=False, bias=False)


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

        def fold(folded: torch.Tensor) -> torch.Tensor:
            return folded.transpose(0, 1).reshape(folded.shape[0] * folded.shape[1], *folded.shape[2:])

        patch.setattr(twin.ops.recurrence, "fold", fold)
        return
    original = twin.distributions.AutoregressiveCategorical._each_label

    def mixed(self: Any, function: Any, *more: Any) -> Any:
        z = self.z
        if z.ndim == 3:
            self.z = z.reshape(z.shape[1], z.shape[0], -1).swapaxes(0, 1)
        result = original(self, function, *more)
        self.z = z
        return result

    patch.setattr(twin.distributions.AutoregressiveCategorical, "_each_label", mixed)


def _noise_of_another_label(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    original = twin.modules.noise_of_label

    def shifted(noise: Any, y: Any) -> Any:
        if noise is not None and noise.ndim == 3:
            noise = noise[[*range(1, len(noise)), 0]] if twin is torch_twin else jnp.roll(noise, -1, 0)
        return original(noise, y)

    patch.setattr(twin.modules, "noise_of_label", shifted)


# Sequences


def _mask_off_by_one(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    original = twin.modules.EncoderTower._pool

    def pool(self: Any, outputs: Any, lengths: Any) -> Any:
        return original(self, outputs, f.minimum(lengths + (lengths > 0), outputs[0].shape[1]))

    patch.setattr(twin.modules.EncoderTower, "_pool", pool)


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

    def negative_elbo(ssvae: Any, rows: Any, beta: Any, features: Any, *rest: Any) -> Any:
        loss, terms = original(ssvae, rows, beta, features, *rest)
        if rows.y is None:
            log_q_y = ssvae.classifier(features).logits
            entropy = -(f.exp(log_q_y) * log_q_y).sum(-1)
            loss = loss + 2 * f.where(rows.row_mask, entropy, 0.0).sum()
        return loss, terms

    patch.setattr(twin.objectives, "negative_elbo", negative_elbo)


def _beta_on_y(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    model, guide = (_torch_model, _torch_guide) if twin is torch_twin else (_jax_model, _jax_guide)
    patch.setattr(twin.model.SSVAE, "model", model)
    patch.setattr(twin.model.SSVAE, "guide", guide)


def _torch_model(self: Any, x: Any, y: Any, row_mask: Any, beta: Any, noise: Any, features: Any, *_: Any) -> None:
    with pyro.plate("rows", len(x)):
        with poutine.mask(mask=row_mask):
            with poutine.scale(scale=beta):
                y = pyro.sample("y", self.label_prior(), obs=y)
            z = pyro.sample("z", self.latent_prior())
        pyro.sample("x", self.decoder(self.one_hot(y), z, x.shape[1], noise), obs=x)


def _torch_guide(self: Any, x: Any, y: Any, row_mask: Any, beta: Any, noise: Any, features: Any, *_: Any) -> None:
    with pyro.plate("rows", len(x)), poutine.mask(mask=row_mask):
        if y is None:
            with poutine.scale(scale=beta):
                y = pyro.sample("y", self.classifier(features), infer={"enumerate": "parallel"})
        pyro.sample("z", self.latent_encoder(features, self.one_hot(y), noise))


def _jax_model(self: Any, x: Any, y: Any, row_mask: Any, beta: Any, noise: Any, features: Any, *_: Any) -> None:
    decoder = nnx_module("decoder", self.decoder)
    with numpyro.plate("rows", len(x)):
        with handlers.mask(mask=row_mask):
            with handlers.scale(scale=beta):
                y = numpyro.sample("y", self.label_prior(), obs=y)
            z = numpyro.sample("z", self.latent_prior())
        numpyro.sample("x", decoder(self.one_hot(y), z, x.shape[1], noise), obs=x)


def _jax_guide(self: Any, x: Any, y: Any, row_mask: Any, beta: Any, noise: Any, features: Any, *_: Any) -> None:
    classifier = nnx_module("classifier", self.classifier)
    latent_encoder = nnx_module("latent_encoder", self.latent_encoder)
    with numpyro.plate("rows", len(x)), handlers.mask(mask=row_mask):
        if y is None:
            with handlers.scale(scale=beta):
                y = numpyro.sample("y", classifier(features), infer={"enumerate": "parallel"})
        numpyro.sample("z", latent_encoder(features, self.one_hot(y), noise))


# Regularisation


def _consistent_with_what_moves(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The gradient also passes through what q(y|x) is to be like."""

    def inconsistency(ssvae: Any, rows: Any, features: Any, temperature: float, aligned: bool) -> Any:
        certain = ssvae.classifier(ssvae.read(rows.x, rows.source)).logits
        shares = twin.objectives._alignment(certain, ssvae.label_prior().logits, rows.row_mask)
        wanted = f.softmax((certain + shares) / temperature, -1)
        found = -(wanted * ssvae.classifier(features).logits).sum(-1)
        return f.where(rows.row_mask, found, 0.0)

    patch.setattr(twin.objectives, "inconsistency", inconsistency)


def _blunted(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """The temperature makes less certain what it is to make more certain."""
    original = twin.objectives.inconsistency
    patch.setattr(twin.objectives, "inconsistency", lambda *given: original(*given[:3], 1.0 / given[3], *given[4:]))


def _aligned_with_filler_rows(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """What q(y|x) says of rows that are none counts among the shares of labels."""
    original = twin.objectives._alignment
    patch.setattr(twin.objectives, "_alignment", lambda *given: original(*given[:2], given[2] | True))


def _aligned_the_other_way(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """A label that q(y|x) gives too often is asked for more often still."""
    original = twin.objectives._alignment
    patch.setattr(twin.objectives, "_alignment", lambda *given: -original(*given))


def _dropout_not_rescaled(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    def dropped(values: Any, noise: Any, name: str, rate: float) -> Any:
        return values * noise[name] if name in noise else values

    for module in (twin.modules, twin.decoder):
        patch.setattr(module, "dropped", dropped)


def _clipping_with_an_epsilon(patch: pytest.MonkeyPatch, twin: Any, f: Any) -> None:
    """As `torch.nn.utils.clip_grad_norm_` does it: `clip / (norm + 1e-6)`."""

    def clip_gradients(gradients: Any, clip_norm: float) -> torch.Tensor:
        gradients = list(gradients)
        norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))
        for gradient in gradients:
            gradient.mul_((clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    patch.setattr(twin.optimizers, "clip_gradients", clip_gradients)


DEFECTS = (
    Defect("swapped gates", _swapped_gates),
    Defect("a dropped recurrent bias", _dropped_bias),
    Defect("a second bias per gate", _second_bias),
    Defect("K and B folded in the wrong order", _wrong_fold),
    Defect("noise of another label", _noise_of_another_label),
    Defect("mask off by one", _mask_off_by_one),
    Defect("END not scored", _end_not_scored),
    Defect("mean instead of sum", _mean_for_sum),
    Defect("entropy with the wrong sign", _entropy_sign),
    Defect("beta applied to the wrong term", _beta_on_y),
    Defect("dropout not rescaled", _dropout_not_rescaled),
    Defect("consistency with what moves", _consistent_with_what_moves),
    Defect("consistency with a blunted q(y|x)", _blunted),
    Defect("alignment with filler rows", _aligned_with_filler_rows),
    Defect("alignment the other way round", _aligned_the_other_way),
    Defect("clipping with an epsilon", _clipping_with_an_epsilon, ("torch",)),
)
