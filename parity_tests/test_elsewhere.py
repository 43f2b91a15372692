"""What would go wrong on a GPU or a TPU and shows without one.

JAX: every program lowers for CUDA and TPU, asks the host for nothing, gives its state's buffers away, and is compiled
once for each shape. PyTorch: on a device that is not the CPU and computes nothing, no tensor is made anywhere else.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
import pyro
import pytest
import torch
from jax.extend.core import ClosedJaxpr, Jaxpr
from pyro.infer import TraceEnum_ELBO
from torch.utils._python_dispatch import TorchDispatchMode

import seqssvae_jax.optimizers
import seqssvae_jax.recurrence
import seqssvae_torch.modules
from parity_tests.problems import VOCABULARY_SIZE, Options, Problem, make_problem
from seqssvae.backend import NO_LABEL, Batch, GivenRows, TrainingStep
from seqssvae.batches import pad
from seqssvae.config import BetaConfig, Config, ObjectiveConfig, OptimizerConfig, TrainingConfig
from seqssvae.corpus import Corpus, CorpusCounts
from seqssvae.course import Course
from seqssvae.fit import fit
from seqssvae.noise import draw_noise, noise_specs
from seqssvae.vocabulary import END, SPECIALS
from seqssvae_jax.backend import JaxBackend, _arrays
from seqssvae_torch.backend import TorchBackend

Case = tuple[str, str, int]


@cache
def problem_of(case: Case, optimizer: str = "adamw") -> Problem:
    """Labelled and unlabelled rows with all kinds of noise, in float32."""
    cell, conditioning, layers = case
    options = Options(
        cell=cell,
        conditioning=conditioning,
        encoder_layers=layers,
        decoder_layers=layers,
        dropout=0.3,
        word_dropout=0.4,
    )
    problem = make_problem(options, seed=13, name="elsewhere", optimizer=OptimizerConfig(name=optimizer))
    training = replace(problem.config.training, precision="float32")
    return replace(problem, config=replace(problem.config, training=training))


# JAX: lowering for platforms that are not here

PLATFORMS = ("cuda", "tpu")
METHODS = ("sample", "greedy", "beam")
STEPS = ("labelled and unlabelled", "labelled", "unlabelled")
JAX_CASES: tuple[Case, ...] = (("lstm", "every_step", 1), ("gru", "output", 1))
PROGRAMS = [
    *product(JAX_CASES, ("unlabelled", "evaluate", "classify", *METHODS)),
    *product(JAX_CASES[1:], STEPS[:2]),
]
"""With either cell, each kind of step with one; `every_step` has all that `init` has."""
CALL_OF_HOST = re.compile("callback|debug_print|infeed|outfeed")
CALL_OF_HOST_LOWERED = re.compile(r"custom_call @\w*callback\w*|stablehlo\.(?:send|recv|infeed|outfeed)\b")


def trace(backend: JaxBackend, problem: Problem, program: str, method: Any = None) -> Any:
    """One of the backend's compiled methods, traced with arguments as they are in use.

    Args:
        backend: The backend.
        problem: What it is given.
        program: Which method; a training step by the kinds of its rows.
        method: Another function for a training step than the backend's.
    """
    assert problem.labelled is not None
    assert problem.unlabelled is not None
    labelled, unlabelled = _arrays(problem.labelled.batch), _arrays(problem.unlabelled.batch)
    weights, stream = backend.state.weights, backend._stream(3)
    if program in STEPS:
        rows = labelled if "labelled" in program.split() else None, unlabelled if "unlabelled" in program else None
        return (method or backend._train).trace(backend.state, *rows, 0.3, 0.01, stream)
    if program == "evaluate":
        return backend._evaluate.trace(weights, unlabelled, stream)
    if program == "classify":
        return backend._classify.trace(weights, problem.unlabelled.batch.x)
    labels = np.array([0, 1, 2], np.int32)
    return backend._generate.trace(weights, labels, None, stream, time_steps=7, method=program, beam_width=2)


@cache
def jax_backend(case: Case) -> JaxBackend:
    """The JAX twin of a case, which compiles nothing."""
    problem = problem_of(case)
    return JaxBackend(problem.config, problem.dimensions)


@cache
def traced(case: Case, program: str) -> Any:
    """One of its programs."""
    return trace(jax_backend(case), problem_of(case), program)


@cache
def lowered(case: Case, program: str) -> Any:
    """The same for platforms that are not here."""
    return traced(case, program).lower(lowering_platforms=PLATFORMS)


@cache
def text(case: Case, program: str) -> str:
    """The same as StableHLO, which is what a platform's compiler is given."""
    return lowered(case, program).as_text()


