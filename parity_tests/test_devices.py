"""PyTorch on a device that is not the CPU and computes nothing: no tensor is made anywhere else."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch.utils._python_dispatch import TorchDispatchMode

import seqssvae_torch.core
import seqssvae_torch.modules
from parity_tests.elsewhere import METHODS, WITH_SOURCE, Case, problem_of, random_batch
from seqssvae.backend import Batch, GivenRows, TrainingStep
from seqssvae.config import DecodingOptions
from seqssvae.noise import draw_noise, noise_specs
from seqssvae_torch.backend import TorchBackend

DEVICE = "meta"
MOVES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
WRAPS = (torch.ops.aten.lift_fresh.default, torch.ops.aten.detach.default)
"""What comes from NumPy and what goes there."""
TORCH_CASES = list(product(("gru", "lstm"), ("init", "every_step", "output"), (2,)))
TORCH_CASES += [("gru", f"{way}{WITH_SOURCE}", 1) for way in ("every_step", "output")]
OPTIMIZERS = ("adam", "adamw", "sgd")
ALL_CASES = [
    pytest.param(case, optimizer, marks=pytest.mark.thorough if place in (1, 2, 3, 6) else (), id=f"{case}-{optimizer}")
    for place, (case, optimizer) in enumerate(zip(TORCH_CASES, OPTIMIZERS * 3, strict=False))
]
"""Each with an optimiser; those of every change have both cells, all conditionings, and a source."""


class WrongDeviceError(AssertionError):
    """A tensor was made on another device than the one asked for, or met one that was."""


class Elsewhere(TorchDispatchMode):
    """Runs on a device that is not the CPU: shapes, types and devices are PyTorch's, values there are none.

    An operation may not make a tensor anywhere else, nor have arguments on both sides, be they single numbers. What is
    allowed is to wrap the host's data, to move a tensor, and to write to one that is there (PyTorch's optimisers keep
    the number of steps on the CPU). What the host asks for, it gets: zeros where it fetches a tensor, a one where it
    looks at a single number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fetched = 0
        """How often the host has waited for something from the device."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = self._tensors((args, kwargs))
        sides = {tensor.device.type for tensor in given}
        if sides == {DEVICE} and operation is torch.ops.aten._local_scalar_dense.default:
            self.fetched += 1
            return torch.ones((), dtype=given[0].dtype).item()
        if sides == {DEVICE} and operation in MOVES and torch.device(kwargs.get("device") or DEVICE).type == "cpu":
            self.fetched += 1
            return torch.zeros(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)
        if len(sides) > 1 and operation not in MOVES:
            raise WrongDeviceError(f"{operation} mixes {' and '.join(sorted(sides))}.")
        result = operation(*args, **kwargs)
        known = {id(tensor) for tensor in given}
        made = [tensor.device for tensor in self._tensors(result) if id(tensor) not in known]
        if any(device.type != DEVICE for device in made) and operation not in WRAPS:
            raise WrongDeviceError(f"{operation} makes a tensor on {made[0]}.")
        return result

    @staticmethod
    def _tensors(tree: Any) -> list[torch.Tensor]:
        return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Stream(torch.Generator):
    """Stands in for a generator of that device, which needs the device itself."""

    def __new__(cls, device: torch.device | str = "cpu") -> "Stream":
        if torch.device(device).type != DEVICE:
            raise WrongDeviceError(f"A generator on {device}.")
        return super().__new__(cls, "cpu")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers come from there too, and it is taken although it holds no values."""
    monkeypatch.setattr(torch, "Generator", Stream)
    monkeypatch.setattr(seqssvae_torch.core, "_use", lambda device: None)


def torch_backend(case: Case, optimizer: str = "adam") -> TorchBackend:
    """The PyTorch twin of a case on that device."""
    problem = problem_of(case, optimizer)
    return TorchBackend(problem.config, problem.dimensions, DEVICE)


def given_rows(backend: TorchBackend, batch: Batch, observed: bool) -> GivenRows:
    """A batch with all noise that training knows."""
    labels = None if observed else backend.ssvae.label_count
    specs = noise_specs(backend.config.model, labels, *batch.x.shape, source_steps=batch.source_steps)
    return GivenRows(batch, draw_noise(specs, np.random.default_rng(3)))


