"""What a GPU takes training steps with, tried on the processor: the same steps, few operations, none that waits."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from fit_problems import TRAINING, VALIDATION
from operations import Operations
from torch.overrides import TorchFunctionMode

from seqssvae.backend import Batch, Dimensions, StepTotals, TrainingStep
from seqssvae.config import (
    Config,
    ConsistencyConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainingConfig,
)
from seqssvae.config.presets import PRESETS
from seqssvae.training.fit import fit
from seqssvae_torch import objectives
from seqssvae_torch.backend import TorchBackend
from seqssvae_torch.ops import use_implementation
from seqssvae_torch.optimizers import clip_gradients

K, V = 3, 9
MODEL = ModelConfig(
    latent_size=2,
    encoder=EncoderConfig(embedding_size=2, hidden_size=3),
    decoder=DecoderConfig(embedding_size=2, hidden_size=3),
    dropout=0.2,
)
OBJECTIVES = {
    "enumerate": ObjectiveConfig(label_gradient=0.5),
    "consistency": ObjectiveConfig(consistency=ConsistencyConfig(weight=2.0, aligned=True)),
    "exact": ObjectiveConfig(posterior="exact"),
    "exact by length": ObjectiveConfig(posterior="exact", posterior_temperature=None),
    "given": ObjectiveConfig(posterior="given"),
    "particles": ObjectiveConfig(num_particles=2),
    "classifier": ObjectiveConfig(name="classifier", consistency=ConsistencyConfig(weight=2.0)),
}
OPTIMIZERS = {name: OptimizerConfig(name=name, clip_norm=0.1) for name in ("adam", "adamw", "sgd")}


def batch(rows: int, length: int, seed: int, labelled: bool) -> Batch:
    generator = np.random.default_rng(seed)
    x = generator.integers(4, V, (rows, length)).astype(np.int32)
    x[:, -1], x[-1] = 3, 0  # the last row fills up
    y = generator.integers(0, K, rows).astype(np.int32) if labelled else np.full(rows, -1, np.int32)
    posterior = None if labelled else generator.dirichlet(np.ones(K), rows).astype(np.float32)
    mask = np.arange(rows) < rows - 1
    return Batch(x, y, mask, np.where(mask, np.arange(rows), -1).astype(np.int32), posterior=posterior)


def steps(count: int) -> list[TrainingStep]:
    """Steps of several shapes and kinds, each with other numbers."""
    taken = []
    for number in range(count):
        labelled = batch(3, 4, number, True) if number % 3 != 2 else None
        unlabelled = batch(4, 4 + number % 2, number, False)
        numbers = 0.2 + 0.1 * number, 0.01 * (number + 1), number, 1.0, 0.3 * number
        taken.append(TrainingStep(labelled, unlabelled, *numbers))
    return taken


def backend(objective: ObjectiveConfig, optimizer: OptimizerConfig = OPTIMIZERS["adam"], **given: Any) -> TorchBackend:
    training = TrainingConfig(precision="float64", **given)
    config = Config(model=MODEL, objective=objective, optimizer=optimizer, training=training)
    return TorchBackend(config, Dimensions(V, (0.5, 0.3, 0.2)))


def state_of(twin: TorchBackend) -> dict[str, np.ndarray]:
    return {**twin.get_weights(), **twin.get_optimizer_state()}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def flat(totals: StepTotals) -> list[float]:
    numbers = [totals.loss, totals.gradient_norm, *totals.terms, totals.rows, totals.labelled_rows, totals.symbols]
    return [float(number) for number in (*numbers, *(flag for flags in totals.finite for flag in np.asarray(flags)))]


CASES = [(objective, "adam", "stop") for objective in OBJECTIVES] + [
    ("enumerate", optimizer, on_nonfinite) for optimizer in OPTIMIZERS for on_nonfinite in ("stop", "skip")
]


@pytest.mark.parametrize(("objective", "optimizer", "on_nonfinite"), CASES)
def test_they_are_the_same_steps(objective: str, optimizer: str, on_nonfinite: Any) -> None:
    given = OBJECTIVES[objective], OPTIMIZERS[optimizer]
    static, usual = (backend(*given, on_nonfinite=on_nonfinite) for _ in range(2))
    taken = steps(7)
    expected = usual.train(taken)
    with use_implementation("fused"):
        totals = static.train([static.load(step) for step in taken[:4]]) + static.train(taken[4:])
    assert len(static.static_steps.by_shape) == 4
    assert not usual.static_steps.by_shape
    assert_same(state_of(static), state_of(usual))
    for ours, theirs in zip(totals, expected, strict=True):
        np.testing.assert_allclose(flat(ours), flat(theirs), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("implementation", ["custom_vjp", "fused"])
def test_a_step_that_is_not_finite_moves_nothing_and_counts_for_nothing(optimizer: str, implementation: Any) -> None:
    twin = backend(OBJECTIVES["enumerate"], OPTIMIZERS[optimizer], on_nonfinite="skip")
    taken = steps(3)
    with use_implementation(implementation):
        twin.train(taken[:1])
        before = state_of(twin)
        (totals,) = twin.train([dataclasses.replace(taken[1], beta=float("inf"))])
        assert not np.isfinite(float(totals.loss))
        assert [np.asarray(flags).dtype for flags in totals.finite] == [bool, bool]
        assert_same(state_of(twin), before)
        twin.train(taken[2:])
    assert int(twin.get_optimizer_state()["step"]) == 2
    after = state_of(twin)
    assert not any(np.array_equal(after[name], before[name]) for name in twin.get_weights())


def test_what_is_recorded_goes_with_the_optimiser_s_state() -> None:
    twin = backend(OBJECTIVES["enumerate"])
    with use_implementation("fused"):
        twin.train(steps(1))
        assert twin.static_steps.by_shape
        twin.set_optimizer_state(twin.get_optimizer_state())
        assert not twin.static_steps.by_shape


def test_a_gradient_that_two_weights_share_is_clipped_once() -> None:
    """As of two weights that are added up: differentiation gives both the same tensor."""
    one = torch.ones(4)
    (first, second), norm = clip_gradients([one, one], 1.0)
    assert float(norm) == pytest.approx(8**0.5)
    torch.testing.assert_close(first, torch.full((4,), 8**-0.5))
    torch.testing.assert_close(second, first)


# How many operations


def peptides_step(length: int) -> tuple[TorchBackend, TrainingStep]:
    twin = TorchBackend(PRESETS["peptides"].ssvae(), Dimensions(24, (0.5, 0.5)))
    batches = []
    for rows, labelled in ((50, True), (64, False)):
        x = np.random.default_rng(rows).integers(4, 24, (rows, length)).astype(np.int32)
        x[:, -1] = 3
        y = np.full(rows, 0 if labelled else -1, np.int32)
        batches.append(Batch(x, y, np.ones(rows, bool), np.arange(rows, dtype=np.int32)))
    return twin, TrainingStep(*batches, 0.1, 0.01, 0, 1.0, 8.0)


def count_of(length: int, implementation: Any) -> int:
    twin, step = peptides_step(length)
    with use_implementation(implementation):
        twin.train([step])
        with Operations().counting() as operations:
            twin.train([step])
    return operations.counts.total()


def test_a_step_of_the_peptides_preset_takes_few_operations_whatever_the_length() -> None:
    assert count_of(51, "fused") == count_of(11, "fused") <= 1000
    assert count_of(11, "custom_vjp") > 1000  # and so many more as sequences are longer


# Nothing waits

ANY_ORDER = tuple(f"scatter{name}" for name in ("_add.default", ".src", "_add_.default", "_.src"))
COPYING = ("lift_fresh.default",)
"""On a GPU: sums whose order is not known or that copy from the processor to know it, and tensors made there."""
WAITING = tuple(f"{name}.default" for name in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2"))
FETCHING = {
    *("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__", "__array__", "__contains__"),
    "is_nonzero",
}


class NothingFetched(TorchFunctionMode):
    """Raises where Python asks for a tensor's value."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert getattr(function, "__name__", "") not in FETCHING, f"{function.__name__} waits for the device"
        return function(*args, **(kwargs or {}))