def primitives(jaxpr: Jaxpr) -> Iterator[str]:
    """Names of all operations, also of those in loops, branches and functions within."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for part in jax.tree.leaves(equation.params, is_leaf=lambda part: isinstance(part, ClosedJaxpr | Jaxpr)):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                yield from primitives(part.jaxpr if isinstance(part, ClosedJaxpr) else part)


def calls_of_host(traced: Any) -> set[str]:
    """The operations that would interrupt a program to ask the host for something."""
    return {name for name in primitives(traced.jaxpr.jaxpr) if CALL_OF_HOST.search(name)}


def given_away(text: str) -> int:
    """How many arguments' buffers a lowered program writes its results to."""
    return len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", text))


@pytest.mark.parametrize(("case", "program"), PROGRAMS, ids=str)
class TestEveryProgramOfJax:
    def test_lowers_for_cuda_and_tpu_without_a_call_of_the_host(self, case: Case, program: str) -> None:
        assert {"dot_general", "scan"} <= set(primitives(traced(case, program).jaxpr.jaxpr))
        assert calls_of_host(traced(case, program)) == set()
        assert not traced(case, program).jaxpr.effects
        assert CALL_OF_HOST_LOWERED.findall(text(case, program)) == []

    def test_is_in_float32(self, case: Case, program: str) -> None:
        assert "xf32>" in text(case, program)
        assert "f64>" not in text(case, program)

    def test_gives_away_its_state_if_it_returns_one_and_nothing_else(self, case: Case, program: str) -> None:
        first, *others = lowered(case, program).args_info[0]
        donated = [leaf.donated for leaf in jax.tree.leaves(first)]
        assert all(donated) if program in STEPS else not any(donated)
        assert not any(leaf.donated for leaf in jax.tree.leaves(others))
        assert given_away(text(case, program)) == sum(donated)


def printing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which also prints."""

    def prints(*arguments: Any) -> Any:
        jax.debug.print("{}", arguments[1].sum())
        return function(*arguments)

    return prints


def computed_by_the_host(gradients: dict[str, jax.Array], clip_norm: float) -> tuple[dict[str, jax.Array], jax.Array]:
    """Gradients as they are, and a norm that NumPy computes."""
    norm = jax.pure_callback(
        lambda values: np.sqrt(sum(np.sum(np.square(value)) for value in values.values())).astype(np.float32),
        jax.ShapeDtypeStruct((), np.float32),
        gradients,
    )
    return gradients, norm


@pytest.mark.parametrize(
    ("place", "planted", "call"),
    [
        (
            (seqssvae_jax.recurrence, "gru_step"),
            printing(seqssvae_jax.recurrence.gru_step),
            "debug_print|debug_callback",
        ),
        ((seqssvae_jax.optimizers, "clip_gradients"), computed_by_the_host, "pure_callback"),
    ],
    ids=["printing within the loop over time", "a norm by the host"],
)
def test_a_call_of_the_host_is_caught(
    place: tuple[Any, str], planted: Callable[..., Any], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lowered text is that for the platform that is here: for others JAX lowers no such call at all."""
    monkeypatch.setattr(*place, planted)
    problem = problem_of(JAX_CASES[1])
    step = trace(JaxBackend(problem.config, problem.dimensions), problem, "labelled")
    (found,) = calls_of_host(step)
    assert re.fullmatch(call, found)
    assert CALL_OF_HOST_LOWERED.search(step.lower().as_text())


def test_a_step_that_keeps_its_state_is_caught() -> None:
    backend = jax_backend(JAX_CASES[1])
    step = trace(backend, problem_of(JAX_CASES[1]), "labelled", method=jax.jit(backend._drawn_step))
    assert given_away(step.lower(lowering_platforms=PLATFORMS).as_text()) == 0


# JAX: one compilation for each shape

SIZE, LABELLED_SIZE = 4, 3
LENGTHS = (3, 6)
"""Two buckets."""
COMPILED = "/jax/core/compile/backend_compile_duration"
STEP = "jit(_drawn_step)"