def use(backend: TorchBackend) -> None:
    """All that the backend can do."""
    generator, has_source = np.random.default_rng(3), backend.ssvae.has_source
    labelled = random_batch(3, 2, generator, observed=True, source=has_source)
    unlabelled = random_batch(4, 3, generator, source=has_source)
    backend.set_weights(backend.get_weights())
    backend.set_optimizer_state(backend.get_optimizer_state())
    backend.differentiate(given_rows(backend, labelled, True), given_rows(backend, unlabelled, False), 0.3)
    step = TrainingStep(labelled, unlabelled, 0.3, 0.01, 0)
    backend.train([replace(step, labelled=None), replace(step, unlabelled=None)])
    backend.evaluate(unlabelled, seed=3)
    backend.classify(unlabelled.x, unlabelled.source)
    backend.encode(unlabelled.x, unlabelled.source)
    labels, source = np.array([0, 1, 2], np.int32), None
    if unlabelled.source is not None:
        source = unlabelled.source[:3]
        backend.classify_source(source)
    for method in METHODS:
        backend.generate(labels, DecodingOptions(1, method, 2), 0, source=source)
    latent = np.ones((3, backend.config.model.latent_size), np.float32)
    backend.generate(labels, DecodingOptions(1, "greedy"), 0, z=latent, source=source)
    x = torch.from_numpy(unlabelled.x).to(backend.device).long()
    elbo = TraceEnum_ELBO(max_plate_nesting=1)  # as in a user's own program: Pyro draws z
    of_source = None if unlabelled.source is None else torch.from_numpy(unlabelled.source).to(backend.device).long()
    elbo.differentiable_loss(backend.ssvae.model, backend.ssvae.guide, x, source=of_source)


def reversed_by_the_cpu(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """As `reverse_rows`, with positions on no device in particular."""
    mirrored = lengths[:, None] - 1 - torch.arange(values.shape[1])
    return torch.take_along_dim(values, mirrored.clamp(min=0).reshape(*mirrored.shape, *[1] * (values.dim() - 2)), 1)


def plate_on_no_device(plate: Any) -> Any:
    """Pyro's plate, which then puts its indices on the CPU."""
    return lambda name, size, **_: plate(name, size)


def dropped_by_the_host(values: torch.Tensor, *_: Any) -> torch.Tensor:
    """Values that go to the CPU and back."""
    return (values.cpu() * 1.0).to(values.device)


DEFECTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "positions": (
        lambda patch: patch.setattr(seqssvae_torch.modules, "reverse_rows", reversed_by_the_cpu),
        "arange.* makes a tensor on cpu",
    ),
    "number": (
        lambda patch: patch.setattr(seqssvae_torch.modules, "SCALE_FLOOR", torch.tensor(1e-4)),
        "add.* mixes cpu and meta",
    ),
    "round trip": (
        lambda patch: patch.setattr(seqssvae_torch.modules, "dropped", dropped_by_the_host),
        "mul.* makes a tensor on cpu",
    ),
    "plate": (
        lambda patch: patch.setattr(pyro, "plate", plate_on_no_device(pyro.plate)),
        "arange.* makes a tensor on cpu",
    ),
    "stream": (
        lambda patch: patch.setattr(TorchBackend, "_generator", lambda *_: torch.Generator("cpu")),
        "A generator on cpu",
    ),
}
"""Each with what is found of it."""


@pytest.mark.usefixtures("streams")
@pytest.mark.filterwarnings("ignore:Encountered")  # Pyro looks for NaN, and every answer is yes
class TestTorchElsewhere:
    @pytest.mark.parametrize(("case", "optimizer"), ALL_CASES)
    def test_no_tensor_is_made_anywhere_else(self, case: Case, optimizer: str) -> None:
        backend = torch_backend(case, optimizer)
        with Elsewhere():
            use(backend)

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_all_weights_and_averages_are_there(self, optimizer: str) -> None:
        backend = torch_backend(TORCH_CASES[0], optimizer)
        ssvae, state = backend.ssvae, backend.optimizer.optimizer.state
        averages = [value for entries in state.values() for name, value in entries.items() if name != "step"]
        tensors = [*ssvae.parameters(), *ssvae.buffers(), *averages]
        assert len(tensors) > 2 * len(state) > 0
        assert {tensor.device.type for tensor in tensors} == {DEVICE}

    @pytest.mark.parametrize(("plant", "message"), DEFECTS.values(), ids=DEFECTS)
    def test_a_tensor_that_is_elsewhere_is_caught(
        self, plant: Callable[[pytest.MonkeyPatch], None], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(monkeypatch)
        backend = torch_backend(TORCH_CASES[2])
        with Elsewhere(), pytest.raises(WrongDeviceError, match=message):
            use(backend)


@pytest.mark.parametrize(("case", "optimizer"), ALL_CASES)
def test_training_steps_wait_for_nothing_from_the_device(case: Case, optimizer: str, streams: None) -> None:
    generator, backend = np.random.default_rng(3), torch_backend(case, optimizer)
    has_source = backend.ssvae.has_source
    labelled = random_batch(3, 2, generator, observed=True, source=has_source)
    unlabelled = random_batch(4, 3, generator, source=has_source)
    with Elsewhere() as device:
        before = device.fetched
        steps = [TrainingStep(labelled, unlabelled, 0.3, 0.01, number) for number in range(2)]
        totals = backend.train(steps)
        assert device.fetched == before
        float(totals[0].loss)
        assert device.fetched == before + 1