@contextmanager
def nothing_waits(*forbidden: str) -> Iterator[None]:
    with Operations(*WAITING, *forbidden).counting(), NothingFetched():
        yield


class Watched(TorchBackend):
    """Trains where nothing may wait."""

    def train(self, steps: Any) -> list[StepTotals]:
        with nothing_waits():
            return super().train(steps)


ALL = [*OBJECTIVES, "gumbel_softmax", "score_function", "top_k"]
WAITING_CASES = [(objective, "stop") for objective in ALL] + [
    pytest.param(objective, "skip", marks=() if objective == "enumerate" else pytest.mark.thorough) for objective in ALL
]
"""Whether a step counts is decided in one place, whatever the objective."""


@pytest.mark.parametrize(("objective", "on_nonfinite"), WAITING_CASES)
def test_no_step_waits_for_the_device(objective: Any, on_nonfinite: Any) -> None:
    given = OBJECTIVES.get(objective)
    if given is None:
        given = ObjectiveConfig(gradient_estimator=objective, k=1)
    training = TrainingConfig(epochs=2, batch_size=4, labelled_batch_size=3, on_nonfinite=on_nonfinite, metric="loss")
    config = Config(model=MODEL, objective=given, training=training)
    rows = TRAINING.with_posterior(np.full((len(TRAINING), 2), 0.5)) if objective == "given" else TRAINING
    sizes = Dimensions(1 + int(TRAINING.sequences.values.max()), (0.5, 0.5))
    with use_implementation("fused"):
        result = fit(config, rows, VALIDATION, Watched(config, sizes))
    assert result.state.step > 2
    assert np.isfinite(result.records[-1].training.loss)


