"""No cross-talk: what goes into row b and label k of the decoder comes out in `[k, b]`, and nowhere else."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import seqssvae_jax.decoder
import seqssvae_torch.ops.recurrence_custom_vjp
from parity_tests.cases import CASES, case, inputs, twin_of_case
from parity_tests.twins import JaxTwin, TorchTwin
from seqssvae.data.vocabulary import END

LogProb = Callable[[np.ndarray, np.ndarray], np.ndarray]


def log_prob(twin: TorchTwin | JaxTwin) -> LogProb:
    """log p(x|y,z) of every label and row, `(K, B)`."""
    return lambda x, z: twin.outputs(x, z).log_prob_steps.sum(-1)


def cross_talk_of_z(function: LogProb, x: np.ndarray, z: np.ndarray) -> list[tuple[int, int]]:
    """The (label, row) whose z, changed alone, changes another output than its own, or not its own."""
    before, offenders = function(x, z), []
    for k, b in np.ndindex(z.shape[:2]):
        changed = z.copy()
        changed[k, b] += 0.5
        expected = np.zeros(before.shape, bool)
        expected[k, b] = True
        if not np.array_equal(function(x, changed) != before, expected):
            offenders.append((k, b))
    return offenders


def cross_talk_of_x(function: LogProb, x: np.ndarray, z: np.ndarray) -> list[int]:
    """The rows whose symbols, changed alone, change the output of another row, or not their own under every label."""
    before, offenders = function(x, z), []
    for b in range(len(x)):
        changed = x.copy()
        changed[b, 0] = 4 if x[b, 0] != 4 else 5
        assert x[b, 0] != END
        expected = np.zeros(before.shape, bool)
        expected[:, b] = True
        if not np.array_equal(function(changed, z) != before, expected):
            offenders.append(b)
    return offenders


def jacobian(twin: TorchTwin | JaxTwin, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Derivative of every output by every z, `(K, B, K, B, Z)`."""
    if isinstance(twin, JaxTwin):

        def outputs(z: jax.Array) -> jax.Array:
            ssvae = twin.backend.ssvae
            y = ssvae.one_hot(jnp.arange(ssvae.label_count)[:, None])
            return ssvae.decoder(y, z, x.shape[1]).log_prob(jnp.asarray(x))

        with jax.enable_x64(True):
            return np.asarray(jax.jit(jax.jacrev(outputs))(z))
    ssvae, device = twin.backend.ssvae, twin.backend.device
    y = ssvae.one_hot(torch.arange(ssvae.label_count, device=device)[:, None])
    latent = torch.from_numpy(z).to(device).requires_grad_()
    outputs_ = ssvae.decoder(y, latent, x.shape[1]).log_prob(torch.from_numpy(x).to(device).long())
    rows = [torch.autograd.grad(output, latent, retain_graph=True)[0] for output in outputs_.flatten()]
    return torch.stack(rows).reshape(*outputs_.shape, *latent.shape).cpu().numpy()


@pytest.mark.parametrize("options", CASES, ids=str)
def test_by_perturbation(name: str, options: Any) -> None:
    function, (x, z) = log_prob(twin_of_case(name, *options)), inputs(case(*options))
    assert cross_talk_of_z(function, x, z) == []
    assert cross_talk_of_x(function, x, z) == []


@pytest.mark.parametrize("options", CASES, ids=str)
def test_by_gradient(name: str, options: Any) -> None:
    x, z = inputs(case(*options))
    sizes = np.abs(jacobian(twin_of_case(name, *options), x, z)).max(-1).reshape(z.shape[0] * z.shape[1], -1)
    assert np.all(np.diagonal(sizes) > 1e-6)
    assert np.array_equal(sizes - np.diag(np.diagonal(sizes)), np.zeros_like(sizes))


def _viewed_in_the_wrong_order(folded: torch.Tensor) -> torch.Tensor:
    return folded.transpose(0, 1).reshape(folded.shape[0] * folded.shape[1], *folded.shape[2:])


class _RepeatedByRow(seqssvae_torch.ops.gate_buffers.GateInputs):
    """What `repeat_interleave` gives where `repeat` is meant."""

    def add(self, step: int, gates: torch.Tensor) -> None:
        repeated = self.rows[step].squeeze(2).repeat_interleave(gates.shape[2] // self.row_count, 2)
        gates.add_(repeated + (0.0 if self.constant is None else self.constant.flatten(2)))

    def write(self, step: int, gates: torch.Tensor) -> None:
        self.add(step, gates.zero_())


@pytest.mark.parametrize("options", CASES[:2], ids=str)  # with `output` conditioning there is no fold to get wrong
class TestWrongFoldsAreCaught:
    def test_view_in_the_wrong_order(self, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seqssvae_torch.ops.recurrence_custom_vjp, "fold", _viewed_in_the_wrong_order)
        x, z = inputs(case(*options))
        assert cross_talk_of_z(log_prob(TorchTwin(case(*options))), x, z)

    def test_repeat_interleave_for_repeat(self, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seqssvae_torch.ops.recurrence_custom_vjp, "GateInputs", _RepeatedByRow)
        x, z = inputs(case(*options))
        assert cross_talk_of_x(log_prob(TorchTwin(case(*options))), x, z)

    def test_labels_and_rows_mixed_before_vmap(self, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        original = seqssvae_jax.decoder.ConditionedDecoder._each_label

        def mixed(self: Any, function: Any) -> Any:
            z = self.z
            self.z = z.reshape(z.shape[1], z.shape[0], -1).swapaxes(0, 1)
            result = original(self, function)
            self.z = z
            return result

        monkeypatch.setattr(seqssvae_jax.decoder.ConditionedDecoder, "_each_label", mixed)
        x, z = inputs(case(*options))
        assert cross_talk_of_z(log_prob(JaxTwin(case(*options))), x, z)