@contextmanager
def compiled() -> Iterator[list[str]]:
    """The names of all programs that are compiled inside, or fetched from what earlier runs have compiled."""
    names: list[str] = []

    def listen(event: str, seconds: float, **details: Any) -> None:
        if event == COMPILED:
            names.append(details["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def random_sequences(lengths: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A sequence of each of these lengths, END included."""
    return tuple(np.append(generator.integers(len(SPECIALS), VOCABULARY_SIZE, n - 1), END) for n in lengths)


def random_batch(size: int, time_steps: int, generator: np.random.Generator, observed: bool = False) -> Batch:
    """Any number of rows of any lengths, with any labels, in a batch of this shape."""
    lengths = generator.integers(1, time_steps + 1, generator.integers(1, size + 1))
    y = generator.integers(3, size=len(lengths)) if observed else np.full(len(lengths), NO_LABEL)
    return pad(random_sequences(lengths, generator), np.arange(len(lengths)), y, size, time_steps)


def corpus() -> Corpus:
    """More short rows than longer ones; every fourth has a label."""
    lengths = np.repeat(LENGTHS, (24, 16)) - np.tile([1, 0, 0, 0], 10)
    y = np.where(np.arange(40) % 4 == 0, np.arange(40) % 3, NO_LABEL).astype(np.int32)
    sequences = random_sequences(lengths, np.random.default_rng(1))
    return Corpus(sequences, y, (None,) * 40, "memory", CorpusCounts(40, 0, 0, 0))


def configuration(batching: str) -> Config:
    """A small model whose labelled batches are half as many as the unlabelled ones, with all schedules on."""
    problem = make_problem(Options(bidirectional=False), seed=13)
    objective = ObjectiveConfig(beta=BetaConfig("linear", 0.1, 1.0, 9), batching=batching, labelled_ratio=0.5)
    optimizer = OptimizerConfig(name="sgd", schedule="cosine", warmup_steps=3)
    training = TrainingConfig(
        epochs=2, batch_size=SIZE, labelled_batch_size=LABELLED_SIZE, buckets=len(LENGTHS), metric="elbo", patience=0
    )
    return replace(problem.config, objective=objective, optimizer=optimizer, training=training)


def shapes(config: Config) -> set[tuple[Any, ...]]:
    """The shapes of labelled and unlabelled rows of all steps of a run."""
    steps = [placed.step for segment in Course(config, corpus()).segments() for placed in segment]
    return {(step.labelled and step.labelled.x.shape, step.unlabelled and step.unlabelled.x.shape) for step in steps}


class Fitted(NamedTuple):
    """A run, and what was compiled for it.

    Args:
        backend: Trained.
        steps: Steps taken.
        programs: Names of what was compiled.
    """

    backend: JaxBackend
    steps: int
    programs: list[str]


@pytest.fixture(scope="module")
def fitted() -> Iterator[Fitted]:
    """A run of the JAX twin; what is compiled here and afterwards is not optimised, to save time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    config = configuration("alternate")
    backend = JaxBackend(config, make_problem(Options(), seed=13).dimensions)
    with compiled() as programs:
        result = fit(config, corpus(), replace(corpus(), sequences=(), y=np.zeros(0, np.int32), groups=()), backend)
    yield Fitted(backend, result.state.step, list(programs))
    jax.config.update("jax_disable_most_optimizations", before)


class TestJaxCompilesOnceForEachShape:
    def test_a_run_has_a_program_for_each_bucket_and_kind_of_step(self, fitted: Fitted) -> None:
        assert fitted.steps > 10
        assert Course(fitted.backend.config, corpus()).buckets == LENGTHS
        assert fitted.programs.count(STEP) == len(shapes(fitted.backend.config)) <= 2 * len(LENGTHS)

    @pytest.mark.parametrize("batching", ["joint", "alternate"])
    def test_a_run_has_two_kinds_of_step_in_each_bucket_at_most(self, batching: str) -> None:
        assert 2 < len(shapes(configuration(batching))) <= 2 * len(LENGTHS)

    def test_other_rows_of_the_same_shape_compile_nothing(self, fitted: Fitted) -> None:
        backend, generator = fitted.backend, np.random.default_rng(2)
        config = backend.config
        with compiled() as programs:
            for number, (time_steps, observed) in enumerate(product(LENGTHS * 2, (True, False))):
                training = replace(config.training, seed=config.training.seed + number)
                backend.config = replace(config, training=training)
                batch = random_batch(LABELLED_SIZE if observed else SIZE, time_steps, generator, observed)
                rows = (batch, None) if observed else (None, batch)
                state = jax.tree.leaves(backend.state)
                backend.train([TrainingStep(*rows, 0.1 + number, 0.1**number, 10**number)])
                assert all(buffer.is_deleted() for buffer in state)
        assert programs == []

    def test_rows_of_another_length_are_compiled_anew(self, fitted: Fitted) -> None:
        batch = random_batch(LABELLED_SIZE, LENGTHS[-1] - 1, np.random.default_rng(2), observed=True)
        with compiled() as programs:
            fitted.backend.train([TrainingStep(batch, None, 0.5, 0.01, 1)])
        assert programs.count(STEP) == 1


# PyTorch: a device that is not the CPU

DEVICE = "meta"
MOVES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
WRAPS = (torch.ops.aten.lift_fresh.default, torch.ops.aten.detach.default)
"""What comes from NumPy and what goes there."""
TORCH_CASES = list(product(("gru", "lstm"), ("init", "every_step", "output"), (2,)))
OPTIMIZERS = ("adam", "adamw", "sgd")


class WrongDeviceError(AssertionError):
    """A tensor was made on another device than the one asked for, or met one that was."""


class Elsewhere(TorchDispatchMode):
    """Runs on a device that is not the CPU: shapes, types and devices are PyTorch's, values there are none.

    An operation may not make a tensor anywhere else, nor have arguments on both sides, be they single numbers. What is
    allowed is to wrap the host's data, to move a tensor, and to write to one that is there (PyTorch's optimisers keep
    the number of steps on the CPU). What the host asks for, it gets: zeros where it fetches a tensor, a one where it
    looks at a single number.
    """

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = self._tensors((args, kwargs))
        sides = {tensor.device.type for tensor in given}
        if sides == {DEVICE} and operation is torch.ops.aten._local_scalar_dense.default:
            return torch.ones((), dtype=given[0].dtype).item()
        if sides == {DEVICE} and operation in MOVES and torch.device(kwargs.get("device") or DEVICE).type == "cpu":
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
    """Random numbers come from there too."""
    monkeypatch.setattr(torch, "Generator", Stream)


def torch_backend(case: Case, optimizer: str = "adam") -> TorchBackend:
    """The PyTorch twin of a case on that device."""
    problem = problem_of(case, optimizer)
    return TorchBackend(problem.config, problem.dimensions, DEVICE)


def given_rows(backend: TorchBackend, batch: Batch, observed: bool) -> GivenRows:
    """A batch with all noise that training knows."""
    labels = None if observed else backend.ssvae.label_count
    specs = noise_specs(backend.config.model, labels, *batch.x.shape)
    return GivenRows(batch, draw_noise(specs, np.random.default_rng(3)))


def use(backend: TorchBackend) -> None:
    """All that the backend can do."""
    generator = np.random.default_rng(3)
    labelled, unlabelled = random_batch(3, 2, generator, observed=True), random_batch(4, 3, generator)
    backend.set_weights(backend.get_weights())
    backend.set_optimizer_state(backend.get_optimizer_state())
    backend.differentiate(given_rows(backend, labelled, True), given_rows(backend, unlabelled, False), 0.3)
    step = TrainingStep(labelled, unlabelled, 0.3, 0.01, 0)
    backend.train([replace(step, labelled=None), replace(step, unlabelled=None)])
    backend.evaluate(unlabelled, seed=3)
    backend.classify(unlabelled.x)
    backend.encode(unlabelled.x)
    labels = np.array([0, 1, 2], np.int32)
    for method in METHODS:
        backend.generate(labels, 1, 0, method, beam_width=2)
    backend.generate(labels, 1, 0, "greedy", z=np.ones((3, backend.config.model.latent_size), np.float32))
    x = torch.from_numpy(unlabelled.x).to(backend.device).long()
    elbo = TraceEnum_ELBO(max_plate_nesting=1)  # as in a user's own program: Pyro draws z
    elbo.differentiable_loss(backend.ssvae.model, backend.ssvae.guide, x)


def reversed_by_the_cpu(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """As `reverse_rows`, with positions on no device in particular."""
    mirrored = lengths[:, None] - 1 - torch.arange(values.shape[1])
    return values.gather(1, mirrored.clamp(min=0)[:, :, None].expand_as(values))


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
    @pytest.mark.parametrize(("case", "optimizer"), zip(TORCH_CASES, OPTIMIZERS * 2, strict=True), ids=str)
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

    @pytest.mark.parametrize(("plant", "found"), DEFECTS.values(), ids=DEFECTS)
    def test_a_tensor_that_is_elsewhere_is_caught(
        self, plant: Callable[[pytest.MonkeyPatch], None], found: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(monkeypatch)
        backend = torch_backend(TORCH_CASES[2])
        with Elsewhere(), pytest.raises(WrongDeviceError, match=found):
            use(backend)
