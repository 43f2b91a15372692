"""The C library's settings."""

import ctypes
import subprocess
import sys

import jax
import pytest

from seqssvae.backend import Dimensions
from seqssvae.config import Config
from seqssvae.training import allocation
from seqssvae.training.allocation import keep_freed_memory, return_freed_memory
from seqssvae_jax import compilation
from seqssvae_jax.backend import JaxBackend


@pytest.fixture(autouse=True)
def linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocation, "_kept", False)


def test_it_is_done_unless_the_environment_says_otherwise(monkeypatch):
    calls = []

    class Library:
        @staticmethod
        def mallopt(name, value):
            calls.append((name, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    monkeypatch.setenv("SEQSSVAE_MALLOC", "0")
    assert not keep_freed_memory()
    assert calls == []
    monkeypatch.delenv("SEQSSVAE_MALLOC")
    assert keep_freed_memory()
    assert calls == [(-3, 1 << 30), (-1, (1 << 31) - 1), (-8, 1)]


def test_freed_memory_is_returned_where_it_is_kept(monkeypatch):
    calls = []

    class Library:
        mallopt = staticmethod(lambda name, value: 1)
        malloc_trim = staticmethod(calls.append)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    return_freed_memory()
    assert calls == []
    monkeypatch.delenv("SEQSSVAE_MALLOC", raising=False)
    assert keep_freed_memory()
    return_freed_memory()
    assert calls == [0]


def test_what_a_long_compilation_frees_is_returned(monkeypatch):
    calls = []
    monkeypatch.setattr(compilation, "return_freed_memory", lambda: calls.append(1))
    JaxBackend(Config(), Dimensions(5, (1.0,)))
    for duration in (0.1, 5.0):
        jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", duration)
        jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", duration)
    assert calls == [1]
    monkeypatch.setattr(compilation, "_LEAST_SECONDS", 0.0)
    jax.jit(lambda number: number * 3 + len(calls))(2)  # whose compilation JAX names so
    assert calls == [1, 1]


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("SEQSSVAE_MALLOC", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()


def test_another_system_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("SEQSSVAE_MALLOC", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("the C library was asked for"))
    assert not keep_freed_memory()


STEPS = """
from seqssvae.training.allocation import keep_freed_memory
kept = keep_freed_memory()  # before the framework is loaded
import resource
import numpy as np
from seqssvae.backend import Batch, Dimensions, TrainingStep
from seqssvae.config import Config, DecoderConfig, EncoderConfig, ModelConfig
from seqssvae_{twin}.backend import {Twin}Backend
kept = keep_freed_memory()
sizes = dict(embedding_size=8, hidden_size=128)
config = Config(model=ModelConfig(encoder=EncoderConfig(**sizes), decoder=DecoderConfig(conditioning="init", **sizes)))
backend = {Twin}Backend(config, Dimensions(20, (1 / 32,) * 32))
rows = np.full((64, 6), 5, np.int32)
batch = Batch(rows, np.full(64, -1, np.int32), np.ones(64, bool), np.arange(64, dtype=np.int32))
faults = []
for step in range(1, 17):  # the first ones are the heap growing
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    float(backend.train([TrainingStep(None, batch, 1.0, 1e-3, step)])[0].loss)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[8:]) if kept else 0)
"""


# what is tested sets options of glibc's malloc; other systems have other allocators, which are left as they are
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told, which is on Linux")
@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_a_step_takes_no_new_pages_from_the_kernel(twin):
    program = STEPS.format(twin=twin, Twin=twin.capitalize())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 2000  # a step's arrays take 30 MB, so 7,500 pages
