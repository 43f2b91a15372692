"""JAX compiles once for each shape and kind of step, whatever is in the batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from parity_tests.elsewhere import random_batch, random_sequences
from parity_tests.problems import Options, make_problem
from seqssvae.backend import NO_LABEL, TrainingStep
from seqssvae.config import BetaConfig, Config, ObjectiveConfig, OptimizerConfig, TrainingConfig
from seqssvae.data.corpus import Corpus
from seqssvae.training.fit import fit
from seqssvae.training.step_order import StepOrder
from seqssvae_jax.backend import JaxBackend

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


def corpus() -> Corpus:
    """More short rows than longer ones; every fourth has a label."""
    lengths = np.repeat(LENGTHS, (24, 16)) - np.tile([1, 0, 0, 0], 10)
    y = np.where(np.arange(40) % 4 == 0, np.arange(40) % 3, NO_LABEL).astype(np.int32)
    sequences = random_sequences(lengths, np.random.default_rng(1))
    return Corpus.from_sequences(sequences, y)


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
    steps = [scheduled.step for chunk in StepOrder(config, corpus()).chunks(64) for scheduled in chunk.steps]
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
        result = fit(config, corpus(), corpus().take(np.arange(0)), backend)
    yield Fitted(backend, result.state.step, list(programs))
    jax.config.update("jax_disable_most_optimizations", before)


class TestJaxCompilesOnceForEachShape:
    def test_a_run_has_a_program_for_each_bucket_and_kind_of_step(self, fitted: Fitted) -> None:
        assert fitted.steps > 10
        assert StepOrder(fitted.backend.config, corpus()).buckets == LENGTHS
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