def test_a_step_that_waits_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = objectives.label_terms

    def waits(*given: Any) -> Any:
        terms = sound(*given)
        assert float(terms.kl_z.sum()) < np.inf
        return terms

    def fetches(*given: Any) -> Any:
        terms = sound(*given)
        terms.kl_z.nonzero()
        return terms

    for broken in (waits, fetches):
        twin = Watched(backend(OBJECTIVES["enumerate"]).config, Dimensions(V, (0.5, 0.3, 0.2)))
        monkeypatch.setattr(objectives, "label_terms", broken)
        with use_implementation("fused"), pytest.raises(AssertionError, match="waits for the device"):
            twin.train(steps(1))


def test_totals_are_fetched_together_when_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    twin, fetched = backend(OBJECTIVES["enumerate"]), []
    sound = torch.Tensor.cpu
    with use_implementation("fused"):
        totals = twin.train(steps(5))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: fetched.append(self.shape) or sound(self))
    assert [flat(of_step) for of_step in totals]
    assert len(fetched) == 1


SHIFTED = ConsistencyConfig(weight=2.0, label_shift=(0.1, 0.2, 0.3))
RECORDED = {**OBJECTIVES, "shifted": ObjectiveConfig(name="classifier", consistency=SHIFTED)}


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("objective", RECORDED)
def test_what_is_recorded_neither_sums_in_any_order_nor_copies_from_the_processor(objective: str, pooling: Any) -> None:
    encoder = EncoderConfig(embedding_size=2, hidden_size=3, layers=2, pooling=pooling)
    model = dataclasses.replace(MODEL, encoder=encoder)
    twin = TorchBackend(Config(model=model, objective=RECORDED[objective]), Dimensions(V, (0.5, 0.3, 0.2)))
    with use_implementation("fused"):
        twin.train(steps(2))
        sound = twin.static_steps.take

        def watched(*given: Any) -> torch.Tensor:
            with nothing_waits(*ANY_ORDER, *COPYING):
                return sound(*given)

        for step in twin.static_steps.by_shape.values():
            step.take = watched
        twin.train(steps(2))
